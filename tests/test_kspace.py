"""The k-space contract, on even and odd sizes, against analytic values and an independent matrix form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hftn_sr.kspace import band_residual, decompose, replace_band, resize, shift, split_bands, truncate, zero_fill

TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-13}  # images are within 0.5..1.5
FACTORS = st.sampled_from([2, 4])
quick = settings(deadline=None, max_examples=40, derandomize=True)


@st.composite
def pairs(draw, dtypes=(torch.float32, torch.float64)):
    """A low-resolution image (2, h, w), a high-resolution one (2, s*h, s*w) and s."""
    size, factor = (draw(st.integers(1, 12)), draw(st.integers(1, 12))), draw(FACTORS)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    dtype = draw(st.sampled_from(dtypes))
    low, high = (torch.rand(2, s * size[0], s * size[1], generator=generator, dtype=dtype) + 0.5 for s in (1, factor))
    return low, high, factor


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[expected.dtype])


def wave(size, cycles, phase=0.0):
    """Cosine with whole cycles over `size` samples, float64."""
    return torch.cos(2 * math.pi * cycles * torch.arange(size, dtype=torch.float64) / size + phase)


def resampling_matrices(size, factor):
    """Truncation (size, s*size) and zero-filling (s*size, size) of one axis as complex matrices over signed frequencies."""
    frequencies = np.arange(-(size // 2), size // 2 + 1)  # both +size/2 and -size/2 where size is even
    weights = np.where(2 * np.abs(frequencies) == size, 0.5, 1.0)
    coarse = np.exp(2j * np.pi * np.outer(np.arange(size), frequencies) / size)
    fine = np.exp(2j * np.pi * np.outer(np.arange(factor * size), frequencies) / (factor * size))
    return coarse @ fine.conj().T / (factor * size), (fine * weights) @ coarse.conj().T / size


@quick
@given(pairs())
def test_truncating_a_zero_filled_image_gives_it_back(pair):
    low, _, factor = pair
    assert_same(truncate(zero_fill(low, factor), factor), low)


@quick
@given(pairs())
def test_another_size_by_a_whole_factor_is_what_truncation_and_zero_filling_give(pair):
    low, high, factor = pair
    assert_same(resize(high, low.shape[-2:]), truncate(high, factor))
    assert_same(resize(low, high.shape[-2:]), zero_fill(low, factor))


@quick
@given(pairs(), st.integers(0, 9), st.integers(0, 9))
def test_an_image_on_more_voxels_of_any_number_comes_back(pair, rows, columns):
    low, _, _ = pair
    height, width = low.shape[-2:]
    assert_same(resize(resize(low, (height + rows, width + columns)), (height, width)), low)
    assert resize(low, (height + rows, width)).mean() == pytest.approx(float(low.mean()), rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(7, 18), (30, 9), (13, 13)])
def test_waves_keep_their_cycles_phase_and_height_on_other_voxels(height, width):
    image = wave(15, 2, 0.3)[:, None] * wave(12, 3, 1.1)
    torch.testing.assert_close(resize(image, (height, width)), wave(height, 2, 0.3)[:, None] * wave(width, 3, 1.1), rtol=0, atol=1e-13)
    assert resize(image, (3, width)).abs().max() < 1e-13  # two cycles are lost on three voxels


@quick
@given(pairs())
def test_zero_filling_keeps_low_resolution_sample_j_at_sample_s_times_j(pair):
    low, _, factor = pair
    assert_same(zero_fill(low, factor)[..., ::factor, ::factor], low)


@quick
@given(pairs())
def test_what_zero_filling_leaves_of_an_image_has_nothing_in_the_band(pair):
    _, high, factor = pair
    residual = truncate(high - zero_fill(truncate(high, factor), factor), factor)
    assert_same(residual, torch.zeros_like(residual))


@quick
@given(pairs(), st.floats(-3, 3))
def test_a_constant_keeps_its_value(pair, value):
    low, high, factor = torch.full_like(pair[0], value), torch.full_like(pair[1], value), pair[2]
    assert_same(truncate(high, factor), low)
    assert_same(zero_fill(low, factor), high)


@quick
@given(pairs())
def test_the_mean_square_never_grows_when_only_the_band_is_kept(pair):
    _, high, factor = pair
    kept = zero_fill(truncate(high, factor), factor)
    assert (kept**2).mean() <= (high**2).mean() * (1 + TOLERANCE[high.dtype])


@quick
@given(pairs(dtypes=(torch.float64,)))
def test_both_directions_equal_a_complex_matrix_form_whose_imaginary_part_vanishes(pair):
    low, high, factor = pair
    (down_rows, up_rows), (down_columns, up_columns) = (resampling_matrices(size, factor) for size in low.shape[-2:])
    truncated, filled = down_rows @ high.numpy() @ down_columns.T, up_rows @ low.numpy() @ up_columns.T
    assert max(np.abs(truncated.imag).max(), np.abs(filled.imag).max()) < 1e-12
    np.testing.assert_allclose(truncate(high, factor).numpy(), truncated.real, rtol=0, atol=1e-12)
    np.testing.assert_allclose(zero_fill(low, factor).numpy(), filled.real, rtol=0, atol=1e-12)


@quick
@given(pairs())
def test_the_replaced_band_is_the_measured_one(pair):
    low, high, factor = pair
    assert band_residual(replace_band(high, low, factor), low, factor) < (1e-6 if low.dtype == torch.float32 else 1e-14)


@quick
@given(pairs())
def test_replacing_the_band_twice_changes_nothing_more(pair):
    low, high, factor = pair
    once = replace_band(high, low, factor)
    assert_same(replace_band(once, low, factor), once)


@quick
@given(pairs())
def test_replacing_the_band_keeps_the_rest_of_the_image(pair):
    low, high, factor = pair
    assert_same(split_bands(replace_band(high, low, factor), factor)[1], split_bands(high, factor)[1])


def test_the_band_residual_is_relative_to_the_measured_image():
    measured = torch.rand(5, 6) + 0.5
    assert band_residual(torch.zeros(10, 12), measured, 2) == pytest.approx(1.0)
    assert band_residual(zero_fill(1.25 * measured, 2), measured, 2) == pytest.approx(0.25, rel=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("cycles", [1, 3])
def test_a_cosine_within_the_band_is_sampled_at_every_sth_voxel(factor, size, cycles):
    coarse = torch.outer(wave(size, cycles, 0.4), wave(size, 2, -1.1))
    fine = torch.outer(wave(factor * size, cycles, 0.4), wave(factor * size, 2, -1.1))
    assert_same(truncate(fine, factor), coarse)
    assert_same(zero_fill(coarse, factor), fine)


@pytest.mark.parametrize(("size", "cycles"), [(7, 4), (8, 5), (8, 8)])
def test_a_cosine_beyond_the_band_vanishes(size, cycles):
    fine = wave(2 * size, cycles, 0.4).expand(2, 2 * size)
    assert_same(truncate(fine, 2), torch.zeros(1, size, dtype=torch.float64))


def test_the_nyquist_bin_of_an_even_size_is_halved_on_the_way_up_and_summed_on_the_way_down():
    coarse = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    fine = torch.tensor([[1.0, 0.0, -1.0, 0.0]], dtype=torch.float64).expand(2, 4)
    assert_same(zero_fill(coarse, 2), fine)
    assert_same(truncate(fine, 2), coarse)
    sine = torch.tensor([[0.0, 1.0, 0.0, -1.0]], dtype=torch.float64).expand(2, 4)
    assert_same(truncate(sine, 2), torch.zeros(1, 2, dtype=torch.float64))


@quick
@given(pairs(), st.sampled_from(["band", "taper", "gaussian"]))
def test_the_two_components_add_up_and_the_low_one_stays_within_the_band(pair, method):
    _, high, factor = pair
    low_component, high_component = decompose(high, factor, method)
    assert_same(low_component + high_component, high)
    assert_same(split_bands(low_component, factor)[1], torch.zeros_like(high))


@quick
@given(pairs())
def test_the_default_decomposition_is_the_sharp_band(pair):
    _, high, factor = pair
    band = zero_fill(truncate(high, factor), factor)
    low_component, high_component = decompose(high, factor)
    assert_same(low_component, band)
    assert_same(high_component, high - band)


def test_no_decomposition_returns_the_whole_image_twice():
    image = torch.rand(1, 6, 8)
    low, high = decompose(image, 2, "none")
    assert torch.equal(low, image)
    assert torch.equal(high, image)


@pytest.mark.parametrize(("cycles", "share"), [(6, 1.0), (7, 0.5), (8, 0.0), (12, 0.0)])
def test_the_taper_passes_three_quarters_of_the_band_and_halves_in_the_middle_of_the_rest(cycles, share):
    image = wave(32, cycles, 0.7).expand(32, 32)  # the band ends at 8 cycles
    assert_same(decompose(image, 2, "taper")[0], share * image)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_gaussian_has_a_full_width_at_half_maximum_of_s_voxels(factor):
    image = wave(64, 3, 0.7).expand(64, 64)
    sigma = factor / 2 / math.sqrt(2 * math.log(2))  # exp(-(s/2)^2 / (2 sigma^2)) = 1/2
    assert_same(decompose(image, factor, "gaussian")[0], math.exp(-((2 * math.pi * sigma * 3 / 64) ** 2) / 2) * image)


@quick
@given(pairs(), st.integers(-5, 5), st.integers(-5, 5))
def test_a_shift_by_whole_voxels_is_a_roll(pair, rows, columns):
    image = pair[1]
    assert_same(shift(image, (rows, columns)), image.roll((rows, columns), (-2, -1)))


@pytest.mark.parametrize("size", [11, 12])
@pytest.mark.parametrize("offset", [(0.5, 0.0), (0.0, -1.25), (2.3, 0.7)])
def test_a_shift_by_fractions_moves_a_cosine_to_where_it_should_be(size, offset):
    image = torch.outer(wave(size, 2, 0.4), wave(size, 3, -1.1))
    rows, columns = (2 * math.pi * voxels / size for voxels in offset)
    assert_same(shift(image, offset), torch.outer(wave(size, 2, 0.4 - 2 * rows), wave(size, 3, -1.1 - 3 * columns)))


@pytest.mark.parametrize(("size", "factor"), [((6, 8), 4), ((8, 6), 4), ((7, 7), 2), ((8, 8), 1)])
def test_truncation_refuses_sizes_that_the_factor_does_not_divide(size, factor):
    with pytest.raises(ValueError, match=f"divisible by a factor of at least 2, got {size[0]} x {size[1]} and factor {factor}"):
        truncate(torch.ones(size), factor)


def test_zero_filling_refuses_a_factor_below_two():
    with pytest.raises(ValueError, match="expected a factor of at least 2, got 1"):
        zero_fill(torch.ones(4, 4), 1)


def test_an_unknown_decomposition_is_refused():
    with pytest.raises(ValueError, match="expected a decomposition 'band', 'taper', 'gaussian' or 'none', got 'wavelet'"):
        decompose(torch.ones(4, 4), 2, "wavelet")
