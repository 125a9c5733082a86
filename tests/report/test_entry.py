"""What the QC page says and shows of a case is what the files say."""

from __future__ import annotations

import base64
import gzip
import io
import json

import matplotlib.image
import nibabel as nib
import numpy as np
import pytest
import torch
from filelock import FileLock

from hftn_sr import api
from hftn_sr.acquisition import Acquisition
from hftn_sr.errors import Fault
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.case import Case, Outcome
from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.report import viewer
from hftn_sr.report.case import Images, QcCase, cases_of_run, open_images
from hftn_sr.report.entry import make_entry, read_entry
from hftn_sr.report.pictures import LARGEST, cropped, draw_strips, find_extent
from hftn_sr.report.viewer import embed
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.simulation import degrade
from phantoms import phantom, write_volume

SHAPE = (64, 72, 10)


@pytest.fixture(scope="module")
def made(tmp_path_factory, weights):
    """A case that was run, with its truth; the reference was moved by a transform."""
    folder = tmp_path_factory.mktemp("made")
    truth, reference = phantom(SHAPE), phantom((60, 66, 12), (1.1, 1.1, 2.5), "reference")
    noise = np.random.default_rng(0).normal(0, 2, SHAPE).astype(np.float32)
    target = write_volume(folder / "target.nii.gz", degrade(truth.on(truth.grid, truth.data + noise), 2, 2))
    moved = reference.affine.copy()
    moved[:3, 3] += (5, -3, 2)  # the file lies elsewhere, and the transform says so
    other = write_volume(folder / "reference.nii.gz", reference.on(type(reference.grid)(reference.grid.shape, moved), reference.data))
    transform = folder / "move.txt"
    transform.write_text(
        "#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\n"
        "Parameters: 1 0 0 0 1 0 0 0 1 -5 3 2\nFixedParameters: 0 0 0\n"
    )  # LPS: x and y are negated
    output = folder / "results" / "target_sr.nii.gz"
    api.super_resolve(target, other, output, scale=2, model=str(weights[2]), reference_transform=transform)
    return QcCase("patient", output, target, other, transform, write_volume(folder / "truth.nii.gz", truth))


def record_of(case):
    return json.loads(case.output.with_name("target_sr.json").read_text(encoding="utf-8"))


@pytest.fixture
def images(made):
    return open_images(made, record_of(made))


def entry_of(case, folder):
    return make_entry(case, case.output.parent, folder)


def halved(low):
    """What is kept of an image of twice the samples of `low` along both in-plane axes."""
    grid = low.grid.finer(2, 2)
    return Acquired(grid, 2, Acquisition.from_matrix(low.data.shape, grid.shape), low.data.shape, "as asked")


# Images


def test_the_zero_filled_target_and_what_was_added_are_those_of_the_files(images):
    slab = images.slab(3, 4)
    result = torch.from_numpy(np.moveaxis(images.result.data[..., 3:7], 2, 0).copy())
    target = torch.from_numpy(np.moveaxis(images.target.data[..., 3:7], 2, 0).copy())
    np.testing.assert_allclose(slab.zero_filled.data, np.moveaxis(zero_fill(target, 2).numpy(), 0, 2), atol=1e-3)
    high = result - zero_fill(truncate(result, 2), 2)
    np.testing.assert_allclose(slab.added.data, np.moveaxis(high.numpy(), 0, 2), atol=1e-3)
    assert np.abs(slab.added.data).max() > 1  # the network does add something
    assert truncate(torch.from_numpy(np.moveaxis(slab.added.data, 2, 0).copy()), 2).abs().max() < 1e-3


def test_the_reference_lies_where_its_transform_puts_it(images):
    slab = images.slab(0, 10)
    expected = phantom(SHAPE, kind="reference").data
    inner = (slice(12, -12), slice(12, -12), slice(2, -2))
    assert np.abs(slab.reference.data[inner] - expected[inner]).max() < 0.05 * expected.max()


@pytest.mark.parametrize(("role", "cure"), [("target", "run the case again"), ("reference", "run the case again")])
def test_a_file_that_has_changed_since_is_not_shown_as_if_it_were_the_one(made, tmp_path, role, cure):
    other = write_volume(tmp_path / "other.nii.gz", phantom((32, 36, 10), (2, 2, 3)))
    changed = QcCase(**{**vars(made), role: other})
    entry = entry_of(changed, tmp_path / "files")
    assert (entry["pictures"], entry["viewer"], entry["figures"]) == (None, None, None)
    assert entry["warnings"][-1] == (f"{other}: no pictures, this is not the file that the record tells of (another sha256). Fix: {cure}.")
    assert entry["summary"]["acquired"].startswith("measured ")  # the record still speaks


def test_a_result_too_large_to_be_held_is_a_finding_without_pictures(made, monkeypatch):
    monkeypatch.setattr("hftn_sr.report.case.IN_MEMORY", 1000)
    with pytest.raises(Fault, match="too large for the page"):
        open_images(made, record_of(made))


def test_without_its_transform_a_placed_reference_is_not_guessed_at(made, tmp_path):
    entry = entry_of(QcCase(**{**vars(made), "transform": None}), tmp_path)
    assert "the transform move.txt that placed it is not known" in entry["warnings"][-1]
    assert entry["pictures"] is None


def test_without_the_target_there_is_the_record_and_a_finding(made, tmp_path):
    entry = entry_of(QcCase(made.name, made.output), tmp_path)
    assert "the target that it was made from is not known" in entry["warnings"][-1]
    assert dict(entry["facts"])["Model sha256"] == record_of(made)["model"]["sha256"]


def test_without_the_reference_the_rest_is_shown(made, tmp_path):
    entry = entry_of(QcCase(made.name, made.output, made.target), tmp_path)
    assert "the reference's file is not known, its pictures stay black" in entry["warnings"]
    strip = matplotlib.image.imread(tmp_path / entry["pictures"]["slices"][0]["file"])
    width = entry["pictures"]["size"][0]
    assert strip[:, 4 * width : 5 * width, :3].max() == 0 < strip[:, :width, :3].max()
    assert '"reference": null' in (tmp_path / entry["viewer"]["file"]).read_text()


def test_a_reference_that_was_not_used_is_not_shown_as_if_it_had_been(made, tmp_path):
    record = record_of(made) | {"reference": {**record_of(made)["reference"], "used": False}}
    assert open_images(made, record).reference is None
    copy = QcCase(**{**vars(made), "output": tmp_path / "target_sr.nii.gz"})
    copy.output.write_bytes(made.output.read_bytes())
    (tmp_path / "target_sr.json").write_text(json.dumps(record), encoding="utf-8")
    entry = entry_of(copy, tmp_path / "files")
    assert entry["pictures"]["reference"] == "No reference"
    assert dict(entry["facts"])["Reference used"] == "no, the network got none"
    assert not any("stay black" in warning for warning in entry["warnings"])


def test_a_result_without_a_reference_has_its_entry(made, tmp_path, weights):
    output = tmp_path / "target_sr.nii.gz"
    api.super_resolve(made.target, None, output, scale=2, model=str(weights[2]))
    entry = entry_of(QcCase("alone", output, made.target), tmp_path / "files")
    assert (entry["summary"]["similarity"], dict(entry["facts"])["Reference"]) == ("–", "none")
    assert entry["pictures"]["reference"] == "No reference"
    assert entry["warnings"] == json.loads((tmp_path / "target_sr.json").read_text())["warnings"]


# Pictures


def test_the_extent_is_the_head_and_its_slices():
    volume = phantom(SHAPE)
    data = np.zeros(SHAPE, np.float32)
    data[20:40, 30:50, 2:8] = 100
    data[20:30, 30:40, 1] = 100  # a sliver
    extent = find_extent(volume.on(volume.grid, data), 2)
    assert extent.box == (slice(16, 44), slice(26, 54), slice(0, 10))
    assert extent.slices == (2, 3, 4, 6, 7)
    assert extent.middle == 4


def test_an_image_without_signal_is_a_finding_and_no_traceback(images):
    with pytest.raises(ValueError, match="positive"):
        find_extent(images.result.on(images.result.grid, np.zeros(SHAPE, np.float32)), 2)


def test_a_strip_holds_its_pictures_in_order_with_one_window_for_target_and_result(images):
    extent = find_extent(images.result, 2)
    strips = draw_strips(images, extent)
    assert len(strips.files) == len(extent.slices) == 5
    width, height = strips.size
    strip = matplotlib.image.imread(io.BytesIO(strips.files[0]))
    assert strip.shape[:2] == (height, 5 * width)
    target, result, added, detail, reference = (strip[:, place * width : (place + 1) * width] for place in range(5))
    slab = images.slab(extent.slices[0], 1)
    box = (*extent.box[:2], slice(0, 1))
    for drawn, volume in ((target, slab.zero_filled), (result, slab.result)):
        expected = np.clip(cropped(volume, box).data / strips.white, 0, 1)
        assert np.sort(drawn[..., 0].ravel()) == pytest.approx(np.sort(expected.ravel()), abs=0.01)
        assert (drawn[..., 0] == drawn[..., 2]).all()
    assert np.abs(reference - target).max() > 0.2
    for coloured in (added, detail):
        assert (coloured[..., 0] != coloured[..., 2]).any()


def test_the_expected_error_is_a_sixth_picture_on_the_scale_of_the_added_detail(images):
    extent = find_extent(images.result, 2)
    peak = float(images.target.data.max())
    error = images.result.on(images.result.grid, np.full(SHAPE, 0.05 * peak, np.float32))  # 5 %, the end of the scale
    error.data[:, :32] = 0
    strips = draw_strips(images, extent, error)
    strip = matplotlib.image.imread(io.BytesIO(strips.files[0]))
    assert strips.count == 6 and strip.shape[1] == 6 * strips.size[0]
    seen = strip[:, 5 * strips.size[0] :]
    assert seen.min() < 0.02 and seen[..., 0].max() > 0.95


def test_the_reference_s_detail_is_what_its_slices_hold_beyond_the_measured_band(images):
    slab = images.slab(3, 2)
    reference = torch.from_numpy(np.moveaxis(slab.reference.data, 2, 0).copy())
    high = reference - zero_fill(truncate(reference, 2), 2)
    np.testing.assert_allclose(slab.detail.data, np.moveaxis(high.numpy(), 0, 2), atol=1e-3)


@pytest.mark.parametrize(("spacing", "size"), [((1.0, 1.0, 3.0), (40, 20)), ((2.0, 1.0, 3.0), (80, 20)), ((0.25, 0.5, 3.0), (40, 40))])
def test_pictures_have_the_proportions_of_the_head(spacing, size):
    low = phantom((20, 10, 1), (2 * spacing[0], 2 * spacing[1], 3.0), degrees=(0, 0, 0))
    full = phantom((40, 20, 1), spacing, degrees=(0, 0, 0))
    bright = full.on(full.grid, np.full(full.data.shape, 100, np.float32))
    images = Images(low, None, bright, halved(low))
    assert draw_strips(images, find_extent(bright, 2)).size == size


def test_a_large_slice_is_drawn_smaller():
    side = 2 * LARGEST
    full = phantom((side, side // 2, 1), (0.2, 0.2, 3.0), degrees=(0, 0, 0))
    low = phantom((side // 2, side // 4, 1), (0.4, 0.4, 3.0), degrees=(0, 0, 0))
    bright = full.on(full.grid, np.full(full.data.shape, 100, np.float32))
    assert draw_strips(Images(low, None, bright, halved(low)), find_extent(bright, 2)).size == (LARGEST, LARGEST // 2)


# Viewer


def embedded_volumes(script):
    content = json.loads(script.decode().partition("] = ")[2].rstrip(";\n"))
    return content, {role: nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data))) for role, data in content["volumes"].items()}


def test_the_viewer_gets_the_three_images_in_their_place_and_unit(images):
    extent = find_extent(images.result, 2)
    content, volumes = embedded_volumes(embed(images, extent, "case_1").script)
    assert (content["plane"], content["first"]) == ("axial", 0)
    assert set(volumes) == {"target", "reference", "result"}
    slab = images.slab(0, 10)
    for role, volume in (("target", slab.zero_filled), ("reference", slab.reference), ("result", slab.result)):
        part, seen = cropped(volume, extent.box), volumes[role]
        np.testing.assert_allclose(seen.affine, part.affine, atol=1e-4)
        assert seen.get_data_dtype() == np.uint8
        white = float(seen.header["cal_max"])
        np.testing.assert_allclose(seen.get_fdata(), np.clip(part.data, 0, white), atol=white / 255)


def test_the_viewer_s_part_is_bounded_and_lies_around_the_middle_of_the_head(images, monkeypatch):
    extent = find_extent(images.result, 2)
    area = np.prod([part.stop - part.start for part in extent.box[:2]])
    monkeypatch.setattr(viewer, "VOXELS", int(area * 3.5))
    three = embed(images, extent, "x")
    assert three.count == 3
    assert three.first <= extent.middle < three.first + 3
    monkeypatch.setattr(viewer, "VOXELS", int(area / 4))
    quarter = embed(images, extent, "x")
    _, volumes = embedded_volumes(quarter.script)
    assert quarter.count == 1
    assert area / 5 < np.prod(volumes["result"].shape) <= area / 4


def test_the_result_itself_stays_as_it_is(made, tmp_path):
    before = made.output.read_bytes()
    entry_of(made, tmp_path)
    assert made.output.read_bytes() == before


# Entry


def test_the_entry_says_what_the_record_and_the_figures_say(made, tmp_path):
    entry, record = entry_of(made, tmp_path), record_of(made)
    facts = dict(entry["facts"])
    assert entry["warnings"] == record["warnings"]
    consistency = record["data_consistency"]
    assert facts["Residual"].startswith(
        f"{consistency['residual_of_network']:.4g} in the network's output, {consistency['residual']:.4g} after"
    )
    assert facts["Similarity of the pair"].startswith(str(record["similarity"]["value"]))
    assert facts["Model sha256"] == record["model"]["sha256"]
    assert facts["Transform given"] == "move.txt"
    assert entry["summary"]["seconds"] == f"{sum(record['seconds'].values()):.1f}"
    scores = api.evaluate(made.output, made.truth)
    ours = entry["figures"]["rows"][1]
    assert (ours["psnr"], ours["ssim"], ours["nmse"]) == (f"{scores['psnr']:.2f}", f"{scores['ssim']:.4f}", f"{scores['nmse']:.5f}")
    assert (entry["figures"]["protocol"], entry["figures"]["truth"]) == ("corrected", "truth.nii.gz")
    assert read_entry(tmp_path / entry["key"]) == entry


def test_a_truth_on_another_grid_is_a_finding(made, tmp_path):
    other = write_volume(tmp_path / "truth.nii.gz", phantom((64, 72, 10), (1.1, 1.0, 3.0)))
    entry = entry_of(QcCase(**{**vars(made), "truth": other}), tmp_path)
    assert "does not coincide" in entry["warnings"][-1]
    assert entry["figures"] is None
    assert entry["pictures"]


def test_an_entry_is_made_anew_only_where_something_changed(made, tmp_path):
    entry = entry_of(made, tmp_path)
    drawn = tmp_path / entry["pictures"]["slices"][0]["file"]
    drawn.write_bytes(b"kept")
    assert entry_of(made, tmp_path) == entry
    assert drawn.read_bytes() == b"kept"
    without = entry_of(QcCase(**{**vars(made), "truth": None}), tmp_path)
    assert without["figures"] is None
    assert drawn.read_bytes() != b"kept"
    drawn.unlink()
    entry_of(QcCase(**{**vars(made), "truth": None}), tmp_path)
    assert drawn.is_file()


def test_the_lock_of_a_process_that_was_killed_after_writing_an_entry_goes(made, tmp_path):
    entry = entry_of(made, tmp_path)
    lock = tmp_path / entry["key"] / ".entry.json.lock"
    lock.touch()
    assert entry_of(made, tmp_path) == entry and not lock.exists()
    with FileLock(lock):
        assert entry_of(made, tmp_path) == entry and lock.exists(), "another run has it"


def test_pictures_of_an_entry_that_has_none_any_more_go(made, tmp_path):
    folder = tmp_path / entry_of(made, tmp_path)["key"]
    assert {path.suffix for path in folder.iterdir()} == {".json", ".png", ".js"}
    entry_of(QcCase(made.name, made.output), tmp_path)
    assert [path.name for path in folder.iterdir()] == ["entry.json"]


def test_the_cases_of_a_run_carry_their_inputs_and_outcomes(tmp_path):
    case = Case("a", tmp_path / "t.nii", tmp_path / "r.nii", tmp_path / "o.nii", tmp_path / "x.txt")
    outcomes = [Outcome("b", "failed", tmp_path / "p.nii", "empty"), Outcome("a", "skipped", case.output, "exists")]
    assert cases_of_run([case], outcomes) == [
        QcCase("b", tmp_path / "p.nii", status="failed", message="empty"),
        QcCase("a", case.output, case.target, case.reference, case.transform, None, "skipped", "exists"),
    ]


def test_the_embedded_result_is_what_a_reader_of_the_output_sees(made, images):
    extent = find_extent(images.result, 2)
    _, volumes = embedded_volumes(embed(images, extent, "x").script)
    stored = cropped(read_nifti(made.output), extent.box).data
    shown = volumes["result"].get_fdata()
    assert np.corrcoef(stored.ravel(), shown.ravel())[0, 1] > 0.999
