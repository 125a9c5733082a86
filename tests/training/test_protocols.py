"""The two protocols: one is this project's own figures unchanged, the other the public code of MINet and SANet, transcribed in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from hftn_sr.kspace import decompose, truncate
from hftn_sr.scoring import metrics
from hftn_sr.training.protocols import PROTOCOLS, Corrected, Sanet, centred_truncate, restore
from hftn_sr.volumes.simulation import stack_channels

CROP = 32
SMALL = Sanet(crop=CROP)


def smooth(size, slices=None):
    """Positive and band-limited, far below the edge of the quarter band, one value of brightness per slice."""
    wave = 2 * torch.pi * torch.arange(size, dtype=torch.float64) / size
    image = 3 + torch.cos(wave)[:, None] + torch.sin(2 * wave)[None, :]
    return image[None] if slices is None else image[None, ..., None] * torch.linspace(1, 2, slices, dtype=torch.float64)


def pair(shape=(1, 40, 37, 3), phase=False):
    """Label and reference of independent texture on a bright background; with `phase`, complex as a scanner's image."""
    generator = np.random.default_rng(11)
    images = [generator.gamma(2.0, 40.0, shape) + 50 * generator.random(shape) for _ in range(2)]
    if phase:
        images = [image * np.exp(1j * generator.normal(0, 0.4, shape)) for image in images]
    return tuple(torch.from_numpy(image) for image in images)


# What MINet's and SANet's DataTransform and validation step do with one slice, in NumPy.


def fft2c(image):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image), norm="ortho"))


def ifft2c(spectrum):
    return np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(spectrum), norm="ortho"))


def center_crop(image, shape):
    top, left = (image.shape[0] - shape[0]) // 2, (image.shape[1] - shape[1]) // 2
    return image[top : top + shape[0], left : left + shape[1]]


def data_transform(measured, scale):
    image = center_crop(measured, (CROP, CROP))
    low = np.abs(ifft2c(center_crop(fft2c(image), (CROP // scale, CROP // scale))))
    mean, std = low.mean(), low.std(ddof=1)
    target = np.abs(image) if np.iscomplexobj(image) else image
    return *(np.clip((x - mean) / (std + 1e-11), -6, 6) for x in (low, target)), mean, std


def validation(outputs, targets, means, stds):
    """Volumes (D, H, W) of one case."""
    output = np.stack([x * std + mean for x, mean, std in zip(outputs, means, stds, strict=True)])
    target = np.stack([x * std + mean for x, mean, std in zip(targets, means, stds, strict=True)])
    return {
        "psnr": peak_signal_noise_ratio(target, output, data_range=target.max()),
        "ssim": sum(structural_similarity(t, o, data_range=target.max()) for t, o in zip(target, output, strict=True)) / len(target),
        "nmse": np.linalg.norm(target - output) ** 2 / np.linalg.norm(target) ** 2,
    }


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("phase", [False, True])
def test_sanet_gives_the_network_what_the_public_code_gives_it(scale, phase):
    label, reference = pair(phase=phase)
    prepared = SMALL.prepare(label, reference, scale)
    assert prepared.image.shape == (3, CROP, CROP, 3)
    for z in range(3):
        low, target, mean, std = data_transform(label[0, ..., z].numpy(), scale)
        _, other_contrast, _, _ = data_transform(reference[0, ..., z].numpy(), scale)
        np.testing.assert_allclose(prepared.image[0, ::scale, ::scale, z], low, atol=1e-6)
        np.testing.assert_allclose(prepared.label[0, ..., z], target, atol=1e-6)
        np.testing.assert_allclose(prepared.image[1:, ..., z].sum(0), other_contrast, atol=1e-6)
        assert prepared.mean[0, 0, 0, z] == pytest.approx(mean, rel=1e-9)
        assert prepared.std[0, 0, 0, z] == pytest.approx(std, rel=1e-9)


def test_sanet_scores_as_the_public_code_scores():
    label, reference = pair()
    prepared = SMALL.prepare(label, reference, 2)
    prediction = prepared.label + 0.1 * prepared.image[1:2]
    slices = [tensor[0].movedim(-1, 0).numpy() for tensor in (prediction, prepared.label, prepared.mean, prepared.std)]
    assert SMALL.scores(prediction, prepared.label, prepared.mean, prepared.std) == pytest.approx(validation(*slices), abs=1e-6)
    assert SMALL.scores(prediction[0], prepared.label[0], prepared.mean[0], prepared.std[0]) == pytest.approx(validation(*slices), abs=1e-6)


def test_sanet_figures_in_float32_are_those_in_float64_to_a_thousandth_of_a_decibel():
    def psnr(dtype):
        prepared = SMALL.prepare(*(image.to(dtype) for image in pair()), 4)
        assert prepared.image.dtype == prepared.label.dtype == dtype
        return SMALL.scores(prepared.image[:1], prepared.label, prepared.mean, prepared.std)["psnr"]

    assert psnr(torch.float32) == pytest.approx(psnr(torch.float64), abs=1e-3)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_protocols_differ_by_the_factor_s_in_the_low_resolution_intensities(scale):
    label, reference = smooth(64, 2), smooth(64, 2)
    corrected, sanet = PROTOCOLS["corrected"].prepare(label, reference, scale), Sanet(crop=64).prepare(label, reference, scale)
    low_corrected, low_sanet = (restore(each.image[:1], each.mean, each.std)[:, ::scale, ::scale] for each in (corrected, sanet))
    torch.testing.assert_close(low_sanet, scale * low_corrected, rtol=1e-6, atol=0)
    assert float(low_sanet.mean() / low_corrected.mean()) == pytest.approx(scale, rel=1e-6)
    torch.testing.assert_close(restore(sanet.label, sanet.mean, sanet.std), label, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_factor_s_is_within_a_per_cent_on_an_image_with_edges(scale):
    label = pair((1, 64, 64, 2))[0]
    low = centred_truncate(label.movedim(-1, -3), scale).abs()
    assert float(low.mean() / truncate(label.movedim(-1, -3), scale).mean()) == pytest.approx(scale, rel=0.01)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_mean_of_any_image_is_multiplied_by_exactly_s(scale):
    label = pair((1, 64, 48, 2))[0].movedim(-1, -3)
    assert complex(centred_truncate(label, scale).mean()) == pytest.approx(scale * float(label.mean()), rel=1e-12)


def test_an_image_that_is_s_times_too_bright_scores_far_below_the_same_image_of_corrected():
    """Zero-filling: the network of `sanet` must learn the factor before anything else."""
    label, reference = pair((1, 64, 64, 3))
    figures = {}
    for protocol in (Corrected(), Sanet(crop=64)):
        prepared = protocol.prepare(label, reference, 2)
        figures[protocol.name] = protocol.scores(prepared.image[:1], prepared.label, prepared.mean, prepared.std)
    assert figures["sanet"]["psnr"] < figures["corrected"]["psnr"] - 5
    assert figures["sanet"]["nmse"] > 1


def test_values_beyond_six_standard_deviations_of_the_low_resolution_image_are_cut_off_in_the_truth_too():
    label, reference = pair((1, 40, 40, 2))
    label[0, 20, 20, 0] = 1e5
    prepared = SMALL.prepare(label, reference, 2)
    assert prepared.label.max() == 6
    peak = restore(prepared.label, prepared.mean, prepared.std).max()
    assert float(peak) == pytest.approx(float(prepared.mean[..., 0] + 6 * prepared.std[..., 0]), rel=1e-9)
    assert peak < label.max()


@pytest.mark.parametrize("method", ["band", "taper", "gaussian", "none"])
def test_sanet_decomposes_the_normalised_reference(method):
    label, reference = pair()
    whole = SMALL.prepare(label, reference, 2, "none").image[1].movedim(-1, 0)
    low, high = decompose(whole, 2, method)
    torch.testing.assert_close(SMALL.prepare(label, reference, 2, method).image[1:].movedim(-1, 1), torch.stack([low, high]))


@pytest.mark.parametrize("protocol", [Corrected(), SMALL], ids=lambda protocol: protocol.name)
def test_a_volume_is_prepared_slice_by_slice(protocol):
    label, reference = pair((1, 40, 36, 3))
    whole = protocol.prepare(label, reference, 2)
    assert whole.mean.shape == whole.std.shape == (1, 1, 1, 3)
    for z in range(3):
        one = protocol.prepare(label[..., z], reference[..., z], 2)
        for field in ("image", "label", "mean", "std"):
            torch.testing.assert_close(getattr(one, field), getattr(whole, field)[..., z])


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("decomposition", ["band", "gaussian"])
def test_corrected_changes_neither_a_voxel_nor_a_figure(magnitude, decomposition):
    label, reference = (image.float() for image in pair((1, 40, 36, 3)))
    label -= 100  # the ringing of a signed image must survive
    prepared = PROTOCOLS["corrected"].prepare(label, reference, 4, decomposition, magnitude)
    low = truncate(label[0].movedim(-1, 0), 4)
    expected = stack_channels(low.abs() if magnitude else low, reference[0].movedim(-1, 0), 4, decomposition).movedim(1, -1)
    assert torch.equal(prepared.image, expected)
    assert torch.equal(prepared.label, label)
    figures = PROTOCOLS["corrected"].scores(prepared.image[:1], prepared.label, prepared.mean, prepared.std)
    assert figures == metrics.scores(prepared.image[0], label[0])
    assert figures == PROTOCOLS["corrected"].scores(prepared.image[:1], prepared.label)


def test_scores_are_those_of_scikit_image_on_restored_intensities():
    label, reference = pair()
    prepared = SMALL.prepare(label, reference, 4)
    truth, ours = (restore(x, prepared.mean, prepared.std)[0].numpy() for x in (prepared.label, prepared.image[:1]))
    figures = SMALL.scores(prepared.image[:1], prepared.label, prepared.mean, prepared.std)
    assert figures["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, ours, data_range=truth.max()), abs=1e-6)
    slices = [structural_similarity(truth[..., z], ours[..., z], win_size=7, data_range=truth.max()) for z in range(3)]
    assert figures["ssim"] == pytest.approx(np.mean(slices), abs=1e-6)


def test_empty_slices_and_an_empty_reference_stay_zero():
    label, reference = pair()
    label[..., 1] = 0
    prepared = SMALL.prepare(label, torch.zeros_like(reference), 2)
    assert torch.isfinite(prepared.image).all()
    assert not prepared.image[0, ..., 1].any()
    assert not prepared.image[1:].any()


def test_images_smaller_than_the_central_square_are_refused():
    with pytest.raises(ValueError, match="expected slices of at least 320 x 320 voxels, got 37 x 40; choose a smaller crop"):
        PROTOCOLS["sanet"].prepare(*pair(), 2)


def test_a_square_that_twice_the_scale_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="expected in-plane sizes divisible by twice a scale of at least 2, got 36 x 36 and scale 4"):
        Sanet(crop=36).prepare(*pair((1, 40, 40, 1)), 4)


def test_corrected_refuses_complex_images():
    with pytest.raises(ValueError, match="expected real images, got complex ones"):
        PROTOCOLS["corrected"].prepare(*pair((1, 40, 40, 1), phase=True), 4)


@pytest.mark.parametrize("shapes", [((1, 40, 40), (1, 40, 36)), ((2, 40, 40), (2, 40, 40)), ((40, 40), (40, 40))])
def test_pairs_that_are_not_of_one_shape_with_one_channel_are_refused(shapes):
    with pytest.raises(ValueError, match=r"expected a label and a reference of one shape \(1, H, W\) or \(1, H, W, D\)"):
        PROTOCOLS["corrected"].prepare(*map(torch.ones, shapes), 2)


def test_a_protocol_is_found_by_its_name_and_says_its_name():
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.description.startswith(f"protocol {name}: ")
    assert "64 x 64" in Sanet(crop=64).description
