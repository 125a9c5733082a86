"""Grids: sample j of the low-resolution grid lies at sample s*j of the high-resolution one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftn_sr.volumes.volume import Grid
from phantoms import oblique, phantom

SHAPES = st.tuples(*[st.integers(1, 40)] * 3)
ANGLES = st.tuples(*[st.floats(-40, 40)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 6)] * 3)
FACTORS, AXES = st.sampled_from([2, 4]), st.sampled_from([0, 1, 2])


def at(grid, index):
    return (grid.affine @ [*index, 1])[:3]


@given(SHAPES, SPACINGS, ANGLES, FACTORS, AXES)
def test_coarser_undoes_finer(shape, spacing, angles, factor, axis):
    grid = Grid(shape, oblique(spacing, angles))
    back = grid.finer(factor, axis).coarser(factor, axis)
    assert back.shape == shape
    np.testing.assert_allclose(back.affine, grid.affine, rtol=1e-12, atol=1e-12)


@given(SHAPES, SPACINGS, ANGLES, FACTORS, AXES)
def test_a_low_resolution_sample_lies_where_the_sample_s_times_further_on_lies(shape, spacing, angles, factor, axis):
    low = Grid(shape, oblique(spacing, angles))
    high = low.finer(factor, axis)
    steps = np.full(3, factor)
    steps[axis] = 1
    assert high.shape == tuple(np.multiply(shape, steps))
    for index in ((0, 0, 0), np.subtract(shape, 1), (3, 1, 2)):
        np.testing.assert_allclose(at(high, steps * index), at(low, index), atol=1e-9)


def test_a_voxel_of_the_finer_grid_is_smaller_in_plane_only():
    np.testing.assert_allclose(Grid((8, 8, 4), oblique((2.0, 2.0, 5.0))).finer(4, 2).spacing, (0.5, 0.5, 5.0))


@given(SPACINGS, ANGLES, st.tuples(*[st.integers(0, 9)] * 3))
def test_a_crop_leaves_its_voxels_where_they_were(spacing, angles, start):
    grid = Grid((20, 20, 20), oblique(spacing, angles))
    part = grid.cropped(start, (5, 6, 7))
    assert part.shape == (5, 6, 7)
    np.testing.assert_allclose(at(part, (1, 2, 3)), at(grid, np.add(start, (1, 2, 3))), atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thick", [0.4, 5.0])
def test_the_voxel_size_that_differs_is_through_plane(axis, thick):
    spacing = np.full(3, 1.0)
    spacing[axis] = thick
    assert Grid((9, 9, 9), oblique(spacing)).through_plane() == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_of_three_equal_voxel_sizes_the_axis_closest_to_head_foot_is_through_plane(axis):
    matrix = np.roll(oblique((1.0, 1.0, 1.0))[:3, :3], axis - 2, axis=1)
    affine = np.eye(4)
    affine[:3, :3] = matrix
    assert Grid((9, 9, 9), affine).through_plane() == axis


def test_of_three_different_voxel_sizes_the_axis_closest_to_head_foot_is_through_plane():
    assert Grid((9, 9, 9), oblique((1.0, 2.0, 4.0))).through_plane() == 2
    assert Grid((9, 9, 9), oblique((4.0, 2.0, 1.0))).through_plane() == 2


def test_voxel_sizes_within_one_percent_count_as_equal():
    assert Grid((9, 9, 9), oblique((1.0, 3.0, 1.005))).through_plane() == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_in_plane_whatever_its_voxel_sizes(axis):
    shape = [9, 9, 9]
    shape[axis] = 1
    assert Grid(tuple(shape), oblique((1.0, 1.0, 1.0))).through_plane() == axis


def test_a_volume_moved_by_a_transform_is_found_where_the_transform_maps_to():
    volume = phantom((9, 8, 4))
    target_to_reference = oblique((1.0, 1.0, 1.0), (10, 20, -5))
    target_point = np.array([5.0, 6.0, 7.0, 1.0])
    index = np.linalg.solve(volume.moved(target_to_reference).affine, target_point)
    np.testing.assert_allclose(volume.affine @ index, target_to_reference @ target_point)


def test_other_voxels_on_another_grid_keep_the_header_information():
    volume = phantom((9, 8, 4))
    grid = volume.grid.finer(2, 2)
    finer = volume.on(grid, np.zeros(grid.shape, np.float32))
    assert (finer.grid.shape, finer.units, finer.codes, finer.path) == ((18, 16, 4), volume.units, volume.codes, volume.path)
