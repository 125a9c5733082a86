"""Wrong references and noisy images: what a method is tried with besides the pair as it lies."""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from monai.transforms import Transform
from torch import Tensor
from torch.nn import functional

from comparison.scoring import middle
from hftn_sr.kspace import Decomposition, zero_fill
from hftn_sr.training.protocols import Prepared, Protocol
from hftn_sr.training.transforms import DropReferenced, LoadPaird, MisalignReferenced

__all__ = ["ALIGNED", "DISTANCES", "FOREIGN", "Disturbance", "Pair", "disturbances", "load_pair", "prepare"]

Kind = Literal["aligned", "moved", "turned", "other slice", "other patient", "zeroed", "noisy reference", "noisy target"]

DISTANCES = (0.5, 1.0, 2.0, 3.0, 4.0)  # voxels, along the diagonal
ANGLES = (0.5, 1.0, 2.0, 3.0)  # degrees about the slice's centre
NOISE = (0.01, 0.02, 0.05)  # standard deviation, intensity unit of the image = 1
SLICES_ON = 3

WORDS: dict[Kind, str] = {
    "aligned": "as it lies",
    "moved": "{0:g} px",
    "turned": "{0:g}\u00b0",
    "other slice": "{0:g} slices on",
    "other patient": "other patient",
    "zeroed": "zeroed",
    "noisy reference": "reference noise {0:.0%}",
    "noisy target": "target noise {0:.0%}",
}


@dataclass(frozen=True)
class Disturbance:
    """One thing that is wrong with a pair.

    Args:
        kind: moved by Fourier shift along the diagonal; turned by Fourier shears; the reference's slices from further on; the reference of
            another patient; a reference of zeros; white Gaussian noise added to the reference, or to the low-resolution target.
        amount: voxels of Euclidean distance, half the square root of 2 of them along each in-plane axis; degrees; slices; or the noise's
            standard deviation, where the intensity unit of the image is 1.
    """

    kind: Kind
    amount: float = 0.0

    @property
    def name(self) -> str:
        """As in tables and files."""
        return WORDS[self.kind].format(self.amount)

    @property
    def of_reference(self) -> bool:
        """The target is as it was."""
        return self.kind != "noisy target"


ALIGNED, FOREIGN = Disturbance("aligned"), Disturbance("other patient")


def disturbances() -> list[Disturbance]:
    """All that are tried, the pair as it lies first."""
    return [
        ALIGNED,
        *(Disturbance("moved", distance) for distance in DISTANCES),
        *(Disturbance("turned", angle) for angle in ANGLES),
        *(Disturbance("noisy reference", level) for level in NOISE),
        Disturbance("other slice", SLICES_ON),
        FOREIGN,
        Disturbance("zeroed"),
        *(Disturbance("noisy target", level) for level in NOISE),
    ]


@dataclass(frozen=True)
class Pair:
    """A case at high resolution, intensities around 0 to 1, with what its reference may be exchanged for.

    Args:
        case: its name.
        label: target, (1, H, W, n), the slices that are scored.
        reference: (1, H, W, n), likewise.
        further: (1, H, W, n), the reference SLICES_ON slices further on, at the end of the volume as many back.
        foreign: (1, H, W, n), the reference of another patient; None where there is none.
    """

    case: str
    label: Tensor
    reference: Tensor
    further: Tensor
    foreign: Tensor | None


def load_pair(case: Mapping[Hashable, Any], donor: Mapping[Hashable, Any] | None, scale: int, slices: int | None) -> Pair:
    """Read a case of a datalist and the reference of its donor.

    The donor's slices are those at the same relative height of its volume, cropped or filled up with zeros evenly on all sides.

    Args:
        case: see `LoadPaird`.
        donor: case of another patient.
        scale: upscaling factor s.
        slices: so many from the middle of the volume; None for all.

    Raises:
        Fault: a file cannot be used.
    """
    loaded = LoadPaird(scale)(case)
    label, reference = loaded["label"], loaded["reference"]
    depth = label.shape[-1]
    chosen = middle(depth, slices)
    index = torch.arange(depth)[chosen]
    on = torch.where(index + SLICES_ON < depth, index + SLICES_ON, index - SLICES_ON).clamp_min(0)
    foreign = None
    if donor is not None:
        other = LoadPaird(scale)(donor)["reference"]
        height = (index / max(depth - 1, 1) * (other.shape[-1] - 1)).round().long()
        foreign = _on_size(other[..., height], label.shape[1:3])
    return Pair(str(case["case"]), label[..., chosen], reference[..., chosen], reference[..., on], foreign)


def prepare(pair: Pair, disturbance: Disturbance, protocol: Protocol, scale: int, decomposition: Decomposition) -> Prepared:
    """What a network is given when this is wrong with the pair, and what it shall return in spite of it.

    Noise is drawn from the name of the case: it is the same for every method, and of the same shape at every level. Noise of the target is
    added to its low-resolution image.

    Raises:
        ValueError: the pair lacks the other patient, or see `Protocol.prepare`.
    """
    prepared = protocol.prepare(pair.label, _reference(pair, disturbance), scale, decomposition)
    if disturbance.kind != "noisy target":
        return prepared
    _, height, width, depth = prepared.label.shape
    noise = zero_fill(_noise(pair, disturbance, (depth, height // scale, width // scale)), scale).movedim(0, -1)
    image = prepared.image.clone()
    image[:1] += noise / prepared.std
    return replace(prepared, image=image)


def _reference(pair: Pair, disturbance: Disturbance) -> Tensor:
    kind, amount = disturbance.kind, disturbance.amount
    if kind == "other patient":
        if pair.foreign is None:
            raise ValueError(f"expected a pair with the reference of another patient, {pair.case} has none")
        return pair.foreign
    if kind == "other slice":
        return pair.further
    if kind == "noisy reference":
        return pair.reference + _noise(pair, disturbance, tuple(pair.reference.shape))
    if kind in ("aligned", "noisy target"):
        return pair.reference
    along = amount / math.sqrt(2)
    changes: dict[Kind, Transform] = {
        "moved": MisalignReferenced((along, along)),
        "turned": MisalignReferenced((0.0, 0.0), amount),
        "zeroed": DropReferenced(),
    }
    slices: Tensor = changes[kind]({"reference": pair.reference.movedim(-1, 0)})["reference"]
    return slices.movedim(0, -1)


def _noise(pair: Pair, disturbance: Disturbance, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{pair.case} {disturbance.kind}".encode()))
    return disturbance.amount * torch.randn(shape, generator=generator)


def _on_size(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(1, H, W, n) cropped or filled up with zeros around its centre."""
    less = [wanted - found for wanted, found in zip(size, image.shape[1:3], strict=True)]
    (top, bottom), (left, right) = ((each // 2, each - each // 2) for each in less)
    return functional.pad(image, (0, 0, left, right, top, bottom))
