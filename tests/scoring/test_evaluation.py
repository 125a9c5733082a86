"""Figures are taken on exactly the voxels that both volumes have, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from hftn_sr.errors import Fault
from hftn_sr.scoring.evaluation import common_part, evaluate_volumes
from hftn_sr.volumes.volume import Grid, Volume
from phantoms import oblique, phantom

TRUTH = phantom((20, 18, 6))


def crop(volume, start, shape):
    part = tuple(slice(begin, begin + size) for begin, size in zip(start, shape, strict=True))
    return volume.on(volume.grid.cropped(start, shape), volume.data[part])


def moved(volume, offset):
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ offset
    return volume.on(Grid(volume.grid.shape, affine), volume.data)


@pytest.mark.parametrize("start", [(0, 0, 0), (3, 1, 2)])
def test_a_crop_is_compared_on_its_own_voxels(start):
    ours, theirs = common_part(crop(TRUTH, start, (12, 10, 4)), TRUTH)
    assert ours.shape == (12, 10, 4)
    np.testing.assert_array_equal(ours, theirs)


def test_overlapping_crops_are_compared_where_they_overlap():
    first, second = crop(TRUTH, (0, 4, 0), (12, 14, 6)), crop(TRUTH, (5, 0, 1), (15, 10, 4))
    for ours, theirs in (common_part(first, second), common_part(second, first)):
        assert ours.shape == (7, 6, 4)
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, TRUTH.data[5:12, 4:10, 1:5])


@pytest.mark.parametrize("offset", [(0.3, 0, 0), (0, 0.02, 0), (0, 0, 0.5)])
def test_grids_that_lie_between_each_others_voxels_are_refused(offset):
    with pytest.raises(
        Fault, match=r"its grid does not coincide with that of .* \(up to 0\.\d+ voxels apart\)\. Fix: compare volumes of one grid"
    ):
        common_part(moved(TRUTH, offset), TRUTH)


@pytest.mark.parametrize(
    "affine",
    [oblique((1.001, 1, 3), shape=(20, 18, 6)), oblique((1, 1, 3), (8.1, -5, 12), (20, 18, 6)), TRUTH.affine @ np.diag([-1, 1, 1, 1])],
)
def test_grids_that_drift_apart_towards_their_corners_are_refused(affine):
    with pytest.raises(Fault, match="does not coincide"):
        common_part(Volume(TRUTH.data, affine), TRUTH)


def test_rounding_of_the_place_in_a_file_does_not_count():
    rounded = Volume(TRUTH.data, TRUTH.affine.astype(np.float32).astype(float))
    assert common_part(rounded, TRUTH)[0].shape == (20, 18, 6)


def test_volumes_without_a_common_voxel_are_refused():
    with pytest.raises(Fault, match="shares no voxel with"):
        common_part(moved(TRUTH, (40, 0, 0)), TRUTH)


def test_the_figures_are_those_of_the_common_voxels():
    rng = np.random.default_rng(1)
    noisy = TRUTH.on(TRUTH.grid, TRUTH.data + rng.normal(0, 5, TRUTH.data.shape).astype(np.float32))
    part = crop(noisy, (2, 3, 1), (14, 12, 4))
    result = evaluate_volumes(part, TRUTH)
    truth = TRUTH.data[2:16, 3:15, 1:5].astype(float)
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, part.data.astype(float), data_range=truth.max()), abs=1e-3)
    assert result["nmse"] == pytest.approx(((part.data - truth) ** 2).sum() / (truth**2).sum(), rel=1e-4)
    assert result["voxels_compared"] == [14, 12, 4]
    assert "maximum of the truth" in result["conventions"]["psnr"]
    assert result["protocol"] == "corrected"


def test_an_equal_volume_scores_perfectly():
    result = evaluate_volumes(TRUTH, TRUTH)
    assert (result["psnr"], result["ssim"], result["nmse"]) == (np.inf, pytest.approx(1), 0)


def test_slices_are_those_of_the_truth_unless_an_axis_is_named():
    rng = np.random.default_rng(1)
    truth = phantom((20, 18, 12), spacing=(1, 3, 1))
    noisy = truth.on(truth.grid, truth.data + rng.normal(0, 5, truth.data.shape).astype(np.float32))
    assert evaluate_volumes(noisy, truth)["voxels_compared"] == [20, 12, 18]
    assert evaluate_volumes(noisy, truth)["ssim"] == evaluate_volumes(noisy, truth, through_plane=1)["ssim"]
    assert evaluate_volumes(noisy, truth)["ssim"] != evaluate_volumes(noisy, truth, through_plane=0)["ssim"]


def test_slices_too_small_for_the_window_are_refused():
    with pytest.raises(Fault, match=r"cannot be scored \(slices of 6 x 18, .* Fix: give slices of at least 7 x 7"):
        evaluate_volumes(crop(TRUTH, (0, 0, 0), (6, 18, 6)), TRUTH)


def test_a_truth_without_signal_is_refused():
    with pytest.raises(Fault, match=r"cannot be scored .* maximum -5"):
        evaluate_volumes(TRUTH, TRUTH.on(TRUTH.grid, TRUTH.data * 0 - 5))


def test_what_was_found_while_reading_is_passed_on():
    prediction, truth = replace(TRUTH, notes=("one",)), replace(TRUTH, notes=("two",))
    assert evaluate_volumes(prediction, truth)["warnings"] == ["one", "two"]
