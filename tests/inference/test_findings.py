"""What is found in the voxels of a pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hftn_sr.errors import Note
from hftn_sr.inference.findings import (
    NOT_MENDED,
    alignment_record,
    coarser_along,
    measured_samples,
    misplaced,
    partly_covered,
    unfit_reason,
)
from hftn_sr.kspace import truncate
from hftn_sr.volumes.alignment import Alignment
from hftn_sr.volumes.volume import Grid, Volume
from phantoms import oblique


def volume(spacing, shape=(8, 8, 4)):
    return Volume(np.zeros(shape, np.float32), oblique(spacing))


def scanned(shape=(80, 96), slices=4, seed=0):
    """(D, H, W) like a head's slices: ellipses with sharp edges, so that power declines slowly with frequency, on noise of a hundredth."""
    rng = np.random.default_rng(seed)
    down, right = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    image = np.zeros((slices, *shape))
    for each in image:
        for _ in range(30):
            (y, x), (height, width) = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.05, 0.4, 2)
            each += rng.uniform(0, 30) * (((down - y) / height) ** 2 + ((right - x) / width) ** 2 < 1)
    return truncate(torch.from_numpy(image + rng.normal(0, 1, image.shape)), 2)


def filled(slices, share, dims):
    """The same with nothing beyond a share of k-space along these dimensions, as a scanner computes and saves it: rounded magnitudes."""
    k_space = torch.fft.fft2(slices)
    for dim in dims:
        beyond = torch.fft.fftfreq(slices.shape[dim]).abs() * 2 >= share
        k_space.index_fill_(dim, beyond.nonzero()[:, 0], 0)
    return torch.fft.ifft2(k_space).abs().round()


def of_slices(slices, through_plane):
    return Volume(slices.movedim(0, through_plane).float().contiguous().numpy(), np.eye(4))


@pytest.mark.parametrize("share", [0.4, 0.5, 0.65])
@pytest.mark.parametrize("dims", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("through_plane", [0, 1, 2])
def test_an_image_that_was_zero_filled_after_the_scan_is_found_along_either_axis(through_plane, dims, share):
    in_plane = [axis for axis in range(3) if axis != through_plane]
    found = measured_samples(of_slices(filled(scanned((160, 192)), share, dims), through_plane), through_plane)
    assert set(found) == {in_plane[dim - 1] for dim in dims}
    for dim in dims:  # of the samples below a share of the Nyquist frequency, a few more at most
        true = 2 * int(np.ceil(share * (40, 48)[dim - 1])) - 1
        assert 0 <= found[in_plane[dim - 1]] - true <= 4


@pytest.mark.parametrize(
    "change", [lambda x: x, lambda x: x.abs().round(), lambda x: x + 5 * torch.randn(x.shape), lambda x: x[:, 3:-8, 5:-2]]
)
@pytest.mark.parametrize("slices", [1, 4])
def test_an_image_that_was_measured_whole_is_not_called_interpolated(slices, change):
    torch.manual_seed(0)
    assert measured_samples(of_slices(change(scanned((160, 192), slices)), 2), 2) == {}


def test_neither_is_one_that_the_scanner_smoothed():
    slices = scanned((160, 192))
    rows, columns = (0.54 + 0.46 * torch.cos(2 * torch.pi * torch.fft.fftfreq(size)) for size in slices.shape[1:])
    smooth = torch.fft.ifft2(torch.fft.fft2(slices) * rows[:, None] * columns).abs().round()
    assert measured_samples(of_slices(smooth, 2), 2) == {}


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_unit_does_not_matter(factor):
    slices = scanned((160, 192))
    assert measured_samples(of_slices(slices * factor, 2), 2) == {}
    assert set(measured_samples(of_slices(filled(slices, 0.5, (2,)) * factor, 2), 2)) == {1}


def test_an_image_too_small_to_tell_is_not_called_interpolated():
    assert measured_samples(of_slices(filled(scanned((62, 80)), 0.5, (1, 2)), 2), 2) == {}
    assert measured_samples(Volume(np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32), np.eye(4)), 2) == {}


def test_a_reference_in_place_gives_no_warning():
    assert misplaced(Alignment(0.5, 0.1, 0, 2)) == []


@pytest.mark.parametrize(
    ("alignment", "said"),
    [
        (Alignment(0.05, 0.0, 0, 2), "do not match"),
        (Alignment(0.3, 1.5, 0, 2), "lie 1.5 voxels of the result away"),
        (Alignment(0.3, 0.1, -1, 2), "lie a slice away"),
        (Alignment(0.3, 0.2, 0, 1, -1.24), "lie 1.2 voxels of the result across the slices away"),
        (Alignment(0.3, 0.9, 0, 1, 0.8), "lie 0.90 voxels of the result and 0.8 voxels of the result across the slices away"),
        (Alignment(0.3, 1.0, 1, 2), "lie 1.0 voxels of the result and a slice away"),
    ],
)
def test_a_reference_out_of_place_is_named_with_the_cure(alignment, said):
    (warning,) = misplaced(alignment)
    assert said in warning and "--register rigid" in warning
    (warning,) = misplaced(alignment, NOT_MENDED)
    assert said in warning and "rigid registration did not mend that; place it by --reference-transform" in warning
    assert "--register" not in warning


@pytest.mark.parametrize(
    ("alignment", "said"),
    [
        (Alignment(0.5, 0.2, 0, 4), None),
        (Alignment(0.3, 0.96, 0, 4), None),
        (Alignment(0.3, 1.04, 0, 4), "lie 1.0 voxels of the result away from where it belongs, which is worse than no reference"),
        (Alignment(0.3, 0.2, 1, 4), None),  # of thin slices, the next one serves nearly as well
        (Alignment(0.3, 1.04, 0, 1.6), "worse than no reference"),
        (Alignment(0.3, 2.9, 0, 1), None),  # beside thick slices
        (Alignment(0.3, 3.1, 0, 1), "lie 3.1 voxels of the result away from where it belongs, which is worse than no reference"),
        (Alignment(0.3, 1.04, 1, 4), "lie 1.0 voxels of the result and a slice away"),
        (
            Alignment(0.05, 0.0, 0, 4),
            "the edges of target and reference do not match (agreement 0.05, usually above 0.24): another patient",
        ),
    ],
)
def test_a_reference_that_would_do_harm_is_distinguished_from_one_that_helps(alignment, said):
    found = unfit_reason(alignment)
    assert said in found if said else found == ""


def test_the_record_tells_displacements_in_voxels_of_the_result():
    assert alignment_record(None) is None
    record = alignment_record(Alignment(0.3, 2.0, 1, 4))
    assert (record["value"], record["displacement_voxels"], record["slice_offset"]) == (0.3, 2.0, 1)
    assert "displacement_across_voxels" not in record
    assert alignment_record(Alignment(0.3, 0.1, 0, 1, -0.4))["displacement_across_voxels"] == -0.4


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ((1, 1, 9), ""),
        ((1.4, 1.4, 1), ""),
        (
            (2, 2, 1),
            "the reference's voxels (2.00 x 2.00 mm in plane) are coarser than the result's (1.00 x 1.00 mm); are the two swapped?",
        ),
        (
            (2, 1, 1),
            "the reference's voxels are coarse along left-right (2.00 mm, the result's 1.00 mm): the result gains little detail there",
        ),
        (
            (0.4, 4, 1),
            "the reference's voxels are coarse along front-back (4.00 mm, the result's 1.00 mm): the result gains little detail there",
        ),
    ],
)
def test_a_coarse_reference_is_judged_axis_by_axis(reference, said):
    degrees = (8.0, -5.0, 12.0)
    grids = [Grid((8, 8, 4), oblique(spacing, degrees)) for spacing in (reference, (1, 1, 3))]
    assert coarser_along(*grids, 2) == ([said] if said else [])


def test_the_plane_of_a_reference_does_not_matter_to_its_judgement():
    """A sagittal reference of thick slices beside an axial result: its voxels are wide along left-right."""
    sagittal = Grid((4, 8, 8), np.diag([4.0, 1.0, 1.0, 1.0])[:, [1, 2, 0, 3]])
    (said,) = coarser_along(sagittal, Grid((8, 8, 4), np.diag([1.0, 1.0, 5.0, 1.0])), 2)
    assert "coarse along left-right (4.00 mm, the result's 1.00 mm)" in said


@pytest.mark.parametrize(("share", "is_note"), [(0.976, True), (0.8, True), (0.57, False)])
def test_a_reference_that_covers_most_of_the_target_is_a_note(share, is_note):
    assert isinstance(partly_covered(share), Note) is is_note
