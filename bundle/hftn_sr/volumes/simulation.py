"""From a high-resolution image to what a faster scan would have given, and to the network's input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hftn_sr.acquisition import Acquisition, Slices
from hftn_sr.errors import Fault
from hftn_sr.kspace import Decomposition, decompose, truncate, zero_fill
from hftn_sr.volumes.scratch import blocks
from hftn_sr.volumes.volume import Grid, Volume

__all__ = [
    "acquire",
    "intensity_unit",
    "intensity_unit_of",
    "crop_to_multiple",
    "degrade",
    "in_plane_first",
    "in_plane_last",
    "stack_channels",
    "thick_slices",
    "zero_filled",
]

WHOLE_SLICE = 1e-3  # share of a slice that a rounded voxel size may lack
UNIT_PERCENTILE = 99.9  # percentile of the positive voxels that counts as 1


def degrade(volume: Volume, factor: int, through_plane: int, magnitude: bool = False) -> Volume:
    """The volume as a scan with a factor less in-plane k-space would give it, amplitude kept.

    Sizes that factor does not divide lose up to factor - 1 voxels first, evenly from both sides; the affine follows.

    Args:
        volume: high-resolution, (X, Y, Z).
        factor: 2 or 4; the middle half or quarter of each in-plane k-space axis stays.
        through_plane: the array axis that keeps its size.
        magnitude: take absolute values, as a scanner stores them, instead of keeping the small negative ringing.
    """
    volume = crop_to_multiple(volume, factor, through_plane)
    axes = volume.grid.slice_axes(through_plane)
    slices = truncate(in_plane_last(torch.from_numpy(volume.data), axes), factor)
    data = in_plane_first(slices.abs() if magnitude else slices, axes)
    return volume.on(volume.grid.coarser(factor, through_plane), data.numpy())


def acquire(volume: Volume, kept: Acquisition, magnitude: bool = False) -> Volume:
    """The volume as a scan that keeps only this would give it, amplitude kept.

    Args:
        volume: high-resolution, (X, Y, Z).
        kept: what was measured along its three array axes.
        magnitude: take absolute values, as a scanner stores them, instead of keeping the small negative ringing.
    """
    measured = kept.simulate(torch.from_numpy(np.ascontiguousarray(volume.data)))
    affine = kept.measured_affine(volume.affine, volume.data.shape)
    return replace(volume, data=(measured.abs() if magnitude else measured).numpy(), affine=affine)


def thick_slices(volume: Volume, through_plane: int, thickness: float, spacing: float) -> tuple[Volume, Slices]:
    """The part of a volume that a whole number of thick slices covers, evenly from both sides, and these slices.

    Args:
        volume: high-resolution, (X, Y, Z).
        through_plane: array axis across the slices.
        thickness: slice thickness in mm, full width at half maximum.
        spacing: from one slice to the next in mm; rounded so that the slices cover whole voxels.

    Raises:
        Fault: not one slice fits.
    """
    size, voxel = volume.data.shape[through_plane], float(volume.grid.spacing[through_plane])
    count = int(size * voxel / spacing + WHOLE_SLICE)
    if count < 1 or spacing < voxel:
        finding = f"{size} slices of {voxel:.3g} mm hold no thick slice every {spacing:g} mm"
        raise Fault(volume.path, finding, "give a larger image, or a spacing between its voxel size and its depth")
    covered = min(size, round(count * spacing / voxel))
    start = [(size - covered) // 2 if axis == through_plane else 0 for axis in range(3)]
    shape = [covered if axis == through_plane else length for axis, length in enumerate(volume.data.shape)]
    part = tuple(slice(first, first + length) for first, length in zip(start, shape, strict=True))
    grid = volume.grid.cropped((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
    return volume.on(grid, np.ascontiguousarray(volume.data[part])), Slices(thickness / voxel, covered / count)


def crop_to_multiple(volume: Volume, factor: int, through_plane: int) -> Volume:
    """`volume` without the voxels, evenly from both sides, that keep its in-plane sizes from being multiples of factor."""
    shape = volume.data.shape
    surplus = [0 if axis == through_plane else size % factor for axis, size in enumerate(shape)]
    if min(size - less for size, less in zip(shape, surplus, strict=True)) < 1:
        raise Fault(volume.path, f"too small to lose resolution (sizes {shape}, factor {factor})", "give a larger image")
    start = tuple(less // 2 for less in surplus)
    size = tuple(full - less for full, less in zip(shape, surplus, strict=True))
    part = tuple(slice(begin, begin + length) for begin, length in zip(start, size, strict=True))
    grid: Grid = volume.grid.cropped(start, size)  # type: ignore[arg-type]
    return volume.on(grid, np.ascontiguousarray(volume.data[part]))


def zero_filled(volume: Volume, factor: int, through_plane: int) -> Volume:
    """The low-resolution volume on its high-resolution grid, by zeros outside the measured k-space: what every method must beat."""
    axes = volume.grid.slice_axes(through_plane)
    slices = zero_fill(in_plane_last(torch.from_numpy(volume.data), axes), factor)
    return volume.on(volume.grid.finer(factor, through_plane), in_plane_first(slices, axes).numpy())


def in_plane_last(volume: Tensor, axes: tuple[int, int, int]) -> Tensor:
    """(X, Y, Z) to slices (D, H, W), for the axes of `Grid.slice_axes`."""
    return volume.permute(axes)


def in_plane_first(slices: Tensor, axes: tuple[int, int, int]) -> Tensor:
    """Slices (D, H, W) back to a contiguous (X, Y, Z)."""
    return slices.permute([axes.index(axis) for axis in range(3)]).contiguous()


def intensity_unit(data: NDArray[np.float32]) -> float:
    """What counts as intensity 1: the 99.9th percentile of the positive voxels, in the image's unit.

    Raises:
        ValueError: no voxel is positive.
    """
    along = np.moveaxis(data, int(np.argmax(np.abs(data.strides))), 0)
    return intensity_unit_of((along[block] for block in blocks(len(along), along[:1].nbytes)), data.size)


def intensity_unit_of(parts: Iterable[NDArray[np.float32]], size: int) -> float:
    """`intensity_unit` of an image of `size` voxels that comes in parts, of which only the brightest thousandth is held.

    Raises:
        ValueError: no voxel is positive.
    """
    most = int(np.ceil(size * (1 - UNIT_PERCENTILE / 100))) + 2
    brightest, positives = np.empty(0, np.float32), 0
    for part in parts:
        positives += int(np.count_nonzero(part > 0))
        least = brightest.min() if len(brightest) >= most else 0
        brightest = np.concatenate([brightest, part[part > least]])
        if len(brightest) > most:
            brightest = np.partition(brightest, len(brightest) - most)[-most:]
    if not positives:
        raise ValueError("expected an image with positive voxels, got none")
    place = UNIT_PERCENTILE / 100 * (positives - 1) - (positives - len(brightest))  # among the brightest, in rising order
    return float(np.interp(place, np.arange(len(brightest)), np.sort(brightest)))


def stack_channels(target: Tensor, reference: Tensor, acquisition: int | Acquisition, decomposition: Decomposition = "band") -> Tensor:
    """The network's input from whole slices: target on the result's grid, low and high component of the reference.

    Args:
        target: low-resolution slices (..., h, w).
        reference: high-resolution slices (..., H, W).
        acquisition: what the target kept of the two in-plane axes; a scale s for 1/s of the k-space of both.
        decomposition: see `kspace.decompose`; `band` alone goes with an acquisition.

    Returns:
        (3, ..., H, W).

    Raises:
        ValueError: another decomposition with an acquisition.
    """
    if isinstance(acquisition, int):
        return torch.stack([zero_fill(target, acquisition), *decompose(reference, acquisition, decomposition)])
    if decomposition != "band":
        raise ValueError(f"expected the decomposition 'band' for an acquisition, got {decomposition!r}")
    return torch.stack([acquisition.interpolate(target, reference.shape[-2:]), *acquisition.split(reference)])
