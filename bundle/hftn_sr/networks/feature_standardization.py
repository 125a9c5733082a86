"""Standardized combined residual feature module (SCRFM): bring shallow features back, then restore the image size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.layers import conv3x3, tap_by_tap

__all__ = ["SCRFM", "PlainRestoration", "Upsampler"]


class Upsampler(nn.Sequential):
    """Learned upsampling by a scale of 2 or 4: one or two transposed convolutions, (B, C, h, w) to (B, C, s*h, s*w).

    Kernel 4 with stride 2 overlaps evenly; the 3x3 kernel of the paper would leave a checkerboard.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__(*(nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1) for _ in range(scale.bit_length() - 1)))


class SCRFM(nn.Module):
    r"""Fuse deep and shallow features, then restore the image size.

    Standardized fusion gives the deep features the channel statistics of the shallow ones, with :math:`\alpha` and :math:`\beta` from both:

    .. math:: F_{sff} = \alpha \cdot IN(F_{FAF}^N) + \beta

    Refined fusion adds what they differ in to each, brings both to the size of the image and merges them:

    .. math::
        D = F_{Tar}^0 - Conv(F_{sff}), \quad
        F_f = Conv([DConv(D' + F_{sff}), DConv(D'' + F_{Tar}^0)])

    Source: HFTN-SR, equations (12) to (18).

    Args:
        channels: feature channels C.
        scale: upscaling factor s, 2 or 4.
        stat: spread of the shallow features that alpha starts from: `std`, which undoes a normalisation, or `var` as printed in (13).
        literal_up: equation (16) as printed, DConv(D') + F_sff, with F_sff upsampled by a transposed convolution to make the sizes agree.
    """

    def __init__(self, channels: int, scale: int, stat: Literal["std", "var"] = "std", literal_up: bool = False) -> None:
        super().__init__()
        if stat not in ("std", "var"):
            raise ValueError(f"expected stat to be 'std' or 'var', got {stat!r}")
        self.stat = stat
        self.joint = conv3x3(2 * channels, channels)
        self.alpha = conv3x3(channels, channels)
        self.beta = conv3x3(channels, channels)
        self.difference_fused = conv3x3(channels, channels)
        self.difference_shallow = conv3x3(channels, channels)
        self.up_fused = Upsampler(channels, scale)
        self.up_shallow = Upsampler(channels, scale)
        self.up_literal = Upsampler(channels, scale) if literal_up else None
        self.merge = conv3x3(2 * channels, channels)

    def forward(self, F_FAF: Tensor, F_Tar: Tensor) -> Tensor:
        """F_FAF^N and F_Tar^0 are (B, C, h, w); returns F_f, (B, C, s*h, s*w)."""
        return self.refine(self.standardize(F_FAF, F_Tar), F_Tar)

    def standardize(self, F_FAF: Tensor, F_Tar: Tensor) -> Tensor:
        """F_sff, (B, C, h, w): equations (12) to (15)."""
        F_FT = self.joint(torch.cat([F_FAF, F_Tar], 1))  # (12)
        variance, mean = torch.var_mean(F_Tar, dim=(-2, -1), correction=0, keepdim=True)
        spread = variance if self.stat == "var" else torch.sqrt(variance + 1e-5)  # as instance norm: no infinite gradient at zero
        alpha = self.alpha(F_FT) + spread  # (13)
        beta = self.beta(F_FT) + mean  # (14)
        return alpha * functional.instance_norm(F_FAF) + beta  # (15)

    def refine(self, F_sff: Tensor, F_Tar: Tensor) -> Tensor:
        """F_f, (B, C, s*h, s*w): equations (16) to (18)."""
        SF_sff = self._up_fused(F_sff, F_Tar)  # (16)
        SF_Tar = self._up_shallow(F_sff, F_Tar)  # (17)
        return self.merge(torch.cat([SF_sff, SF_Tar], 1))  # (18)

    def taps(self, F_FAF: Tensor, F_Tar: Tensor, last: nn.Conv2d) -> Tensor:
        """Each tap of a convolution `last` that follows, applied to F_f, without F_f: (B, 9, s*h, s*w), see `tap_by_tap`.

        (18) is computed as the sum of two convolutions: the joined features, four times as large as all before, need not exist.
        """
        weight, bias = tap_by_tap(self.merge, last)
        of_fused, of_shallow = weight.chunk(2, 1)
        F_sff = self.standardize(F_FAF, F_Tar)
        maps = functional.conv2d(self._up_fused(F_sff, F_Tar), of_fused, bias, padding=1)
        return maps.add_(functional.conv2d(self._up_shallow(F_sff, F_Tar), of_shallow, padding=1))

    def _up_fused(self, F_sff: Tensor, F_Tar: Tensor) -> Tensor:
        D = F_Tar - self.difference_fused(F_sff)
        if self.up_literal is not None:
            return self.up_fused(D) + self.up_literal(F_sff)
        return self.up_fused(D + F_sff)

    def _up_shallow(self, F_sff: Tensor, F_Tar: Tensor) -> Tensor:
        D = F_Tar - self.difference_shallow(F_sff)
        return self.up_shallow(D + F_Tar)


class PlainRestoration(nn.Module):
    r"""What stands in place of SCRFM in the ablation without it, :math:`DConv(Conv_{3 \times 3}([F_{FAF}^N, F_{Tar}^0]))`.

    Source: HFTN-SR, section 3.4, model 3; the transposed convolutions are ours, since the size must be restored all the same. It takes and
    gives what `SCRFM` does.
    """

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.joint = conv3x3(2 * channels, channels)
        self.up = Upsampler(channels, scale)

    def forward(self, fused: Tensor, shallow: Tensor) -> Tensor:
        """fused F_FAF^N and shallow F_Tar^0 are (B, C, h, w); returns (B, C, s*h, s*w)."""
        return self.up(self.joint(torch.cat([fused, shallow], 1)))
