"""EDSR, super-resolution of one contrast: what the reference is worth shows against it."""

from __future__ import annotations

from torch import Tensor, nn

from hftn_sr.networks.baselines.blocks import Baseline, ResBlock, Residual, Up
from hftn_sr.networks.layers import conv3x3, output_convolution

__all__ = ["EDSR", "EDSRLayers"]


class EDSRLayers(nn.Sequential):
    """conv3 (head); n ResBlocks and conv3, plus head; Up(s); conv3 from zero: (B, 1, h, w) to (B, 1, s*h, s*w)."""

    def __init__(self, scale: int, channels: int, blocks: int) -> None:
        super().__init__(
            conv3x3(1, channels),
            Residual(*(ResBlock(channels) for _ in range(blocks)), conv3x3(channels, channels)),
            Up(channels, scale),
            output_convolution(channels),
        )


class EDSR(Baseline):
    """Enhanced deep residual network, on the low-resolution samples of the target only; the reference is not looked at.

    Source: Lim et al., CVPR Workshops 2017, doi 10.1109/CVPRW.2017.151, and its public code; layers and counts agree with the code.
    Left open by the paper on HFTN-SR: which size; chosen: the baseline of 16 blocks x 64 channels with residuals unscaled. The larger
    published model is `channels=256, blocks=32`, which also scales each residual by 0.1; that is left out.
    Other than published: one channel instead of RGB without its mean shift, and the image skip of `Baseline`.

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        blocks: residual blocks n.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 64, blocks: int = 16) -> None:
        super().__init__(scale, channels)
        if blocks < 1:
            raise ValueError(f"expected at least 1 block, got {blocks}")
        self.options = {"scale": scale, "channels": channels, "blocks": blocks}
        self.layers = EDSRLayers(scale, channels, blocks)

    def _detail(self, x: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return self.layers(x)
