"""MINet: features of several stages of both contrasts, each matched with all others."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hftn_sr.networks.baselines.two_branch import TwoBranch

__all__ = ["MINet"]

STAGES = 7


class MINet(TwoBranch):
    """Multi-stage integration network; at each stage a 1x1 convolution of both maps joins the target's.

    Source: Feng et al., MICCAI 2021, doi 10.1007/978-3-030-87231-1_14, and its public code, which as published does not run.
    Mended here: the convolution after `LAM` is for 7C channels there and receives 14C (read: 14C); `rgb_mean` and `rgb_std` of an unused
    layer are undefined (dropped); the scale is fixed at 2 (taken from the option); branches and fusion layers that are registered but
    never used are left out. Left open: whether the published figures are of 7 or 14 maps; the code's forward concatenates 14.
    Other than published: pred is added to the zero-filled target, the squeeze biases of the channel attention start at 1, and the head
    that reproduces the reference is an option. Loss there: 0.3 L1(target) + 0.7 L1(reference).
    The 14 maps of one 320 x 320 slice take 367 MB in float32: train on patches.

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        normalize_energy: see `LAM`.
        auxiliary: return (pred, reference reproduced) instead of pred.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 64, normalize_energy: bool = False, auxiliary: bool = False) -> None:
        super().__init__(scale, channels, STAGES, ConcatenatedConvolution, normalize_energy, auxiliary)
        self.options = {"scale": scale, "channels": channels, "normalize_energy": normalize_energy, "auxiliary": auxiliary}


class ConcatenatedConvolution(nn.Module):
    """1x1 convolution of both maps, 2C to C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, reference: Tensor, target: Tensor) -> Tensor:
        """Both (B, C, H, W), as is the result."""
        return self.convolution(torch.cat([reference, target], 1))
