"""The simulated scan: less resolution, the same place, the same amplitude."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hftn_sr.errors import Fault
from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.volumes.simulation import crop_to_multiple, degrade, intensity_unit
from hftn_sr.volumes.volume import Volume
from phantoms import oblique, phantom, points


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [2, 4])
def test_samples_lie_where_every_s_th_sample_of_the_truth_lies(factor, axis):
    shape = [24, 16, 32]
    truth = phantom(tuple(shape))
    low = degrade(truth, factor, axis)
    step = tuple(slice(None) if other == axis else slice(None, None, factor) for other in range(3))
    np.testing.assert_allclose(points(low.grid), points(truth.grid)[step], atol=1e-9)
    assert low.data.shape == points(truth.grid)[step].shape[:3]


@pytest.mark.parametrize(("shape", "start", "kept"), [((30, 27, 3), (1, 1, 0), (28, 24, 3)), ((31, 29, 5), (1, 0, 0), (28, 28, 5))])
def test_sizes_that_4_does_not_divide_are_cropped_evenly_and_the_place_follows(shape, start, kept):
    truth = phantom(shape)
    cropped = crop_to_multiple(truth, 4, 2)
    assert cropped.data.shape == kept
    part = tuple(slice(begin, begin + size) for begin, size in zip(start, kept, strict=True))
    np.testing.assert_array_equal(cropped.data, truth.data[part])
    np.testing.assert_allclose(points(cropped.grid), points(truth.grid)[part], atol=1e-9)
    np.testing.assert_allclose(degrade(truth, 4, 2).affine[:, 3], cropped.affine[:, 3])


def test_a_size_that_is_divided_is_not_cropped():
    np.testing.assert_array_equal(crop_to_multiple(phantom((12, 8, 3)), 4, 2).data, phantom((12, 8, 3)).data)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_amplitude_of_a_constant_and_of_a_slow_wave_is_kept(factor):
    wave = 100 + 20 * np.cos(2 * np.pi * np.arange(32) / 32)
    truth = Volume(np.broadcast_to(wave[:, None, None], (32, 16, 2)).astype(np.float32), oblique((1, 1, 3)))
    low = degrade(truth, factor, 2)
    np.testing.assert_allclose(low.data, truth.data[::factor, ::factor], rtol=1e-5)


def test_a_magnitude_image_has_no_negative_voxels_and_is_otherwise_the_same():
    data = np.zeros((16, 16, 2), np.float32)
    data[5:9, 5:9] = 100
    truth = Volume(data, oblique((1, 1, 3)))
    ringing, magnitude = degrade(truth, 2, 2), degrade(truth, 2, 2, magnitude=True)
    assert ringing.data.min() < -1
    np.testing.assert_array_equal(magnitude.data, np.abs(ringing.data))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_taken_along_the_through_plane_axis(axis):
    data = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    low = degrade(Volume(data, np.eye(4)), 2, axis)
    for index in range(8):
        expected = truncate(torch.from_numpy(data.take(index, axis)), 2).numpy()
        np.testing.assert_allclose(low.data.take(index, axis), expected, atol=1e-6)


def test_an_image_smaller_than_the_factor_is_refused():
    with pytest.raises(Fault, match=r"too small to lose resolution \(sizes \(3, 16, 2\), factor 4\)"):
        degrade(Volume(np.ones((3, 16, 2), np.float32), np.eye(4)), 4, 2)


def test_zero_filling_the_result_gives_back_what_the_scan_measured():
    truth = phantom((24, 28, 4))
    low = torch.from_numpy(degrade(truth, 2, 2).data).movedim(2, 0)
    np.testing.assert_allclose(truncate(zero_fill(low, 2), 2), low, atol=1e-3)


def test_brightness_ignores_spikes_and_background():
    data = np.zeros(100_000, np.float32)
    data[:5000], data[0] = 100, 1e6
    assert intensity_unit(data) == 100


def test_brightness_of_an_image_without_positive_voxels_is_undefined():
    with pytest.raises(ValueError, match="expected an image with positive voxels, got none"):
        intensity_unit(np.full(8, -1, np.float32))
