"""Zero-filling and cubic interpolation on the right grid: rows of a table that have no weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.baselines.blocks import check_scale
from hftn_sr.networks.layers import check_image, pad_far_edges

__all__ = ["CubicInterpolation", "ZeroFilling"]


class ZeroFilling(nn.Module):
    """The zero-filled target as it enters, which is exact sinc interpolation (`hftn_sr.kspace.zero_fill`).

    Args:
        scale: upscaling factor s, 2 or 4; of no consequence.

    Raises:
        ValueError: another scale.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        check_scale(scale)
        self.options = {"scale": scale}

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1, H, W)."""
        check_image(image)
        return image[:, :1]


class CubicInterpolation(nn.Module):
    r"""Cubic convolution of the target's low-resolution samples, of which sample j lies exactly at sample s*j of the result.

    .. math::
        y(t) = \sum_j x_j \, u(t / s - j), \qquad u(d) = \begin{cases}
        1.5 |d|^3 - 2.5 |d|^2 + 1 & |d| \le 1 \\ -0.5 |d|^3 + 2.5 |d|^2 - 4 |d| + 2 & 1 < |d| < 2 \\ 0 & \text{else} \end{cases}

    along both axes: samples are kept, and polynomials up to degree 2 are exact away from the borders, where the outer samples are repeated.
    `torch.nn.functional.interpolate` would not do: it moves the image by (s - 1) / 2 voxels, and its kernel is the one of a = -0.75.
    Source: Keys, IEEE TASSP 29(6):1153-1160, 1981, doi 10.1109/TASSP.1981.1163711, with his a = -0.5.

    Args:
        scale: upscaling factor s, 2 or 4.

    Raises:
        ValueError: another scale.
    """

    kernel: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        check_scale(scale)
        self.options = {"scale": scale}
        self.scale = scale
        phase = torch.arange(scale) / scale
        weights = _keys(phase[:, None] - torch.arange(-1, 3))
        kernel = torch.einsum("ai,bj->abij", weights, weights).reshape(scale**2, 1, 4, 4)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 1, H, W)."""
        check_image(image)
        height, width = image.shape[-2:]
        samples = pad_far_edges(image[:, :1], self.scale)[..., :: self.scale, :: self.scale]
        phases = functional.conv2d(functional.pad(samples, (1, 2, 1, 2), mode="replicate"), self.kernel)
        return functional.pixel_shuffle(phases, self.scale)[..., :height, :width]


def _keys(distance: Tensor) -> Tensor:
    d = distance.abs()
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
