"""What is taken for measured of a target, on which grid its result lies, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from hftn_sr.acquisition import Acquisition, Full, KSpace, Slices
from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.inference.acquired import Acquired, choose_acquired, slice_axis
from hftn_sr.inference.options import PairOptions
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.scan_matrix import ScanMatrix, scan_matrix
from hftn_sr.volumes.volume import Grid, Volume
from phantoms import oblique

UNKNOWN = ScanMatrix()


def header(spacing, shape=(40, 36, 6), slices=None):
    return VolumeHeader(Path("target.nii"), Grid(shape, oblique(spacing), slices))


def chosen(target, reference=None, shape=(40, 36, 6), data=None, scan=UNKNOWN, **asked):
    """For spacings of a target and of its reference."""
    given = header(target, shape)
    voxels = np.random.default_rng(0).normal(size=shape).astype(np.float32) if data is None else data
    volume = Volume(voxels, given.grid.affine)
    other = VolumeHeader(Path("reference.nii"), Grid((50, 50, 50), oblique(reference))) if reference else None
    return choose_acquired(given, volume, other, 2, PairOptions(**asked), scan)


@pytest.mark.parametrize(
    ("target", "reference", "scale"),
    [((2, 2, 5), (1, 1, 5), 2), ((2, 2, 5), (0.5, 0.5, 3), 4), ((1.8, 1.8, 5), (0.8, 0.8, 3), 2), ((3.5, 3.6, 5), (1, 1, 3), 4)],
)
def test_a_ratio_near_2_or_4_along_both_axes_is_taken_for_it(target, reference, scale):
    found = chosen(target, reference)
    assert (found.scale, found.grid.shape) == (scale, (40 * scale, 36 * scale, 6))
    assert found.source.startswith(f"scale {scale}: voxel sizes are {target[0] / reference[0]:.2f} x ")
    np.testing.assert_allclose(found.grid.affine, header(target).grid.finer(scale, 2).affine, atol=1e-9)


@pytest.mark.parametrize(
    ("target", "reference", "shape"),
    [
        ((3, 3, 5), (1, 1, 4), (120, 108, 6)),
        ((1.6, 1.6, 5), (1, 1, 4), (64, 57, 6)),
        ((1, 2, 5), (1, 1, 4), (40, 72, 6)),
        ((1, 4, 5), (1.05, 1, 4), (40, 144, 6)),
        ((2, 4, 5), (1, 1, 4), (80, 144, 6)),
        ((9, 9, 9), (1, 1, 9), (180, 162, 6)),  # at most 4.5 times, for which networks are trained
    ],
)
def test_any_other_ratio_makes_voxels_no_finer_than_the_reference_s(target, reference, shape):
    found = chosen(target, reference)
    assert (found.grid.shape, found.scale) == (shape, None)
    view = np.multiply(found.grid.shape, found.grid.spacing)
    np.testing.assert_allclose(view, np.multiply((40, 36, 6), target), rtol=1e-9)  # the field of view stays


def test_six_slices_of_4_mm_give_twenty_four_of_1_mm():
    found = chosen((0.7, 0.7, 4.0), voxel="0.7x0.7x1")
    assert found.grid.shape == (40, 36, 24)
    assert found.kept == Acquisition((Full(), Full(), Slices(4, 4)))
    affine = header((0.7, 0.7, 4.0)).grid.affine
    for outer, finer in ((-0.5, -0.5), (5.5, 23.5)):
        assert found.grid.affine @ [3, 5, finer, 1] == pytest.approx(affine @ [3, 5, outer, 1], abs=1e-10)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.tuples(*[st.integers(1, 31)] * 3),
    st.tuples(*[st.floats(0.2, 8)] * 3),
    st.tuples(*[st.floats(0.2, 8)] * 3),
    st.one_of(st.none(), st.floats(0.1, 2.5)),
)
def test_the_result_has_the_target_s_field_of_view(shape, spacing, voxel, thickness):
    try:
        found = chosen(spacing, shape=shape, voxel=voxel, slice_thickness=thickness and thickness * spacing[2])
    except (UsageFault, NothingToDo):
        reject()
    grid, affine = found.grid, header(spacing, shape).grid.affine
    assert found.kept.measured_shape(grid.shape) == shape
    assert found.kept.measured_affine(grid.affine, grid.shape) == pytest.approx(affine, abs=1e-4)
    first = np.array([axis.first(size) for axis, size in zip(found.kept.axes, grid.shape, strict=True)])
    for dim, axis in enumerate(found.kept.axes):
        assert grid.spacing[dim] * grid.shape[dim] == pytest.approx(spacing[dim] * shape[dim], abs=1e-4)
        assert isinstance(axis, Full) == (grid.spacing[dim] == pytest.approx(spacing[dim]))
        assert isinstance(axis, Full) or grid.spacing[dim] >= voxel[dim] * (1 - 2e-3)  # never finer than asked
        outer = 0.5 if isinstance(axis, Slices) else 0.0  # faces stay across slices, samples 0 along k-space
        for low, high in ((-outer, -outer), (shape[dim] - outer, grid.shape[dim] - outer)):
            ours, theirs = first.copy(), np.zeros(3)  # the other axes begin elsewhere if they are slices
            ours[dim], theirs[dim] = high, low
            assert grid.affine @ [*ours, 1] == pytest.approx(affine @ [*theirs, 1], abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "spacing", "voxel", "sizes"),
    [
        ((256, 256, 2), (0.8594, 0.8594, 5.0), (0.4297, 0.4297, 5.0), (512, 512, 2)),  # of 220 mm and 256 voxels: 0.859375
        ((128, 84, 2), (2, 2, 3), (0.5, 0.5, 3), (512, 336, 2)),
        ((100, 205, 2), (1, 1.6, 3), (1 / 1.6, 1.0, 9), (160, 328, 2)),
    ],
)
def test_rounded_headers_cost_no_sample(shape, spacing, voxel, sizes):
    assert chosen(spacing, shape=shape, voxel=voxel).grid.shape == sizes


def test_the_reference_is_judged_along_the_target_s_axes():
    sagittal = oblique((4, 1, 1))[:, [1, 2, 0, 3]]  # its slices lie across the target's first axis
    reference = VolumeHeader(Path("r.nii"), Grid((60, 60, 20), sagittal))
    target = header((4, 2, 2))
    noise = np.random.default_rng(0).normal(size=(40, 36, 6)).astype(np.float32)
    found = choose_acquired(target, Volume(noise, target.grid.affine), reference, 2, PairOptions(), UNKNOWN)
    assert found.grid.shape == (40, 72, 12)


@pytest.mark.parametrize("reference", [(1, 1, 5), (0.95, 0.9, 5)])
def test_where_there_is_nothing_to_gain_nothing_is_done(reference):
    with pytest.raises(
        NothingToDo,
        match=r"nothing to gain: its voxels of 1 x 1 x 5 mm beside the reference's .* are as fine in plane, and slices .*Fix: leave it",
    ):
        chosen((1, 1, 5), reference)


def test_a_swapped_pair_is_told_so():
    with pytest.raises(Fault, match=r"finer than the reference's\. Fix: swap the two"):
        chosen((1, 1, 3), (2, 2, 3))


def test_without_a_reference_something_must_be_asked_for():
    assert chosen((1, 1, 5), scale=4).scale == 4
    with pytest.raises(UsageFault, match=r"--scale: is missing, it cannot be found without a reference"):
        chosen((1, 1, 5))


@pytest.mark.parametrize(
    ("asked", "shape", "kept"),
    [
        ({"scale": 3}, (120, 108, 6), (40, 36)),
        ({"scale": "1x2"}, (40, 72, 6), (40, 36)),
        ({"scale": 1.6}, (64, 57, 6), (40, 36)),
        ({"voxel": (0.5, 1.0)}, (80, 36, 6), (40, 36)),
        ({"acquired": "20x18"}, (40, 36, 6), (20, 18)),
        ({"acquired": "20x36", "scale": 2}, (80, 72, 6), (20, 36)),
        ({"acquired": (20, 18), "voxel": "0.5"}, (80, 72, 6), (20, 18)),
    ],
)
def test_what_is_asked_for_is_taken(asked, shape, kept):
    found = chosen((1, 1, 5), (0.9, 0.9, 5), **asked)
    assert (found.grid.shape, found.samples[:2]) == (shape, kept)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"scale": 1.1}, r"--scale: asks for at most 1.10 times the measured samples"),
        ({"acquired": (50, 36)}, r"--acquired: 50 x 36 is more than the 40 x 36 of target.nii"),
        ({"acquired": (39, 36)}, r"--acquired: asks for at most 1.03 times"),
        ({"slice_thickness": 20.0, "voxel": "0.5x0.5x1"}, r"--slice-thickness: 20 mm is more than 2.5 times the distance of 5 mm"),
        ({"voxel": "0.0005x1"}, r"--voxel: would make 800\d\d voxels along an axis"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, told):
    with pytest.raises(UsageFault, match=told):
        chosen((1, 1, 5), (1, 1, 5), **asked)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"scale": 0.5}, "--scale: 0.5x0.5 would make voxels larger"),
        ({"scale": "2x"}, "--scale: '2x'"),
        ({"scale": "2x2x2"}, "--scale: '2x2x2' .3 numbers, need 2"),
        ({"acquired": "25.5x20"}, "--acquired: needs whole numbers"),
        ({"scale": 2, "voxel": 1}, "--voxel: does not go with --scale"),
        ({"slice_thickness": -1.0}, "--slice-thickness: -1.0 mm"),
        ({"voxel": "0"}, "--voxel: '0'"),
    ],
)
def test_options_that_make_no_sense_are_usage_faults(asked, told):
    with pytest.raises(UsageFault, match=told):
        PairOptions(**asked)


def zero_filled(matrix, shape=(64, 96, 3)):
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.normal(size=shape).cumsum(0).cumsum(1)).permute(2, 0, 1)
    plane = Acquisition.from_matrix(matrix, shape[:2])
    return plane.interpolate(plane.simulate(image), shape[:2]).permute(1, 2, 0).float().numpy()


def test_a_target_whose_outer_k_space_is_empty_keeps_its_own_grid_and_what_was_measured():
    found = chosen((0.5, 0.5, 5), (0.5, 0.5, 4), (64, 96, 3), zero_filled((32, 60)))
    assert (found.grid.shape, found.interpolated) == ((64, 96, 3), (0, 1))
    assert (found.samples[0] - 32, found.samples[1] - 60) in {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert "interpolated by the scanner" in found.source
    assert found.describe().startswith("measured 3")
    assert chosen((0.5, 0.5, 5), None, (64, 96, 3), zero_filled((32, 60))).grid.shape == (64, 96, 3)  # no reference, nothing asked


def test_the_header_s_matrix_counts_and_a_contradiction_is_told():
    scan = ScanMatrix({0: 32, 1: 96}, None, "AcquisitionMatrix")
    found = chosen((0.5, 0.5, 5), (0.5, 0.5, 4), (64, 96, 3), zero_filled((32, 96)), scan)
    assert (found.samples, found.warnings) == ((32, 96, 3), ())
    assert "AcquisitionMatrix" in found.source
    filled = np.random.default_rng(0).normal(size=(64, 96, 3)).astype(np.float32)
    (warning,) = chosen((0.5, 0.5, 5), (0.5, 0.5, 4), (64, 96, 3), filled, scan).warnings
    assert "AcquisitionMatrix says that 32 of 64 samples were measured, though k-space is filled beyond them" in warning


def test_what_was_asked_counts_before_the_header():
    scan = ScanMatrix({0: 20, 1: 18}, None, "AcquisitionMatrix")
    assert chosen((1, 1, 5), acquired=(10, 36), scan=scan).samples[:2] == (10, 36)


def test_the_record_gives_it_back():
    found = chosen((2, 3, 5), (1, 1, 4))
    again = Acquired.of_record({"acquired": found.record(), "through_plane": 2}, header((2, 3, 5)).grid)
    np.testing.assert_allclose(again.grid.affine, found.grid.affine)
    assert (again.kept, again.grid.shape, again.file_shape, again.source) == (found.kept, found.grid.shape, found.file_shape, found.source)


def test_fewer_slices_leave_the_rest_as_it_is():
    found = chosen((2, 2, 5), (1, 1, 4))
    fewer = found.over(Grid((40, 36, 4), header((2, 2, 5)).grid.affine))
    assert (fewer.grid.shape, fewer.file_shape, fewer.kept) == ((80, 72, 4), (40, 36, 4), found.kept)


# The slice axis


@pytest.mark.parametrize(
    ("spacing", "shape", "slices", "axis"),
    [
        ((1, 1, 5), (40, 36, 6), None, 2),
        ((5, 0.7, 0.7), (6, 40, 36), None, 0),
        ((4, 4, 3), (40, 36, 6), None, 2),  # the odd one, and the fewest
        ((2, 2, 2), (40, 36, 6), 0, 0),  # the file's own word
        ((1.44, 3, 3), (80, 40, 20), 2, 2),
        ((1, 1, 1), (40, 1, 36), None, 1),
        ((0.72, 0.75, 4), (40, 36, 6), None, 2),
    ],
)
def test_the_slice_axis_is_known(spacing, shape, slices, axis):
    assert slice_axis(header(spacing, shape, slices), None) == axis
    assert slice_axis(header(spacing, shape, slices), 1) == 1


@pytest.mark.parametrize(("spacing", "shape"), [((2, 2, 2), (40, 36, 6)), ((1.44, 3, 3), (80, 40, 20)), ((1, 1.2, 1.4), (40, 36, 6))])
def test_a_tie_asks_for_the_slice_axis(spacing, shape):
    with pytest.raises(Fault, match=r"which axis lies across its slices is not to be seen .*\. Fix: --through-plane 0, 1 or 2"):
        slice_axis(VolumeHeader(Path("t.nii"), Grid(shape, oblique(spacing))), None)


def test_a_header_against_its_voxel_sizes_asks_too(tmp_path):
    target = VolumeHeader(tmp_path / "t.nii", Grid((6, 40, 36), oblique((5, 0.7, 0.7)), 2))
    with pytest.raises(Fault, match=r"its header names axis 2 as the slices' \(dim_info\), its voxel sizes axis 0 .*Fix: --through-plane"):
        slice_axis(target, None)


# What a header says of the measured matrix

GRID = Grid((512, 512, 5), oblique((0.78, 0.78, 7)))
LOCALIZER = {"BaseResolution": 256, "AcquisitionMatrixPE": 205, "PhaseEncodingDirection": "i"}


@pytest.mark.parametrize(
    ("scan", "samples"),
    [
        (LOCALIZER, {1: 256, 0: 205}),
        ({**LOCALIZER, "PhaseEncodingDirection": "j-"}, {0: 256, 1: 205}),
        ({**LOCALIZER, "PhaseEncodingDirection": "k"}, {}),
        ({**LOCALIZER, "ReconMatrixPE": 512}, {1: 256, 0: 205}),
        ({**LOCALIZER, "ReconMatrixPE": 400}, {}),  # resampled since
        ({**LOCALIZER, "PercentPhaseFOV": 75}, {1: 256, 0: 274}),  # lines over three quarters of a view that was filled up to a square
        ({"BaseResolution": 256}, {}),
        ({**LOCALIZER, "BaseResolution": "x", "AcquisitionMatrixPE": -4}, {}),
        ({**LOCALIZER, "BaseResolution": 1024}, {0: 205}),
    ],
)
def test_the_matrix_of_a_scan(scan, samples):
    assert scan_matrix(scan, GRID, 2, "header").samples == samples


def test_a_rectangular_view_that_was_not_filled_up_keeps_its_lines():
    grid = Grid((84, 128, 19), oblique((2, 2, 3)))
    scan = {"BaseResolution": 128, "AcquisitionMatrixPE": 84, "PhaseEncodingDirection": "i", "PercentPhaseFOV": 65.6}
    assert scan_matrix(scan, grid, 2, "").samples == {0: 84, 1: 128}


# Thick slices


def test_slices_far_thicker_than_the_reference_s_voxels_are_made_thinner():
    found = chosen((1, 1, 5), (1, 1, 1))
    assert (found.grid.shape, found.kept.axes) == ((40, 36, 30), (Full(), Full(), Slices(5, 5)))
    assert found.describe() == "5 mm slices every 5 mm"
    faces = [found.grid.affine @ [0, 0, -0.5, 1], header((1, 1, 5)).grid.affine @ [0, 0, -0.5, 1]]
    np.testing.assert_allclose(*faces, atol=1e-9)
    gap = chosen((1, 1, 6), (1, 1, 1), scan=ScanMatrix({}, 4.0, ""))
    assert gap.describe() == "4 mm slices every 6 mm"
    assert chosen((1, 1, 6), (1, 1, 1), slice_thickness=5.0).describe() == "5 mm slices every 6 mm"


def test_both_losses_at_once():
    found = chosen((2, 2, 4), (1, 1, 1))
    assert (found.grid.shape, found.kept.axes, found.scale) == ((80, 72, 24), (KSpace(40), KSpace(36), Slices(4, 4)), 2)
    assert found.describe() == "measured 40 x 36 of 80 x 72 (left-right x front-back), 4 mm slices every 4 mm"


def test_slices_stay_where_only_the_plane_is_asked_for():
    assert chosen((2, 2, 4), (1, 1, 1), scale=2).grid.shape == (80, 72, 6)
    assert chosen((2, 2, 4), (1, 1, 1), voxel=(1, 1)).grid.shape == (80, 72, 6)
    assert chosen((2, 2, 4), (1, 1, 1), voxel=(1, 1, 2)).grid.shape == (80, 72, 12)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"scale": 2, "slice_thickness": 5.0}, "--slice-thickness has no use"),
        ({"voxel": "0.5x0.5x9"}, "slices stay 5 mm apart"),
        ({"scale": 20}, "asks for more than 4.5 times in-plane"),
    ],
)
def test_wishes_that_are_not_fulfilled_or_were_never_tried_are_told(asked, told):
    (warning,) = chosen((1, 1, 5), (1, 1, 5), **asked).warnings
    assert told in warning


def test_a_header_s_thickness_that_cannot_be_is_not_believed():
    assert chosen((1, 1, 5), (1, 1, 1), scan=ScanMatrix({}, 20.0, "")).describe() == "5 mm slices every 5 mm"
