"""Whether two contrasts show the same anatomy in the same place."""

from __future__ import annotations

import functools
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.nn import functional

from hftn_sr.acquisition import Acquisition
from hftn_sr.kspace import shift, truncate
from hftn_sr.volumes import alignment
from hftn_sr.volumes.alignment import Alignment, displacement_across, edge_alignment

SCALE, REACH = 2, 6


def anatomy(seed, depth=6, side=128, ellipses=40):
    """(tissue map, depth slices): random ellipses that change a little from slice to slice; values 0, 1, 2, ... are tissues."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    centre, axes, turn, drift = (
        torch.rand(ellipses, 2, generator=draw) * 0.8 + 0.1,
        torch.rand(ellipses, 2, generator=draw) * 0.12 + 0.03,
        torch.rand(ellipses, generator=draw) * math.pi,
        (torch.rand(ellipses, 2, generator=draw) - 0.5) * 0.25,
    )
    slices = []
    for index in range(depth):
        tissue = torch.zeros(side, side)
        for number in range(ellipses):
            where = centre[number] + drift[number] * index / depth
            y, x = rows / side - where[0], columns / side - where[1]
            u = y * turn[number].cos() + x * turn[number].sin()
            v = x * turn[number].cos() - y * turn[number].sin()
            tissue[(u / axes[number, 0]) ** 2 + (v / axes[number, 1]) ** 2 < 1] = number % 5 + 1.0
        slices.append(tissue)
    return functional.avg_pool2d(torch.stack(slices)[:, None], 3, 1, 1)[:, 0]


def contrasts(seed=0):
    """Target at low resolution and reference at high resolution; where one is bright the other is dark."""
    tissue = anatomy(seed)
    return truncate(tissue, SCALE), (6 - tissue) ** 2 / 6


def compared(target, reference):
    return edge_alignment(target, truncate(reference, SCALE), REACH, (SCALE, SCALE))


def test_a_pair_in_place_is_known_as_such_whatever_its_contrast():
    target, reference = contrasts()
    found = compared(target, reference)
    assert found.in_place and found.fits and found.slice_offset == 0
    assert found.prominence > 0.5
    assert found.displacement < 0.1


@pytest.mark.parametrize("voxels", [(0.5, 0.0), (1.0, 0.0), (3.0, -2.0)])
def test_how_far_a_moved_reference_is_apart_is_found_to_a_tenth_of_a_voxel(voxels):
    target, reference = contrasts()
    found = compared(target, shift(reference, voxels))
    assert found.fits and not found.in_place
    assert found.displacement == pytest.approx(math.hypot(*voxels), abs=0.2)


@pytest.mark.parametrize(("factors", "voxels"), [((1, 1), 1), ((1, 2), 1), ((2, 1), 1), ((1.6, 1.6), 1), ((1, 4), 2), ((4, 1), 2)])
def test_displacements_count_in_voxels_of_the_result_along_each_axis(factors, voxels):
    """A displacement along the axis that lost nothing is not enlarged by what the other one lost, nor the other way round."""
    tissue = anatomy(0)
    kept = Acquisition.from_scale(factors, tissue.shape[1:])
    for moved in ((0.0, 0.0), (float(voxels), 0.0), (0.0, float(voxels))):
        reference = kept.simulate(shift((6 - tissue) ** 2 / 6, moved))
        found = edge_alignment(kept.simulate(tissue), reference, REACH, kept.ratios(tissue.shape[1:]))
        assert found.displacement == pytest.approx(math.hypot(*moved), abs=0.25)
        assert found.in_place == (moved == (0.0, 0.0))


@pytest.mark.parametrize(("factor", "voxels"), [(1, 0.5), (1.42, 0.5), (1.6, 0.5), (2, 0.24), (4, 0.48)])
def test_where_little_was_lost_in_plane_half_a_voxel_of_the_result_is_in_place(factor, voxels):
    assert Alignment(0.4, voxels - 0.01, 0, factor).in_place
    assert not Alignment(0.4, voxels + 0.01, 0, factor).in_place


def test_a_rotated_reference_is_not_in_place_though_its_middle_is():
    target, reference = contrasts()
    angle = math.radians(2)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])[None]
    grid = functional.affine_grid(turn.expand(len(reference), 2, 3), (len(reference), 1, *reference.shape[1:]), align_corners=False)
    rotated = functional.grid_sample(reference[:, None], grid, mode="bicubic", align_corners=False)[:, 0]
    found = compared(target, rotated)
    assert found.fits and not found.in_place


@pytest.mark.parametrize("offset", [1, -1])
def test_a_slice_above_or_below_is_found(offset):
    target, reference = contrasts()
    found = compared(target, reference.roll(offset, 0))
    assert found.slice_offset == offset
    assert not found.in_place


def test_a_thin_slab_in_place_is_not_called_a_slice_off(monkeypatch):
    """Its slices are nearly the same, so that chance decides which one fits best."""
    prominence = {0: 0.5, 1: 0.53, -1: 0.4}
    calls = iter([prominence[0], prominence[-1], prominence[1]])
    monkeypatch.setattr(alignment, "_peak", lambda *_: (next(calls, 0.5), 0.0, 0.0))
    target, reference = contrasts()
    assert compared(target[:4], reference[:4]).slice_offset == 0
    calls = iter([prominence[0], prominence[-1], 0.54])
    assert compared(target[:4], reference[:4]).slice_offset == 1


@pytest.mark.parametrize("slices", [4, 5])
@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_real_thin_slabs_in_place_are_not_called_a_slice_off(mirror, contrast, slices):
    folder = mirror / "cross_sectional" / "MNI" / "patient07"
    target, reference = (nib.load(next(folder.glob(f"{name}_*.nii.gz"))).dataobj for name in ("FLAIR", contrast))
    for start in range(60, 120, 12):
        for scale in (2, 4):
            volumes = [torch.from_numpy(np.asarray(each[:180, :216, start : start + slices], np.float32)) for each in (target, reference)]
            lowered = [torch.stack([truncate(each, scale) for each in volume.movedim(2, 0)]) for volume in volumes]
            assert edge_alignment(*lowered, 12 // scale, (scale, scale)).slice_offset == 0


@functools.cache
def deep_anatomy():
    """40 slices, and ten more on either side to take displaced ones from."""
    return functional.pad(anatomy(0, depth=40).movedim(0, 2), (10, 10), mode="replicate").movedim(2, 0)


@pytest.mark.parametrize("voxels", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_a_displacement_across_thick_slices_is_found(voxels):
    """Of a fifth of a slice, and mostly of a tenth; larger ones are seen as too large."""
    thick, step, tissue = 5, 2.0, deep_anatomy()

    def stack(volume, offset):
        """Every 5th slice, the mean of 5, `offset` slices on."""
        lower = math.floor(offset)
        parts = [functional.avg_pool3d(volume[None, 10 + k : 50 + k], (thick, 1, 1))[0] for k in (lower, lower + 1)]
        return (1 - (offset - lower)) * parts[0] + (offset - lower) * parts[1]

    reference = (6 - tissue) ** 2 / 6
    before, there, behind = (stack(reference, offset - voxels) for offset in (-step, 0.0, step))  # moved by `voxels` to the far end
    found = displacement_across(stack(tissue, 0), (before, there, behind), step, REACH)
    assert abs(found) <= step
    assert found == pytest.approx(voxels, abs=0.25 if abs(voxels) < 1 else 1.0)
    assert (abs(found) > 0.75) == (abs(voxels) == 1)


def test_a_displacement_across_slices_counts():
    assert Alignment(0.4, 0.1, 0, 1, 0.4).in_place and not Alignment(0.4, 0.1, 0, 1, -0.6).in_place
    assert Alignment(0.4, 0.3, 0, 1, 0.1).better_than(Alignment(0.4, 0.1, 0, 1, 1.2))


def test_another_anatomy_and_noise_do_not_fit():
    target, _ = contrasts(0)
    for other in (contrasts(1)[1], torch.rand(6, 128, 128)):
        found = compared(target, other)
        assert not found.fits and not found.in_place


def test_units_and_offsets_do_not_count():
    target, reference = contrasts()
    assert compared(1e4 * target, 1e-3 * reference + 7).prominence == pytest.approx(compared(target, reference).prominence, rel=1e-3)


def test_empty_and_tiny_images_say_nothing():
    target, reference = contrasts()
    assert compared(target, torch.zeros_like(reference)) is None
    assert edge_alignment(target[:, :31, :31], target[:, :31, :31], REACH, (1, 1)) is None


def test_one_slice_is_enough():
    target, reference = contrasts()
    assert compared(target[:1], reference[:1]).in_place


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(6, 64, 64\) and \(6, 64, 63\)"):
        edge_alignment(torch.rand(6, 64, 64), torch.rand(6, 64, 63), REACH, (1, 1))


def test_the_better_of_two_placements_fits_shows_the_same_slice_and_lies_nearer():
    worst_first = [Alignment(*found, 2) for found in ((0.02, 0.0, 0), (0.12, 3.0, 1), (0.4, 0.1, 1), (0.3, 1.0, 0), (0.2, 0.1, 0))]
    for number, one in enumerate(worst_first):
        assert [one.better_than(other) for other in worst_first] == [place < number for place in range(len(worst_first))]
