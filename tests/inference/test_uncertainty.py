"""The expected error of a result: its unit and place, its calibration, what is said of it, and that it changes nothing else."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import product

import numpy as np
import pytest
import torch

from hftn_sr import api
from hftn_sr.errors import Fault
from hftn_sr.inference.case import map_files
from hftn_sr.inference.uncertainty import FILE, Calibration, load_head, save_head
from hftn_sr.networks import build_network
from hftn_sr.networks.precision import choose_tta
from hftn_sr.networks.uncertainty import UncertaintyHead
from hftn_sr.networks.weights import MODELS_FOLDER, load_model, save_weights, shipped_models
from hftn_sr.volumes.files import sha256_of
from hftn_sr.volumes.nifti import read_nifti
from phantoms import thick_pair, write_volume


def calibration(sha256, kind="kspace", **changed):
    return Calibration(**{"model": "tiny x2", "sha256": sha256, "kind": kind, "tta": 1, "factor": 2.0, "interval": 2.5, "low": 0.0,
                          "high": 9.0, "patients": ("one", "two"), **changed})  # fmt: skip


@pytest.fixture
def own(tmp_path, weights):
    """Weights with a calibrated head beside them; keywords change the calibration."""

    def of(**changed):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        path = folder / "tiny.safetensors"
        shutil.copy(weights[2], path)
        torch.manual_seed(0)
        head = UncertaintyHead()
        torch.nn.init.normal_(head.linear.weight, std=0.05)
        (folder / FILE).write_bytes(save_head(head, [calibration(**{"sha256": sha256_of(path), **changed})], {"steps": 1}))
        return path

    return of


@pytest.fixture
def run(tmp_path, put_case):
    def of(model, output="sr.nii.gz", **options):
        target, reference = (tmp_path / "case" / f"{role}.nii.gz" for role in ("target", "reference"))
        if not target.exists():
            put_case(tmp_path / "case")
        given = {"overwrite": "always", "preview": False, "device": "cpu", **options}
        return api.super_resolve(target, reference, tmp_path / output, scale=2, model=str(model), **given)

    return of


def test_the_map_lies_on_the_result_s_grid_in_its_unit(tmp_path, own, run):
    outcome = run(own(), uncertainty=True)
    result, found = read_nifti(tmp_path / "sr.nii.gz"), read_nifti(tmp_path / "sr_uncertainty.nii.gz")
    np.testing.assert_allclose(found.affine, result.affine)
    assert found.data.shape == result.data.shape and found.data.min() > 0
    assert outcome.record["uncertainty"]["sha256"] == found.sha256
    tissue = result.data > 0.1 * outcome.record["uncertainty"]["mean"] / outcome.record["uncertainty"]["mean_share"]
    assert outcome.record["uncertainty_mean"] == pytest.approx(found.data[tissue].mean(), rel=1e-4)
    assert outcome.warnings == () or "expected error" not in " ".join(outcome.warnings)


def test_the_map_follows_the_image_s_unit_and_the_calibration_s_factor(tmp_path, own, run):
    run(own(), uncertainty=True)
    before = read_nifti(tmp_path / "sr_uncertainty.nii.gz").data
    run(own(factor=6.0), uncertainty=True)
    np.testing.assert_allclose(read_nifti(tmp_path / "sr_uncertainty.nii.gz").data, 3 * before, rtol=1e-5)
    target = read_nifti(tmp_path / "case" / "target.nii.gz")
    path = write_volume(tmp_path / "bright.nii", target.on(target.grid, 10 * target.data))
    bright = tmp_path / "bright_sr.nii.gz"
    api.super_resolve(path, tmp_path / "case" / "reference.nii.gz", bright, scale=2, model=str(own()), uncertainty=True, device="cpu")
    np.testing.assert_allclose(read_nifti(tmp_path / "bright_sr_uncertainty.nii.gz").data, 10 * before, rtol=1e-2)


def test_neither_map_changes_a_bit_of_the_result(tmp_path, own, run):
    plain = run(own()).record
    both = run(own(), uncertainty=True, added=True).record
    assert plain["output"]["sha256"] == both["output"]["sha256"] and plain["fingerprint"] == both["fingerprint"]
    assert {path.name for path in tmp_path.glob("sr_*.nii.gz")} == {"sr_uncertainty.nii.gz", "sr_added.nii.gz"}
    run(own())
    assert not list(tmp_path.glob("sr_*.nii.gz"))  # those of the result that was replaced


def test_the_added_detail_and_the_target_add_up_to_the_result(tmp_path, own, run):
    record = run(own(), added=True).record
    added, result = (read_nifti(tmp_path / name) for name in ("sr_added.nii.gz", "sr.nii.gz"))
    assert record["added"] == {"file": "sr_added.nii.gz", "sha256": added.sha256}
    measured = (result.data - added.data)[::2, ::2]
    target = read_nifti(tmp_path / "case" / "target.nii.gz").data
    np.testing.assert_allclose(measured, target, atol=1e-3 * target.max())


@pytest.mark.parametrize(("changed", "words"), [
    ({"high": 1e-9}, "unusually large"), ({"low": 1.0}, "unusually small"), ({"sha256": "other"}, "not calibrated for these weights"),
])  # fmt: skip
def test_what_is_unlike_the_validation_patients_is_warned_of(own, run, changed, words):
    outcome = run(own(**changed), uncertainty=True)
    assert any(words in warning for warning in outcome.warnings)
    assert list(outcome.warnings) == outcome.record["warnings"]


def test_stale_redoes_a_case_whose_map_is_missing_or_another(tmp_path, own, run):
    path = own()
    run(path)
    assert run(path, uncertainty=True, overwrite="stale").status == "done"
    with pytest.raises(Fault, match="up to date"):
        run(path, uncertainty=True, overwrite="stale")
    (tmp_path / "sr_uncertainty.nii.gz").write_bytes(b"changed")
    assert run(path, uncertainty=True, overwrite="stale").status == "done"


def test_a_file_of_another_program_in_the_place_of_a_map_stays(tmp_path, own, run):
    (tmp_path / "sr_added.nii.gz").write_bytes(b"mine")
    run(own(), overwrite="never")
    with pytest.raises(Fault, match="is not of this program"):
        run(own(), added=True, overwrite="stale")
    assert (tmp_path / "sr_added.nii.gz").read_bytes() == b"mine"


@pytest.mark.parametrize("content", [b"", b"no head", save_head(UncertaintyHead(), [], {})])
def test_a_head_that_cannot_be_used_is_refused_before_any_work(tmp_path, own, run, content):
    path = own()
    path.with_name(FILE).write_bytes(content)
    with pytest.raises(Fault, match="is not a calibrated uncertainty head"):
        run(path, uncertainty=True)
    assert not (tmp_path / "sr.nii.gz").exists()


def test_a_folder_of_cases_gets_maps_and_means_in_its_summary(tmp_path, command, own, put_case):
    put_case(tmp_path / "cases" / "a")
    given = ("--cases", tmp_path / "cases", "--output", tmp_path / "out", "--scale", 2, "--model", own(), "--no-report", "--device", "cpu")
    done = command("super-resolve", *given, "--uncertainty", "--added")
    assert done.exit_code == 0, done.stderr
    record = json.loads((tmp_path / "out" / "a" / "target_sr.json").read_text())
    (row,) = csv.DictReader((tmp_path / "out" / "summary.csv").open())
    assert float(row["uncertainty_mean"]) == record["uncertainty_mean"]
    assert all(path.exists() for path in map_files(tmp_path / "out" / "a" / "target_sr.nii.gz").values())


@pytest.mark.parametrize("in_plane", [1, 2])
def test_thick_slices_get_an_error_that_is_largest_between_them(tmp_path, in_plane):
    torch.manual_seed(0)
    path = tmp_path / "any.safetensors"
    save_weights(path, any_network(), {})
    head = UncertaintyHead()
    torch.nn.init.normal_(head.linear.weight, std=1e-4)  # a map of one value would be refused when it is read
    each = [calibration(sha256_of(path), kind, model="any any") for kind in ("kspace", "slices")]
    (tmp_path / FILE).write_bytes(save_head(head, each, {}))
    target, _, _ = thick_pair(5.0, in_plane)
    file = write_volume(tmp_path / "flair.nii", target)
    voxel = (1, 1, 1)
    given = {"voxel": voxel, "model": str(path), "device": "cpu", "uncertainty": True, "added": True}
    record = api.super_resolve(file, None, tmp_path / "o.nii", **given).record
    found, result, added = (read_nifti(tmp_path / name) for name in ("o_uncertainty.nii", "o.nii", "o_added.nii"))
    assert found.data.shape == result.data.shape == added.data.shape == (36, 32, 20)
    unit, start = record["uncertainty"]["mean"] / record["uncertainty"]["mean_share"], np.exp(-4.0) * 2.0
    assert found.data.mean() == pytest.approx(start * unit * (np.sqrt(2) if in_plane == 2 else 1), rel=1e-3)  # an untrained head's
    assert len(record["uncertainty"]["calibrated_by"]) == in_plane


def any_network():
    return build_network("small", None, {"channels": 8, "levels": 2})


def test_the_shipped_head_is_small_and_calibrated_for_the_shipped_weights():
    head = load_head(MODELS_FOLDER / "base_x2.safetensors")
    assert head.path.stat().st_size < 200_000 and shipped_models()[FILE] == head.sha256
    for name, scale in (*product(("base", "small", "correspondence"), (2, 4)), ("small", None), ("correspondence", None)):
        model = load_model(name, scale)
        for kind in ("kspace",) if scale else ("kspace", "slices"):
            found, own = head.of(model, kind)
            assert found.tta == (1 if kind == "slices" else choose_tta(None, name))  # of super-resolve
            assert own, f"{model.path.name} was exchanged: calibrate again by study/measure_uncertainty.py"
            assert 0 < found.low < found.high and len(found.patients) >= 2


def test_other_weights_take_the_calibration_that_errs_most(weights):
    head = load_head(MODELS_FOLDER / "base_x2.safetensors")
    found, own = head.of(load_model(str(weights[2]), 2), "kspace")
    alike = [each for each in head.calibrations if each.model.endswith("x2")]
    assert not own and found.factor * found.interval == max(each.factor * each.interval for each in alike)
