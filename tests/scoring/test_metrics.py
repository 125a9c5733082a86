"""Image quality against scikit-image and by hand."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from hftn_sr.scoring.metrics import nmse, psnr, scores, slice_scores, slice_sums, ssim


@pytest.fixture(params=[(7, 11, 3), (16, 9, 1)])
def volumes(request):
    """A prediction and a truth (X, Y, Z) whose slices differ in brightness and whose maxima differ from each other."""
    generator = np.random.default_rng(5)
    truth = generator.gamma(2.0, 40.0, request.param) * np.linspace(0.3, 1.0, request.param[2])
    return torch.from_numpy(1.1 * truth + generator.normal(0, 9.0, truth.shape)), torch.from_numpy(truth)


def test_psnr_is_scikit_images_with_the_maximum_of_the_truth_volume_as_peak(volumes):
    prediction, truth = volumes
    expected = peak_signal_noise_ratio(truth.numpy(), prediction.numpy(), data_range=truth.numpy().max())
    assert psnr(prediction, truth) == pytest.approx(expected, abs=1e-6)


def test_ssim_is_scikit_images_mean_over_slices_of_the_last_axis(volumes):
    prediction, truth = (volume.numpy() for volume in volumes)
    slices = [structural_similarity(truth[..., z], prediction[..., z], win_size=7, data_range=truth.max()) for z in range(truth.shape[-1])]
    assert ssim(*volumes) == pytest.approx(np.mean(slices), abs=1e-6)


def test_nmse_is_scikit_images_normalized_error_squared(volumes):
    prediction, truth = volumes
    assert nmse(prediction, truth) == pytest.approx(normalized_root_mse(truth.numpy(), prediction.numpy()) ** 2, abs=1e-6)


def test_float32_volumes_score_as_their_float64_copies(volumes):
    single = [volume.float() for volume in volumes]
    assert scores(*single) == pytest.approx(scores(*(volume.double() for volume in single)), rel=1e-12)


def test_an_error_of_a_hundredth_of_the_peak_is_40_db():
    truth = torch.zeros(8, 8, 2)
    truth[3, 4, 1] = 10.0
    assert psnr(truth + 0.1, truth) == pytest.approx(40.0, abs=1e-6)
    assert nmse(truth + 0.1, truth) == pytest.approx(128 * 0.01 / 100, rel=1e-6)


def test_ssim_of_two_constants_is_their_luminance_term():
    c1 = (0.01 * 4.0) ** 2
    assert ssim(torch.full((8, 8, 2), 2.0), torch.full((8, 8, 2), 4.0)) == pytest.approx((16 + c1) / (20 + c1), rel=1e-9)


def test_equal_images_are_perfect(volumes):
    truth = volumes[1]
    perfect = scores(truth.clone(), truth)
    assert perfect["psnr"] == math.inf
    assert perfect["ssim"] == pytest.approx(1.0, abs=1e-12)
    assert perfect["nmse"] == 0.0


def test_scores_are_the_three_functions_by_name(volumes):
    assert scores(*volumes) == {"psnr": psnr(*volumes), "ssim": ssim(*volumes), "nmse": nmse(*volumes)}


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=r"expected equal shapes, got \(8, 8, 2\) and \(8, 8, 3\)"):
        scores(torch.ones(8, 8, 2), torch.ones(8, 8, 3))


@pytest.mark.parametrize("shape", [(6, 8, 9), (8, 6, 9)])
def test_slices_smaller_than_the_window_are_refused(shape):
    with pytest.raises(ValueError, match=rf"expected slices of at least 7 x 7, got \({shape[0]}, {shape[1]}\)"):
        scores(torch.ones(shape), torch.ones(shape))


def test_a_truth_without_signal_is_refused():
    with pytest.raises(ValueError, match="expected a truth with positive signal"):
        scores(torch.ones(8, 8, 2), torch.zeros(8, 8, 2))


def test_a_prediction_that_is_not_a_number_has_no_score(volumes):
    prediction, truth = volumes
    prediction[0, 0, 0] = math.nan
    assert math.isnan(psnr(prediction, truth))
    assert math.isnan(nmse(prediction, truth))


def test_the_scores_of_the_volume_follow_from_the_sums_of_its_slices(volumes):
    assert slice_sums(*volumes).scores() == pytest.approx(scores(*volumes), rel=1e-9)


def test_any_choice_of_slices_scores_as_the_volume_made_of_them(volumes):
    prediction, truth = volumes
    chosen = [truth.shape[-1] - 1, 0, truth.shape[-1] - 1]  # with the brightest slice, whose maximum is the peak
    counts = np.bincount(chosen, minlength=truth.shape[-1]).astype(float)
    sums = slice_sums(prediction, truth)
    expected = scores(prediction[..., chosen], truth[..., chosen])
    assert truth[..., chosen].max() == truth.max()
    assert {name: float(sums.score(name, counts)) for name in expected} == pytest.approx(expected, rel=1e-9)


def test_slices_score_as_scikit_image_does_with_the_peak_of_the_volume(volumes):
    ours, truth = (volume.numpy() for volume in volumes)
    found, peak = slice_scores(*volumes), truth.max()
    for z in range(truth.shape[-1]):
        pair = truth[..., z], ours[..., z]
        assert found["psnr"][z] == pytest.approx(peak_signal_noise_ratio(*pair, data_range=peak), abs=1e-6)
        assert found["ssim"][z] == pytest.approx(structural_similarity(*pair, win_size=7, data_range=peak), abs=1e-6)
        assert found["nmse"][z] == pytest.approx(normalized_root_mse(*pair) ** 2, abs=1e-6)


def test_a_slice_without_error_has_infinite_psnr_and_one_without_signal_no_nmse():
    truth = torch.ones(8, 8, 3)
    truth[..., 1] = 0
    prediction = truth.clone()
    prediction[..., 1:] += 0.1
    found = slice_scores(prediction, truth)
    assert found["psnr"].tolist() == [math.inf, pytest.approx(20), pytest.approx(20)]
    assert found["nmse"].tolist() == [0, pytest.approx(math.nan, nan_ok=True), pytest.approx(0.01)]


def test_slices_of_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"expected a volume of three axes, got \(1, 8, 8, 2\)"):
        slice_sums(torch.ones(1, 8, 8, 2), torch.ones(1, 8, 8, 2))
