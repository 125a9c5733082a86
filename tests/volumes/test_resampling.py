"""Resampling goes through physical space: analytic images come out right on any grid, and 0 where the source does not reach."""

from __future__ import annotations

import numpy as np
import pytest

from hftn_sr.volumes import resampling
from hftn_sr.volumes.resampling import coverage, covered, plan, resample
from hftn_sr.volumes.volume import Grid, Volume
from phantoms import contrast, oblique, phantom, points

SOURCE = Grid((34, 30, 26), oblique((1.4, 1.4, 1.4), (25, -15, 30), (34, 30, 26)))
TARGETS = {
    "oblique": Grid((14, 12, 10), oblique((1.5, 1.6, 1.7), (-10, 5, 8), (14, 12, 10))),
    "finer": Grid((24, 24, 12), oblique((0.7, 0.7, 1.3), (0, 0, 0), (24, 24, 12))),
    "flipped": Grid((12, 12, 12), oblique((1.5, 1.5, 1.5), (0, 180, 5), (12, 12, 12))),
    "axes permuted": Grid((12, 13, 11), oblique((1.5, 1.4, 1.6), (90, 0, 90), (12, 13, 11))),
}


def ramp(where):
    return (where @ [2.0, -3.0, 1.5] + 100).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("image", "tolerance"), [(ramp, 0.15), (contrast, 3.0)], ids=["ramp", "smooth"])
def test_an_analytic_image_is_reproduced_on_another_grid(target, image, tolerance):
    assert covered(SOURCE, target).all()
    resampled = resample(Volume(image(points(SOURCE)), SOURCE.affine), target)
    assert (resampled.shape, resampled.dtype) == (target.shape, np.float32)
    truth = image(points(target))
    assert np.ptp(truth) > 50
    np.testing.assert_allclose(resampled, truth, atol=tolerance)


def test_the_same_grid_gives_the_same_voxels_bit_for_bit():
    volume = phantom((9, 8, 4))
    np.testing.assert_array_equal(resample(volume, volume.grid), volume.data)


def test_a_grid_that_is_the_same_but_for_rounding_gives_the_same_voxels_bit_for_bit():
    volume = phantom((9, 8, 4))
    np.testing.assert_array_equal(resample(volume, Grid(volume.grid.shape, volume.affine.astype(np.float32).astype(float))), volume.data)


def test_a_grid_of_the_same_shape_elsewhere_is_not_taken_for_the_same():
    volume = phantom((20, 20, 20), (1.5, 1.5, 1.5))
    moved = volume.grid.cropped((3, 0, 0), volume.grid.shape)
    resampled = resample(volume, moved)
    np.testing.assert_allclose(resampled[:14], volume.data[3:17], atol=0.05)
    assert (resampled[17:] == 0).all()


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_a_cube_stored_in_another_axis_order_is_not_taken_for_the_same_grid(order):
    volume = phantom((20, 20, 20), (1.5, 1.5, 1.5))
    affine = volume.affine.copy()
    affine[:, :3] = affine[:, list(order)]
    stored = Volume(np.ascontiguousarray(volume.data.transpose(order)), affine)
    np.testing.assert_allclose(resample(stored, volume.grid), volume.data, atol=0.05)


def test_voxels_outside_the_field_of_view_are_0_and_not_covered():
    volume = Volume(np.full((6, 6, 6), 5, np.float32), np.eye(4))
    grid = Grid((12, 6, 6), oblique((1, 1, 1), (0, 0, 0)))
    grid.affine[:3, 3] = (-3, 0, 0)
    resampled, inside = resample(volume, grid), covered(volume.grid, grid)
    np.testing.assert_array_equal(inside[:, 0, 0], [False] * 3 + [True] * 6 + [False] * 3)
    np.testing.assert_allclose(resampled[inside], 5, rtol=1e-5)
    assert (resampled[~inside] == 0).all()


def test_the_covered_share_is_that_of_the_two_boxes():
    source = Grid((10, 10, 10), np.eye(4))
    moved = np.eye(4)
    moved[:3, 3] = (5, -2, 0)
    assert covered(source, Grid((10, 10, 10), moved)).mean() == pytest.approx(0.5 * 0.8)
    moved[0, 3] = 50
    assert not covered(source, Grid((10, 10, 10), moved)).any()


def test_an_oblique_reference_on_another_grid_and_5_mm_shorter_is_right_where_it_reaches_and_0_elsewhere():
    target = Grid((20, 22, 12), oblique((1.2, 1.2, 2.0), (4, -3, 6), (20, 22, 12)))
    shorter = oblique((1.0, 1.0, 1.5), (12, 8, -9), (40, 40, 24))
    reference = Grid((40, 40, 24), shorter).cropped((0, 0, 0), (40, 40, 16))  # 24 slices would cover all, these end 12 mm lower
    volume = Volume(contrast(points(reference), "reference"), reference.affine)
    inside = covered(reference, target)
    height = np.linalg.solve(reference.affine, np.append(points(target), np.ones((*target.shape, 1)), -1).reshape(-1, 4).T)[2]
    np.testing.assert_array_equal(inside, (height < 15.5).reshape(target.shape))
    assert 0.5 < inside.mean() < 0.95
    resampled, truth = resample(volume, target), contrast(points(target), "reference")
    assert (resampled[~inside] == 0).all()
    deep = inside & (height < 13).reshape(target.shape)  # the spline bends at the last slices
    np.testing.assert_allclose(resampled[deep], truth[deep], atol=6)
    np.testing.assert_allclose(resampled[inside], truth[inside], atol=45)


def test_detail_that_the_grid_cannot_hold_is_smoothed_away_and_not_folded_back():
    board = (np.indices((48, 48, 4)).sum(0) % 2 * 100).astype(np.float32)
    coarse = Grid((9, 9, 4), np.diag([5.0, 5.0, 1.0, 1.0]))
    resampled = resample(Volume(board, np.eye(4)), coarse)
    assert np.ptp(board[::5, ::5]) == 100  # what picking voxels would give
    np.testing.assert_allclose(resampled[1:], 50, atol=2)


def test_smoothing_keeps_intensity_and_place():
    fine = Grid((80, 80, 8), oblique((0.5, 0.5, 3.0), shape=(80, 80, 8)))
    coarse = Grid((12, 12, 4), oblique((2.0, 2.0, 3.0), shape=(12, 12, 4)))
    np.testing.assert_allclose(resample(Volume(ramp(points(fine)), fine.affine), coarse), ramp(points(coarse)), atol=0.2)


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_a_thin_reference_fills_the_slices_that_it_covers(slices):
    data = np.broadcast_to(ramp(points(Grid((20, 20, 1), np.eye(4)))), (20, 20, slices))
    grid = Grid((10, 10, 1), np.diag([1.0, 1.0, 2.0, 1.0]))
    grid.affine[:3, 3] = (5, 5, slices - 1)
    np.testing.assert_allclose(resample(Volume(np.ascontiguousarray(data), np.eye(4)), grid)[..., 0], data[5:15, 5:15, -1], atol=0.05)
    grid.affine[2, 3] = slices
    assert (resample(Volume(np.ascontiguousarray(data), np.eye(4)), grid) == 0).all()


def test_a_sheared_place_is_respected():
    affine = oblique((1.2, 1.2, 1.2), (5, 5, 5))
    affine[:3, 1] += 0.3 * affine[:3, 0]
    source = Grid((40, 34, 30), affine)
    affine[:3, 3] -= points(source).mean((0, 1, 2)) - [3, -7, 11]
    target = Grid((10, 11, 9), oblique((1.3, 1.3, 1.5), (0, 0, 0), (10, 11, 9)))
    assert covered(source, target).all()
    np.testing.assert_allclose(resample(Volume(contrast(points(source)), affine), target), contrast(points(target)), atol=3)


def centred(shape, spacing, degrees=(8.0, -5.0, 12.0)):
    return Grid(shape, oblique(spacing, degrees, shape))


PAIRS = {
    "parallel": (centred((60, 50, 12), (0.9, 1.0, 2.5)), centred((70, 64, 14), (0.7, 0.7, 2.0))),
    "turned": (centred((60, 50, 40), (0.9, 1.0, 1.1), (3, 2, 9)), centred((70, 64, 14), (0.7, 0.7, 2.0))),
    "thin": (centred((60, 50, 2), (0.9, 1.0, 2.5)), centred((70, 64, 3), (0.7, 0.7, 1.0))),
}


def rough(grid):
    return Volume(np.random.default_rng(1).normal(100, 30, grid.shape).astype(np.float32), grid.affine)


@pytest.mark.parametrize(("source", "target"), PAIRS.values(), ids=PAIRS)
def test_blocks_give_what_the_whole_volume_gives(source, target, monkeypatch):
    whole = resample(rough(source), target)
    monkeypatch.setattr(resampling, "BOX", 1)
    assert len(plan(source, target)) >= 8
    np.testing.assert_allclose(resample(rough(source), target), whole, atol=2e-3)
    assert np.ptp(whole) > 100


@pytest.mark.parametrize("kind", ["parallel", "thin"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_parallel_grids_give_along_their_axes_what_they_give_point_by_point(kind, order, monkeypatch):
    source, target = PAIRS[kind]
    volume = rough(source)
    affine = volume.affine[:, [*order, 3]].copy()
    affine[:3, 3] += affine[:3, 0] * (source.shape[order[0]] - 1)
    affine[:3, 0] *= -1  # one axis runs the other way
    volume = Volume(np.ascontiguousarray(volume.data.transpose(order)[::-1]), affine)
    called = []
    along = resampling.along_axes
    monkeypatch.setattr(resampling, "along_axes", lambda *arguments: called.append(1) or along(*arguments))
    fast = resample(volume, target)
    assert called
    monkeypatch.setattr(resampling, "along_axes", lambda data, shape, index, _, sigmas: resampling.at_points(data, shape, index, sigmas))
    np.testing.assert_allclose(fast, resample(volume, target), atol=2e-3)


@pytest.mark.parametrize(("source", "target"), PAIRS.values(), ids=PAIRS)
def test_the_coverage_is_the_share_of_what_is_covered(source, target):
    assert coverage(source, target) == pytest.approx(covered(source, target).mean())
