"""What is wrong with a reference, what a lesion leaves, what a rule costs: on a network that is zero-filling all of that is known."""

import csv
import math

import numpy as np
import pytest

from comparison import safety
from comparison.safety import Lesion, Treated, disturbed, load_scene, measure_lesions, measure_references
from hftn_sr.networks.weights import load_model
from hftn_sr.volumes import registration
from hftn_sr.volumes.simulation import intensity_unit
from measure_safety import Found, _tables, cost


@pytest.fixture(scope="module")
def scene(synthetic):
    case = {"case": "synthetic", "target": synthetic / "target.nii.gz", "reference": synthetic / "reference.nii.gz"}
    return load_scene(case, case, 1)


def test_lesions_lie_in_tissue_and_apart(scene):
    (places,) = scene.places
    assert places
    image = scene.slices(scene.truth)[0] / intensity_unit(scene.truth.data)
    for row, column in places:
        assert image[row, column] > safety.TISSUE
        assert all(math.dist((row, column), other) >= safety.APART for other in places if other != (row, column))


@pytest.mark.parametrize("of", ["truth", "reference"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_painted_lesion_has_the_contrast_that_it_should_have_on_either_grid(scene, of, sign):
    volume = getattr(scene, of)
    painted = safety._painted(scene, volume, 9.0, sign)
    grid = scene.truth.grid
    change = [scene.slices(scene.truth.on(grid, safety.resample(each, grid))) for each in (painted, volume)]
    found = safety._contrasts(scene, change[0] - change[1], 9.0)
    assert found == pytest.approx([sign * safety.CONTRAST * intensity_unit(volume.data)] * len(found), rel=0.1)


def test_every_disturbance_changes_the_reference_and_has_a_name_of_its_own(scene):
    made = dict(disturbed(scene))
    assert next(iter(made)) == "in place" and {"mirrored", "noise", "other patient", "reversed contrast"} < set(made)
    grid = scene.truth.grid
    plain = safety.resample(made.pop("in place"), grid)
    del made["other patient"]  # here the same one
    for name, volume in made.items():
        assert np.abs(safety.resample(volume, grid) - plain).max() > 0.02 * intensity_unit(plain), name


def test_a_bent_reference_has_the_displacement_that_it_should_have(scene, monkeypatch):
    fields = []
    monkeypatch.setattr(safety, "DisplaceReferenced", lambda field: fields.append(field) or (lambda case: case))
    on_grid = scene.truth.on(scene.truth.grid, safety.resample(scene.reference, scene.truth.grid))
    safety._bent(scene, on_grid, 3.0)
    assert float(fields[0].square().sum(0).sqrt().quantile(0.95)) == pytest.approx(3.0)


def test_zero_filling_gains_nothing_keeps_what_it_keeps_and_lets_nothing_over(scene, zero_weights, tmp_path, monkeypatch):
    monkeypatch.setattr(safety, "SHIFTS", (2.0,))
    monkeypatch.setattr(safety, "ANGLES", ())
    monkeypatch.setattr(safety, "FIELDS", (2.0,))
    monkeypatch.setattr(safety, "LESIONS", [("target", 9.0, 1), ("target", 3.5, -1), ("reference", 9.0, 1), ("reference", 3.5, -1)])
    nowhere = registration.Registration(np.eye(4), 1.1, 1.1, False, np.zeros(3))
    monkeypatch.setattr(registration, "register_rigid", lambda *_: nowhere)  # it takes seconds, and is not what is looked at
    models = {"zero": load_model(str(zero_weights[2]), 2)}
    treated = list(measure_references(scene, "2", models, tmp_path))
    assert [each.name for each in treated][:4] == ["none", "in place", "moved by 2 px", "bent by 2 px"]
    for each in treated:
        assert each.gains["zero"][each.chosen] == pytest.approx(0, abs=1e-3), each.name
    assert next(each for each in treated if each.name == "noise").chosen == "left out"
    for lesion in measure_lesions(scene, "2", models, tmp_path):
        expected = lesion.shares["zero-filled"] if lesion.where == "target" else [0.0] * len(lesion.shares["zero"])
        assert lesion.shares["zero"] == pytest.approx(expected, abs=1e-3)
        if lesion[:3] == ("target", 9.0, 1):
            assert min(lesion.shares["zero-filled"]) > 0.7


def test_the_tables_tell_what_a_choice_costs():
    treated = [
        Treated("none", "left out", {"n": {"left out": 1.0}}, math.nan, math.nan, []),
        Treated("in place", "used", {"n": {"left out": 1.0, "used": 3.0}}, 0.1, 0.5, []),
        Treated("bent by 2 px", "left out", {"n": {"left out": 1.0, "used": 1.5, "registered": 1.25}}, 1.4, 0.3, ["left out"]),
    ]
    lesions = [Lesion("reference", 3.5, 1, "used", {"n": [-0.2, 0.0], "zero-filled": [0.0, 0.0]}, [])]
    assert [cost(each, "n") for each in treated] == [0.0, 0.0, 0.5]
    tables = _tables([Found("case", "4", treated, lesions)])
    text = tables["safety.md"].decode()
    assert "| in place | 3.00 / 3.00 | used 1 | 0 of 1 |" in text
    assert "| bent by 2 px | 1.50 / 1.00 | left out 1 | 1 of 1 |" in text
    assert "| in the reference only, 3.5 px, bright | -10 (-20 to 0) | 0 (0 to 0) | 0 of 1 |" in text
    assert "| left out | 0.500 (1) |" in text and "| all | 0.250 (2) |" in text
    rows = list(csv.DictReader(tables["references.csv"].decode().splitlines()))
    assert [row["cost"] for row in rows] == ["0.000", "0.000", "0.500"]
    assert rows[2]["warning"] == "left out"
