"""FEB against its formula, written with functional calls on the module's weights."""

import pytest
import torch
from torch.nn import functional

from hftn_sr.networks.feature_extraction import FEB, ChannelAttention, ResidualChannelAttentionBlock
from hftn_sr.networks.layers import conv3x3


def convolve(layer, features):
    return functional.conv2d(features, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)


def attend(attention, features):
    _, squeeze, _, excite, _ = attention.weight
    average = features.mean((-2, -1))
    hidden = (average @ squeeze.weight.flatten(1).T + squeeze.bias).clamp_min(0)
    return features * torch.sigmoid(hidden @ excite.weight.flatten(1).T + excite.bias)[..., None, None]


def residual_block(block, features):
    first, _, second, attention = block.body
    return features + attend(attention, convolve(second, convolve(first, features).clamp_min(0)))


@pytest.fixture
def features():
    return torch.randn(2, 16, 5, 7, generator=torch.Generator().manual_seed(1))


def test_a_convolution_of_the_paper_keeps_the_size_and_sees_zeros_beyond_the_border():
    layer = conv3x3(1, 1)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    counts = torch.tensor([[4.0, 6.0, 4.0], [6.0, 9.0, 6.0], [4.0, 6.0, 4.0]])
    torch.testing.assert_close(layer(torch.ones(1, 1, 3, 3))[0, 0], counts)


def test_channel_attention_weighs_by_a_sigmoid_of_the_channel_averages(features):
    torch.manual_seed(0)
    attention = ChannelAttention(16, reduction=4)
    torch.testing.assert_close(attention(features), attend(attention, features))


def test_channel_attention_has_a_hidden_unit_even_with_fewer_channels_than_the_reduction():
    assert ChannelAttention(8, reduction=16).weight[1].weight.shape == (1, 8, 1, 1)


def test_every_hidden_unit_of_channel_attention_is_on_at_the_start(features):
    torch.manual_seed(0)
    blocks = [ChannelAttention(16) for _ in range(50)]
    assert all((block.weight[:2](features) > 0).all() for block in blocks)


def test_a_residual_block_adds_attended_convolutions_to_its_input(features):
    torch.manual_seed(0)
    block = ResidualChannelAttentionBlock(16)
    torch.testing.assert_close(block(features), residual_block(block, features))


@pytest.mark.parametrize("blocks", [1, 2])
def test_feb_is_n_residual_blocks_then_a_convolution_then_the_skip(features, blocks):
    torch.manual_seed(0)
    feb = FEB(16, blocks)
    expected = features
    for block in list(feb)[:-1]:
        expected = residual_block(block, expected)
    torch.testing.assert_close(feb(features), features + convolve(feb[-1], expected))
    assert len(feb) == blocks + 1


def test_feb_with_a_zero_last_convolution_is_the_identity(features):
    feb = FEB(16, 1)
    torch.nn.init.zeros_(feb[-1].weight)
    torch.nn.init.zeros_(feb[-1].bias)
    assert torch.equal(feb(features), features)
