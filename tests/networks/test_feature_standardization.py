"""SCRFM against equations (12) to (18), written with functional calls on the module's weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hftn_sr.networks.feature_standardization import SCRFM, PlainRestoration, Upsampler

CHANNELS = 3


def convolve(layer, *features):
    return functional.conv2d(torch.cat(features, 1), layer.weight, layer.bias, padding=1)


def deconvolve(upsampler, features):
    for layer in upsampler:
        features = functional.conv_transpose2d(features, layer.weight, layer.bias, stride=2, padding=1)
    return features


def refined(scrfm, standardized, shallow):
    return scrfm.refine(standardized, shallow)


def zero(*layers):
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


@pytest.fixture
def maps():
    """F_FAF^N and F_Tar^0, with channel means and spreads of their own."""
    generator = torch.Generator().manual_seed(2)
    scales = torch.tensor([0.5, 2.0, 5.0])[:, None, None]
    fused, shallow = (torch.randn(2, CHANNELS, 5, 6, generator=generator) for _ in range(2))
    return 3 * fused - 1, scales * shallow + 2 * scales


@pytest.fixture
def build():
    def build(**options):
        torch.manual_seed(3)
        return SCRFM(CHANNELS, **options)

    return build


@pytest.mark.parametrize("stat", ["std", "var"])
def test_standardized_fusion_follows_equations_12_to_15(maps, build, stat):
    fused, shallow = maps
    scrfm = build(scale=2, stat=stat)
    joint = convolve(scrfm.joint, fused, shallow)
    variance = ((shallow - shallow.mean((2, 3), keepdim=True)) ** 2).mean((2, 3), keepdim=True)
    alpha = convolve(scrfm.alpha, joint) + (variance if stat == "var" else variance.sqrt())
    beta = convolve(scrfm.beta, joint) + shallow.mean((2, 3), keepdim=True)
    torch.testing.assert_close(scrfm.standardize(fused, shallow), alpha * functional.instance_norm(fused) + beta, rtol=1e-4, atol=1e-4)


def test_without_learned_parts_the_fused_features_get_the_mean_and_spread_of_the_shallow_ones(maps, build):
    fused, shallow = maps
    scrfm = build(scale=2)
    zero(scrfm.alpha, scrfm.beta)
    standardized = scrfm.standardize(fused, shallow)
    torch.testing.assert_close(standardized.mean((2, 3)), shallow.mean((2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(standardized.std((2, 3)), shallow.std((2, 3)), rtol=1e-4, atol=0)


def test_the_printed_variance_gives_the_fused_features_a_spread_of_the_shallow_ones_squared(maps, build):
    fused, shallow = maps
    scrfm = build(scale=2, stat="var")
    zero(scrfm.alpha, scrfm.beta)
    spread = scrfm.standardize(fused, shallow).std((2, 3), correction=0)
    torch.testing.assert_close(spread, shallow.var((2, 3), correction=0), rtol=1e-4, atol=0)


def test_constant_shallow_features_leave_finite_gradients(maps, build):
    shallow = torch.full_like(maps[1], 2.0).requires_grad_()
    build(scale=2)(maps[0], shallow).square().sum().backward()
    assert shallow.grad.isfinite().all()
    assert shallow.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [2, 4])
def test_refined_fusion_follows_equations_16_to_18(maps, build, scale):
    standardized, shallow = maps
    scrfm = build(scale=scale)
    fused = deconvolve(scrfm.up_fused, shallow - convolve(scrfm.difference_fused, standardized) + standardized)
    kept = deconvolve(scrfm.up_shallow, shallow - convolve(scrfm.difference_shallow, standardized) + shallow)
    torch.testing.assert_close(refined(scrfm, standardized, shallow), convolve(scrfm.merge, fused, kept), rtol=1e-4, atol=1e-5)


def test_the_literal_reading_of_equation_16_upsamples_the_difference_and_the_features_apart(maps, build):
    standardized, shallow = maps
    scrfm = build(scale=2, literal_up=True)
    difference = shallow - convolve(scrfm.difference_fused, standardized)
    fused = deconvolve(scrfm.up_fused, difference) + deconvolve(scrfm.up_literal, standardized)
    kept = deconvolve(scrfm.up_shallow, shallow - convolve(scrfm.difference_shallow, standardized) + shallow)
    torch.testing.assert_close(refined(scrfm, standardized, shallow), convolve(scrfm.merge, fused, kept), rtol=1e-4, atol=1e-5)


def test_both_stages_in_turn_are_the_module(maps, build):
    scrfm = build(scale=4)
    assert torch.equal(scrfm(*maps), refined(scrfm, scrfm.standardize(*maps), maps[1]))
    assert scrfm(*maps).shape == (2, CHANNELS, 20, 24)


@pytest.mark.parametrize("scale", [2, 4])
def test_upsampling_overlaps_evenly_so_that_a_constant_stays_one_away_from_the_borders(scale):
    upsampler = Upsampler(CHANNELS, scale)
    for layer in upsampler:
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)
    upsampled = upsampler(torch.ones(1, CHANNELS, 6, 7))
    assert upsampled.shape == (1, CHANNELS, scale * 6, scale * 7)
    inside = upsampled[..., scale:-scale, scale:-scale]
    gain = (4 * CHANNELS * 0.1) ** len(upsampler)  # 2 x 2 taps of each input channel meet in every voxel
    torch.testing.assert_close(inside, torch.full_like(inside, gain))


def test_an_unknown_statistic_is_refused():
    with pytest.raises(ValueError, match="expected stat to be 'std' or 'var', got 'mad'"):
        SCRFM(CHANNELS, 2, stat="mad")


@pytest.mark.parametrize("scale", [2, 4])
def test_the_ablation_without_scrfm_restores_the_size_of_one_convolution_of_deep_and_shallow_features(scale):
    torch.manual_seed(0)
    module = PlainRestoration(4, scale)
    fused, shallow = torch.randn(2, 1, 4, 5, 6).unbind()
    joint = module.joint
    found = functional.conv2d(fused, joint.weight[:, :4], joint.bias, padding=1) + functional.conv2d(
        shallow, joint.weight[:, 4:], padding=1
    )
    for layer in module.up:
        found = functional.conv_transpose2d(found, layer.weight, layer.bias, stride=2, padding=1)
    assert found.shape == (1, 4, 5 * scale, 6 * scale)
    torch.testing.assert_close(module(fused, shallow), found, atol=1e-5, rtol=1e-5)
