"""How far a result may be from the truth, voxel by voxel: a small network beside the one that made it, in a file of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.acquisition import Acquisition, Slices
from hftn_sr.networks.layers import check_image, conv3x3, pad_far_edges

__all__ = ["CHANNELS", "UncertaintyHead", "head_input"]

CHANNELS = 8  # of its input: the network's three, the result, and what the scan lost along each axis in k-space and in slices
START = -4.0  # log-scale before training: 2 % of the intensity unit


class UncertaintyHead(nn.Module):
    r"""Log-scale of the Laplace distribution of a result's error.

    .. math:: p(x \mid \hat x, b) = \frac{1}{2 b} \exp(-|x - \hat x| / b), \qquad E|x - \hat x| = b

    It takes what every super-resolution network takes and gives, and no inner feature of any. So it serves every network, and training it
    cannot change a result. It works on half the grid, four of whose values make a voxel's neighbourhood.
    Source: Kendall and Gal 2017, arXiv 1703.04977, with a Laplace likelihood.

    Args:
        channels: feature channels, on half the grid.
    """

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv3x3(4 * 5 + CHANNELS - 4, channels),
            nn.GELU(),
            conv3x3(channels, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2),
            nn.GELU(),
        )
        self.log_scale = nn.Conv2d(channels, 4, 1)
        nn.init.zeros_(self.log_scale.weight)
        nn.init.constant_(self.log_scale.bias, START)  # type: ignore[arg-type]

    def forward(self, stacked: Tensor) -> Tensor:
        """The logarithm of b, (B, 1, H, W), for what `head_input` stacks, (B, 8, H, W).

        Raises:
            ValueError: another shape.
        """
        check_image(stacked, CHANNELS)
        height, width = stacked.shape[-2:]
        images, losses = stacked[:, :4], stacked[:, 4:]
        added = images[:, 3:] - images[:, :1]
        halves = functional.pixel_unshuffle(pad_far_edges(torch.cat([images, added], 1), 2), 2)
        constant = losses[..., :1, :1].expand(-1, -1, *halves.shape[-2:])
        found: Tensor = functional.pixel_shuffle(self.log_scale(self.features(torch.cat([halves, constant], 1))), 2)
        return found[..., :height, :width]


def head_input(image: Tensor, result: Tensor, acquisition: Acquisition) -> Tensor:
    """The input of `UncertaintyHead`, (8, H, W): the log2 of the ratios by which each axis lost samples is the same all over a slice.

    Args:
        image: (3, H, W), the network's input, intensities around 0 to 1.
        result: (H, W), with what was measured put back, in the same unit.
        acquisition: what the target kept of the two axes.
    """
    ratios = acquisition.ratios(result.shape)
    losses = [math.log2(ratio) for ratio in ratios]
    slices = [isinstance(axis, Slices) for axis in acquisition.axes]
    told = [*(0.0 if thick else loss for loss, thick in zip(losses, slices, strict=True)),
            *(loss if thick else 0.0 for loss, thick in zip(losses, slices, strict=True))]  # fmt: skip
    maps = torch.tensor(told, dtype=image.dtype, device=image.device)[:, None, None].expand(-1, *result.shape)
    return torch.cat([image, result[None].to(image), maps])
