"""SANet: the reference says which regions to attend to, and each region and its complement are looked at separately."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hftn_sr.networks.baselines.two_branch import TwoBranch
from hftn_sr.networks.layers import conv3x3

__all__ = ["SANet", "SeparableAttention"]


class SANet(TwoBranch):
    """Separable attention network: MINet's branches, joined at each stage by `SeparableAttention`.

    Source: Feng et al., IEEE TNNLS 35(9), 2024, doi 10.1109/TNNLS.2023.3253557, and its public code, which as published does not run.
    Left open: the number of stages. The code registers 7, but its loop ends after 4, for it has 4 attention modules, and the convolution
    after `LAM` is for 2 x 4 maps. Chosen: 4, the only consistent network of that code; 7, with 14 maps as MINet, is the option.
    Mended here: undefined plotting functions, a third argument that is never passed, undefined `rgb_mean` and `rgb_std`, unused layers.
    Other than published: pred is added to the zero-filled target, the squeeze biases of the channel attention start at 1, and the head
    that reproduces the reference is an option. Loss there: 0.3 L1(target) + 0.7 L1(reference).

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        stages: 4 or 7.
        normalize_energy: see `LAM`.
        auxiliary: return (pred, reference reproduced) instead of pred.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 64, stages: int = 4, normalize_energy: bool = False, auxiliary: bool = False) -> None:
        if stages not in (4, 7):
            raise ValueError(f"expected 4 or 7 stages, got {stages}")
        super().__init__(scale, channels, stages, SeparableAttention, normalize_energy, auxiliary)
        self.options = {
            "scale": scale, "channels": channels, "stages": stages, "normalize_energy": normalize_energy, "auxiliary": auxiliary
        }  # fmt: skip


class SeparableAttention(nn.Module):
    r"""Join the two maps of one stage.

    .. math::
        a = \sigma(Conv(r)), \quad f = Conv_1([r, t]), \quad P = ReLU\,BN\,Conv(f a), \quad Q = ReLU\,BN\,Conv(f (1 - a)), \quad
        u = Conv_1(ReLU\,BN\,Conv([P, Q]))

    Nothing tells a which regions to mark: it has no loss of its own in the public code. f, P and Q have C/2 channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.region = conv3x3(channels, 1)
        self.joint = nn.Conv2d(2 * channels, half, 1)
        self.forward_region = _normalized(half, half)
        self.reverse_region = _normalized(half, half)
        self.merge = nn.Sequential(_normalized(2 * half, half), nn.Conv2d(half, channels, 1))

    def forward(self, reference: Tensor, target: Tensor) -> Tensor:
        """R and t are (B, C, H, W), as is u."""
        region = torch.sigmoid(self.region(reference))
        joint = self.joint(torch.cat([reference, target], 1))
        return self.merge(torch.cat([self.forward_region(joint * region), self.reverse_region(joint * (1 - region))], 1))


def _normalized(entering: int, own: int) -> nn.Sequential:
    return nn.Sequential(conv3x3(entering, own), nn.BatchNorm2d(own), nn.ReLU())
