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
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference import memory
from hftn_sr.inference import reference as reference_module
from hftn_sr.inference.case import Case, side_files
from hftn_sr.inference.memory import Demand
from hftn_sr.inference.options import PairOptions, RunOptions
from hftn_sr.inference.pair import prepare_pair
from hftn_sr.inference.plan import Plan
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.run import run_case
from hftn_sr.networks.weights import load_model
from hftn_sr.volumes import registration
from hftn_sr.volumes.alignment import Alignment
from hftn_sr.volumes.files import sha256_of
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.reading import read_volume_header
from hftn_sr.volumes.registration import Registration
from hftn_sr.volumes.resampling import resample
from phantoms import phantom, write_volume

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

        monkeypatch.setattr(registration, "register_rigid", found)
        return asked

    return of


def test_a_reference_in_place_is_not_registered(place, registered):
    asked = registered(0)
    pair = place("in place")
    assert asked == []
    assert pair.on_grid is not None
    assert not any("--register" in warning for warning in pair.warnings)
    assert "registration" not in pair.record["placement"]


@pytest.mark.parametrize(("displacement", "often"), [(0.14, 0), (0.2, 1), (0.4, 1)])
def test_at_x4_a_reference_is_registered_from_less_than_half_a_voxel_on(files, registered, monkeypatch, displacement, often):
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: Alignment(0.4, displacement, 0, 4))
    asked = registered(0)
    prepare_pair(files["target"], files["in place"], PairOptions(scale=4))
    assert len(asked) == often


def test_a_reference_out_of_place_is_registered_with_a_warning(files, place):
    class Heard(Reporter):
        def log(self, step):
            logged.append(step)

    logged = []
    pair = prepare_pair(files["target"], files["away"], PairOptions(scale=2), reporter=Heard())
    registration = pair.record["placement"]["registration"]
    assert logged == ["the reference does not lie in place: registering it, which takes some seconds"]
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
    pair = place("away", unfit_reference="use")
    assert asked == ["away.nii.gz"]
    assert pair.record["placement"]["registration"]["kept"] is False
    np.testing.assert_array_equal(pair.reference(5), place("away", register="none", unfit_reference="use").reference(5))
    (warning,) = [warning for warning in pair.warnings if "covers" not in warning]
    assert "gains" not in warning and "which costs detail; rigid registration did not mend that; place it by --ref" in warning


@pytest.mark.parametrize("register", ["auto", "none"])
def test_a_reference_that_does_not_fit_is_left_out_and_named_with_the_cure(files, place, registered, register):
    asked = registered(0.5)
    pair = place("other", register=register)
    assert asked == (["other.nii.gz"] if register == "auto" else [])
    assert pair.on_grid is None
    assert pair.slice(7)[1:].abs().max() == 0 < pair.slice(7)[0].abs().max()
    (warning,) = pair.warnings
    assert warning.startswith(f"{files['other']}: the reference was left out, the result is made from the target alone: the edges of")
    assert "Fix: " in warning and "or use it by --unfit-reference use" in warning
    assert ("try --register rigid" in warning) is (register == "none")
    assert ("rigid registration did not mend that" in warning) is (register == "auto")
    assert pair.record["voxels_without_reference"] == np.prod(pair.grid.shape)


def test_a_reference_that_does_not_fit_is_used_where_that_is_asked_for(place, registered):
    registered(0.5)
    pair = place("other", unfit_reference="use")
    assert pair.on_grid is not None and pair.slice(7)[1:].abs().max() > 0
    (warning,) = pair.warnings
    assert "do not trust fine detail" in warning


@pytest.mark.parametrize("register", ["auto", "rigid"])
@pytest.mark.parametrize("millimetres", [3.0, 90.0])
def test_a_registration_of_what_does_not_fit_moves_it_nowhere(files, place, registered, register, millimetres):
    """Moved by 90 mm it would cover too little, which is not what is wrong with it."""
    registered(millimetres)
    pair = place("other", register=register)
    assert pair.on_grid is None
    (warning,) = pair.warnings
    assert f"{files['other']}: the reference was left out" in warning and "the edges of target and reference do not match" in warning
    if register == "auto" or millimetres == 90:
        assert pair.record["placement"]["registration"]["kept"] is False
        assert pair.record["coverage"] == place("other", register="none").record["coverage"]


def test_one_that_is_registered_and_then_left_out_has_one_warning(files, place, registered, monkeypatch):
    registered(1.0)
    found = iter([Alignment(0.05, 0.4, 0, 2), Alignment(0.2, 2.0, 0, 2)])
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: next(found))
    pair = place("in place")
    (warning,) = pair.warnings
    assert "the reference was left out" in warning and "was registered" not in warning
    assert (
        "lie 2.0 voxels of the result away from where it belongs, which is worse than no reference; rigid registration did not" in warning
    )


def test_one_that_is_registered_and_still_not_in_place_has_one_warning_that_says_both(place, registered, monkeypatch):
    registered(1.0)
    found = iter([Alignment(0.4, 0.8, 0, 2), Alignment(0.4, 0.4, 0, 2)])
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: next(found))
    (warning,) = place("in place", unfit_reference="use").warnings
    assert warning == (
        "the reference lay 0.80 voxels of the result away and was registered: moved by 1.0 mm, turned by 0.0 degrees; "
        "it still seems to lie 0.40 voxels of the result away, which costs detail; place it by --reference-transform"
    )


@pytest.mark.parametrize(("name", "register"), [("away", "auto"), ("other", "auto"), ("in place", "rigid")])
def test_a_dry_run_says_that_it_would_register_and_does_not(files, tmp_path, weights, registered, name, register):
    asked = registered(0)
    case = Case("one", files["target"], files[name], tmp_path / "new" / "o.nii.gz")
    options = RunOptions(str(weights[2]), dry_run=True, pair=PairOptions(scale=2, register=register))
    outcome = run_case(case, options, lambda scale: load_model(str(weights[2]), scale))
    assert (outcome.status, asked, (tmp_path / "new").exists()) == ("planned", [], False)
    where = {"away": r"\d\.\d voxels of the result away", "other": "where its edges do not match the target's"}.get(name)
    wanted = rf"the reference lies {where}: a run would register it, and use it where it then fits" if where else "a run would register .*"
    (found,) = (*outcome.warnings, *outcome.notes)
    assert re.fullmatch(wanted, found)
    assert bool(outcome.notes) is (register == "rigid")


@pytest.mark.parametrize("name", ["away", "other"])
def test_no_cure_names_an_option_that_the_run_refuses(files, place, registered, name):
    registered(-9.0)
    words = "put its transform into the folder of the case as reference_transform.txt"
    for options in ({}, {"unfit_reference": "use"}, {"register": "none", "unfit_reference": "use"}, {"register": "none"}):
        for warning in place(name, placing=words, **options).warnings:
            assert "--reference-transform" not in warning
            assert words in warning or "try --register rigid" in warning


def test_a_vain_registration_of_one_nearly_in_place_leaves_a_warning(files, registered, monkeypatch):
    registered(0.1)
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: Alignment(0.4, 0.4, 0, 4))
    noted = prepare_pair(files["target"], files["in place"], PairOptions(scale=4)).warnings
    (warning,) = [warning for warning in noted if "coarser" not in warning]
    assert warning == "the reference seems to lie 0.40 voxels of the result away; rigid registration did not mend that"


@pytest.mark.parametrize("better", [True, False])
def test_a_registration_of_one_that_seems_in_place_at_x4_is_no_warning(files, registered, monkeypatch, better):
    """Most right pairs are seen so far off: a better place is taken, and nothing speaks against the pair."""
    registered(0.1)
    found = iter([Alignment(0.4, 0.2, 0, 4), Alignment(0.4, 0.1 if better else 0.3, 0, 4)])
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: next(found))
    pair = prepare_pair(files["target"], files["in place"], PairOptions(scale=4))
    assert pair.record["placement"]["registration"]["kept"] is better
    assert not any("away" in warning for warning in pair.warnings)
    assert any("away and was registered: moved by 0.1 mm" in note for note in pair.notes) is better


@pytest.mark.parametrize(("before", "after", "used"), [
    (Alignment(0.18, 4.4, 0, 4), Alignment(0.24, 0.6, 0, 4), False),  # another head, laid where it agrees best
    (Alignment(0.40, 4.3, 0, 4), Alignment(0.47, 0.3, 0, 4), True),
    (Alignment(0.20, 0.8, 0, 4), Alignment(0.24, 0.3, 0, 4), True),  # it would not have been left out
])  # fmt: skip
def test_what_is_registered_from_far_away_must_surely_fit(files, registered, monkeypatch, before, after, used):
    registered(0.5)
    for options in ({}, {"unfit_reference": "use"}):
        found = iter([before, after])
        monkeypatch.setattr(reference_module, "_alignment", lambda *_, found=found: next(found))
        pair = prepare_pair(files["target"], files["in place"], PairOptions(scale=4, **options))
        assert (pair.on_grid is not None) is (used or bool(options))
        left_out = [warning for warning in pair.warnings if "was left out" in warning]
        assert bool(left_out) is (pair.on_grid is None)
        assert all("do not match well where a registration moved it (agreement 0.24, then above 0.30)" in each for each in left_out)


def test_a_reference_a_slice_off_is_warned_of(place, registered, monkeypatch):
    registered(1.0)
    found = iter([Alignment(0.4, 0.1, 1, 2), Alignment(0.4, 0.1, 0, 2)])
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: next(found))
    assert "the reference lay a slice away and was registered: moved by 1.0 mm, turned by 0.0 degrees" in place("in place").warnings


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_the_unit_of_the_images_does_not_matter(files, tmp_path, factor):
    scaled = {}
    for name in ("target", "away"):
        volume = read_nifti(files[name])
        scaled[name] = write_volume(tmp_path / f"{name}.nii", volume.on(volume.grid, volume.data * np.float32(factor)))
    options = PairOptions(scale=2, register="none", unfit_reference="use")
    pairs = [prepare_pair(paths["target"], paths["away"], options) for paths in (files, scaled)]
    assert pairs[1].record["alignment"] == pairs[0].record["alignment"]
    np.testing.assert_allclose(pairs[1].slice(7), pairs[0].slice(7), atol=1e-3)


def without_signal(kind, reference):
    """The reference's grid with voxels that bring nothing where the target lies."""
    data = {
        "zero": np.zeros_like(reference.data),
        "constant": np.full_like(reference.data, 7),
        "negative": -reference.data - 1,
        "elsewhere": np.zeros_like(reference.data),
    }[kind]
    if kind == "elsewhere":
        wider = reference.grid.cropped((-60, 0, 0), (60 + reference.data.shape[0], *reference.data.shape[1:]))
        data = np.zeros(wider.shape, np.float32)
        data[:20] = 100 * np.random.default_rng(0).random((20, *wider.shape[1:]), np.float32)
        return reference.on(wider, data)
    return reference.on(reference.grid, data)


@pytest.mark.parametrize("kind", ["zero", "constant", "negative", "elsewhere"])
@pytest.mark.parametrize("register", ["auto", "rigid"])
def test_a_reference_without_signal_is_left_out_with_one_warning_and_once(files, tmp_path, weights, registered, kind, register):
    registered(0)
    blank = write_volume(tmp_path / "blank.nii", without_signal(kind, read_nifti(files["in place"])))
    case = Case("one", files["target"], blank, tmp_path / "o.nii.gz")
    options = RunOptions(str(weights[2]), overwrite="stale", preview=False, pair=PairOptions(register=register))
    outcomes = [run_case(case, options, lambda scale: load_model(str(weights[2]), scale)) for _ in range(2)]
    (note,), (warning,) = outcomes[0].notes, outcomes[0].warnings
    assert "; scale 2: voxel sizes are 2.13 x 2.13 times the reference's; voxels of the result: " in note
    assert warning == (
        f"{blank}: the reference was left out, the result is made from the target alone: no signal where the target lies. "
        "Fix: check this image and its position"
    )
    assert [outcome.status for outcome in outcomes] == ["done", "done before"]
    assert outcomes[0].record["reference"] == {"file": "blank.nii", "sha256": sha256_of(blank), "used": False}
    api.super_resolve(files["target"], None, tmp_path / "alone.nii.gz", scale=2, model=str(weights[2]))
    np.testing.assert_array_equal(read_nifti(case.output).data, read_nifti(tmp_path / "alone.nii.gz").data)
    with pytest.raises(Fault, match=r"blank\.nii: no signal"):
        prepare_pair(files["target"], blank, PairOptions(unfit_reference="use"))


@pytest.mark.parametrize(
    ("damage", "said"), [("truncated", "truncated: .*copy or export it again"), ("missing", "no such file"), ("nan", "NaN or infinite")]
)
def test_a_reference_that_cannot_be_read_is_refused_all_the_same(files, tmp_path, damage, said):
    path = tmp_path / "reference.nii.gz"
    if damage == "truncated":
        path.write_bytes(files["in place"].read_bytes()[:-2000])
    if damage == "nan":
        volume = read_nifti(files["in place"])
        write_volume(path, volume.on(volume.grid, np.where(volume.data > volume.data.mean(), np.nan, volume.data)))
    with pytest.raises(Fault, match=said):
        prepare_pair(files["target"], path, PairOptions(scale=2))


def test_where_it_cannot_be_checked_whether_a_reference_fits_that_is_said(tmp_path):
    target = write_volume(tmp_path / "a.nii", phantom((20, 22, 4), (2.0, 2.0, 3.0)))
    noise = np.random.default_rng(0).uniform(1, 100, (40, 44, 4)).astype(np.float32)
    reference = write_volume(tmp_path / "b.nii", phantom().on(phantom().grid, noise))
    for pair_by in ("header", "index"):
        pair = prepare_pair(target, reference, PairOptions(scale=2, pair_by=pair_by))
        assert pair.on_grid is not None
        assert "slices are too small or too smooth to check whether the reference fits; it is used all the same" in pair.warnings


def test_one_that_fits_but_lies_far_off_is_left_out_too(place):
    pair = place("away", register="none")
    assert pair.on_grid is None
    assert any("which is worse than no reference" in warning for warning in pair.warnings)


def test_a_pair_by_index_is_not_registered_unless_asked(place, registered):
    asked = registered(0)
    assert place("other by index", pair_by="index").on_grid is None
    assert asked == []
    place("other by index", pair_by="index", register="rigid")
    assert asked == ["other_by_index.nii.gz"]


@pytest.mark.parametrize(("name", "wanted"), [("away", True), ("in place", False)])
def test_a_registration_that_memory_does_not_allow_is_warned_of_and_made_up_for_later(
    files, tmp_path, weights, monkeypatch, registered, name, wanted
):
    asked = registered(0)
    case = Case("one", files["target"], files[name], tmp_path / "o.nii.gz")
    options = RunOptions(str(weights[2]), overwrite="stale", preview=False, pair=PairOptions(scale=2))
    with monkeypatch.context() as little:
        little.setattr(Plan, "demand", lambda *_: (Demand(1, 1, 2), Demand(3, 3, 2)))
        outcome = run_case(case, options, lambda scale: load_model(str(weights[2]), scale))
    assert asked == []
    assert len(outcome.warnings) == wanted
    for warning in outcome.warnings:
        assert "left out" in warning and "; too little memory is free to register it. Fix: check" in warning
        assert "--register rigid" not in warning
    again = run_case(case, options, lambda scale: load_model(str(weights[2]), scale))
    assert again.status == ("done" if wanted else "done before")
    assert len(asked) == wanted


def test_so_is_one_of_a_reference_nearly_in_place(files, registered, monkeypatch):
    registered(0)
    monkeypatch.setattr(reference_module, "_alignment", lambda *_: Alignment(0.4, 0.4, 0, 4))
    noted = prepare_pair(files["target"], files["in place"], PairOptions(scale=4), may_register=False).warnings
    assert "the reference seems to lie 0.40 voxels of the result away; too little memory is free to register it" in noted


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
    assert [outcome.status for outcome in outcomes] == ["done", "done before"]
    with_one = dataclasses.replace(case, reference=files["in place"])
    assert run_case(with_one, options, lambda scale: load_model(str(weights[2]), scale)).status == "done"


def test_without_a_reference_there_is_less_to_hold(files):
    target, reference = (read_volume_header(files[name]) for name in ("target", "in place"))
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


@pytest.mark.parametrize(("option", "value"), [("register", "affine"), ("unfit_reference", "drop")])
def test_a_misspelt_choice_is_refused(option, value):
    with pytest.raises(UsageFault, match=f"--{option.replace('_', '-')}: '{value}' is not known"):
        PairOptions(**{option: value})
