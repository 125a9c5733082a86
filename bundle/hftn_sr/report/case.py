"""What a finished case left on the disk, read again and laid on one grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftn_sr.acquisition import Acquisition, Full
from hftn_sr.errors import Fault
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.added import added_detail
from hftn_sr.inference.case import Case, CaseImages, Outcome
from hftn_sr.volumes.nifti import ReadOptions
from hftn_sr.volumes.placement import paired_by_index, read_transform
from hftn_sr.volumes.reading import read_volume, read_volume_header
from hftn_sr.volumes.resampling import ON_LATTICE, lattice_offset, resample, same_grid
from hftn_sr.volumes.scratch import IN_MEMORY
from hftn_sr.volumes.simulation import in_plane_first, in_plane_last
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["Images", "QcCase", "Slab", "cases_of_run", "of_run", "open_images", "was_used"]


@dataclass(frozen=True)
class QcCase:
    """A case of the page.

    Args:
        name: as people know it.
        output: the result's NIfTI file or folder of a DICOM series, with its record beside it.
        target: the low-resolution file or folder that it was made from; None where it is not to be had, and with it the pictures.
        reference: the other contrast; None likewise.
        transform: ITK file that maps target points to reference points, if one was used.
        truth: a measured high-resolution image of the target's contrast, if there is one.
        status: as of an `Outcome`.
        message: why it failed or was skipped.
    """

    name: str
    output: Path
    target: Path | None = None
    reference: Path | None = None
    transform: Path | None = None
    truth: Path | None = None
    status: str = "done"
    message: str = ""


def cases_of_run(cases: Iterable[Case], outcomes: Sequence[Outcome]) -> list[QcCase]:
    """The cases of a run in the order of their outcomes, without the truth, which a run does not know."""
    asked = {case.name: of_run(case) for case in cases}
    return [
        replace(
            asked.get(outcome.case) or QcCase(outcome.case, outcome.output),
            output=outcome.output,  # another one where the result stands in another format
            status=outcome.status,
            message=outcome.message,
        )
        for outcome in outcomes
    ]


def of_run(case: Case) -> QcCase:
    """A case that its run has finished."""
    return QcCase(case.name, case.output, case.target, case.reference, case.transform)


@dataclass(frozen=True)
class Slab:
    """Neighbouring slices of the images of a case, each (X, Y, Z) on one grid.

    Args:
        zero_filled: the target with zeros outside its measured k-space.
        reference: placed and resampled as for the network; None where its file is missing or the network was given none.
        result: super-resolved.
        added: the part of the result beyond what was measured, see `added_detail`.
        detail: the same part of the reference, in its own unit; None without one.
    """

    zero_filled: Volume
    reference: Volume | None
    result: Volume
    added: Volume
    detail: Volume | None


class Images(CaseImages):
    """The images of a case, read again or from its run; the reference on any grid, placed in the target's space."""

    def slab(self, start: int, count: int) -> Slab:
        """`count` whole slices from slice `start` on."""
        result = self._cut(self.result, start, count)
        reference = self._on_grid(self.reference, result.grid, start, count) if self.reference else None
        if self.acquired.thick:
            detail = self._cut(self._detail, start, count) if self._detail else None
            return Slab(self._cut(self._whole, start, count), reference, result, self._cut(self._added, start, count), detail)
        detail = self._beyond(reference) if reference else None
        return Slab(self.interpolated(start, count), reference, result, self._beyond(result), detail)

    def _beyond(self, volume: Volume) -> Volume:
        """The part of a volume of whole slices, or of all of it, that the scan does not show."""
        into = np.empty_like(volume.data)
        added_detail(volume.data, self.acquired, into)
        return volume.on(volume.grid, into)

    @cached_property
    def _added(self) -> Volume:
        return self._beyond(self.result)

    @cached_property
    def _detail(self) -> Volume | None:
        if self.reference is None:
            return None
        same = same_grid(self.reference.grid, self.result.grid)
        return self._beyond(self.reference if same else self.result.on(self.result.grid, resample(self.reference, self.result.grid)))

    @property
    def baseline(self) -> Volume:
        """The target interpolated onto the grid of the result."""
        return self._whole if self.acquired.thick else self.interpolated(0, self.target.data.shape[self.through_plane])

    @cached_property
    def _whole(self) -> Volume:
        """The target on a grid of thinner slices, interpolated along all axes."""
        plane = self.acquired.in_slices()
        measured = plane.measured(in_plane_last(torch.from_numpy(self.target.data), plane.axes))
        slices = plane.plane.interpolate(measured, plane.slice_size)
        through = Acquisition((self.acquired.kept.axes[self.through_plane], Full(), Full()))
        whole = through.interpolate(slices, (self.acquired.grid.shape[self.through_plane], *plane.slice_size))
        return self.target.on(self.acquired.grid, in_plane_first(whole, plane.axes).numpy())

    def interpolated(self, start: int, count: int) -> Volume:
        """`count` whole slices of the target from slice `start` on, with zeros around what was measured of its k-space."""
        part = self._cut(self.target, start, count)
        measured = self.acquired.measured(in_plane_last(torch.from_numpy(part.data), self.acquired.axes))
        slices = self.acquired.plane.interpolate(measured, self.acquired.slice_size)
        grid = self.acquired.over(part.grid).grid
        return part.on(grid, in_plane_first(slices, self.acquired.axes).numpy())

    def _on_grid(self, reference: Volume, grid: Grid, start: int, count: int) -> Volume:
        """`count` slices of the reference from slice `start` on, which lie on `grid`."""
        if same_grid(reference.grid, self.result.grid):
            return self._cut(reference, start, count)
        return self.result.on(grid, resample(reference, grid))

    def _cut(self, volume: Volume, start: int, count: int) -> Volume:
        first, shape = [0, 0, 0], list(volume.data.shape)
        first[self.through_plane], shape[self.through_plane] = start, count
        part = tuple(slice(low, low + size) for low, size in zip(first, shape, strict=True))
        grid = volume.grid.cropped(tuple(first), tuple(shape))  # type: ignore[arg-type]
        return volume.on(grid, np.array(volume.data[part], dtype=np.float32, order="C"))


def open_images(case: QcCase, record: dict[str, Any]) -> Images:
    """Read the files of a case again, as its run read them.

    Args:
        case: where its files are.
        record: of its run.

    Raises:
        Fault: the target is not known or not there, a file is not the one that the record tells of, or cannot be read.
    """
    if case.target is None:
        raise Fault(case.output, "no pictures, the target that it was made from is not known", "name it with --cases or --target")
    try:
        read = ReadOptions(**record["fingerprint"]["options"]["read"])
    except (KeyError, TypeError):
        finding = "no pictures, another version made it and read its inputs in a way that this one does not know"
        raise Fault(case.output, finding, "run the case again") from None
    size = 4 * math.prod(read_volume_header(case.output).grid.shape)
    if size > IN_MEMORY:  # the run itself never held it whole
        finding = f"no pictures, it is too large for the page ({size >> 20} MB of voxels, at most {IN_MEMORY >> 20} MB)"
        raise Fault(case.output, finding, "look at it in a viewer")
    result = _unchanged(read_volume(case.output), record["output"]["sha256"])
    target = _unchanged(read_volume(case.target, read), record["target"]["sha256"])
    reference = _unchanged(read_volume(case.reference, read), record["reference"]["sha256"]) if case.reference else None
    acquired = Acquired.of_record(record, target.grid)
    if reference and record["placement"].get("by") == "index":
        target, reference = paired_by_index(target, reference, acquired.in_slices().grid, acquired.through_plane)
        acquired = acquired.over(target.grid)
    _check_grid(target, result, acquired.grid)
    reference = reference if was_used(record) else None
    return Images(target, _placed(reference, case, record["placement"]) if reference else None, result, acquired)


def was_used(record: dict[str, Any]) -> bool:
    """Whether the network was given the reference; older records, which do not say so, are of runs that always did."""
    return bool(record["reference"].get("used", True))


def _unchanged(volume: Volume, sha256: str) -> Volume:
    if volume.sha256 != sha256:
        raise Fault(volume.path, "no pictures, this is not the file that the record tells of (another sha256)", "run the case again")
    return volume


def _placed(reference: Volume, case: QcCase, placement: dict[str, Any]) -> Volume:
    if placement["transform"]:
        if case.transform is None:
            finding = f"no pictures, the transform {placement['transform']} that placed it is not known"
            raise Fault(reference.path, finding, "name the transform")
        reference = reference.moved(read_transform(case.transform))
    registration = placement.get("registration", {"kept": False})
    return reference.moved(np.array(registration["target_to_reference_ras"])) if registration["kept"] else reference


def _check_grid(target: Volume, result: Volume, grid: Grid) -> None:
    offset, apart = lattice_offset(grid, result.grid)
    if grid.shape != result.data.shape or any(offset) or apart > ON_LATTICE:
        raise Fault(
            result.path, f"no pictures, it does not lie on the grid that its record tells of for {target.path}", "run the case again"
        )
