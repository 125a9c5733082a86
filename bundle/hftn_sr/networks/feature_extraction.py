"""Feature extraction block (FEB): residual channel-attention blocks in a residual group."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hftn_sr.networks.layers import conv3x3

__all__ = ["FEB", "ChannelAttention", "ResidualChannelAttentionBlock"]


class ChannelAttention(nn.Module):
    r"""Weigh each channel by what all channels are on average, :math:`x \cdot \sigma(W_2 \, \mathrm{ReLU}(W_1 \, \mathrm{mean}(x)))`.

    Source: Zhang et al. 2018 (RCAN), as in the public code of SANet and MINet.

    Args:
        channels: C of the (B, C, h, w) features.
        reduction: C / reduction hidden units, at least one.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        squeeze, excite = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        # With so few hidden units a random start leaves all of them off in some blocks, and off they stay: begin with all of them on.
        nn.init.constant_(squeeze.bias, 1.0)  # type: ignore[arg-type]
        self.weight = nn.Sequential(nn.AdaptiveAvgPool2d(1), squeeze, nn.ReLU(), excite, nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        return features * self.weight(features)

    def added_to(self, skip: Tensor, features: Tensor) -> Tensor:
        """`skip` plus what `forward` gives of `features`, in one pass over memory; both (B, C, h, w), as is the result."""
        return torch.addcmul(skip, features, self.weight(features))


class ResidualChannelAttentionBlock(nn.Module):
    r""":math:`x + CA(Conv(ReLU(Conv(x))))` on (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The convolution needs its result for nothing later, so that the ReLU may overwrite it.
        rectify = nn.ReLU(inplace=True)
        self.body = nn.Sequential(conv3x3(channels, channels), rectify, conv3x3(channels, channels), ChannelAttention(channels))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        # By constant places, not slices or annotated names: torch.jit.script, which MONAI's ckpt_export calls, takes no others.
        deep = self.body[2](self.body[1](self.body[0](features)))
        result: Tensor = self.body[3].added_to(features, deep)  # type: ignore[operator]
        return result


class FEB(nn.Sequential):
    r"""Feature extraction block, :math:`x + Conv_{3 \times 3}(RCAB_n(\dots RCAB_1(x)))` on (B, C, h, w).

    Source: HFTN-SR, figure 2, whose inside is lost; read as the residual group of SANet and MINet.

    Args:
        channels: feature channels C.
        blocks: residual channel-attention blocks n.
    """

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(*(ResidualChannelAttentionBlock(channels) for _ in range(blocks)), conv3x3(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        deep = features
        for layer in self:
            deep = layer(deep)
        return features + deep
