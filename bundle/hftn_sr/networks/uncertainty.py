"""How far a result may be from the truth, voxel by voxel: a small head beside the network that made it, in a file of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.acquisition import Acquisition, Slices
from hftn_sr.networks.layers import check_image

__all__ = ["CHANNELS", "UncertaintyHead", "head_input"]

CHANNELS = 8  # of its input: the network's three, the result, and what the scan lost along each axis in k-space and in slices
NEAR, WIDE = 5, 15  # voxels along a side, over which local means go
LOCAL = 5
LEAST = 1e-4  # of the intensity unit, below which a local mean tells nothing
START = -4.0  # log-scale before training: 2 % of the intensity unit


class UncertaintyHead(nn.Module):
    r"""Log-scale of the Laplace distribution of a result's error: linear in logarithms of local means, ten numbers in all.

    .. math:: p(x \mid \hat x, b) = \frac{1}{2 b} \exp(-|x - \hat x| / b), \qquad E|x - \hat x| = b

    It takes what every super-resolution network takes and gives, and no inner feature of any. So it serves every network, and training it
    cannot change a result. The local means are those of the detail that the result adds, near and wide, of the result's gradient, of the
    reference's high band, and of the result. Source of the likelihood: Kendall and Gal 2017, arXiv 1703.04977, with a Laplace
    distribution; chosen beside a network of convolutions and beside the spread of mirrored passes (docs/design-log.md).
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(LOCAL + CHANNELS - 4, 1, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, START)  # type: ignore[arg-type]

    def forward(self, stacked: Tensor) -> Tensor:
        """The logarithm of b, (B, 1, H, W), for what `head_input` stacks, (B, 8, H, W).

        Raises:
            ValueError: another shape.
        """
        check_image(stacked, CHANNELS)
        found: Tensor = self.linear(self.features(stacked))
        return found

    def features(self, stacked: Tensor) -> Tensor:
        """(B, 9, H, W): logarithms of the local means, scaled to about 0, and what the scan lost."""
        result, added = stacked[:, 3:4], stacked[:, 3:4] - stacked[:, :1]
        rows, columns = (functional.pad(result.diff(dim=dim), pad) for dim, pad in ((2, (0, 0, 0, 1)), (3, (0, 1, 0, 0))))
        near = _mean(torch.cat([added.abs(), torch.hypot(rows, columns), stacked[:, 2:3].abs(), result.abs()], 1), NEAR)
        local = torch.cat([near, _mean(added.abs(), WIDE)], 1)
        return torch.cat([((local + LEAST).log() + 4) / 2, stacked[:, 4:]], 1)


def _mean(image: Tensor, size: int) -> Tensor:
    """The mean over `size` x `size` voxels around each, of those inside the image."""
    along_rows = functional.avg_pool2d(image, (1, size), 1, (0, size // 2), count_include_pad=False)
    return functional.avg_pool2d(along_rows, (size, 1), 1, (size // 2, 0), count_include_pad=False)


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
