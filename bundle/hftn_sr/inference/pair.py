"""A pair of files as the network's input, slice by slice, and the network applied to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from torch import Tensor, nn

from hftn_sr.errors import Fault, Note, notes_among, warnings_among
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.case import CaseImages
from hftn_sr.inference.findings import (
    LOW_SIMILARITY,
    alignment_record,
    check_distinct,
    coarser_along,
    partly_covered,
)
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.plan import Plan, plan_pair
from hftn_sr.inference.reference import Placed, place_reference
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.through_plane import ThickSlices, applied, on_result_grid, share_of
from hftn_sr.kspace import Decomposition
from hftn_sr.volumes.placement import paired_by_index, similarity
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.scratch import Scratch
from hftn_sr.volumes.simulation import in_plane_last, intensity_unit, stack_channels
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["PreparedPair", "apply_network", "prepare_pair"]

ALONE = "no reference was given: the result is made from the target alone, with less detail than a reference brings"


@dataclass(frozen=True)
class PreparedPair:
    """A pair on the high-resolution grid, ready for the network, slice by slice.

    Args:
        target: low-resolution image, as read.
        acquired: what its scan kept in-plane, and the grid of the result on the target's slices.
        thick: what makes the slices thinner afterwards; None where they stay.
        on_grid: the reference on the grid in its own unit; None where none is used, and the network gets zeros.
        unit: target intensity that counts as 1.
        reference_unit: reference intensity that counts as 1.
        reference_grid: grid of the placed reference, where it does not cover all of the result; None elsewhere.
        reference_sha256: hash of the reference's file; None for none.
        scale: that of the network's weights; None for weights that serve any acquisition.
        decomposition: how the reference is split.
        record: entries of the side file about the pair.
        warnings: what may be wrong.
        notes: what else the user should know.
    """

    target: Volume
    acquired: Acquired
    thick: ThickSlices | None
    on_grid: Scratch | None
    unit: float
    reference_unit: float
    reference_grid: Grid | None
    reference_sha256: str | None
    scale: int | None
    decomposition: Decomposition
    record: dict[str, Any]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of slices."""
        return self.grid.shape[self.through_plane]

    @property
    def grid(self) -> Grid:
        """Grid of the result, in the target's axis order."""
        return self.acquired.grid

    @property
    def through_plane(self) -> int:
        """The target's through-plane axis."""
        return self.acquired.through_plane

    @property
    def axes(self) -> tuple[int, int, int]:
        """Array axes in the network's order, see `Grid.slice_axes`."""
        return self.acquired.axes

    def of_file(self, index: int) -> Tensor:
        """(h, w), a slice of the target's file in units of `unit`."""
        return in_plane_last(torch.from_numpy(self.target.data), self.axes)[index] / self.unit

    def measured(self, index: int) -> Tensor:
        """(h, w), what the scan measured of a slice, in units of `unit`."""
        return self.acquired.measured(self.of_file(index))

    def reference(self, index: int) -> Tensor:
        """(H, W), a slice of the reference in its own unit; zeros without one."""
        if self.on_grid is None:
            return torch.zeros(self.acquired.slice_size)
        return in_plane_last(torch.from_numpy(self.on_grid.volume), self.axes)[index]

    def slice(self, index: int) -> Tensor:
        """(3, H, W), the network's input for a slice; intensities around 0 to 1."""
        reference = self.reference(index) / self.reference_unit
        if self.scale:  # as weights of this scale were trained, which know no interpolation
            return stack_channels(self.of_file(index), reference, self.scale, self.decomposition)
        return stack_channels(self.measured(index), reference, self.acquired.plane, self.decomposition)

    def share(self, index: int) -> Tensor | None:
        """(H, W), the share that the output with the reference has in the result: 0 outside what it covers; None for 1 all over."""
        if self.reference_grid is None:
            return None
        return share_of(self.reference_grid, self.grid, self.through_plane, index)

    @property
    def final(self) -> Acquired:
        """What the target's scan kept of the result, thinner slices included."""
        return self.thick.acquired if self.thick else self.acquired

    def images(self, result: Volume) -> CaseImages:
        """The pair with its result on the high-resolution grid."""
        on_grid = self.thick.reference if self.thick else self.on_grid
        reference = self.target.on(self.final.grid, on_grid.volume) if on_grid else None
        return CaseImages(self.target, reference, result, self.final)

    @property
    def image(self) -> Tensor:
        """(3, H, W, D), the network's input for all slices, through-plane last."""
        height, width = self.acquired.slice_size
        image = torch.empty(3, height, width, len(self))
        for index in range(len(self)):
            image[..., index] = self.slice(index)
        return image


def prepare_pair(
    target_path: Path,
    reference_path: Path | None,
    options: PairOptions,
    folder: Path | None = None,
    reporter: Reporter | None = None,
    may_register: bool | None = True,
    plan: Plan | None = None,
    any_acquisition: bool = False,
) -> PreparedPair:
    """Read a low-resolution target and its reference, and place the reference on the target's high-resolution grid.

    Args:
        target_path: NIfTI or fastMRI .h5 file, or folder of a DICOM series.
        reference_path: high-resolution file or folder of another contrast; None for none, which needs `options.scale`.
        options: how the two become a pair.
        folder: folder for the voxels of a reference too large for memory; None for the system's temporary folder.
        reporter: listener that hears of steps that take long.
        may_register: whether there is memory for a registration that `options.register` "auto" calls for; None registers nothing and says
            that a run would.
        plan: plan of this pair; None makes it.
        any_acquisition: whether the network's weights serve any acquisition, not only the plan's scale.

    Raises:
        Fault: a file cannot be used, or the two do not belong together.
    """
    plan = plan or plan_pair(target_path, reference_path, options)
    target, whole, placed, reference_sha256 = plan.volume, plan.acquired, None, None
    acquired = whole.in_slices()
    if reference_path is None:
        found: dict[str, Any] = {"coverage": 0.0, "similarity": None, "alignment": None, "placement": None}
        warnings = [*target.notes, *_of_scan(whole, options), ALONE]
    else:
        reference = read_volume(reference_path, options.read, blank=options.unfit_reference == "leave-out")
        check_distinct(target, reference)
        reference_sha256, by_index = reference.sha256, options.by_index(target_path, reference_path)
        if by_index:
            target, reference = paired_by_index(target, reference, acquired.grid, acquired.through_plane)
            whole = whole.over(target.grid)
            acquired = whole.in_slices()
        warnings = [*dict.fromkeys((*target.notes, *reference.notes)), *_of_scan(whole, options)]
        temporary = folder or Path(gettempdir())
        thinner = whole.grid.shape[whole.through_plane] / acquired.grid.shape[whole.through_plane]
        placed = place_reference(target, reference, acquired, options, by_index, temporary, reporter, may_register, thinner)
        alike = similarity(target, placed.volume)
        warnings += [*placed.warnings, *_findings(placed, acquired, alike)]
        found = {
            "coverage": round(placed.coverage, 4),
            "similarity": {"measure": "normalised mutual information, 1 to 2", "value": round(alike, 4)},
            "alignment": alignment_record(placed.alignment),
            "placement": {"by": "index" if by_index else "header", **placed.record},
        }
    used = bool(placed and placed.on_grid)
    size = math.prod(acquired.grid.shape)
    record = {
        "scale": acquired.scale,
        "acquired": whole.record(),
        "through_plane": acquired.through_plane,
        "coverage": found["coverage"],
        "voxels_without_reference": round((1 - placed.coverage) * size) if placed and used else size,
        **found,
    }
    thick, unit = None, _unit(target)
    if whole.thick:
        on_grid = on_result_grid(placed.volume, whole, folder or Path(gettempdir())) if placed and placed.on_grid else None
        of_reference = placed.volume.grid if placed and on_grid and placed.coverage < 1 else None
        thick = ThickSlices(whole, on_grid, placed.unit if placed else 1.0, unit, of_reference)
        if placed and placed.on_grid:
            thick.averaged(placed.on_grid)
    return PreparedPair(
        target=target,
        acquired=acquired,
        thick=thick,
        on_grid=placed.on_grid if placed else None,
        unit=unit,
        reference_unit=placed.unit if placed else 1.0,
        reference_grid=placed.volume.grid if placed and placed.on_grid and placed.coverage < 1 else None,
        reference_sha256=reference_sha256,
        scale=None if any_acquisition else acquired.scale,
        decomposition=options.decomposition,
        record=record,
        warnings=warnings_among(warnings),
        notes=notes_among(warnings),
    )


def apply_network(network: nn.Module, pair: PreparedPair, device: torch.device | str, reporter: Reporter | None = None) -> Iterator[Tensor]:
    """Apply the network to every slice, one after another.

    Args:
        network: network from (B, 3, H, W) to (B, 1, H, W).
        pair: pair on the high-resolution grid.
        device: device of the network.
        reporter: listener that hears of each slice.

    Yields:
        (H, W) in the unit of pair.slice.
    """
    reporter = reporter or Reporter()
    if not pair.acquired.in_plane:  # nothing was lost there
        yield from (pair.of_file(index) for index in range(len(pair)))
        return
    reporter.slices(len(pair))
    for index in range(len(pair)):  # more slices at a time bring nothing on a CPU and cost memory
        pred = applied(network, pair.slice(index)[None].to(device), pair.share(index))
        reporter.advance(1)
        yield pred


def _of_scan(acquired: Acquired, options: PairOptions) -> list[str]:
    """What was measured and how that was found out, unless it is only what was asked for; and what contradicts it."""
    asked = (options.scale or options.voxel) and not acquired.interpolated and not acquired.thick
    voxel = " x ".join(f"{size:.3g}" for size in acquired.grid.spacing)
    return [*([] if asked else [Note(f"{acquired.describe()}; {acquired.source}; voxels of the result: {voxel} mm")]), *acquired.warnings]


def _findings(placed: Placed, acquired: Acquired, alike: float) -> list[str]:
    """Warnings about a reference, except for its place."""
    found = []
    if placed.on_grid and placed.coverage < 1 - 1e-6:
        found.append(partly_covered(placed.coverage))
    if placed.on_grid and alike < LOW_SIMILARITY and placed.alignment is None:  # edges tell more, where there are any
        cure = "" if {"registration", "registration_skipped"} & placed.record.keys() else ", or try --register rigid"
        found.append(
            f"target and reference are hardly alike (normalised mutual information {alike:.3f}, usually above {LOW_SIMILARITY}): "
            f"check that they belong together{cure}"
        )
    return found + coarser_along(placed.volume.grid, acquired.grid, acquired.through_plane)


def _unit(target: Volume) -> float:
    try:
        return intensity_unit(target.data)
    except ValueError:
        raise Fault(target.path, "no positive voxel", "check the export of this image") from None
