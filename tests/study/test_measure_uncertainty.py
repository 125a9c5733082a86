"""The measures of an estimate are right on errors whose distribution is known."""

import numpy as np
import pytest

from measure_uncertainty import Sample, ause, calibrate, calibration_error, covered, fitted, rows

RNG = np.random.default_rng(0)


def sample(patient, scale, told, case="one"):
    """Laplace errors of `scale`, of which the head says `told`."""
    return Sample("base x2", "kspace", "x2", patient, case, RNG.exponential(scale), told, float(told.mean()))


def scales(count=20_000):
    return np.exp(RNG.normal(-4, 0.7, count))


def test_a_calibration_brings_the_mean_to_the_error_and_holds_nine_of_ten():
    of = [sample(name, scale := scales(), scale / 2) for name in "ab"]
    factor, interval = fitted(of)
    assert factor == pytest.approx(2, rel=0.03)
    assert interval == pytest.approx(np.log(10), rel=0.03)  # of a Laplace distribution
    assert covered(of, factor, interval) == pytest.approx(0.9, abs=0.01)
    found = calibrate(of, "hash", 4)
    assert (found.model, found.sha256, found.tta, found.patients) == ("base x2", "hash", 4, ("a", "b"))
    assert 0.99 * found.low <= factor * of[0].mean <= 1.01 * found.high


def test_the_interval_is_that_of_the_patient_who_needs_most():
    easy, hard = (sample(name, scale := scales(), scale) for name in "ab")
    hard = Sample(*[*vars(hard).values()][:5], hard.error**1.5 * 5, hard.scale, hard.mean)
    both, alone = fitted([easy, hard]), fitted([hard])
    assert both[0] * both[1] >= 0.99 * alone[0] * alone[1]


def test_a_row_for_each_patient_with_the_calibration_of_the_others():
    of = [sample("a", scale := scales(), scale), sample("b", scale := 2 * scales(), scale / 2)]  # b errs twice as much as told, and more
    found = {row["patient"]: row for row in rows(of, calibrate(of, "", 1))}
    assert found["b"]["coverage, left out"] < 0.75 < 0.89 < found["b"]["coverage"]
    assert found["a"]["coverage, left out"] > 0.95


def test_sparsification_is_zero_for_perfect_order_and_bad_for_a_reversed_one():
    error = RNG.exponential(scales())
    assert ause(error, error) == 0
    assert 0 < ause(error, error + RNG.exponential(0.02, len(error))) < ause(error, RNG.random(len(error))) < ause(error, -error)


def test_the_calibration_error_is_that_of_the_means():
    scale = scales(100_000)
    error = RNG.exponential(scale)
    assert calibration_error(error, scale) < 0.03
    assert calibration_error(error, 2 * scale) == pytest.approx(1, abs=0.03)
