"""From two files to the network's input and output, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hftn_sr.errors import Fault
from hftn_sr.inference.findings import (
    LOW_SIMILARITY,
    alignment_record,
    choose_scale,
    interpolated_axes,
    interpolation_warning,
)
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.reference import Placed, place_reference
from hftn_sr.kspace import Decomposition
from hftn_sr.volumes.placement import paired_by_index, similarity
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.scratch import Scratch
from hftn_sr.volumes.simulation import in_plane_last, intensity_unit, stack_channels
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["PreparedPair", "apply_network", "prepare_pair"]

SLICES_AT_ONCE = 1  # more bring nothing on a CPU and cost memory


@dataclass(frozen=True)
class PreparedPair:
    """A pair on the high-resolution grid, ready for the network, slice by slice.

    Args:
        target: low-resolution, as read.
        on_grid: the reference on the grid in its own unit; None where none is used, and the network gets zeros.
        unit: target intensity that counts as 1.
        reference_unit: that of the reference.
        grid: of the result, in the target's axis order.
        through_plane: the target's through-plane axis.
        reference_sha256: of the reference's file; None where there is none.
        scale: upscaling factor s.
        decomposition: how the reference is split.
        record: what the side file says of the pair.
        warnings: what the user must know.
    """

    target: Volume
    on_grid: Scratch | None
    unit: float
    reference_unit: float
    grid: Grid
    through_plane: int
    reference_sha256: str | None
    scale: int
    decomposition: Decomposition
    record: dict[str, Any]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        """Number of slices."""
        return self.grid.shape[self.through_plane]

    @property
    def axes(self) -> tuple[int, int, int]:
        """The array axes as the network sees them, see `Grid.slice_axes`."""
        return self.grid.slice_axes(self.through_plane)

    def measured(self, index: int) -> Tensor:
        """(h, w), a slice of the target, its brightness being 1."""
        return in_plane_last(torch.from_numpy(self.target.data), self.axes)[index] / self.unit

    def reference(self, index: int) -> Tensor:
        """(H, W), a slice of the reference in its own unit; zeros without one."""
        if self.on_grid is None:
            return torch.zeros([self.grid.shape[axis] for axis in self.axes[1:]])
        return in_plane_last(torch.from_numpy(self.on_grid.volume), self.axes)[index]

    def slice(self, index: int) -> Tensor:
        """(3, H, W), what the network sees of a slice; intensities around 0 to 1."""
        return stack_channels(self.measured(index), self.reference(index) / self.reference_unit, self.scale, self.decomposition)

    @property
    def image(self) -> Tensor:
        """(3, H, W, D), what the network sees of all slices, through-plane last."""
        height, width = (self.grid.shape[axis] for axis in self.axes[1:])
        image = torch.empty(3, height, width, len(self))
        for index in range(len(self)):
            image[..., index] = self.slice(index)
        return image


def prepare_pair(
    target_path: Path,
    reference_path: Path | None,
    options: PairOptions,
    folder: Path | None = None,
    log: Callable[[str], None] | None = None,
    may_register: bool = True,
) -> PreparedPair:
    """Read a low-resolution target and its reference, and place the reference on the target's high-resolution grid.

    Args:
        target_path: NIfTI or fastMRI .h5 file, or folder of a DICOM series.
        reference_path: likewise; None for none, which needs `options.scale`.
        options: how the two become a pair.
        folder: where a reference too large for memory is put meanwhile; None for the system's folder for temporary files.
        log: called with what takes long, before it begins.
        may_register: whether there is memory for what `options.register` "auto" would register.

    Raises:
        Fault: a file that cannot be used, or a pair that does not belong together.
    """
    target = read_volume(target_path, options.read)
    if reference_path is None:
        return _target_only(target, options)
    reference = read_volume(reference_path, options.read, blank=options.unfit_reference == "leave-out")
    if target.sha256 == reference.sha256 or np.array_equal(target.data, reference.data):
        raise Fault(reference_path, "is the same image as the target", "give another contrast of the same head as --reference")
    through_plane = target.grid.through_plane() if options.through_plane is None else options.through_plane
    scale, why = choose_scale(target, reference, through_plane, options.scale)
    by_index = options.by_index(target_path, reference_path)
    if by_index:
        target, reference = paired_by_index(target, reference, scale, through_plane)
    warnings = list(dict.fromkeys((*target.notes, *reference.notes)))
    if options.scale is None:
        warnings.append(f"scale {scale} chosen: {why}")
    temporary, grid = folder or Path(gettempdir()), target.grid.finer(scale, through_plane)
    placed = place_reference(target, reference, scale, through_plane, options, by_index, temporary, log, may_register)
    alike, interpolated = similarity(target, placed.volume), interpolated_axes(target, through_plane)
    warnings += [*placed.warnings, *_findings(placed, grid, through_plane, alike)]
    warnings += [interpolation_warning(grid, interpolated)] if interpolated else []
    size = int(np.prod(grid.shape, dtype=np.int64))
    record = {
        "scale": scale,
        "scale_chosen": why,
        "through_plane": through_plane,
        "interpolated_in_plane": bool(interpolated),
        "coverage": round(placed.coverage, 4),
        "voxels_without_reference": round((1 - placed.coverage) * size) if placed.on_grid else size,
        "similarity": {"measure": "normalised mutual information, 1 to 2", "value": round(alike, 4)},
        "alignment": alignment_record(placed.alignment, scale),
        "placement": {"by": "index" if by_index else "header", **placed.record},
    }
    return PreparedPair(
        target,
        placed.on_grid,
        _unit(target),
        placed.unit,
        grid,
        through_plane,
        reference.sha256,
        scale,
        options.decomposition,
        record,
        tuple(warnings),
    )


def apply_network(
    network: nn.Module, pair: PreparedPair, device: torch.device | str, each: Callable[[int], None] | None = None
) -> Iterator[Tensor]:
    """The network on every slice, one after another.

    Args:
        network: takes (B, 3, H, W), gives (B, 1, H, W).
        pair: what to apply it to.
        device: where it runs.
        each: called with the number of slices just finished.

    Yields:
        (H, W) in the unit of pair.slice.
    """
    for start in range(0, len(pair), SLICES_AT_ONCE):
        image = torch.stack([pair.slice(index) for index in range(start, min(start + SLICES_AT_ONCE, len(pair)))])
        with torch.inference_mode():
            pred = network(image.to(device))[:, 0].cpu()
        if each:
            each(len(pred))
        yield from pred


def _target_only(target: Volume, options: PairOptions) -> PreparedPair:
    """Of a target without a reference."""
    through_plane = target.grid.through_plane() if options.through_plane is None else options.through_plane
    scale, why = choose_scale(target, None, through_plane, options.scale)
    grid = target.grid.finer(scale, through_plane)
    warnings = [*target.notes, "no reference was given: the result is made from the target alone, with less detail than a reference brings"]
    interpolated = interpolated_axes(target, through_plane)
    if interpolated:
        warnings.append(interpolation_warning(grid, interpolated))
    record = {
        "scale": scale,
        "scale_chosen": why,
        "through_plane": through_plane,
        "interpolated_in_plane": bool(interpolated),
        "coverage": 0.0,
        "voxels_without_reference": int(np.prod(grid.shape, dtype=np.int64)),
        "similarity": None,
        "alignment": None,
        "placement": None,
    }
    return PreparedPair(target, None, _unit(target), 1.0, grid, through_plane, None, scale, options.decomposition, record, tuple(warnings))


def _findings(placed: Placed, grid: Grid, through_plane: int, alike: float) -> list[str]:
    """What else speaks against a reference, besides the place where it lies."""
    found = []
    if placed.on_grid and placed.coverage < 1 - 1e-6:
        found.append(f"the reference covers {placed.coverage:.1%} of the target; elsewhere the result has no detail from it")
    told = placed.alignment is not None and not placed.alignment.fits
    if placed.on_grid and alike < LOW_SIMILARITY and not told:
        cure = "" if {"registration", "registration_skipped"} & placed.record.keys() else ", or try --register rigid"
        found.append(
            f"target and reference are hardly alike (normalised mutual information {alike:.3f}, usually above {LOW_SIMILARITY}): "
            f"check that they belong together{cure}"
        )
    finest = float(placed.volume.grid.spacing.min())
    wanted = float(np.delete(grid.spacing, through_plane).max())
    if finest > 1.5 * wanted:
        found.append(f"the reference's voxels ({finest:.2f} mm) are coarser than the result's ({wanted:.2f} mm); are the two swapped?")
    return found


def _unit(target: Volume) -> float:
    try:
        return intensity_unit(target.data)
    except ValueError:
        raise Fault(target.path, "no positive voxel", "check the export of this image") from None
