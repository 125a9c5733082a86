"""Intervals contain what they should as often as they say, and the tables behind them are read back as they were written."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from comparison.statistics import (
    ENOUGH_CASES,
    Mean,
    bootstrap_interval,
    case_scores,
    mean_score,
    paired_difference,
    read_cases,
    write_cases,
)
from hftn_sr.errors import Fault
from hftn_sr.scoring.metrics import SCORES, SliceSums, scores, slice_sums


def volume(seed, slices=6, noise=6.0):
    """Prediction and truth (8, 9, slices); one seed gives one truth whatever the noise."""
    generator = np.random.default_rng(seed)
    truth = generator.gamma(2.0, 40.0, (8, 9, slices)) * generator.uniform(0.5, 1.0, slices)
    error = np.random.default_rng(seed + 1000).normal(0, 1, truth.shape)
    return torch.from_numpy(truth + noise * error), torch.from_numpy(truth)


def method(cases, slices=6, noise=6.0):
    return {f"case{seed:02}": slice_sums(*volume(seed, slices, noise)) for seed in range(cases)}


def simulated(generator, slices, errors):
    """A case with the given squared errors per slice, of voxels with a peak of 1."""
    return SliceSums(np.asarray(errors), np.full(slices, 100.0), generator.uniform(0.8, 1.0, slices), 1, 1.0)


@pytest.mark.parametrize("draw", ["normal", "skewed"])
@pytest.mark.parametrize("count", [ENOUGH_CASES, 20])
def test_intervals_over_cases_contain_the_mean_about_as_often_as_they_say(draw, count):
    generator = np.random.default_rng(7)
    hits = 0
    for seed in range(200):
        values = generator.normal(31, 2, count) if draw == "normal" else 29 + generator.gamma(2, 1, count)
        low, high = bootstrap_interval(values, resamples=800, seed=seed)
        hits += low <= 31 <= high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize("score", SCORES)
def test_intervals_over_slices_contain_the_score_of_all_slices_about_as_often_as_they_say(score):
    """Three cases of 40 slices each, drawn from distributions whose volume scores are known."""
    generator = np.random.default_rng(3)
    level, hits = [0.02, 0.05, 0.01], 0
    true = {"psnr": -10 * np.mean(np.log10(level)), "ssim": 0.9, "nmse": np.mean(level) / 100}[score]
    for seed in range(200):
        cases = {str(case): simulated(generator, 40, generator.gamma(4, mean / 4, 40)) for case, mean in enumerate(level)}
        found = mean_score(cases, score, resamples=800, seed=seed)
        hits += found.low <= true <= found.high
    assert found.over == "slices"
    assert 0.88 <= hits / 200 <= 0.99


def test_a_lower_level_gives_an_interval_within_that_of_a_higher_one():
    values = np.random.default_rng(0).normal(size=12)
    wide, narrow = bootstrap_interval(values), bootstrap_interval(values, level=0.5)
    assert wide[0] < narrow[0] < values.mean() < narrow[1] < wide[1]


def test_the_interval_of_many_normal_values_is_students():
    values = np.random.default_rng(1).normal(10, 3, 400)
    half = 1.966 * values.std(ddof=1) / 20
    assert bootstrap_interval(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(2).normal(size=9)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_one_value_and_one_slice_have_no_interval():
    assert all(map(math.isnan, bootstrap_interval([3.0])))
    found = mean_score(method(1, slices=1), "psnr")
    assert found.value == pytest.approx(scores(*volume(0, 1))["psnr"], rel=1e-9)
    assert (found.over, found.count) == ("slices", 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]]])
def test_no_values_have_no_mean(values):
    with pytest.raises(ValueError, match="expected a list of at least one value"):
        bootstrap_interval(values)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match=f"expected a level between 0 and 1, got {level}"):
        bootstrap_interval([1.0, 2.0], level=level)


@pytest.mark.parametrize("score", SCORES)
def test_the_mean_is_that_of_the_volumes_scores(score):
    expected = np.mean([scores(*volume(seed))[score] for seed in range(3)])
    found = mean_score(method(3), score)
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert found.low < found.value < found.high


def test_eight_cases_are_drawn_as_cases_and_seven_as_their_slices():
    enough, few = mean_score(method(8), "ssim"), mean_score(method(7), "ssim")
    assert (enough.over, enough.count) == ("cases", 8)
    assert (few.over, few.count) == ("slices", 42)
    by_case = [sums.scores()["ssim"] for sums in method(8).values()]
    assert (enough.low, enough.high) == bootstrap_interval(by_case)


@pytest.mark.parametrize("score", SCORES)
def test_an_interval_over_slices_is_that_of_volumes_put_together_from_the_slices_drawn(score):
    """The same by hand: whole volumes stacked from randomly drawn slices. They keep the peak, for the brightest voxel is in every slice."""
    prediction, truth = volume(0, slices=12)
    truth[0, 0] = 2 * truth.max()
    prediction[0, 0] = truth[0, 0]
    generator = np.random.default_rng(8)
    by_hand = []
    for _ in range(400):
        drawn = generator.integers(12, size=12)
        by_hand.append(scores(prediction[..., drawn], truth[..., drawn])[score])
    found = mean_score({"case": slice_sums(prediction, truth)}, score, level=0.8)
    spread = np.std(by_hand)
    assert (found.low, found.high) == pytest.approx(np.quantile(by_hand, [0.1, 0.9]), abs=0.4 * spread)


@pytest.mark.parametrize("cases", [2, 9])
@pytest.mark.parametrize("score", SCORES)
def test_a_method_differs_from_itself_by_exactly_nothing(cases, score):
    found = paired_difference(method(cases), method(cases), score)
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("cases", [2, 9])
def test_perfect_volumes_differ_by_nothing_rather_than_by_infinity_less_infinity(cases):
    perfect = method(cases, noise=0)
    assert mean_score(perfect, "psnr").low == math.inf
    found = paired_difference(perfect, perfect, "psnr")
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("cases", [3, 12])
def test_pairing_sees_a_gain_that_lies_within_the_spread_of_the_cases(cases):
    ours, theirs = method(cases, noise=6.0), method(cases, noise=6.3)
    gain = paired_difference(ours, theirs, "psnr")
    assert gain.value == pytest.approx(mean_score(ours, "psnr").value - mean_score(theirs, "psnr").value, rel=1e-9)
    assert 0 < gain.low < gain.value < gain.high
    assert mean_score(theirs, "psnr").high > mean_score(ours, "psnr").low
    assert gain.over == mean_score(ours, "psnr").over


@pytest.mark.parametrize("cases", [3, 12])
def test_methods_are_paired_by_the_names_of_the_cases_whatever_their_order(cases):
    ours, theirs = method(cases), method(cases, noise=9.0)
    turned = dict(reversed(theirs.items()))
    assert paired_difference(ours, turned, "nmse") == paired_difference(ours, theirs, "nmse")


def test_methods_with_other_cases_or_other_truths_are_not_compared():
    ours = method(3)
    with pytest.raises(ValueError, match="only one has case02"):
        paired_difference(ours, method(2), "psnr")
    moved = {"case00": ours["case01"], "case01": ours["case00"], "case02": ours["case02"]}
    with pytest.raises(ValueError, match="case00: expected two methods scored against one truth"):
        paired_difference(ours, moved, "psnr")
    with pytest.raises(ValueError, match="case00: expected two methods scored against one truth"):
        paired_difference(ours, method(3, slices=5), "psnr")


def test_no_cases_have_no_mean_score():
    with pytest.raises(ValueError, match="expected at least one case, got none"):
        mean_score({}, "psnr")


def test_draws_of_slices_without_signal_do_not_count():
    truth = torch.zeros(8, 8, 2)
    truth[..., 0] = 10
    found = mean_score({"case": slice_sums(truth + 1, truth)}, "nmse")
    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.02))


def test_ten_thousand_draws_of_five_cases_of_180_slices_take_below_two_seconds():
    cases = {str(case): simulated(np.random.default_rng(case), 180, np.full(180, 0.1)) for case in range(5)}
    start = time.process_time()
    paired_difference(cases, cases, "psnr")
    assert time.process_time() - start < 2


def test_a_mean_says_over_what_it_was_drawn():
    assert Mean(31.417, 30.9, 31.968, "slices", 42).text(2) == "31.42 [30.90, 31.97] over 42 slices"


def test_the_table_of_cases_is_read_back_as_it_was_written(tmp_path):
    cases = {'a "quoted", name': slice_sums(*volume(0)), "Gehörn\n2": slice_sums(*volume(1, noise=0))}
    rows = case_scores("zero_filled", 4, "corrected", cases)
    write_cases(tmp_path / "new" / "cases.csv", rows)
    assert read_cases(tmp_path / "new" / "cases.csv") == rows
    assert rows[1].psnr == math.inf
    assert (rows[0].slices, rows[0].voxels) == (6, 8 * 9 * 6)
    assert {name: getattr(rows[0], name) for name in SCORES} == pytest.approx(scores(*volume(0)), rel=1e-9)
    header = (tmp_path / "new" / "cases.csv").read_text().splitlines()[0]
    assert header == "method,scale,protocol,case,psnr,ssim,nmse,slices,voxels"


def test_two_protocols_share_no_table_and_leave_the_old_file_alone(tmp_path):
    rows = case_scores("base", 2, "corrected", method(1))
    write_cases(tmp_path / "cases.csv", rows)
    with pytest.raises(ValueError, match="expected one protocol in a table, got corrected and sanet"):
        write_cases(tmp_path / "cases.csv", [*rows, replace(rows[0], protocol="sanet")])
    assert read_cases(tmp_path / "cases.csv") == rows


@pytest.mark.parametrize(
    ("content", "finding"),
    [
        (b"", r"not a table of cases \(columns none, need method,"),
        (b"case,psnr\na,1\n", r"not a table of cases \(columns case,psnr, need method,"),
        (b"\xff\xfe", "cannot be read as a table of cases"),
        (b"method,scale,protocol,case,psnr,ssim,nmse,slices,voxels\nbase,2,corrected,a,31.4\n", "a line of the table is broken"),
        (b"method,scale,protocol,case,psnr,ssim,nmse,slices,voxels\nbase,two,corrected,a,1,1,1,1,1\n", "a line of the table is broken"),
    ],
)
def test_a_file_that_is_no_table_of_cases_is_named(tmp_path, content, finding):
    (tmp_path / "cases.csv").write_bytes(content)
    with pytest.raises(Fault, match=finding):
        read_cases(tmp_path / "cases.csv")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(Fault, match=r"missing\.csv: cannot be read as a table of cases"):
        read_cases(tmp_path / "missing.csv")
