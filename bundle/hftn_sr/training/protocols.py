"""The two ways, by name, in which a high-resolution pair becomes a test of super-resolution.

`PROTOCOLS["corrected"]` keeps the amplitude and is the default; `PROTOCOLS["sanet"]` repeats the public code behind the paper's fastMRI
table. A protocol says how the low-resolution image is made, in which unit the network sees it and against what a prediction is scored.
Figures of the two cannot be compared and never share a table.

Slices are (1, H, W), volumes (1, H, W, D) with D through-plane, as in `transforms`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from hftn_sr.kspace import Decomposition, replace_band, truncate
from hftn_sr.scoring import metrics
from hftn_sr.volumes.simulation import stack_channels

__all__ = ["PROTOCOLS", "Corrected", "Prepared", "Protocol", "ProtocolName", "Sanet", "centred_truncate", "choose_protocol", "restore"]

ProtocolName = Literal["corrected", "sanet"]

EPS = 1e-11  # added to the standard deviation in SANet's DataTransform, in the image's unit
LIMIT = 6.0  # standard deviations at which it clamps


@dataclass(frozen=True)
class Prepared:
    """What the network is given and what it shall return, with the way back to the intensities that are scored.

    Args:
        image: (3, H, W) or (3, H, W, D): zero-filled target, low and high component of the reference.
        label: (1, H, W) or (1, H, W, D), in the unit of the first channel.
        mean: (1, 1, 1) or (1, 1, 1, D), the intensity that stands at 0.
        std: same shape, the intensity difference that is 1.
    """

    image: Tensor
    label: Tensor
    mean: Tensor
    std: Tensor


class Protocol(ABC):
    """What both protocols have in common.

    Attributes:
        name: under which figures are stored.
    """

    name: ClassVar[ProtocolName]

    @property
    @abstractmethod
    def description(self) -> str:
        """The line that stands over a table of figures."""

    def prepare(
        self, label: Tensor, reference: Tensor, scale: int, decomposition: Decomposition = "band", magnitude: bool = False
    ) -> Prepared:
        """Whole high-resolution slices as the network's input and its label.

        Args:
            label: target (1, H, W) or (1, H, W, D), in the unit that `transforms.LoadPaird` gives (`corrected`) or any unit (`sanet`).
            reference: same shape, on the label's grid, likewise.
            scale: loss of in-plane resolution s.
            decomposition: see `kspace.decompose`.
            magnitude: the low-resolution target is stored as a magnitude. Under `sanet` it always is.

        Raises:
            ValueError: unequal shapes, or sizes that the protocol cannot treat.
        """
        if label.shape != reference.shape or label.ndim not in (3, 4) or len(label) != 1:
            shapes = f"{tuple(label.shape)} and {tuple(reference.shape)}"
            raise ValueError(f"expected a label and a reference of one shape (1, H, W) or (1, H, W, D), got {shapes}")
        volumetric = label.ndim == 4
        slices = [image[0].movedim(-1, 0) if volumetric else image for image in (label, reference)]
        prepared = self._prepare_slices(slices[0], slices[1], scale, decomposition, magnitude)
        if not volumetric:
            return replace(prepared, image=prepared.image[:, 0])
        label, mean, std = (part.movedim(0, -1)[None] for part in (prepared.label, prepared.mean, prepared.std))
        return Prepared(prepared.image.movedim(1, -1), label, mean, std)

    def scores(self, prediction: Tensor, label: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> dict[str, float]:
        """`psnr`, `ssim` and `nmse` of one volume, in intensities; see `metrics.CONVENTIONS`.

        Args:
            prediction: (1, H, W, D) or (H, W, D), in the network's unit.
            label: same shape, as `prepare` gives it.
            mean: as `prepare` gives it; None for 0.
            std: as `prepare` gives it; None for 1.

        Raises:
            ValueError: see `metrics.scores`.
        """
        return metrics.scores(restore(prediction, mean, std), restore(label, mean, std))

    def finished(self, prediction: Tensor, image: Tensor, scale: int) -> Tensor:
        """What a network's output becomes before it is scored; itself, unless a protocol says otherwise.

        Args:
            prediction: (1, H, W, D), in the network's unit.
            image: (3, H, W, D), as `prepare` gives it.
            scale: loss of in-plane resolution s.
        """
        return prediction

    @abstractmethod
    def _prepare_slices(self, label: Tensor, reference: Tensor, scale: int, decomposition: Decomposition, magnitude: bool) -> Prepared:
        """The same for slices (D, H, W): image (3, D, H, W), label (D, H, W), mean and std (D, 1, 1)."""


@dataclass(frozen=True)
class Corrected(Protocol):
    """Losing resolution keeps the amplitude; the network's unit is that of the images given to it.

    What was measured of k-space is put back into a network's output, as `super-resolve` does.
    """

    name: ClassVar[ProtocolName] = "corrected"

    @property
    def description(self) -> str:
        """The line that stands over a table of figures."""
        return (
            "protocol corrected: amplitude kept; measured k-space put back into the networks' outputs; "
            "PSNR and NMSE by volume, SSIM by slice, peak = maximum of the truth volume"
        )

    def finished(self, prediction: Tensor, image: Tensor, scale: int) -> Tensor:
        """With the low band of the zero-filled target."""
        pred, zero_filled = (each.movedim(-1, 1) for each in (prediction, image[:1]))
        return replace_band(pred, zero_filled[..., ::scale, ::scale], scale).movedim(1, -1)

    def _prepare_slices(self, label: Tensor, reference: Tensor, scale: int, decomposition: Decomposition, magnitude: bool) -> Prepared:
        if label.is_complex() or reference.is_complex():
            raise ValueError("expected real images, got complex ones; the protocol 'corrected' keeps no phase, take magnitudes first")
        low_resolution = truncate(label, scale)
        image = stack_channels(low_resolution.abs() if magnitude else low_resolution, reference, scale, decomposition)
        unit = label.new_ones(len(label), 1, 1)
        return Prepared(image, label, torch.zeros_like(unit), unit)


@dataclass(frozen=True)
class Sanet(Protocol):
    """The public code of MINet and SANet, slice by slice.

    The slice is cropped to its central square and loses the outer part of its k-space under an orthonormal FFT; the low-resolution image is
    the magnitude of what is left. Without a rescaling **its intensities are s times those of the slice.** Its mean and standard deviation
    normalise both itself and the high-resolution target, which are then clamped to 6 standard deviations. The reference is normalised by
    mean and standard deviation of its own low-resolution image: it is the other contrast's high-resolution target (`targetpd`).
    Predictions are scored in intensities, against the clamped target.

    Their networks take the low-resolution image itself, which is `image[:1, ::s, ::s]`.

    Source: github.com/chunmeifeng/MINet, `DataTransform` and `SRModule.validation_step` of `experimental/MINet/module_MINet.py` at 876da83,
    `fastmri/data/transforms.py`, `fastmri/evaluate.py` and `fastmri/mri_module.py` at 490fdba; github.com/chunmeifeng/SANet,
    `experimental/SANet/module_SANet.py` at 3f6679d (the same text); fastMRI's `fft2c`, its first version. There the low-resolution image is
    made from the scanner's complex image: give `label` and `reference` as complex tensors for that, their magnitudes are then the targets.
    From magnitudes alone, what cancels between voxels of different phase is kept.

    Args:
        crop: side of the central square in voxels, a multiple of 2s; 320 there.
    """

    name: ClassVar[ProtocolName] = "sanet"
    crop: int = 320

    @property
    def description(self) -> str:
        """The line that stands over a table of figures."""
        return (
            f"protocol sanet: as SANet's and MINet's code, central {self.crop} x {self.crop}, low-resolution intensities s times too high; "
            "PSNR and NMSE by volume, SSIM by slice, peak = maximum of the clamped truth volume"
        )

    def _prepare_slices(self, label: Tensor, reference: Tensor, scale: int, decomposition: Decomposition, magnitude: bool) -> Prepared:
        low_resolution, target, mean, std = self._normalised(label, scale)
        _, other_contrast, _, _ = self._normalised(reference, scale)
        return Prepared(stack_channels(low_resolution, other_contrast, scale, decomposition), target, mean, std)

    def _normalised(self, slices: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Clamped low- and high-resolution slices in standard deviations; mean and standard deviation, (D, 1, 1)."""
        cropped = _central(slices, self.crop)
        low_resolution = centred_truncate(cropped, scale).abs()
        mean, std = low_resolution.mean((-2, -1), keepdim=True), low_resolution.std((-2, -1), keepdim=True)
        truth = cropped.abs() if cropped.is_complex() else cropped
        low, high = (((image - mean) / (std + EPS)).clamp(-LIMIT, LIMIT) for image in (low_resolution, truth))
        return low, high, mean, std


PROTOCOLS: dict[ProtocolName, Protocol] = {"corrected": Corrected(), "sanet": Sanet()}


def choose_protocol(name: str, crop: int | None = None) -> Protocol:
    """The protocol of that name.

    Args:
        name: key of PROTOCOLS.
        crop: for `sanet`, the side of its central square in voxels; None for the published one. `corrected` takes whole slices.

    Raises:
        ValueError: no such protocol, or a crop that it does not have.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"expected a protocol of {', '.join(PROTOCOLS)}, got {name!r}")
    if crop is None:
        return PROTOCOLS[name]
    if name != "sanet":
        raise ValueError(f"expected no crop for the protocol {name!r}, got {crop}")
    return Sanet(crop)


def restore(image: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> Tensor:
    """`image` in the network's unit back in intensities: times `std`, plus `mean`, both broadcast; None for 1 and 0."""
    scaled = image if std is None else image * std
    return scaled if mean is None else scaled + mean


def centred_truncate(image: Tensor, factor: int) -> Tensor:
    """Central 1/factor of each in-plane axis of the centred, orthonormal k-space of `image`, transformed back; complex.

    An orthonormal transform divides by the root of the number of voxels, of which there are factor**2 times fewer on the way back: the mean
    is multiplied by factor. Of the two Nyquist bins of the result only the negative one is kept. Origin and, for sizes divisible by
    2 * factor, place are those of `kspace.truncate`: sample j lies at sample factor * j.

    Args:
        image: (..., H, W), real or complex.
        factor: loss of resolution s >= 2; 2s must divide H and W. (With an odd result the code below would crop off the centre.)

    Returns:
        (..., H/s, W/s), complex.

    Raises:
        ValueError: factor below 2, or a size that 2s does not divide.
    """
    height, width = image.shape[-2:]
    if factor < 2 or height % (2 * factor) or width % (2 * factor):
        raise ValueError(f"expected in-plane sizes divisible by twice a factor of at least 2, got {height} x {width} and factor {factor}")
    plane = (-2, -1)
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, plane), norm="ortho"), plane)
    top, left = (height - height // factor) // 2, (width - width // factor) // 2
    kept = spectrum[..., top : top + height // factor, left : left + width // factor]
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kept, plane), norm="ortho"), plane)


def _central(slices: Tensor, side: int) -> Tensor:
    """The central square of slices (D, H, W)."""
    height, width = slices.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"expected slices of at least {side} x {side} voxels, got {height} x {width}; choose a smaller crop")
    top, left = (height - side) // 2, (width - side) // 2
    return slices[..., top : top + side, left : left + side]
