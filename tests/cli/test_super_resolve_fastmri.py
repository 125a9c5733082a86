"""`super-resolve` on fastMRI files, which do not say where they lie: slice i belongs to slice i."""

import json

import numpy as np
import pytest
import torch

from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.report.case import QcCase, open_images
from hftn_sr.volumes.nifti import read_nifti
from knees import HEADER, knee, write_knee

SHORT = HEADER.replace("<x>32", "<x>16").replace("<y>24", "<y>12")


@pytest.fixture
def scans(tmp_path):
    """A short PDFS scan of five slices and a long PD scan of four, of one field of view: target, reference, images of the target."""
    images = truncate(torch.from_numpy(knee(slices=5)), 2).clamp(min=0).numpy()  # (5, 16, 12), a smaller part of the same k-space
    target = write_knee(tmp_path / "pdfs.h5", images, kspace=np.zeros((5, 32, 18)), header=SHORT, acquisition="CORPDFS_FBK")
    reference = write_knee(tmp_path / "pd.h5", knee(slices=4) ** 2)
    return target, reference, images


@pytest.fixture
def run(command, zero_weights, scans, tmp_path):
    """Runs zero-filling, so that what comes is known; further arguments come last."""

    def of(*arguments, pair=scans[:2]):
        named = ("--target", pair[0], "--reference", pair[1], "--output", tmp_path / "out.nii.gz", "--model", zero_weights[2])
        return command("super-resolve", *named, "--device", "cpu", "--no-preview", *arguments)

    return of


def test_two_h5_files_are_paired_by_index_and_super_resolved(scans, run, tmp_path):
    result = run()
    assert result.exit_code == 0, result.stderr
    assert "5 and 4 slices paired up to the shorter, 4" in result.stderr
    assert "position and signs of the axes are not in the file" in result.stderr
    volume = read_nifti(tmp_path / "out.nii.gz")
    expected = zero_fill(torch.from_numpy(scans[2][:4]), 2).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(volume.data, expected, atol=1e-4)
    np.testing.assert_allclose(volume.grid.spacing, [140 / 32, 105 / 24, 3.5], rtol=1e-5)
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (record["scale"], record["placement"]["by"], record["coverage"]) == (2, "index", 1.0)
    assert (record["target"]["file"], record["reference"]["file"]) == ("pdfs.h5", "pd.h5")
    assert run("--overwrite", "stale").exit_code == 3  # the record knows both files again


def test_the_network_sees_reference_slice_i_with_target_slice_i(scans):
    from hftn_sr.inference.options import PairOptions
    from hftn_sr.inference.pair import prepare_pair

    for pair_by, same in (("auto", True), ("header", False)):  # by their headers the middles of four and five slices meet
        pair = prepare_pair(*scans[:2], PairOptions(pair_by=pair_by))
        shown = np.stack([pair.reference(index).numpy() for index in range(len(pair))])
        slices = (knee(slices=4) ** 2).transpose(0, 2, 1)  # the network sees right-left before head-foot
        assert np.allclose(shown[:4], slices, atol=1e-4) == same


def test_positions_decide_where_they_are_asked_for_or_a_transform_is_given(scans, run, tmp_path):
    assert run("--pair-by", "header").exit_code == 0
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["placement"]["by"] == "header"
    refused = run("--pair-by", "index", "--reference-transform", "a.tfm")
    assert (refused.exit_code, "--reference-transform: does not go with --pair-by index" in refused.stderr) == (2, True)


def test_converted_files_are_paired_by_index_where_asked(scans, run, command, tmp_path):
    run()
    direct = read_nifti(tmp_path / "out.nii.gz")
    assert command("convert", *scans[:2], "--output", tmp_path / "nifti").exit_code == 0
    converted = [tmp_path / "nifti" / f"{name}.nii.gz" for name in ("pdfs", "pd")]
    assert run("--pair-by", "index", "--overwrite", "always", pair=converted).exit_code == 0
    np.testing.assert_allclose(read_nifti(tmp_path / "out.nii.gz").data, direct.data, atol=1e-5)
    np.testing.assert_allclose(read_nifti(tmp_path / "out.nii.gz").affine, direct.affine, atol=1e-5)


def test_two_scans_of_full_resolution_are_refused_with_the_way_to_simulate_a_short_one(scans, run, command, tmp_path):
    whole = write_knee(tmp_path / "whole.h5", knee(seed=3))
    refused = run("--scale", 2, pair=(whole, scans[1]))
    assert refused.exit_code == 9
    assert "in-plane sizes [32, 24], the target" in refused.stderr
    assert "is made a target by hftn-sr degrade" in refused.stderr
    low = tmp_path / "low.nii.gz"
    assert command("degrade", "--input", whole, "--output", low, "--scale", 2).exit_code == 0
    assert run("--pair-by", "index", pair=(low, scans[1])).exit_code == 0
    scored = command("evaluate", "--prediction", tmp_path / "out.nii.gz", "--truth", whole)
    assert (scored.exit_code, "32 x 24 x 3 voxels compared" in scored.stdout) == (0, True)


def test_the_qc_page_shows_the_slices_that_the_network_saw(scans, run, tmp_path):
    assert run().exit_code == 0
    record = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    images = open_images(QcCase("knee", tmp_path / "out.nii.gz", *scans[:2]), record)
    slab = images.slab(0, 4)
    np.testing.assert_allclose(slab.reference.data, knee(slices=4).transpose(1, 2, 0) ** 2, atol=1e-4)
    np.testing.assert_allclose(slab.zero_filled.data, slab.result.data, atol=1e-4)
