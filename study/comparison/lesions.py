"""What becomes of lesions: their contrast and volume in what a method made, against those in the truth.

A lesion is a connected part of a mask that was drawn on the truth. All voxels below are chosen on the mask and the truth alone, and are
the same for every method. Resolution is lost in-plane, so distances are counted in-plane, in voxels.

- contrast: mean over the lesion minus mean over the ring of tissue GAP + 1 to RING voxels around it (without voxels within GAP of any
  lesion, and without the zeros of a stripped skull), in intensity units of the target = 1;
- volume: voxels within NEAR of the lesion that are brighter than halfway between these two means of the truth, in cubic millimetres.
  Applied to the truth, the same rule gives the volume that it is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import itk
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from comparison.scoring import Predict
from comparison.statistics import bootstrap_interval
from hftn_sr.errors import Fault
from hftn_sr.kspace import Decomposition
from hftn_sr.training.protocols import Protocol, restore
from hftn_sr.training.transforms import LoadPaird
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import crop_to_multiple, in_plane_last
from hftn_sr.volumes.volume import Volume

__all__ = ["RULES", "Agreement", "Interval", "Lesion", "LesionPair", "agreement", "find_lesions", "lesions_in", "load_lesions"]

GAP, NEAR, RING = 1, 2, 4
ON_A_VOXEL = 1e-3  # what interpolation may take from a voxel of the mask that lies on one of the target
FEWEST = 10  # voxels of a lesion, and of its ring
RULES = (
    f"contrast: lesion minus the mean of the tissue {GAP + 1} to {RING} voxels around it, in-plane, in intensity units of the target; "
    f"volume: voxels within {NEAR} voxels of the lesion that are brighter than halfway between these two means of the truth; "
    f"lesions of at least {FEWEST} voxels that are brighter than their surroundings"
)


@dataclass(frozen=True)
class Lesion:
    """Where one lesion is looked for.

    Args:
        inside: (k,), its voxels, as places in the flattened volume.
        ring: likewise, tissue around it.
        near: likewise, where its volume is counted.
        threshold: above which a voxel counts, intensity.
    """

    inside: Tensor
    ring: Tensor
    near: Tensor
    threshold: float

    def contrast(self, image: Tensor) -> float:
        """In a volume (H, W, D), in its intensity."""
        values = image.flatten().double()
        return float(values[self.inside].mean() - values[self.ring].mean())

    def volume(self, image: Tensor) -> int:
        """In a volume (H, W, D), in voxels."""
        return int((image.flatten()[self.near] > self.threshold).sum())


@dataclass(frozen=True)
class LesionPair:
    """A case whose target has a mask of lesions, at high resolution.

    Args:
        label: target (1, H, W, D), from the first slice with a lesion to the last.
        reference: likewise.
        lesions: of the target.
        left_out: parts of the mask that are too small, have no tissue around them, or are not brighter than it.
        voxel: its volume in cubic millimetres.
    """

    label: Tensor
    reference: Tensor
    lesions: Sequence[Lesion]
    left_out: int
    voxel: float


def load_lesions(case: Mapping[Hashable, Any], scale: int) -> LesionPair:
    """Read a case of a datalist that has `lesions`, a mask of voxels above 0.5 on the target's grid, whatever its order of axes.

    Raises:
        Fault: a file cannot be used, or the mask is on another grid.
    """
    loaded = LoadPaird(scale)(case)
    target = read_volume(case["target"])
    mask = _mask_on(target, Path(case["lesions"]), scale)
    held = mask.any(0).any(0).nonzero()[:, 0]
    part = slice(int(held[0]), int(held[-1]) + 1)
    label = loaded["label"][..., part]
    lesions, left_out = find_lesions(mask[..., part], label[0])
    voxel = abs(float(np.linalg.det(target.affine[:3, :3])))
    return LesionPair(label, loaded["reference"][..., part], lesions, left_out, voxel)


def _mask_on(target: Volume, path: Path, scale: int) -> Tensor:
    """(H, W, D), as `LoadPaird` gives the target."""
    drawn = read_volume(path)
    lesions = replace(drawn, data=(drawn.data > 0.5).astype(np.float32))
    placed = replace(target, data=resample(lesions, target.grid))
    through_plane = target.grid.through_plane()
    cropped = crop_to_multiple(placed, scale, through_plane)
    known, found, left = (int((each.data > 1 - ON_A_VOXEL).sum()) for each in (lesions, placed, cropped))
    if not known:
        raise Fault(path, "no voxel above 0.5", "give a mask of 0 and 1, or leave it out")
    if found != known:
        finding = f"{found} of its {known} voxels above 0.5 lie on voxels of the target {target.path}"
        raise Fault(path, finding, "resample the mask onto the target's grid by nearest neighbour")
    if not left:
        raise Fault(path, f"lies only in rows or columns beyond a multiple of {scale}, which are cropped", "leave it out")
    return in_plane_last(torch.from_numpy(cropped.data), cropped.grid.slice_axes(through_plane)).movedim(0, -1) > 0.5


def find_lesions(mask: Tensor, truth: Tensor) -> tuple[list[Lesion], int]:
    """The connected parts (also across corners) of a mask (H, W, D), with the tissue around each, and how many were left out.

    Args:
        mask: of all lesions, boolean.
        truth: same shape; zeros are no tissue.
    """
    connected = itk.connected_component_image_filter(itk.image_from_array(mask.numpy().astype(np.uint8)), fully_connected=True)
    labels = torch.from_numpy(np.asarray(itk.array_from_image(connected), dtype=np.int64))
    values, place = truth.flatten().double(), torch.arange(truth.numel()).view(truth.shape)
    clear = ~_dilated(mask, GAP) & (truth != 0)
    lesions: list[Lesion] = []
    count = int(labels.max())
    for number in range(1, count + 1):
        own = labels == number
        box = tuple(
            slice(max(int(each.min()) - RING, 0), int(each.max()) + RING + 1) for each in own.nonzero(as_tuple=True)
        )  # what follows needs no more
        inside = own[box]
        ring = _dilated(inside, RING) & clear[box]
        near = _dilated(inside, NEAR) & (inside | ~mask[box])
        if inside.sum() < FEWEST or ring.sum() < FEWEST:
            continue
        places, tissue, around = (place[box][each] for each in (inside, ring, near))
        bright, dark = (float(values[each].mean()) for each in (places, tissue))
        if bright > dark:
            lesions.append(Lesion(places, tissue, around, (bright + dark) / 2))
    return lesions, count - len(lesions)


def lesions_in(pair: LesionPair, predict: Predict, protocol: Protocol, scale: int, decomposition: Decomposition) -> list[dict[str, float]]:
    """Contrast and volume of each lesion in the truth and in what a method makes of the pair.

    Raises:
        ValueError: a protocol that does not keep whole slices.
    """
    prepared = protocol.prepare(pair.label, pair.reference, scale, decomposition)
    if prepared.label.shape != pair.label.shape:
        raise ValueError(f"expected a protocol that keeps whole slices {tuple(pair.label.shape)}, got {tuple(prepared.label.shape)}")
    pred = restore(predict(prepared.image), prepared.mean, prepared.std)[0]
    return [
        {
            "voxels": len(lesion.inside),
            "true_contrast": lesion.contrast(pair.label[0]),
            "contrast": lesion.contrast(pred),
            "true_volume": pair.voxel * lesion.volume(pair.label[0]),
            "volume": pair.voxel * lesion.volume(pred),
        }
        for lesion in pair.lesions
    ]


class Interval(NamedTuple):
    """A mean over lesions with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """A quantity of each lesion against that in the truth.

    Args:
        total: sum over the lesions, relative to that in the truth.
        bias: mean over the lesions of what was found less the truth, relative to the truth of each lesion.
        error: mean of the absolute value of the same.
        correlation: Spearman's, of ranks: one giant lesion does not decide it. NaN where it has no value.
    """

    total: float
    bias: Interval
    error: Interval
    correlation: float


def agreement(found: Sequence[float], truth: Sequence[float]) -> Agreement:
    """Of two lists of at least one lesion, in one order; the truth positive, as contrast and volume of a `Lesion` are.

    Raises:
        ValueError: lists of unequal length, empty ones, or a truth that is not positive.
    """
    if len(found) != len(truth) or not truth or min(truth) <= 0:
        raise ValueError(f"expected lists of equal length, at least 1, with a positive truth, got {len(found)} and {len(truth)} values")
    values, true = np.asarray(found, float), np.asarray(truth, float)
    apart = values / true - 1
    ranks = [_ranks(each) for each in (values, true)]
    varied = all(each.std() > 0 for each in ranks)
    correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if varied else math.nan
    return Agreement(float(values.sum() / true.sum()), _interval(apart), _interval(np.abs(apart)), correlation)


def _interval(values: NDArray[np.float64]) -> Interval:
    return Interval(float(values.mean()), *bootstrap_interval(values))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def _dilated(mask: Tensor, voxels: int) -> Tensor:
    """(H, W, D) with all that is within so many voxels in-plane, along the axes and diagonals."""
    slices = mask.movedim(-1, 0)[:, None].float()
    return functional.max_pool2d(slices, 2 * voxels + 1, stride=1, padding=voxels)[:, 0].movedim(0, -1) > 0
