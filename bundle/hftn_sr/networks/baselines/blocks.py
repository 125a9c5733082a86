"""What all baselines do around their layers, and the blocks that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from hftn_sr.networks.layers import check_image, conv3x3, pad_far_edges

__all__ = [
    "CSAM",
    "LAM",
    "Baseline",
    "ResBlock",
    "Residual",
    "Up",
    "at_least_float32",
    "check_scale",
]


class Baseline(nn.Module, ABC):
    r"""A network to compare HFTN-SR with: the zero-filled target z plus what the layers of a subclass add, :math:`z + f(x, z, low, high)`.

    None of the published networks has this image skip. It is here, and the last convolution starts at zero, so that every untrained
    network is exactly zero-filling, as HFTN-SR is.

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        multiple: the layers need an H and W that this divides; s if None.

    Raises:
        ValueError: an option outside what is listed here.
    """

    options: dict[str, Any]
    """The arguments of the constructor."""

    def __init__(self, scale: int, channels: int, multiple: int | None = None) -> None:
        super().__init__()
        check_scale(scale)
        if channels < 2:
            raise ValueError(f"expected at least 2 channels, got {channels}")
        self.scale, self.multiple = scale, multiple or scale

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Super-resolve.

        Args:
            image: (B, 3, H, W) on the high-resolution grid: zero-filled target, low band and high band of the reference. Any size: it is
                padded at the far edges and cropped again, so that no sample moves.

        Returns:
            pred: (B, 1, H, W); with the option `auxiliary`, of the networks that have it, (pred, auxiliary image of that size).
        """
        check_image(image)
        height, width = image.shape[-2:]
        zero_filled, low, high = pad_far_edges(image, self.multiple).split(1, 1)
        found = self._detail(zero_filled[..., :: self.scale, :: self.scale], zero_filled, low, high)
        if isinstance(found, tuple):
            detail, auxiliary = found
            return image[:, :1] + detail[..., :height, :width], auxiliary[..., :height, :width]
        return image[:, :1] + found[..., :height, :width]

    @abstractmethod
    def _detail(self, x: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """x are the low-resolution samples (B, 1, h, w) of z; z, low and high are (B, 1, s*h, s*w), as is all that is returned."""


def check_scale(scale: int) -> None:
    """Raise ValueError unless scale is 2 or 4."""
    if scale not in (2, 4):
        raise ValueError(f"expected a scale of 2 or 4, got {scale}")


def at_least_float32(tensor: Tensor) -> Tensor:
    """float16 and bfloat16, as autocast gives them, in float32; any other type as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class Residual(nn.Sequential):
    r""":math:`v + f(v)` on (B, C, h, w), where f are the layers one after the other."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        changed = features
        for layer in self:
            changed = layer(changed)
        return features + changed


class ResBlock(Residual):
    r""":math:`v + Conv(ReLU(Conv(v)))` on (B, C, h, w), without batch normalisation; source: EDSR."""

    def __init__(self, channels: int) -> None:
        super().__init__(conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels))


class Up(nn.Sequential):
    """Sub-pixel upsampling by a scale of 2 or 4: one or two convolutions C to 4C, each with a pixel shuffle by 2; source: EDSR."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        for _ in range(scale.bit_length() - 1):
            self.extend([conv3x3(channels, 4 * channels), nn.PixelShuffle(2)])


class CSAM(nn.Module):
    r"""Channel-spatial attention :math:`v + \gamma \, v \cdot \sigma(Conv3d(v))` with :math:`\gamma` from 0.

    The convolution, kernel 3, sees C, H and W as the three dimensions of one volume; it is computed in float32 also under autocast, because
    the gradient of one to one channels in bfloat16 writes outside its memory on CPUs with AMX (torch 2.13, from 8 x 8 x 96 x 96 on).
    Source: public code of MINet and SANet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.volume = nn.Conv3d(1, 1, kernel_size=3, padding=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            weight = torch.sigmoid(self.volume(at_least_float32(features.unsqueeze(1)))).squeeze(1).to(features.dtype)
        return features + self.gamma * features * weight


class LAM(nn.Module):
    r"""Layer attention: n maps, each flattened to one row of M (n x CHW), exchange what they have, the *unlike* ones most.

    .. math:: E = M M^T, \qquad A_i = \mathrm{softmax}_j(\max_k E_{ik} - E_{ij}) = \mathrm{softmax}_j(-E_{ij}), \qquad M + \gamma A M

    with :math:`\gamma` from 0. E grows with the size of the image, so that the softmax is nearly one-hot, and a network trained on patches
    meets another one on whole slices. It is computed in float32 also under autocast. Source: public code of MINet and SANet.

    Args:
        normalize_energy: divide E by CHW, which the public code does not.
    """

    def __init__(self, normalize_energy: bool = False) -> None:
        super().__init__()
        self.normalize_energy = normalize_energy
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """N maps (B, C, H, W) to (B, n*C, H, W)."""
        stacked = torch.stack(maps, 1)
        with torch.autocast(stacked.device.type, enabled=False):
            flat = at_least_float32(stacked.flatten(2))
            energy = flat @ flat.transpose(1, 2)
            if self.normalize_energy:
                energy = energy / flat.shape[-1]
            mixed = flat + self.gamma * (torch.softmax(-energy, -1) @ flat)
        return mixed.view_as(stacked).flatten(1, 2)
