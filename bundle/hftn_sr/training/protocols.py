"""Two protocols that turn a high-resolution pair into a test of super-resolution.

`PROTOCOLS["corrected"]` keeps the amplitude and is the default; `PROTOCOLS["sanet"]` repeats the public code behind the paper's fastMRI
table. A protocol defines the low-resolution image, the intensity unit of the network's input, and the truth for the scores.
Scores of different protocols cannot be compared and never share a table.

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

EPS = 1e-11  # added to the standard deviation in SANet's DataTransform; intensity
LIMIT = 6.0  # clamp in SANet's DataTransform; standard deviations


@dataclass(frozen=True)
class Prepared:
    """Input and truth of the network, and what restores intensities for the scores.

    Args:
        image: (3, H, W) or (3, H, W, D): zero-filled target, low and high component of the reference.
        label: truth, (1, H, W) or (1, H, W, D), in the unit of the first channel.
        mean: intensity at 0, (1, 1, 1) or (1, 1, 1, D).
        std: intensity difference of 1, same shape.
    """

    image: Tensor
    label: Tensor
    mean: Tensor
    std: Tensor


class Protocol(ABC):
    """Base class of the protocols.

    Attributes:
        name: key of PROTOCOLS.
    """

    name: ClassVar[ProtocolName]

    @property
    @abstractmethod
    def description(self) -> str:
        """Heading of a table of scores."""

    def prepare(
        self, label: Tensor, reference: Tensor, scale: int, decomposition: Decomposition = "band", magnitude: bool = False
    ) -> Prepared:
        """Input and label of the network from whole high-resolution slices.

        Args:
            label: target (1, H, W) or (1, H, W, D), in the unit that `transforms.LoadPaird` gives (`corrected`) or any unit (`sanet`).
            reference: same shape and unit, on the label's grid.
            scale: loss of in-plane resolution s.
            decomposition: see `kspace.decompose`.
            magnitude: store the low-resolution target as a magnitude; `sanet` always does.

        Raises:
            ValueError: unequal shapes, or sizes that the protocol does not support.
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
            label: same shape, from `prepare`.
            mean: from `prepare`; None for 0.
            std: from `prepare`; None for 1.

        Raises:
            ValueError: see `metrics.scores`.
        """
        return metrics.scores(restore(prediction, mean, std), restore(label, mean, std))

    def finished(self, prediction: Tensor, image: Tensor, scale: int) -> Tensor:
        """The network's output as it is scored: unchanged unless the protocol enforces data consistency.

        Args:
            prediction: (1, H, W, D), in the network's unit.
            image: (3, H, W, D), from `prepare`.
            scale: loss of in-plane resolution s.
        """
        return prediction

    @abstractmethod
    def _prepare_slices(self, label: Tensor, reference: Tensor, scale: int, decomposition: Decomposition, magnitude: bool) -> Prepared:
        """The same for slices (D, H, W): image (3, D, H, W), label (D, H, W), mean and std (D, 1, 1)."""


@dataclass(frozen=True)
class Corrected(Protocol):
    """Amplitude kept at the loss of resolution; intensity unit of the given images; data consistency as in `super-resolve`."""

    name: ClassVar[ProtocolName] = "corrected"

    @property
    def description(self) -> str:
        """Heading of a table of scores."""
        return (
            "protocol corrected: amplitude kept; measured k-space put back into the networks' outputs; "
            "PSNR and NMSE by volume, SSIM by slice, peak = maximum of the truth volume"
        )

    def finished(self, prediction: Tensor, image: Tensor, scale: int) -> Tensor:
        """The low band of the prediction is replaced by that of the zero-filled target."""
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

    The slice is cropped to its central square. The low-resolution image is the magnitude of its central k-space under an orthonormal FFT.
    It is not rescaled: **its intensities are s times those of the slice.** Its mean and standard deviation normalise itself and the
    high-resolution target; both are then clamped to 6 standard deviations. The reference is the other contrast's high-resolution target
    (`targetpd`), normalised by its own low-resolution image. Predictions are scored in intensities, against the clamped target.

    Their networks take the low-resolution image `image[:1, ::s, ::s]`.

    Source: github.com/chunmeifeng/MINet, `DataTransform` and `SRModule.validation_step` of `experimental/MINet/module_MINet.py` at 876da83,
    `fastmri/data/transforms.py`, `fastmri/evaluate.py` and `fastmri/mri_module.py` at 490fdba; github.com/chunmeifeng/SANet,
    `experimental/SANet/module_SANet.py` at 3f6679d (the same text); fastMRI's `fft2c`, its first version. That code lowers
    the resolution of the scanner's complex image: give complex tensors `label` and `reference` for that; their magnitudes are the targets.
    Magnitudes alone keep signal that would cancel between voxels of different phase.

    Args:
        crop: side of the central square in voxels, a multiple of 2s; 320 in the published code.
    """

    name: ClassVar[ProtocolName] = "sanet"
    crop: int = 320

    @property
    def description(self) -> str:
        """Heading of a table of scores."""
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
        height, width = slices.shape[-2:]
        if min(height, width) < self.crop:
            sides = " x ".join(map(str, sorted((height, width))))  # they may be transposed
            finding = f"expected slices of at least {self.crop} x {self.crop} voxels, got {sides}"
            raise ValueError(f"{finding}; choose a smaller crop")
        cropped = _central(slices, self.crop, self.crop)
        low_resolution = centred_truncate(cropped, scale).abs()
        mean, std = low_resolution.mean((-2, -1), keepdim=True), low_resolution.std((-2, -1), keepdim=True)
        truth = cropped.abs() if cropped.is_complex() else cropped
        low, high = (((image - mean) / (std + EPS)).clamp(-LIMIT, LIMIT) for image in (low_resolution, truth))
        return low, high, mean, std


PROTOCOLS: dict[ProtocolName, Protocol] = {"corrected": Corrected(), "sanet": Sanet()}


def choose_protocol(name: str, crop: int | None = None) -> Protocol:
    """The protocol called `name`.

    Args:
        name: key of PROTOCOLS.
        crop: for `sanet`, the side of its central square in voxels; None for the published one. `corrected` takes whole slices.

    Raises:
        ValueError: no such protocol, or a crop for a protocol without one.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"expected a protocol of {', '.join(PROTOCOLS)}, got {name!r}")
    if crop is None:
        return PROTOCOLS[name]
    if name != "sanet":
        raise ValueError(f"expected no crop for the protocol {name!r}, got {crop}")
    return Sanet(crop)


def restore(image: Tensor, mean: Tensor | None = None, std: Tensor | None = None) -> Tensor:
    """Intensities of an `image` in the network's unit: image * std + mean, broadcast; None for a mean of 0 and a std of 1."""
    scaled = image if std is None else image * std
    return scaled if mean is None else scaled + mean


def centred_truncate(image: Tensor, scale: int) -> Tensor:
    """Low-resolution image from the central 1/scale of each in-plane axis of the centred, orthonormal k-space of `image`.

    The mean is multiplied by scale: an orthonormal transform divides by the root of the number of voxels, and the result has scale**2
    times fewer. The negative one of the two Nyquist bins is kept. Sample j lies at sample scale * j, as in `kspace.truncate`.

    Args:
        image: (..., H, W), real or complex.
        scale: loss of resolution s >= 2; 2s must divide H and W; an odd result would be cropped off the centre.

    Returns:
        (..., H/s, W/s), complex.

    Raises:
        ValueError: scale below 2, or a size that 2s does not divide.
    """
    height, width = image.shape[-2:]
    if scale < 2 or height % (2 * scale) or width % (2 * scale):
        raise ValueError(f"expected in-plane sizes divisible by twice a scale of at least 2, got {height} x {width} and scale {scale}")
    plane = (-2, -1)
    spectrum = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, plane), norm="ortho"), plane)
    kept = _central(spectrum, height // scale, width // scale)
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kept, plane), norm="ortho"), plane)


def _central(image: Tensor, height: int, width: int) -> Tensor:
    """Central (..., height, width) of (..., H, W)."""
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]
