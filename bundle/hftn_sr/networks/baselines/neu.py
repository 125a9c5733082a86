"""NEU, our reading: a U-Net on the zero-filled target and the reference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.baselines.blocks import Baseline
from hftn_sr.networks.layers import conv3x3, output_convolution

__all__ = ["NEU"]

LEVELS = 4


class NEU(Baseline):
    """U-Net of four levels, C to 8C channels, on the high-resolution grid; **our reading**, results under this name must say so.

    Each level is two (conv3, ReLU); 2x2 max-pooling leads down, a transposed convolution of kernel 2 and the features of the level lead up.
    The same for both scales.
    Source: Neubert et al., Med. Phys. 47(10):4939-4948, 2020, doi 10.1002/mp.14421, of which we have the title, and an ISMRM abstract of
    2019 (no. 1326) on the same subject: the input is upsampled before the network, and there is no second contrast.
    Not found, hence chosen: that it is a U-Net (by recollection), two-dimensional, without normalisation, of C = 32. The second input
    channel is there because the paper on HFTN-SR says that all methods but EDSR use the reference.

    Args:
        scale: upscaling factor, 2 or 4; of no consequence for the layers.
        channels: feature channels C of the first level.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 32) -> None:
        super().__init__(scale, channels, multiple=2 ** (LEVELS - 1))
        self.options = {"scale": scale, "channels": channels}
        levels = [channels * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(_level(entering, own) for entering, own in zip([2, *levels[:-1]], levels, strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * own, own, 2, stride=2) for own in reversed(levels[:-1]))
        self.up = nn.ModuleList(_level(2 * own, own) for own in reversed(levels[:-1]))
        self.output = output_convolution(channels, kernel=1)

    def _detail(self, x: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        skips = [self.down[0](torch.cat([z, low + high], 1))]
        for level in self.down[1:]:
            skips.append(level(functional.max_pool2d(skips[-1], 2)))
        features = skips.pop()
        for enlarge, level in zip(self.enlarge, self.up, strict=True):
            features = level(torch.cat([enlarge(features), skips.pop()], 1))
        return self.output(features)


def _level(entering: int, own: int) -> nn.Sequential:
    return nn.Sequential(conv3x3(entering, own), nn.ReLU(), conv3x3(own, own), nn.ReLU())
