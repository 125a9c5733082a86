r"""In-plane k-space: measure less of it, fill it up with zeros, split it into two bands, put the measured band back.

Images are real tensors (..., H, W) in any intensity unit. The Fourier transform has its origin at sample 0, amplitudes are kept,
and every result is real, so that for a factor :math:`s`

.. math::
    \text{truncate}(\text{zero_fill}(y)) = y, \qquad \text{zero_fill}(y)_{s i, s j} = y_{i j}, \qquad
    \text{truncate}(x - \text{zero_fill}(\text{truncate}(x))) = 0 .

Sample j of the low-resolution image therefore lies at sample s*j of the high-resolution image: there is no half-voxel shift.
These functions know whole slices only. A Fourier step on a patch sees it as periodic and rings along its border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Decomposition", "band_residual", "decompose", "replace_band", "resize", "shift", "split_bands", "truncate", "zero_fill"]

Decomposition = Literal["band", "taper", "gaussian", "none"]

TAPER = 0.25  # share of the low band, at its edge, over which "taper" falls from 1 to 0
FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))


def truncate(image: Tensor, factor: int) -> Tensor:
    """Low-resolution image that a scanner gives when it measures only the central 1/factor of each in-plane k-space axis.

    Args:
        image: (..., H, W), real.
        factor: loss of resolution s >= 2; must divide H and W.

    Returns:
        (..., H/s, W/s), real. The bin at an even size's Nyquist frequency is the sum of the two source bins at plus and minus it.

    Raises:
        ValueError: factor below 2, or a size that it does not divide.
    """
    height, width = image.shape[-2:]
    if factor < 2 or height % factor or width % factor:
        raise ValueError(f"expected in-plane sizes divisible by a factor of at least 2, got {height} x {width} and factor {factor}")
    rows = _keep_centre(torch.fft.rfft2(image), height // factor)
    size = width // factor
    spectrum = rows[..., : size // 2 + 1]  # of the columns, whose negative half is known from the positive one
    if size % 2 == 0:
        nyquist = rows[..., size // 2 :][..., :1]
        spectrum = torch.cat([spectrum[..., :-1], nyquist + nyquist.flip(-2).roll(1, -2).conj()], -1)
    low: Tensor = torch.fft.irfft2(spectrum, s=(height // factor, size))
    return low / factor**2


def zero_fill(image: Tensor, factor: int) -> Tensor:
    """High-resolution image (..., s*h, s*w) with the k-space of `image` (..., h, w) and zeros outside: exact sinc interpolation.

    Where a size is even, its Nyquist bin is halved between plus and minus that frequency.
    """
    if factor < 2:
        raise ValueError(f"expected a factor of at least 2, got {factor}")
    height, width = (size * factor for size in image.shape[-2:])
    rows = _fill_outside(torch.fft.rfft2(image), height)
    if image.shape[-1] % 2 == 0:
        rows = torch.cat([rows[..., :-1], rows[..., -1:] / 2], -1)
    spectrum = functional.pad(rows, (0, width // 2 + 1 - rows.shape[-1]))
    filled: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return filled * factor**2


def resize(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """The same field of view on other voxels: (..., H, W) to (..., *shape), axis by axis with less k-space or with zeros around it.

    What `truncate` and `zero_fill` do for whole factors, for any sizes; sample 0 stays in place.
    """
    spectrum = torch.fft.fft2(image)
    for size in reversed(shape):
        spectrum = spectrum.mT  # W first, then H: after both, rows are rows again
        full = spectrum.shape[-2]
        spectrum = _keep_centre(spectrum, size) if size < full else _fill_outside(spectrum, size) if size > full else spectrum
    resized: Tensor = torch.fft.ifft2(spectrum).real
    return resized * (math.prod(shape) / math.prod(image.shape[-2:]))


def split_bands(image: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The band of `image` (..., H, W) that a low-resolution scan would measure, and the rest; both (..., H, W).

    Source: HFTN-SR, high-low frequency decomposition (section 2.2).
    """
    low = zero_fill(truncate(image, factor), factor)
    return low, image - low


def decompose(image: Tensor, factor: int, method: Decomposition = "band") -> tuple[Tensor, Tensor]:
    """Low and high component of a reference image (..., H, W), each (..., H, W).

    Args:
        image: real, in-plane sizes divisible by factor.
        factor: scale s of the super-resolution.
        method: `band`, the sharp split of `split_bands`; `taper`, the same with a cosine roll-off at the band edge; `gaussian`, low = the
            zero-filled samples of a Gaussian blur with a full width of s voxels; `none`, both components are the whole image (ablation).
    """
    if method == "none":
        return image, image
    if method == "band":
        return split_bands(image, factor)
    if method == "taper":
        low = _filter(image, lambda frequency: _cosine_edge(frequency * factor))
    elif method == "gaussian":
        sigma = factor * FWHM_TO_SIGMA
        blurred = _filter(image, lambda frequency: torch.exp(-2 * (math.pi * sigma * frequency) ** 2))
        low = zero_fill(blurred[..., ::factor, ::factor], factor)
    else:
        raise ValueError(f"expected a decomposition 'band', 'taper', 'gaussian' or 'none', got {method!r}")
    return low, image - low


def replace_band(image: Tensor, measured: Tensor, factor: int) -> Tensor:
    """`image` (..., s*h, s*w) with its low band replaced by that of the measured low-resolution image (..., h, w)."""
    return image + zero_fill(measured - truncate(image, factor), factor)


def band_residual(image: Tensor, measured: Tensor, factor: int) -> float:
    """Relative L2 distance between the low band of `image` (..., s*h, s*w) and the measured image (..., h, w); 0 is consistent."""
    norm = torch.linalg.vector_norm(measured.double())
    return float(torch.linalg.vector_norm((truncate(image, factor) - measured).double()) / norm.clamp_min(torch.finfo(torch.float64).tiny))


def shift(image: Tensor, offset: tuple[float, float]) -> Tensor:
    """`image` (..., H, W) moved by `offset` voxels along H and W, also by fractions; what leaves on one side enters on the other."""
    height, width = image.shape[-2:]
    rows = torch.fft.fftfreq(height, dtype=image.dtype, device=image.device)
    columns = torch.fft.rfftfreq(width, dtype=image.dtype, device=image.device)
    turns = [torch.exp(-2j * math.pi * distance * along) for distance, along in zip(offset, (rows, columns), strict=True)]
    moved: Tensor = torch.fft.irfft2(torch.fft.rfft2(image) * turns[0][:, None] * turns[1], s=(height, width))
    return moved


def _keep_centre(spectrum: Tensor, size: int) -> Tensor:
    """The central `size` of the rows of (..., H, W), the outermost of an even size being that of both signs of frequency."""
    full = spectrum.shape[-2]
    half = (size - 1) // 2
    parts = [spectrum.narrow(-2, 0, half + 1)]
    if size % 2 == 0:
        parts.append(spectrum.narrow(-2, size // 2, 1) + spectrum.narrow(-2, full - size // 2, 1))
    parts.append(spectrum.narrow(-2, full - half, half))
    return torch.cat(parts, -2)


def _fill_outside(spectrum: Tensor, full: int) -> Tensor:
    """The rows of (..., h, W) as the centre of `full`, the others zero."""
    size = spectrum.shape[-2]
    half = (size - 1) // 2
    shape = list(spectrum.shape)
    positive, negative = spectrum.narrow(-2, 0, half + 1), spectrum.narrow(-2, size - half, half)
    if size % 2 == 0:
        nyquist = spectrum.narrow(-2, size // 2, 1) / 2
        positive, negative = torch.cat([positive, nyquist], -2), torch.cat([nyquist, negative], -2)
    shape[-2] = full - positive.shape[-2] - negative.shape[-2]
    return torch.cat([positive, spectrum.new_zeros(shape), negative], -2)


def _filter(image: Tensor, response: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the spectrum by a real, even response of the frequency in cycles per voxel, axis by axis."""
    height, width = image.shape[-2:]
    rows = response(torch.fft.fftfreq(height, dtype=image.dtype, device=image.device))
    columns = response(torch.fft.fftfreq(width, dtype=image.dtype, device=image.device))
    return torch.fft.ifft2(torch.fft.fft2(image) * rows[:, None] * columns).real


def _cosine_edge(frequency: Tensor) -> Tensor:
    """1 well inside the low band (edge at 0.5), 0 outside, half a cosine period between."""
    ramp = ((0.5 - frequency.abs()) / (0.5 * TAPER)).clamp(0, 1)
    return (1 - torch.cos(math.pi * ramp)) / 2
