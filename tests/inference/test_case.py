"""One case from its files to its files: right voxels at the right place, a complete record, or nothing at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from filelock import FileLock

import hftn_sr
from hftn_sr import api
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference import run as run_module
from hftn_sr.inference.case import Case, side_files
from hftn_sr.inference.options import PairOptions, RunOptions, choose_device
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.run import run_case
from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.networks.weights import load_model, save_weights
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.volume import Volume
from phantoms import phantom, points, write, write_volume


@pytest.fixture
def case(tmp_path, put_case):
    return Case("one", *put_case(tmp_path), tmp_path / "result.nii.gz")


@pytest.fixture
def run(weights):
    """Runs a case by the tiny network, without a picture; keywords change the options."""

    def of(case, pair=None, model=None, **options):
        name = str(model or weights[2])
        options = RunOptions(name, preview=options.pop("preview", False), pair=PairOptions(**(pair or {})), **options)
        return run_case(case, options, lambda scale: load_model(name, scale))

    return of


def folder_of(path):
    """Name to bytes of all files beside a path."""
    return {found.name: found.read_bytes() for found in path.parent.iterdir()}


# The result


@pytest.mark.parametrize("scale", [2, 4])
def test_the_result_lies_on_the_grid_of_the_truth(tmp_path, put_case, weights, run, scale):
    case = Case("one", *put_case(tmp_path, scale), tmp_path / "result.nii.gz")
    run(case, model=weights[scale])
    truth, result = phantom(), read_nifti(case.output)
    assert result.data.shape == truth.data.shape
    np.testing.assert_allclose(points(result.grid), points(truth.grid), atol=1e-4)
    zero_filled = zero_fill(torch.from_numpy(read_nifti(case.target).data).movedim(2, 0), scale).movedim(0, 2).numpy()
    difference = np.abs(result.data - zero_filled).max()
    assert 1 < difference < 300  # the tiny network adds something, and the intensity is still the target's


@pytest.mark.parametrize("scale", [2, 4])
def test_an_untrained_network_is_zero_filling_whatever_the_size(tmp_path, zero_weights, run, scale):
    target = phantom((13, 11, 3), (2.0, 2.0, 3.0))
    reference = phantom((60, 60, 8), (0.5, 0.6, 2.0), "reference")
    case = Case("one", write_volume(tmp_path / "a.nii", target), write_volume(tmp_path / "b.nii", reference), tmp_path / "c.nii")
    run(case, {"scale": scale}, zero_weights[scale])
    expected = zero_fill(torch.from_numpy(target.data).movedim(2, 0), scale).movedim(0, 2)
    result = read_nifti(case.output)
    np.testing.assert_allclose(result.data, expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(result.data[::scale, ::scale], target.data, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(points(result.grid)[::scale, ::scale], points(target.grid), atol=1e-4)


@pytest.mark.parametrize("order", [(2, 0, 1), (0, 2, 1), (1, 0, 2)])
def test_permuted_axes_of_the_input_permute_the_output(tmp_path, pair, run, order):
    target, reference = pair(2)

    def permuted(volume):
        return Volume(np.ascontiguousarray(volume.data.transpose(order)), volume.affine[:, [*order, 3]])

    results = []
    for name, change in (("plain", lambda volume: volume), ("permuted", permuted)):
        folder = tmp_path / name
        case = Case(
            name, write_volume(folder / "a.nii", change(target)), write_volume(folder / "b.nii", change(reference)), folder / "c.nii"
        )
        outcome = run(case)
        results.append(read_nifti(case.output))
        assert outcome.record["through_plane"] == (2 if name == "plain" else order.index(2))
    np.testing.assert_allclose(results[1].data, results[0].data.transpose(order), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(results[1].affine, results[0].affine[:, [*order, 3]], atol=1e-5)


def test_a_reference_on_another_grid_gives_nearly_what_one_on_the_target_s_grid_gives(tmp_path, pair, run):
    target, reference = pair(2)
    other = phantom((64, 66, 40), (0.9, 0.9, 0.9), "reference", (-2, 8, 3))
    files = [write_volume(tmp_path / f"{name}.nii", volume) for name, volume in (("t", target), ("r", reference), ("o", other))]
    direct, resampled = (Case("x", files[0], files[i], tmp_path / f"{i}.nii") for i in (1, 2))
    run(direct)
    assert run(resampled, {"scale": 2}).record["coverage"] == pytest.approx(1, abs=0.02)
    images = [read_nifti(case.output).data for case in (direct, resampled)]
    zero_filled = zero_fill(torch.from_numpy(target.data).movedim(2, 0), 2).movedim(0, 2).numpy()
    assert np.abs(images[1] - images[0]).mean() < 0.2 * np.abs(images[0] - zero_filled).mean()


def test_data_consistency_is_exact_on_the_file_read_back(case, run):
    def residual():
        result, target = read_nifti(case.output).data, read_nifti(case.target).data
        low = truncate(torch.from_numpy(result).movedim(2, 0).double(), 2).movedim(0, 2).numpy()
        return float(np.linalg.norm(low - target) / np.linalg.norm(target))

    plain = run(case, data_consistency=False).record["data_consistency"]
    off = pytest.approx(residual(), rel=1e-3)
    assert plain == {"applied": False, "residual": off, "residual_of_network": off}
    assert residual() > 1e-3
    consistent = run(case, overwrite="always").record["data_consistency"]
    assert residual() < 1e-6
    assert consistent["applied"]
    assert consistent["residual"] < 1e-6
    assert consistent["residual_of_network"] == off


def test_the_same_run_gives_the_same_bytes(case, run):
    run(case)
    first = case.output.read_bytes()
    run(case, overwrite="always")
    assert case.output.read_bytes() == first


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_single_slice_is_treated_in_plane(tmp_path, pair, run, dimensions):
    target, reference = pair(2, (40, 44, 1))
    data = target.data[..., 0] if dimensions == 2 else target.data
    case = Case("one", write(tmp_path / "a.nii", data, target.affine), write_volume(tmp_path / "b.nii", reference), tmp_path / "c.nii")
    outcome = run(case)
    assert (outcome.record["through_plane"], outcome.record["output"]["shape"]) == (2, [40, 44, 1])
    np.testing.assert_allclose(read_nifti(case.output).affine, reference.affine, atol=1e-4)


def test_header_information_is_kept_and_the_description_says_research_use_only(case, run):
    image = nib.load(case.target)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(image.affine, 2)
    nib.save(image, case.target)
    run(case)
    header = nib.load(case.output).header
    assert header.get_xyzt_units() == ("mm", "sec")
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 1)
    assert header["descrip"].item().decode().endswith("research use only")
    assert header.get_data_dtype() == np.float32


def test_inputs_are_never_changed(case, run):
    before = case.target.read_bytes(), case.reference.read_bytes()
    run(case, preview=True, overwrite="always")
    assert (case.target.read_bytes(), case.reference.read_bytes()) == before


# The record


def test_the_record_says_what_was_done_with_what(case, run, weights):
    outcome = run(case, preview=True)
    record = json.loads(side_files(case.output)[0].read_text(encoding="utf-8"))
    assert record == json.loads(json.dumps(outcome.record))
    assert record["notice"] == "Research use only. Not for clinical use."
    assert record["software"]["hftn_sr"] == hftn_sr.__version__
    assert record["software"]["torch"] == torch.__version__
    assert set(record["software"]) >= {"monai", "itk", "nibabel", "numpy", "python"}
    for role, path in (("target", case.target), ("reference", case.reference), ("model", weights[2]), ("output", case.output)):
        assert record[role]["file"] == path.name
        assert record[role]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["model"]["training"] == {"iterations": 0}
    assert record["scale"] == 2
    assert record["acquired"]["words"] == "measured 20 x 22 of 40 x 44 (left-right x front-back)"
    assert record["acquired"]["source"] == "scale 2: voxel sizes are 2.00 x 2.00 times the reference's"
    assert (record["coverage"], record["voxels_without_reference"]) == (1.0, 0)
    assert 1.02 < record["similarity"]["value"] <= 2
    assert record["placement"] == {"by": "header", "transform": None, "register": "auto"}
    assert record["reference"]["used"] is True
    assert set(record["seconds"]) == {"read_and_place", "network", "restore_and_save"}
    assert record["seconds"]["network"] > 0
    assert record["notes"] == [
        (
            "measured 20 x 22 of 40 x 44 (left-right x front-back); scale 2: voxel sizes are 2.00 x 2.00 times the reference's; "
            "voxels of the result: 1 x 1 x 3 mm"
        )
    ]
    assert record["warnings"] == [
        "slices are too small or too smooth to check whether the reference fits; it is used all the same",
    ]
    assert record["fingerprint"]["options"]["data_consistency"] is True
    assert record["fingerprint"]["options"]["read"] == {"frame": None, "nan_to_num": False, "magnitude": False, "assume_affine": None}
    assert side_files(case.output)[1].read_bytes().startswith(b"\x89PNG")


def test_what_was_found_while_reading_is_recorded(case, run):
    data = np.array(nib.load(case.target).dataobj)
    data[3, 4, 1] = np.nan
    write(case.target, data[..., None], nib.load(case.target).affine)
    read = api.ReadOptions(nan_to_num=True)
    outcome = run(case, {"scale": 2, "read": read})
    assert any("volume 0 of 1 taken" in note for note in outcome.record["notes"])
    assert any("1 voxels that are not finite taken as 0" in warning for warning in outcome.record["warnings"])
    assert (outcome.warnings, outcome.notes) == (tuple(outcome.record["warnings"]), tuple(outcome.record["notes"]))
    assert outcome.record["acquired"]["source"] == "scale as asked"


def test_a_reference_that_covers_only_a_part_is_counted_in_the_record(tmp_path, pair, run):
    target, reference = pair(2)
    shorter = reference.on(reference.grid.cropped((4, 0, 0), (36, 44, 4)), reference.data[4:])
    case = Case("one", write_volume(tmp_path / "a.nii", target), write_volume(tmp_path / "b.nii", shorter), tmp_path / "c.nii")
    outcome = run(case)
    assert outcome.record["coverage"] == 0.9
    assert outcome.record["voxels_without_reference"] == 4 * 44 * 4
    assert "the reference covers 90.0% of the target; elsewhere the result has no detail from it" in outcome.notes


def test_a_transform_file_places_the_reference_and_is_recorded(tmp_path, pair, run):
    target, reference = pair(2)
    shifted = reference.affine.copy()
    shifted[:3, 3] += (3, -2, 0)
    files = write_volume(tmp_path / "a.nii", target), write_volume(tmp_path / "b.nii", Volume(reference.data, shifted))
    transform = tmp_path / "placement.txt"
    lines = "#Insight Transform File V1.0\n#Transform 0\nTransform: TranslationTransform_double_3_3\nParameters: -3 2 0\nFixedParameters:\n"
    transform.write_text(lines, encoding="utf-8")  # LPS: the reference lies 3 mm to the right of and 2 mm behind the target
    case = Case("one", *files, tmp_path / "moved.nii", transform)
    assert run(case, preview=False).record["placement"]["transform"] == "placement.txt"
    aligned = Case("one", files[0], write_volume(tmp_path / "r.nii", reference), tmp_path / "aligned.nii")
    run(aligned)
    np.testing.assert_allclose(read_nifti(case.output).data, read_nifti(aligned.output).data, atol=0.05)
    run(dataclasses.replace(case, transform=None, output=tmp_path / "unmoved.nii"))
    assert np.abs(read_nifti(tmp_path / "unmoved.nii").data - read_nifti(aligned.output).data).max() > 1


# Pairs that do not belong together


def test_a_reference_elsewhere_is_left_out_or_refused(tmp_path, pair, run):
    target, reference = pair(2)
    far = reference.affine.copy()
    far[:3, 3] += 34 * far[:3, 0]
    case = Case(
        "one", write_volume(tmp_path / "a.nii", target), write_volume(tmp_path / "b.nii", Volume(reference.data, far)), tmp_path / "c.nii"
    )
    finding = (
        r"b\.nii: {}covers 1\d% of the target, at least 20% is needed\. Fix: .*try --register rigid, or place it by --reference-transform"
    )
    with pytest.raises(Fault, match=finding.format("")):
        run(case, {"unfit_reference": "use"})
    assert set(folder_of(case.output)) == {"a.nii", "b.nii"}
    outcome = run(case)
    (warning,) = outcome.warnings
    assert re.search(finding.format("the reference was left out, the result is made from the target alone: "), warning)
    assert outcome.record["reference"]["used"] is False
    assert outcome.record["coverage"] < 0.7


def test_where_a_reference_does_not_reach_the_result_is_made_from_the_target_alone(tmp_path, pair, run):
    target, reference = pair(2)
    half = reference.on(reference.grid.cropped((0, 0, 0), (20, 44, 4)), reference.data[:20])
    results = {}
    for name, volume in (("half", half), ("none", None)):
        files = write_volume(tmp_path / "a.nii", target), volume and write_volume(tmp_path / "b.nii", volume)
        case = Case("one", *files, tmp_path / f"{name}.nii")
        outcome = run(case, {"scale": 2, "unfit_reference": "use"} if volume else {"scale": 2}, data_consistency=False)
        results[name] = read_nifti(case.output).data
        assert outcome.record["reference"]["used"] is (volume is not None)
    np.testing.assert_allclose(results["half"][20:], results["none"][20:], atol=1e-3 * results["none"].max())
    assert np.abs(results["half"][:10] - results["none"][:10]).max() > 5e-3 * results["none"].max()


def test_the_same_image_as_target_and_reference_is_refused_also_under_another_name(case, run):
    case.reference.write_bytes(case.target.read_bytes())
    with pytest.raises(Fault, match=r"reference\.nii\.gz: is the same image as the target"):
        run(case)


def test_a_swapped_pair_is_refused_by_its_voxel_sizes_and_warned_of_when_the_scale_is_forced(case, run):
    swapped = dataclasses.replace(case, target=case.reference, reference=case.target)
    with pytest.raises(Fault, match=r"nothing to gain: its voxels of 1 x 1 x 3 mm are finer than the reference"):
        run(swapped)
    outcome = run(swapped, {"scale": 2})
    assert any(
        "mm in plane) are coarser than the result's (0.50 x 0.50 mm); are the two swapped?" in warning for warning in outcome.warnings
    )


def test_a_pair_that_is_not_alike_is_warned_of_where_edges_cannot_tell(tmp_path, pair, run):
    target, reference = pair(2, (60, 60, 32))  # slices too small for edges, but a few thousand voxels would be too few
    noise = np.random.default_rng(9).uniform(1, 100, reference.data.shape).astype(np.float32)
    warned = []
    for volume in (reference, reference.on(reference.grid, noise)):
        files = write_volume(tmp_path / "a.nii", target), write_volume(tmp_path / "b.nii", volume)
        outcome = run(Case("one", *files, tmp_path / "c.nii"), dry_run=True)
        warned.append(any("target and reference are hardly alike" in warning for warning in outcome.warnings))
    assert warned == [False, True]
    assert any("too small or too smooth to check whether the reference fits" in warning for warning in outcome.warnings)


def test_a_target_that_the_scanner_interpolated_is_warned_of(tmp_path, pair, run):
    target, reference = pair(2, (80, 88, 4))
    noisy = target.data + np.random.default_rng(0).normal(0, 5, target.data.shape).astype(np.float32)
    low = truncate(torch.from_numpy(noisy).movedim(2, 0), 2)
    interpolated = zero_fill(low, 2).movedim(0, 2).contiguous().numpy()
    outcomes = []
    for data in (interpolated, noisy):
        files = write_volume(tmp_path / "a.nii", Volume(data, target.affine)), write_volume(tmp_path / "b.nii", reference)
        outcomes.append(run(Case("one", *files, tmp_path / "c.nii"), overwrite="always"))
    found = [[note for note in outcome.notes if "outer k-space" in note] for outcome in outcomes]
    assert [len(warnings) for warnings in found] == [1, 0]
    assert found[0][0].startswith(
        "measured 21 x 23 of 80 x 88 (left-right x front-back); outer k-space is empty: interpolated by the scanner"
    )
    assert any("that the scanner interpolated the target, it does not know" in warning for warning in outcomes[0].warnings)
    for outcome in outcomes:  # what was measured is put back, and nothing else
        assert outcome.record["data_consistency"]["applied"] and outcome.record["data_consistency"]["residual"] < 1e-6


def test_a_target_without_a_positive_voxel_is_refused(tmp_path, pair, run):
    target, reference = pair(2)
    dark = target.on(target.grid, -target.data)
    case = Case("one", write_volume(tmp_path / "a.nii", dark), write_volume(tmp_path / "b.nii", reference), tmp_path / "c.nii")
    with pytest.raises(Fault, match=r"a\.nii: no positive voxel\. Fix: check the export"):
        run(case)


def test_an_axis_that_does_not_exist_is_a_usage_fault(case, run):
    with pytest.raises(Fault, match=r"--through-plane: 3 is not known \(need one of 0, 1, 2, None\)"):
        run(case, {"through_plane": 3})


# What stands at the output


def test_an_output_that_exists_is_left_alone_by_default(case, run):
    run(case)
    before = folder_of(case.output)
    outcome = run(case, {"scale": 2})
    assert (outcome.status, outcome.message) == ("done before", "the output exists (--overwrite stale or always redoes it)")
    assert folder_of(case.output) == before


def test_stale_skips_what_is_up_to_date_and_always_redoes_it(case, run):
    run(case)
    assert run(case, overwrite="stale").message == "the output is up to date"
    assert run(case, overwrite="always").status == "done"


def new_input(case, role):
    path = getattr(case, role)
    volume = read_nifti(path)
    write_volume(path, volume.on(volume.grid, volume.data * 1.1))


@pytest.mark.parametrize("role", ["target", "reference"])
def test_stale_redoes_a_case_whose_input_changed(case, run, role):
    run(case)
    new_input(case, role)
    assert run(case, overwrite="stale").status == "done"
    assert run(case, overwrite="stale").status == "done before"


@pytest.mark.parametrize(
    ("placing", "options"),
    [({"scale": 2}, {}), ({}, {"data_consistency": False}), ({"register": "rigid"}, {}), ({"read": api.ReadOptions(nan_to_num=True)}, {})],
)
def test_stale_redoes_a_case_whose_options_changed(case, run, placing, options):
    run(case)
    assert run(case, placing, overwrite="stale", **options).status == "done"
    assert run(case, placing, overwrite="stale", **options).status == "done before"


def test_stale_redoes_a_case_whose_model_changed(case, run, weights, zero_weights):
    run(case)
    assert run(case, model=zero_weights[2], overwrite="stale").status == "done"


def test_stale_redoes_a_case_that_was_run_at_another_scale(case, run, weights):
    run(case)
    outcome = run(case, {"scale": 4}, weights[4], overwrite="stale")
    assert (outcome.status, outcome.record["scale"]) == ("done", 4)


def test_stale_redoes_a_case_whose_transform_changed(tmp_path, case, run):
    transform = tmp_path / "placement.txt"
    lines = "#Insight Transform File V1.0\n#Transform 0\nTransform: TranslationTransform_double_3_3\nParameters: {} 0 0\nFixedParameters:\n"
    transform.write_text(lines.format(0), encoding="utf-8")
    case = dataclasses.replace(case, transform=transform)
    run(case)
    assert run(case, overwrite="stale").status == "done before"
    transform.write_text(lines.format(1), encoding="utf-8")
    assert run(case, overwrite="stale").status == "done"


def damaged(case):
    case.output.write_bytes(case.output.read_bytes()[:-9])


def without_record(case):
    side_files(case.output)[0].unlink()


def with_an_odd_record(case):
    side_files(case.output)[0].write_text('{"software": {"hftn_sr": "0"}, "scale": 2, "output": []}', encoding="utf-8")


@pytest.mark.parametrize("change", [damaged, without_record, with_an_odd_record])
def test_stale_redoes_a_case_whose_output_does_not_verify(case, run, change):
    run(case)
    right = case.output.read_bytes()
    change(case)
    assert run(case, overwrite="stale").status == "done"
    assert case.output.read_bytes() == right


@pytest.fixture
def written(monkeypatch):
    """The files that a run writes, in order; the one with number `fail_at` ends in `error`."""

    class Written(list):
        fail_at = None
        error = OSError

    seen = Written()
    replace = Path.replace

    def noted(temporary, path):
        if len(seen) == seen.fail_at:
            raise seen.error
        seen.append(path)
        return replace(temporary, path)

    monkeypatch.setattr(Path, "replace", noted)
    return seen


def test_a_case_is_done_again_after_a_run_that_was_killed_before_its_output_stood(case, run, written):
    run(case, preview=True)
    order = list(written)
    assert set(order) == {case.output, *side_files(case.output)}
    assert order[-1] == case.output
    for left in (1, 2):
        for path in order[left:]:
            path.unlink()
        assert run(case).status == "done"
        run(case, preview=True, overwrite="always")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_run_that_cannot_finish_saving_leaves_nothing(case, run, written, number, error):
    before = folder_of(case.output)
    written.fail_at, written.error = number, error
    with pytest.raises((Fault, KeyboardInterrupt)):
        run(case, preview=True)
    assert folder_of(case.output) == before


def test_a_run_that_cannot_finish_saving_leaves_the_old_output_and_is_redone(case, run, written):
    run(case)
    old = case.output.read_bytes()
    written.fail_at, written.error = len(written) + 1, OSError(28, "No space left on device")
    with pytest.raises(Fault, match="no space left on the disk"):
        run(case, data_consistency=False, overwrite="always")
    assert case.output.read_bytes() == old
    written.fail_at = None
    assert run(case, data_consistency=False, overwrite="stale").status == "done"


def test_an_output_that_is_an_input_is_refused(case, run):
    for path in (case.target, case.reference):
        with pytest.raises(Fault, match=r"is an input, it would be overwritten\. Fix: choose another --output"):
            run(dataclasses.replace(case, output=path), overwrite="always")


def test_an_output_that_is_an_input_by_another_name_is_refused(case, run):
    link = case.output.with_name("link.nii.gz")
    os.link(case.target, link)
    with pytest.raises(Fault, match="is an input"):
        run(dataclasses.replace(case, output=link), overwrite="always")


@pytest.mark.parametrize("name", ["result.mha", "result", ".nii.gz"])
def test_an_output_that_is_no_nifti_name_is_refused(case, run, name):
    with pytest.raises(Fault, match="not a NIfTI file name"):
        run(dataclasses.replace(case, output=case.output.with_name(name)))


def test_an_output_that_is_a_folder_is_refused(case, run):
    case.output.mkdir()
    with pytest.raises(Fault, match="is a folder, a file name is needed"):
        run(case)


def test_an_output_below_a_file_is_refused_before_the_model_is_loaded(case):
    def unwanted(_):
        raise AssertionError

    with pytest.raises(Fault, match="cannot be written"):
        run_case(dataclasses.replace(case, output=case.target / "result.nii.gz"), RunOptions(), unwanted)


def test_an_output_that_is_a_link_is_replaced_and_its_target_left_alone(case, run):
    other = case.output.with_name("precious.txt")
    other.write_text("precious", encoding="utf-8")
    case.output.symlink_to(other)
    assert run(case).status == "skipped"
    assert run(case, overwrite="always").status == "done"
    assert not case.output.is_symlink()
    assert other.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("content", ['{"RepetitionTime": 2}', "[]", '{"software": null}', "not JSON"])
def test_another_program_s_json_beside_the_output_is_not_overwritten(case, run, content):
    side_file = side_files(case.output)[0]
    side_file.write_text(content, encoding="utf-8")
    with pytest.raises(Fault, match=r"result\.json: stands where this run would write, and is not of this program"):
        run(case, overwrite="stale")
    assert side_file.read_text(encoding="utf-8") == content
    assert not case.output.exists()


def test_two_runs_do_not_write_one_output(case, run):
    with FileLock(case.output.with_name(f".{case.output.name}.lock")), pytest.raises(Fault, match="another run is writing this file"):
        run(case)
    assert run(case).status == "done"


def test_a_failed_case_leaves_nothing(case, run):
    case.reference.write_bytes(b"")
    before = folder_of(case.output)
    with pytest.raises(Fault, match="empty file"):
        run(case, preview=True)
    assert folder_of(case.output) == before


def test_a_redo_that_cannot_be_written_leaves_the_old_volume_with_its_old_record_and_picture(case, run, monkeypatch):
    run(case, preview=True)
    before = folder_of(case.output)
    monkeypatch.setattr("os.fsync", fail_at_the_last_of(3))
    with pytest.raises(Fault, match="no space left on the disk"):
        run(case, preview=True, overwrite="always", data_consistency=False)
    assert folder_of(case.output) == before


def fail_at_the_last_of(files):
    """An fsync of a disk that is full when so many files are to be written."""
    calls = iter(range(files))

    def fsync(_):
        if next(calls) == files - 1:
            raise OSError(28, "No space left on device")

    return fsync


def test_what_a_killed_run_left_of_its_files_is_cleared_away(case, run):
    stray, other = (case.output.with_name(name) for name in (f".{case.output.name}.0123abcd.part", ".other.nii.gz.0123abcd.part"))
    for path in (stray, other):
        path.write_bytes(b"half")
    run(case)
    assert not stray.exists()
    assert other.exists()


def test_the_same_image_in_another_container_is_refused(case, run):
    image = nib.load(case.target)
    nib.save(image, case.reference.with_name("same.nii"))
    with pytest.raises(Fault, match="is the same image as the target"):
        run(dataclasses.replace(case, reference=case.reference.with_name("same.nii")))


def test_a_misspelt_choice_is_refused_and_not_taken_for_another(case, run):
    run(case)
    before = folder_of(case.output)
    for options in ({"overwrite": "nevr"}, {"pair": {"register": "ridgid"}}, {"pair": {"through_plane": 3}}):
        with pytest.raises(UsageFault, match="is not known"):
            run(case, **options)
    with pytest.raises(UsageFault, match=r"--device: 'gpu' is not known \(need one of auto, cpu, cuda\)"):
        choose_device("gpu")
    assert folder_of(case.output) == before


def test_a_redo_without_a_picture_takes_the_outdated_one_away(case, run):
    run(case, preview=True)
    assert side_files(case.output)[1].exists()
    run(case, preview=False, overwrite="always", data_consistency=False)
    assert not side_files(case.output)[1].exists()


def test_two_outputs_that_would_share_a_record_are_refused(case, run):
    run(case)
    before = folder_of(case.output)
    other = dataclasses.replace(
        case, output=case.output.with_suffix("") if case.output.suffix == ".gz" else case.output.with_suffix(".nii.gz")
    )
    with pytest.raises(Fault, match=r"is the record of result\.nii.*, which would lose it"):
        run(other, overwrite="always")
    assert folder_of(case.output) == before


def test_a_model_trained_with_another_decomposition_is_refused(case, run, weights, tmp_path):
    other = tmp_path / "other.safetensors"
    save_weights(other, load_model(str(weights[2]), 2).network, {"decomposition": "none"})
    with pytest.raises(Fault, match="was trained with the decomposition 'none', the pair is split by 'band'"):
        run(case, model=other)
    assert not case.output.exists()


def test_a_network_whose_output_is_not_finite_leaves_nothing(case, run, monkeypatch):
    before = folder_of(case.output)
    monkeypatch.setattr(run_module, "apply_network", lambda *_: torch.full((40, 44, 4), torch.nan))
    with pytest.raises(Fault, match="the network's output is not finite"):
        run(case, preview=True)
    assert folder_of(case.output) == before


def test_a_dry_run_checks_everything_and_writes_nothing(tmp_path, case, run):
    case = dataclasses.replace(case, output=tmp_path / "new folder" / "result.nii.gz")
    before = sorted(tmp_path.rglob("*"))
    outcome = run(case, dry_run=True, preview=True)
    assert outcome.status == "planned"
    assert outcome.message == "would write 40 x 44 x 4 voxels of 1 x 1 x 3 mm: measured 20 x 22 of 40 x 44 (left-right x front-back)"
    assert outcome.record["coverage"] == 1
    assert sorted(tmp_path.rglob("*")) == before
    case.reference.write_bytes(b"")
    with pytest.raises(Fault, match="empty file"):
        run(case, dry_run=True)


def test_progress_is_reported_slice_by_slice(case, weights):
    class Heard(Reporter):
        slices = advance = lambda self, count: heard.append(count)

    heard = []
    run_case(case, RunOptions(preview=False), lambda scale: load_model(str(weights[scale]), scale), Heard())
    assert heard == [4, 1, 1, 1, 1]


def test_the_voxels_of_a_saved_result_are_handed_to_the_reporter(case, weights):
    class Keeping(Reporter):
        def saved(self, case, images):
            kept.append((case.output.is_file(), images.target.data, images.result))

    kept = []
    run_case(case, RunOptions(preview=False), lambda scale: load_model(str(weights[scale]), scale), Keeping())
    ((stands, target, result),) = kept
    assert stands
    np.testing.assert_array_equal(target, read_nifti(case.target).data)
    np.testing.assert_array_equal(result.data, read_nifti(case.output).data)
    np.testing.assert_allclose(result.affine, read_nifti(case.output).affine, atol=1e-4)


def test_weights_of_another_scale_are_refused(case, run, weights):
    with pytest.raises(Fault, match=r"these weights are for scale 4, scale 2 is needed\. Fix: --scale 4"):
        run(case, model=weights[4])
    assert not case.output.exists()


def test_the_function_of_the_api_does_the_same_and_says_when_nothing_was_left_to_do(case, weights):
    outcome = api.super_resolve(case.target, str(case.reference), case.output, model=str(weights[2]), device="cpu", preview=False)
    assert outcome.record["output"]["shape"] == [40, 44, 4]
    with pytest.raises(Fault, match=r"result\.nii\.gz: the output exists .*Fix: choose another output or overwrite"):
        api.super_resolve(case.target, case.reference, case.output, model=str(weights[2]), device="cpu")


def test_the_record_of_the_model_can_hold_anything_that_json_holds(tmp_path, case, run, weights):
    network = load_model(str(weights[2]), 2).network
    save_weights(tmp_path / "w.safetensors", network, {"gain": {"psnr": 1.5}, "名": ["é"], "start": {"sha256": "a", "seed": 1}})
    kept = {"gain": {"psnr": 1.5}, "名": ["é"], "start": {"sha256": "a"}}
    assert run(case, model=tmp_path / "w.safetensors").record["model"]["training"] == kept


@pytest.mark.parametrize(("moved", "warned"), [(0.0, False), (4.0, True)])
def test_a_reference_whose_header_puts_it_elsewhere_is_warned_of(tmp_path, moved, warned):
    """The built-in pair, the reference's header moved by so many mm."""
    sample = Path(hftn_sr.__file__).parent / "sample"
    api.degrade(sample / "synthetic_target.nii.gz", tmp_path / "low.nii.gz", scale=2)
    image = nib.load(sample / "synthetic_reference.nii.gz")
    affine = image.affine.copy()
    affine[0, 3] += moved
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), tmp_path / "reference.nii.gz")
    moved_case = Case("one", tmp_path / "low.nii.gz", tmp_path / "reference.nii.gz", tmp_path / "result.nii.gz")
    options = RunOptions("small", dry_run=True, pair=PairOptions(scale=2, register="none"))
    outcome = run_case(moved_case, options, lambda scale: load_model("small", scale))
    assert any("--register rigid" in warning for warning in outcome.warnings) is warned
    assert (outcome.record["alignment"]["displacement_voxels"] > 2) is warned
    assert outcome.record["reference"]["used"] is not warned


@pytest.mark.parametrize("cropped", [0, 3])
def test_a_right_pair_has_notes_and_no_warning(tmp_path, cropped):
    """The commands of the README on the shipped pair, its reference as it is and with some of its rows cut off."""
    sample = Path(hftn_sr.__file__).parent / "sample"
    low = api.degrade(sample / "synthetic_target.nii.gz", tmp_path / "low.nii.gz", scale=2)
    reference = read_nifti(sample / "synthetic_reference.nii.gz")
    shape = tuple(np.subtract(reference.data.shape, (cropped, 0, 0)))
    part = reference.on(reference.grid.cropped((cropped, 0, 0), shape), reference.data[cropped:])
    case = Case("one", low, write_volume(tmp_path / "reference.nii.gz", part), tmp_path / "result.nii.gz")
    outcome = run_case(case, RunOptions("small", dry_run=True), lambda scale: load_model("small", scale))
    assert outcome.warnings == () and outcome.record["warnings"] == []
    assert "; scale 2: voxel sizes are 2.13 x 2.13 times the reference's; voxels of the result: " in outcome.notes[0]
    expected = (
        "of the target; elsewhere",
        "is outside what the network was trained on",
    )
    assert [note for note in outcome.notes[1:] if not any(words in note for words in expected)] == []
    assert (len(outcome.notes) == 2) is (outcome.record["coverage"] < 1)
