"""Gated fusion: both contrasts on the low-resolution grid, then the reference's detail let in, gate by gate, on the high one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.feature_extraction import FEB
from hftn_sr.networks.layers import conv3x3, output_convolution, pad_far_edges

__all__ = ["GatedDetail", "GatedFusion"]


class GatedDetail(nn.Module):
    r"""Add detail of the reference where the features ask for it, :math:`u + Conv(ReLU([u, r \cdot Conv(u)]))` on (B, M, H, W).

    A convolution of the reference alone, as the paper's residual of the high band, adds the same detail whatever the tissue; here the
    features u decide, channel by channel and voxel by voxel, how strongly and with which sign the reference's features r count.

    Args:
        channels: feature channels M.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = conv3x3(channels, channels)
        self.merge = conv3x3(2 * channels, channels)

    def forward(self, features: Tensor, reference: Tensor) -> Tensor:
        """Both (B, M, H, W), as is the result."""
        return features + self.merge(functional.relu(torch.cat([features, reference * self.gate(features)], 1)))


class GatedFusion(nn.Module):
    r"""Deep fused stream with the shallow skip and high-frequency residual of HFTN-SR, but without its search for matching patches.

    .. math::
        g = Conv([x, PixelUnshuffle_s(r)]), \quad u_0 = PixelShuffle_s(Conv(g + Conv(FEB_N(\dots FEB_1(g))))), \quad
        u_k = GatedDetail(u_{k-1}, Conv([z, low, high])), \quad z + Conv(u_K)

    All depth is spent on one stream that knows both contrasts, where HFTN-SR has three. Measured at equal cost, steps and patches, that is
    worth more than the transfer, and the gates more than as many layers on the low-resolution grid (docs/design-log.md).
    The last convolution starts at zero, so that the untrained network is exactly zero-filling.
    Source: ours; FEB as in HFTN-SR, skip from the shallow features and high-frequency residual after its equations (16) to (18).

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C on the low-resolution grid.
        groups: FEBs N.
        blocks: residual channel-attention blocks n in each FEB.
        fine_channels: feature channels M on the high-resolution grid.
        gates: gated refinements K on the high-resolution grid.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 32, groups: int = 4, blocks: int = 5, fine_channels: int = 16, gates: int = 2) -> None:
        super().__init__()
        if scale not in (2, 4):
            raise ValueError(f"expected a scale of 2 or 4, got {scale}")
        if min(channels, groups, blocks, fine_channels) < 1 or gates < 0:
            raise ValueError(f"expected positive sizes, got {channels}, {groups}, {blocks}, {fine_channels} and {gates} gates")
        self.options = {
            "scale": scale, "channels": channels, "groups": groups, "blocks": blocks, "fine_channels": fine_channels, "gates": gates,
        }  # fmt: skip
        self.scale = scale
        self.head = conv3x3(1 + scale**2, channels)
        self.body = nn.Sequential(*(FEB(channels, blocks) for _ in range(groups)), conv3x3(channels, channels))
        self.up = nn.Sequential(conv3x3(channels, fine_channels * scale**2), nn.PixelShuffle(scale))
        self.reference = conv3x3(3, fine_channels)
        self.gates = nn.ModuleList(GatedDetail(fine_channels) for _ in range(gates))
        self.output = output_convolution(fine_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            image: (B, 3, H, W) on the high-resolution grid: zero-filled target, low band and high band of the reference. Any size: what s
                does not divide is padded at the far edges and cropped again, so that no sample moves.

        Returns:
            pred: (B, 1, H, W).
        """
        height, width = image.shape[-2:]
        padded = pad_far_edges(image, self.scale)
        zero_filled, low, high = padded.split(1, 1)
        samples = zero_filled[..., :: self.scale, :: self.scale]
        shallow = self.head(torch.cat([samples, functional.pixel_unshuffle(low + high, self.scale)], 1))
        fine = self.up(shallow + self.body(shallow))
        reference = self.reference(padded)
        for gate in self.gates:
            fine = gate(fine, reference)
        return image[:, :1] + self.output(fine)[..., :height, :width]
