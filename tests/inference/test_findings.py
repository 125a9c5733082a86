"""Which pairs are refused, and which scale is taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference.findings import alignment_record, choose_scale, interpolated_in_plane, misfit_of, misplaced
from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.volumes.alignment import Alignment
from hftn_sr.volumes.volume import Volume
from phantoms import oblique, phantom


def volume(spacing, shape=(8, 8, 4)):
    return Volume(np.zeros(shape, np.float32), oblique(spacing))


@pytest.mark.parametrize(
    ("target", "reference", "scale"),
    [((2, 2, 5), (1, 1, 5), 2), ((2, 2, 5), (0.5, 0.5, 1), 4), ((1.9, 1.9, 5), (0.8, 0.8, 0.8), 2), ((3.2, 3.2, 5), (1, 1, 1), 4)],
)
def test_the_scale_nearest_to_the_ratio_of_in_plane_voxel_sizes_is_taken(target, reference, scale):
    chosen, why = choose_scale(volume(target), volume(reference), 2, None)
    assert chosen == scale
    assert why == f"nearest to the ratio {target[0] / reference[0]:.2f} of in-plane voxel sizes"


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.45, 2.8, 5.2, 8.0])
def test_a_ratio_near_neither_scale_is_refused(ratio):
    with pytest.raises(Fault, match=f"in-plane voxels are {ratio:.2f} times those of the reference, near neither 2 nor 4"):
        choose_scale(volume((ratio, ratio, 9)), volume((1, 1, 9)), 2, None)


def test_thick_slices_alone_are_refused_as_another_task():
    with pytest.raises(Fault, match="thick slices alone are not this method's task"):
        choose_scale(volume((1, 1, 5)), volume((1, 1, 1)), 2, None)


def test_low_resolution_along_one_axis_only_is_refused():
    with pytest.raises(Fault, match=r"in-plane voxels of 4\.00 x 1\.00 mm: low resolution along one axis only"):
        choose_scale(volume((4, 1, 3)), volume((1, 1, 3)), 2, None)


def test_what_was_asked_for_is_taken():
    assert choose_scale(volume((1, 1, 5)), volume((1, 1, 1)), 2, 4) == (4, "as asked")


def test_without_a_reference_the_scale_must_be_given():
    assert choose_scale(volume((1, 1, 5)), None, 2, 4) == (4, "as asked")
    with pytest.raises(UsageFault, match=r"--scale: is missing, and without a reference nothing tells it"):
        choose_scale(volume((1, 1, 5)), None, 2, None)


def test_a_scale_that_there_is_no_network_for_is_a_usage_fault():
    with pytest.raises(UsageFault, match=r"--scale: scale 3 \(need 2 or 4\)"):
        choose_scale(volume((2, 2, 5)), volume((1, 1, 1)), 2, 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_image_that_was_zero_filled_after_the_scan_is_found_along_any_axis(axis):
    measured = phantom((48, 48, 4))
    noisy = measured.data + np.random.default_rng(0).normal(0, 2, measured.data.shape).astype(np.float32)
    slices = torch.from_numpy(noisy).movedim(2, 0)
    filled = zero_fill(truncate(slices, 2), 2)
    interpolated, plain = (Volume(image.movedim(0, axis).contiguous().numpy(), np.eye(4)) for image in (filled, slices))
    assert interpolated_in_plane(interpolated, axis)
    assert not interpolated_in_plane(plain, axis)


def test_an_image_too_small_to_tell_is_not_called_interpolated():
    assert not interpolated_in_plane(Volume(np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32), np.eye(4)), 2)


def test_a_reference_in_place_gives_no_warning():
    assert misplaced(Alignment(0.5, 0.05, 0), 2) == []


@pytest.mark.parametrize(
    ("alignment", "said"),
    [
        (Alignment(0.05, 0.0, 0), "do not match"),
        (Alignment(0.3, 0.75, 0), "lie 1.5 voxels of the result away"),
        (Alignment(0.3, 0.05, -1), "lie a slice away"),
        (Alignment(0.3, 0.5, 1), "lie 1.0 voxels of the result and a slice away"),
    ],
)
def test_a_reference_out_of_place_is_named_with_the_cure(alignment, said):
    (warning,) = misplaced(alignment, 2)
    assert said in warning and "--register rigid" in warning
    (warning,) = misplaced(alignment, 2, registered=True)
    assert said in warning and "--reference-transform" in warning and "--register" not in warning


@pytest.mark.parametrize(
    ("alignment", "said"),
    [
        (Alignment(0.5, 0.05, 0), None),
        (Alignment(0.3, 0.24, 0), None),
        (Alignment(0.3, 0.26, 0), "lie 1.0 voxels of the result away from where it belongs, and then gains less than none"),
        (Alignment(0.3, 0.05, 1), None),  # of thin slices, the next one serves nearly as well
        (Alignment(0.3, 0.26, 1), "lie 1.0 voxels of the result and a slice away"),
        (Alignment(0.05, 0.0, 0), "the edges of target and reference do not match (agreement 0.05, usually above 0.24): another patient"),
    ],
)
def test_a_reference_that_gains_less_than_none_is_told_from_one_that_gains_more(alignment, said):
    found = misfit_of(alignment, 4)
    assert said in found if said else found == ""


def test_the_record_tells_displacements_in_voxels_of_the_result():
    assert alignment_record(None, 2) is None
    record = alignment_record(Alignment(0.3, 0.5, 1), 4)
    assert (record["value"], record["displacement_voxels"], record["slice_offset"]) == (0.3, 2.0, 1)
