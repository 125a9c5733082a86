"""A reference that lies elsewhere is registered, one that does not fit is left out, and none at all is needed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

import hftn_sr
from hftn_sr import api
from hftn_sr.errors import UsageFault
from hftn_sr.inference import memory
from hftn_sr.inference import reference as reference_module
from hftn_sr.inference import run as run_module
from hftn_sr.inference.case import Case, RunOptions, side_files
from hftn_sr.inference.memory import Demand
from hftn_sr.inference.pair import PairOptions, prepare_pair
from hftn_sr.inference.run import run_case
from hftn_sr.volumes.alignment import Alignment
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.registration import Registration
from hftn_sr.volumes.resampling import resample
from hftn_sr.weights import load_model
from phantoms import write_volume

SAMPLE = Path(hftn_sr.__file__).parent / "sample"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Low-resolution target of the built-in pair, and its reference: in place, 4 mm off by its header, and of another head."""
    folder = tmp_path_factory.mktemp("files")
    api.degrade(SAMPLE / "synthetic_target.nii.gz", folder / "target.nii.gz", scale=2)
    reference = read_nifti(SAMPLE / "synthetic_reference.nii.gz")
    away = reference.affine.copy()
    away[0, 3] += 4
    target, other = read_nifti(folder / "target.nii.gz"), np.ascontiguousarray(reference.data[:, ::-1])
    fine = target.grid.finer(2, 2)
    by_index = reference.on(fine, resample(reference.on(reference.grid, other), fine))
    return {
        "target": folder / "target.nii.gz",
        "in place": write_volume(folder / "reference.nii.gz", reference),
        "away": write_volume(folder / "away.nii.gz", dataclasses.replace(reference, affine=away)),
        "other": write_volume(folder / "other.nii.gz", reference.on(reference.grid, other)),
        "other by index": write_volume(folder / "other_by_index.nii.gz", by_index),
    }


@pytest.fixture
def place(files):
    """Prepares the pair of the target and the named reference."""
    return lambda name, **options: prepare_pair(files["target"], files[name], PairOptions(scale=2, **options))


@pytest.fixture
def registered(monkeypatch):
    """Lets every registration find a movement by so many mm along x, without searching; holds how often it was asked for."""
    asked = []

    def of(millimetres):
        matrix = np.eye(4)
        matrix[0, 3] = millimetres

        def found(target, reference):
            asked.append(reference.path.name)
            return Registration(matrix, 1.1, 1.2, True, np.zeros(3))

        monkeypatch.setattr(reference_module, "register_rigid", found)
        return asked

    return of


def test_a_reference_in_place_is_not_registered(place, registered):
    asked = registered(0)
    pair = place("in place")
    assert asked == []
    assert pair.on_grid is not None
    assert not any("--register" in warning for warning in pair.warnings)
    assert "registration" not in pair.record["placement"]


@pytest.mark.parametrize(("displacement", "often"), [(0.07, 0), (0.1, 1)])
def test_at_x4_a_reference_is_registered_from_less_than_half_a_voxel_on(files, registered, monkeypatch, displacement, often):
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: Alignment(0.4, displacement, 0))
    asked = registered(0)
    prepare_pair(files["target"], files["in place"], PairOptions(scale=4))
    assert len(asked) == often


def test_a_reference_out_of_place_is_registered_and_told_of(files, place):
    told = []
    pair = prepare_pair(files["target"], files["away"], PairOptions(scale=2), tell=told.append)
    registration = pair.record["placement"]["registration"]
    assert told == ["the reference does not lie in place: registering it, which takes about half a minute"]
    assert registration["kept"] and registration["alignment_before"]["displacement_voxels"] > 2
    assert pair.record["alignment"]["displacement_voxels"] < 0.3
    (moved,) = re.findall(r"the reference lay .* and was registered: moved by (.*) mm, turned by 0\.\d degrees", "\n".join(pair.warnings))
    assert float(moved) == pytest.approx(4, abs=0.5)
    in_place = place("in place")
    middle = len(pair) // 2
    inner = (slice(20, -20), slice(20, -20))
    assert np.abs(pair.reference(middle)[inner] - in_place.reference(middle)[inner]).mean() < 0.05 * in_place.reference_unit


def test_a_registration_that_makes_it_worse_is_not_kept(place, registered):
    asked = registered(-9.0)
    pair = place("away", misfit="use")
    assert asked == ["away.nii.gz"]
    assert pair.record["placement"]["registration"]["kept"] is False
    np.testing.assert_array_equal(pair.reference(5), place("away", register="none", misfit="use").reference(5))
    assert any("rigid registration found no better place for it" in warning for warning in pair.warnings)
    assert not any("--register rigid" in warning for warning in pair.warnings)


@pytest.mark.parametrize("register", ["auto", "none"])
def test_a_reference_that_does_not_fit_is_left_out_and_named_with_the_cure(files, place, registered, register):
    asked = registered(0.5)
    pair = place("other", register=register)
    assert asked == (["other.nii.gz"] if register == "auto" else [])
    assert pair.on_grid is None
    assert pair.slice(7)[1:].abs().max() == 0 < pair.slice(7)[0].abs().max()
    (warning,) = [warning for warning in pair.warnings if "left out" in warning]
    assert warning.startswith(f"{files['other']}: the reference was left out, the result is made from the target alone: the edges of")
    assert "Fix: " in warning and "insist by --misfit use" in warning
    assert ("try --register rigid" in warning) is (register == "none")
    assert pair.record["voxels_without_reference"] == np.prod(pair.grid.shape)


def test_a_reference_that_does_not_fit_is_used_where_that_is_asked_for(place, registered):
    registered(0.5)
    pair = place("other", misfit="use")
    assert pair.on_grid is not None and pair.slice(7)[1:].abs().max() > 0
    assert any("do not trust fine detail" in warning for warning in pair.warnings)


def test_one_that_fits_but_lies_far_off_is_left_out_too(place):
    pair = place("away", register="none")
    assert pair.on_grid is None
    assert any("and then gains less than none" in warning for warning in pair.warnings)


def test_a_pair_by_index_is_not_registered_unless_asked(place, registered):
    asked = registered(0)
    assert place("other by index", pair_by="index").on_grid is None
    assert asked == []
    place("other by index", pair_by="index", register="rigid")
    assert asked == ["other_by_index.nii.gz"]


def test_too_little_memory_for_a_registration_is_a_warning(files, tmp_path, weights, monkeypatch, registered):
    asked = registered(0)
    monkeypatch.setattr(run_module, "demand", lambda *_: (Demand(1, 1, 2), Demand(3, 3, 2)))
    case = Case("one", files["target"], files["away"], tmp_path / "o.nii.gz")
    options = RunOptions(str(weights[2]), dry_run=True, pair=PairOptions(scale=2))
    outcome = run_case(case, options, lambda scale: load_model(str(weights[2]), scale))
    assert asked == []
    assert "too little memory is free to register the reference, should it lie out of place" in outcome.warnings


def test_a_run_without_a_reference_gives_what_one_that_left_it_out_gives(files, tmp_path, weights, registered):
    registered(0.5)
    runs = {}
    for name, reference in (("alone", None), ("left out", files["other"])):
        runs[name] = api.super_resolve(files["target"], reference, tmp_path / f"{name}.nii.gz", scale=2, model=str(weights[2]))
    alone, left_out = (read_nifti(tmp_path / f"{name}.nii.gz").data for name in runs)
    np.testing.assert_array_equal(alone, left_out)
    used = api.super_resolve(files["target"], files["in place"], tmp_path / "used.nii.gz", scale=2, model=str(weights[2]))
    assert np.abs(read_nifti(used.output).data - alone).max() > 1
    records = {name: json.loads(side_files(run.output)[0].read_text(encoding="utf-8")) for name, run in runs.items()}
    assert records["alone"]["reference"] == {"file": None, "sha256": None, "used": False}
    assert records["left out"]["reference"]["file"] == "other.nii.gz" and records["left out"]["reference"]["used"] is False
    assert used.record["reference"]["used"] is True
    assert (records["alone"]["similarity"], records["alone"]["placement"], records["alone"]["coverage"]) == (None, None, 0.0)
    assert any("no reference was given" in warning for warning in runs["alone"].warnings)


def test_a_result_without_a_reference_is_stale_only_where_something_changed(files, tmp_path, weights):
    case = Case("one", files["target"], None, tmp_path / "o.nii.gz")
    options = RunOptions(str(weights[2]), overwrite="stale", preview=False, pair=PairOptions(scale=2))
    outcomes = [run_case(case, options, lambda scale: load_model(str(weights[2]), scale)) for _ in range(2)]
    assert [outcome.status for outcome in outcomes] == ["done", "skipped"]
    with_one = dataclasses.replace(case, reference=files["in place"])
    assert run_case(with_one, options, lambda scale: load_model(str(weights[2]), scale)).status == "done"


def test_without_a_reference_there_is_less_to_hold(files):
    target, reference = (run_module.read_volume_header(files[name]) for name in ("target", "in place"))
    grid = target.grid.finer(2, 2)
    network = load_model("small", 2).network
    alone, plain, registering = (
        demand.more
        for demand in (
            memory.demand(target, None, grid, grid.shape[:2], network, "cpu")[0],
            *memory.demand(target, reference, grid, grid.shape[:2], network, "cpu"),
        )
    )
    assert alone < plain <= registering
    assert memory.demand(target, None, grid, grid.shape[:2], network, "cpu")[1].more == pytest.approx(alone, rel=0.01)


def test_without_a_reference_scale_and_no_transform_are_needed(files, tmp_path):
    with pytest.raises(UsageFault, match="--scale: is missing"):
        prepare_pair(files["target"], None, PairOptions())
    with pytest.raises(UsageFault, match="--reference-transform: needs a reference"):
        api.super_resolve(files["target"], None, tmp_path / "o.nii.gz", scale=2, reference_transform=tmp_path / "t.txt")


@pytest.mark.parametrize(("option", "value"), [("register", "affine"), ("misfit", "drop")])
def test_a_misspelt_choice_is_refused(option, value):
    with pytest.raises(UsageFault, match=f"--{option}: '{value}' is not known"):
        PairOptions(**{option: value})
