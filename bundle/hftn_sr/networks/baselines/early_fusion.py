"""Early fusion, a control: both contrasts enter side by side, and nothing looks for a match."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.baselines.blocks import Baseline, Residual, Up
from hftn_sr.networks.feature_extraction import FEB
from hftn_sr.networks.layers import conv3x3, output_convolution

__all__ = ["EarlyFusion"]


class EarlyFusion(Baseline):
    r"""Residual channel-attention network on the target's and the reference's samples, concatenated on the low-resolution grid.

    .. math:: g = Conv([x, PixelUnshuffle_s(r)]), \qquad Conv(Up_s(g + Conv(Group_n(\dots Group_1(g)))))

    Source: none; the paper on HFTN-SR lacks this control. If it does as well as HFTN-SR, then the gain over a single contrast is that of
    having the reference, not of searching in it. The body is that of RCAN (Zhang et al., ECCV 2018, doi 10.1007/978-3-030-01234-2_18) of
    the residual groups that MINet and SANet have. Chosen: 12 groups of 6 blocks, which is the size of HFTN-SR: 7 % more parameters,
    9 % (x2) and 11 % (x4) fewer MACs.

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        groups: residual groups n.
        blocks: residual channel-attention blocks in each group.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 64, groups: int = 12, blocks: int = 6) -> None:
        super().__init__(scale, channels)
        if groups < 1 or blocks < 1:
            raise ValueError(f"expected at least 1 group of at least 1 block, got {groups} of {blocks}")
        self.options = {"scale": scale, "channels": channels, "groups": groups, "blocks": blocks}
        self.layers = nn.Sequential(
            conv3x3(1 + scale**2, channels),
            Residual(*(FEB(channels, blocks) for _ in range(groups)), conv3x3(channels, channels)),
            Up(channels, scale),
            output_convolution(channels),
        )

    def _detail(self, x: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return self.layers(torch.cat([x, functional.pixel_unshuffle(low + high, self.scale)], 1))
