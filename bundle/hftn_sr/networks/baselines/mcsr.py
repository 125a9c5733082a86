"""MCSR, our reading: single-contrast super-resolution, refined with the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from hftn_sr.networks.baselines.blocks import Baseline, ResBlock, Residual
from hftn_sr.networks.baselines.edsr import EDSRLayers
from hftn_sr.networks.layers import conv3x3, output_convolution

__all__ = ["MCSR"]

BLOCKS = 8  # residual blocks of each of the two halves


class MCSR(Baseline):
    r"""Simultaneous single- and multi-contrast super-resolution; **our reading**, results under this name must say so.

    .. math:: y_1 = z + EDSR_8(x), \qquad g = Conv([y_1, r]), \qquad y_1 + Conv(g + Conv(ResBlock_8(\dots ResBlock_1(g))))

    where r is the whole reference. Both last convolutions start at zero.
    Source: Zeng et al., Comput. Biol. Med. 99:133-141, 2018, doi 10.1016/j.compbiomed.2018.06.010, of which we have the abstract only: one
    convolutional network does both tasks at once, and the reference is a high-resolution image of another contrast.
    Not found, hence chosen: all layers, the loss, the upsampling and the size. Taken is the simplest network with both outputs.

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        auxiliary: return (pred, y_1), for a loss on both, instead of pred.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 64, auxiliary: bool = False) -> None:
        super().__init__(scale, channels)
        self.options = {"scale": scale, "channels": channels, "auxiliary": auxiliary}
        self.auxiliary = auxiliary
        self.single = EDSRLayers(scale, channels, BLOCKS)
        self.joint = conv3x3(2, channels)
        self.multi = Residual(*(ResBlock(channels) for _ in range(BLOCKS)), conv3x3(channels, channels))
        self.output = output_convolution(channels)

    def _detail(self, x: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        added = self.single(x)
        single = z + added
        detail = added + self.output(self.multi(self.joint(torch.cat([single, low + high], 1))))
        return (detail, single) if self.auxiliary else detail
