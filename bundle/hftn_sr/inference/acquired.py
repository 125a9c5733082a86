"""What the target's scan kept of the result: as asked, by its header, by its k-space, by the reference's voxels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
from torch import Tensor

from hftn_sr.acquisition import Acquisition, Axis, Full, KSpace, Slices
from hftn_sr.errors import SCALES, Fault, NothingToDo, UsageFault
from hftn_sr.inference.findings import DIRECTIONS, filled_beyond, measured_samples
from hftn_sr.inference.options import PairOptions
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.scan_matrix import ScanMatrix
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["Acquired", "choose_acquired", "missing_scale", "slice_axis"]

SCALE_TOLERANCE = 0.15  # relative distance of both ratios of voxel sizes from 2 or 4 up to which the result is exactly as much finer
GAIN = 1.2  # ratio of voxel sizes from which there is something to gain along an axis
THINNER = 2.0  # ratio of slice distances from which slices are made thinner unasked
LARGEST, THICKEST = 4.5, 6.0  # ratios in-plane and across slices up to which networks are trained; more only where it was asked for
OVERLAP, SLIVER = 2.5, 0.05  # thickness in distances between slices: at most what can be undone; at least what is believed of a header
MOST = 32767  # voxels along an axis of a NIfTI file
NEARLY_ALL = 0.95  # share of an axis' samples from which all count as measured
MOSTLY = 0.7  # share from which weights of one scale, which know no interpolation, still serve
ODD = 2.0  # ratio of voxel sizes from which an axis lies across thick slices, whatever a header says
SAME_VOXEL = 1e-3  # share of a voxel size by which a result may be finer than asked, so that rounded headers cost no sample


@dataclass(frozen=True)
class Acquired:
    """What the target's scan kept, and the grid of the result.

    Args:
        grid: of the result.
        through_plane: the target's array axis across the slices.
        kept: what of the result was measured, for the three array axes.
        file_shape: sizes of the target's file: more than was measured where the scanner interpolated.
        source: how that was found out, in words.
        warnings: what speaks against it.
    """

    grid: Grid
    through_plane: int
    kept: Acquisition
    file_shape: tuple[int, int, int]
    source: str
    warnings: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[int, int, int]:
        """Array axes in the network's order, see `Grid.slice_axes`."""
        return self.grid.slice_axes(self.through_plane)

    @property
    def plane(self) -> Acquisition:
        """What was measured of a slice (H, W) of the result."""
        return self.kept.select(self.axes[1:])

    @property
    def slice_size(self) -> tuple[int, int]:
        """(H, W) of a slice of the result, as the network sees it."""
        return self.grid.shape[self.axes[1]], self.grid.shape[self.axes[2]]

    @property
    def thick(self) -> bool:
        """Whether the result has more slices than the target."""
        return self.kept.axes[self.through_plane] != Full()

    @property
    def in_plane(self) -> bool:
        """Whether resolution was lost in-plane."""
        return any(axis != Full() for axis in self.plane.axes)

    @property
    def samples(self) -> tuple[int, ...]:
        """Sizes of what was measured."""
        return self.kept.measured_shape(self.grid.shape)

    @property
    def interpolated(self) -> tuple[int, ...]:
        """In-plane array axes along which the scanner interpolated the target."""
        return tuple(axis for axis in sorted(self.axes[1:]) if self.samples[axis] < self.file_shape[axis])

    @property
    def factor(self) -> float:
        """Voxels of the result for each measured one along an in-plane axis; the geometric mean of both axes."""
        return math.sqrt(math.prod(self.plane.ratios(self.slice_size)))

    @property
    def scale(self) -> int | None:
        """The scale s of weights that know nothing else: the result has 2 or 4 times the file's samples along both in-plane axes.

        None for any other loss.
        """
        sizes = [(self.grid.shape[axis], self.file_shape[axis]) for axis in self.axes[1:]]
        return next((scale for scale in SCALES if all(size == scale * has for size, has in sizes)), None)

    @property
    def mostly_measured(self) -> bool:
        """Whether so much of the file was measured, and not interpolated, that weights of one scale serve."""
        return min(self.samples[axis] / self.file_shape[axis] for axis in self.axes[1:]) >= MOSTLY

    def measured(self, slices: Tensor) -> Tensor:
        """Slices (..., h, w) of the target's file as they were measured."""
        return Acquisition.from_matrix([self.samples[axis] for axis in self.axes[1:]], slices.shape[-2:]).simulate(slices)

    def over(self, target: Grid) -> Acquired:
        """The same for a target that lost slices at its far end."""
        if target.shape == self.file_shape:
            return self
        shape = list(self.grid.shape)
        shape[self.through_plane] = shape[self.through_plane] * target.shape[self.through_plane] // self.file_shape[self.through_plane]
        return replace(self, grid=_result_grid(target, shape, self.through_plane), file_shape=target.shape)

    def in_slices(self) -> Acquired:
        """The same without thinner slices: the result's in-plane resolution on the target's slices."""
        if not self.thick:
            return self
        through = self.through_plane
        across = Acquisition(tuple(self.kept.axes[axis] if axis == through else Full() for axis in range(3)))
        affine, shape = across.measured_affine(self.grid.affine, self.grid.shape), across.measured_shape(self.grid.shape)
        grid = replace(self.grid, shape=(shape[0], shape[1], shape[2]), affine=affine)
        kept = Acquisition(tuple(Full() if axis == through else self.kept.axes[axis] for axis in range(3)))
        return replace(self, grid=grid, kept=kept)

    def describe(self) -> str:
        """In words: "measured 256 x 205 of 512 x 512 (left-right x front-back)"."""
        order = sorted(self.axes[1:])
        directions = nib.orientations.io_orientation(self.grid.affine)[:, 0]
        along = " x ".join(DIRECTIONS[int(directions[axis])] for axis in order)
        parts = [f"{self.kept.select(order).describe([self.grid.shape[axis] for axis in order])} ({along})"] if self.in_plane else []
        if self.thick:
            across = self.kept.select([self.through_plane])
            parts.append(across.describe([self.grid.shape[self.through_plane]], float(self.grid.spacing[self.through_plane])))
        return ", ".join(parts) or "nothing lost"

    @classmethod
    def of_record(cls, record: Mapping[str, Any], target: Grid) -> Acquired:
        """What the record of a run says of its target.

        Raises:
            KeyError, TypeError, ValueError: it is not the record of a run.
        """
        found, through_plane = record["acquired"], int(record["through_plane"])
        shape = [int(size) for size in found["shape"]]
        has: tuple[int, int, int] = tuple(int(size) for size in found["file_shape"])  # type: ignore[assignment]
        grid = _result_grid(replace(target, shape=has), shape, through_plane)
        return cls(grid, through_plane, Acquisition.from_dict({"axes": found["kept"]}), has, str(found["source"]))

    def record(self) -> dict[str, Any]:
        """Entry of the side file."""
        return {
            "words": self.describe(),
            "source": self.source,
            "kept": self.kept.as_dict()["axes"],
            "file_shape": list(self.file_shape),
            "shape": list(self.grid.shape),
        }


def slice_axis(target: VolumeHeader, asked: int | None) -> int:
    """The array axis across the slices, by what was asked, by the file, by the odd one out of the voxel sizes; never a guess.

    Raises:
        Fault: several axes could be it, or the file and its voxel sizes contradict each other.
    """
    if asked is not None:
        return asked
    grid = target.grid
    told = " x ".join(f"{size:.3g}" for size in grid.spacing)
    fix = "--through-plane 0, 1 or 2, the array axis across the slices"
    by_size = grid.odd_axis()
    if grid.slice_axis is not None:
        others = np.delete(grid.spacing, by_size) if by_size is not None else np.array([np.inf])
        if by_size not in (None, grid.slice_axis) and grid.spacing[by_size] > ODD * others.max() and not target.path.is_dir():
            found = f"its header names axis {grid.slice_axis} as the slices' (dim_info), its voxel sizes axis {by_size} ({told} mm)"
            raise Fault(target.path, found, fix)
        return grid.slice_axis
    if by_size is None:
        raise Fault(target.path, f"which axis lies across its slices is not to be seen (voxels of {told} mm)", fix)
    return by_size


def choose_acquired(
    target: VolumeHeader, volume: Volume, reference: VolumeHeader | None, through_plane: int, options: PairOptions, scan: ScanMatrix
) -> Acquired:
    """Find out what the target's scan kept, and choose the grid of the result.

    Args:
        target: low-resolution header.
        volume: its voxels.
        reference: high-resolution header; None for none.
        through_plane: the target's through-plane array axis.
        options: what was asked: `scale`, `acquired`, `voxel`, `slice_thickness`.
        scan: what the header says of the measured matrix.

    Raises:
        UsageFault: what was asked contradicts the target, or something must be asked for because there is no reference.
        NothingToDo: there is nothing to gain.
    """
    axes = [axis for axis in range(3) if axis != through_plane]
    samples, source, warnings = _samples(target, volume, through_plane, axes, options, scan)
    shape, why = _wanted_shape(target.grid, reference.grid if reference else None, axes, samples, options)
    shape[through_plane], slices, why_slices = _wanted_slices(
        target.grid, reference.grid if reference else None, through_plane, options, scan
    )
    kept: list[Axis] = [Full(), Full(), Full()]
    for axis in axes:
        kept[axis] = KSpace(samples[axis]) if samples[axis] < shape[axis] else Full()
    kept[through_plane] = slices
    reasons = [*([source] if source else []), *([why] if why else []), *([why_slices] if why_slices else [])]
    if max(shape) > MOST:
        raise UsageFault("--voxel" if options.voxel else "--scale", f"would make {max(shape)} voxels along an axis", "larger voxels")
    grid = _result_grid(target.grid, shape, through_plane)
    warnings += _odd_wishes(target.grid, shape, samples, through_plane, options)
    found = Acquired(grid, through_plane, Acquisition(tuple(kept)), target.grid.shape, "; ".join(reasons), tuple(warnings))
    _check_gain(target, found, options, reference)
    return found


def _odd_wishes(target: Grid, shape: Sequence[int], samples: Mapping[int, int], through_plane: int, options: PairOptions) -> list[str]:
    """Warnings of what was asked for and cannot be had, or was never tried."""
    found, thin = [], shape[through_plane] > target.shape[through_plane]
    if options.slice_thickness and not thin:
        found.append("--slice-thickness has no use: the slices stay as they are; --voxel AxBxC makes them thinner")
    if options.voxel and len(options.voxel) == 3 and options.voxel[through_plane] > (1 + SAME_VOXEL) * target.spacing[through_plane]:
        found.append(f"slices stay {target.spacing[through_plane]:.3g} mm apart: --voxel does not make them thicker")
    ratios = [shape[axis] / count for axis, count in samples.items()]
    if max(ratios) > LARGEST or (thin and shape[through_plane] / target.shape[through_plane] > THICKEST):
        found.append(f"asks for more than {LARGEST} times in-plane or {THICKEST:g} times across slices, for which no network was trained")
    return found


def missing_scale() -> UsageFault:
    """The fault of a target that has neither a reference nor a scale."""
    return UsageFault(
        "--scale",
        "is missing, it cannot be found without a reference",
        "--scale 2 or --voxel AxBxC, or --reference FILE of another contrast",
    )


def _samples(
    target: VolumeHeader, volume: Volume, through_plane: int, axes: Sequence[int], options: PairOptions, scan: ScanMatrix
) -> tuple[dict[int, int], str, list[str]]:
    """Measured samples along the in-plane axes, how that was found out, and what contradicts it."""
    sizes = {axis: target.grid.shape[axis] for axis in axes}
    if options.acquired:
        asked = dict(zip(axes, options.acquired, strict=True))
        if any(asked[axis] > sizes[axis] for axis in axes):
            told, has = (" x ".join(map(str, each.values())) for each in (asked, sizes))
            raise UsageFault(
                "--acquired",
                f"{told} is more than the {has} of {target.path.name}",
                "the matrix that was measured, no larger than the file's",
            )
        return asked, "acquired matrix as asked", []
    filled = measured_samples(volume, through_plane)  # by array axis
    by_header = {axis: min(scan.samples.get(axis, sizes[axis]), sizes[axis]) for axis in axes}
    by_header = {axis: count if count < NEARLY_ALL * sizes[axis] else sizes[axis] for axis, count in by_header.items()}
    found = {
        axis: min(by_header[axis], filled.get(axis, sizes[axis])) if by_header[axis] == sizes[axis] else by_header[axis] for axis in axes
    }
    sources = []
    if any(by_header[axis] < sizes[axis] for axis in axes):
        sources.append(f"acquired matrix by {scan.source}")
    if any(found[axis] < by_header[axis] for axis in axes):
        sources.append("outer k-space is empty: interpolated by the scanner")
    warnings = []
    if contradicted := [
        a for a in axes if by_header[a] < sizes[a] and a not in filled and filled_beyond(volume, through_plane, a, by_header[a])
    ]:
        lost = " x ".join(f"{by_header[axis]} of {sizes[axis]}" for axis in contradicted)
        warnings.append(
            f"{scan.source} says that {lost} samples were measured, though k-space is filled beyond them; taken as said, "
            "--acquired with the file's own matrix takes all of it"
        )
    return found, ", ".join(sources), warnings


def _wanted_shape(
    target: Grid, reference: Grid | None, axes: Sequence[int], samples: Mapping[int, int], options: PairOptions
) -> tuple[list[int], str]:
    """Sizes of the result in-plane, and why."""
    shape = list(target.shape)
    if options.voxel or options.scale:
        for index, axis in enumerate(axes):
            wanted = options.voxel[_in_voxel(options.voxel, axis, axes)] if options.voxel else target.spacing[axis] / options.scale[index]  # type: ignore[index]
            shape[axis] = _size(target, axis, wanted)
        return shape, "voxel size as asked" if options.voxel else "scale as asked"
    if reference is None:
        if options.acquired or any(samples[axis] < target.shape[axis] for axis in axes):
            return shape, "on the file's own grid"
        raise missing_scale()
    finest = {axis: _resolution(reference, target, axis) for axis in axes}
    ratios = {axis: float(target.spacing[axis]) / finest[axis] for axis in axes}
    told = f"voxel sizes are {' x '.join(f'{ratios[axis]:.2f}' for axis in axes)} times the reference's"
    for scale in SCALES:
        if all(abs(ratio - scale) / scale <= SCALE_TOLERANCE for ratio in ratios.values()):
            for axis in axes:
                shape[axis] = scale * target.shape[axis]
            return shape, f"scale {scale}: {told}"
    for axis in axes:
        if ratios[axis] >= GAIN:
            wanted, most = _size(target, axis, finest[axis]), math.floor(LARGEST * samples[axis])
            shape[axis] = max(target.shape[axis], min(wanted, most))
            limited = f"; limited to {LARGEST:g} times what was measured" if wanted > max(most, target.shape[axis]) else ""
            told = told.removesuffix(limited) + limited
    return shape, told


def _wanted_slices(
    target: Grid, reference: Grid | None, through_plane: int, options: PairOptions, scan: ScanMatrix
) -> tuple[int, Axis, str]:
    """Slices of the result, what the target kept of them, and why."""
    count, spacing = target.shape[through_plane], float(target.spacing[through_plane])
    if options.slice_thickness and options.slice_thickness > OVERLAP * spacing:
        finding = f"{options.slice_thickness:g} mm is more than {OVERLAP:g} times the distance of {spacing:.3g} mm between slices"
        raise UsageFault("--slice-thickness", finding, f"--slice-thickness {spacing:.3g}, or what the scan's protocol says")
    known = scan.thickness if scan.thickness and SLIVER * spacing <= scan.thickness <= OVERLAP * spacing else None
    thickness = options.slice_thickness or known or spacing
    if options.voxel and len(options.voxel) == 3:
        size, why = _size(target, through_plane, options.voxel[through_plane]), "distance of slices as asked"
    elif reference is not None and count > 1 and not options.scale and not options.voxel:
        finest = _resolution(reference, target, through_plane)
        if spacing / finest < THINNER:
            return count, Full(), ""
        wanted, most = _size(target, through_plane, finest), math.floor(THICKEST * count)
        size = min(wanted, most)
        limited = f", limited to {THICKEST:g} times as many" if wanted > most else ""
        why = f"slices lie {spacing / finest:.1f} times as far apart as the reference's voxels{limited}"
    else:
        return count, Full(), ""
    if size == count:
        return count, Full(), ""
    return size, Slices(thickness / spacing * size / count, size / count), why


def _in_voxel(voxel: Sequence[float], axis: int, axes: Sequence[int]) -> int:
    """Where an in-plane axis stands among two or three wanted voxel sizes, given in the array's order."""
    return axis if len(voxel) == 3 else list(axes).index(axis)


def _size(target: Grid, axis: int, wanted: float) -> int:
    """The most voxels, no finer than wanted, over the field of view; never fewer than there are."""
    has = target.shape[axis]
    return max(has, math.floor(has * float(target.spacing[axis]) / wanted * (1 + SAME_VOXEL)))


def _resolution(reference: Grid, target: Grid, axis: int) -> float:
    """Voxel size of the reference along an axis of the target, in mm: that of its own axis nearest to it."""
    along = target.affine[:3, axis] / target.spacing[axis]
    nearest = int(np.abs((reference.affine[:3, :3] / reference.spacing).T @ along).argmax())
    return float(reference.spacing[nearest])


def _result_grid(target: Grid, shape: Sequence[int], through_plane: int) -> Grid:
    """The target's field of view on other sizes: sample 0 stays in place in-plane, the outer faces do across slices."""
    axes: list[Axis] = [KSpace(has) if size > has else Full() for has, size in zip(target.shape, shape, strict=True)]
    if shape[through_plane] > target.shape[through_plane]:
        spacing = shape[through_plane] / target.shape[through_plane]
        axes[through_plane] = Slices(spacing, spacing)
    affine = Acquisition(tuple(axes)).result_affine(target.affine, shape)
    return replace(target, shape=(shape[0], shape[1], shape[2]), affine=affine)


def _check_gain(target: VolumeHeader, found: Acquired, options: PairOptions, reference: VolumeHeader | None) -> None:
    gains = [size / kept for size, kept in zip(found.grid.shape, found.samples, strict=True)]
    if max(gains) >= GAIN:
        return
    if options.scale or options.voxel or options.acquired:
        raise UsageFault(
            "--voxel" if options.voxel else "--scale" if options.scale else "--acquired",
            f"asks for at most {max(gains):.2f} times the measured samples, from {GAIN} there is something to gain",
            "ask for more, or leave the image as it is",
        )
    sizes = " x ".join(f"{size:.3g}" for size in target.grid.spacing)
    beside = f" beside the reference's {' x '.join(f'{size:.3g}' for size in reference.grid.spacing)} mm" if reference else ""
    if reference and np.prod(reference.grid.spacing) > GAIN * np.prod(target.grid.spacing):
        raise Fault(
            target.path, f"nothing to gain: its voxels of {sizes} mm are finer than the reference's", "swap the two, if they are swapped"
        )
    finding = f"nothing to gain: its voxels of {sizes} mm{beside} are as fine in plane, and slices are not {THINNER:g} times as far apart"
    raise NothingToDo(target.path, finding, "leave it as it is, or ask for thinner slices by --voxel AxBxC")
