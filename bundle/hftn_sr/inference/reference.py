"""Placing of a reference on its target, and the decision whether it is used or left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hftn_sr.errors import Fault, Note
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.findings import (
    MIN_COVERAGE,
    MOSTLY_COVERED,
    NO_MEMORY,
    NOT_MENDED,
    alignment_record,
    apart,
    misplaced,
    unfit_reason,
    unsure_reason,
)
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.reporter import Reporter
from hftn_sr.volumes.alignment import LOST, Alignment, displacement_across, edge_alignment
from hftn_sr.volumes.placement import read_transform
from hftn_sr.volumes.resampling import coverage, resample_into
from hftn_sr.volumes.scratch import Scratch
from hftn_sr.volumes.simulation import in_plane_last, intensity_unit_of
from hftn_sr.volumes.volume import Grid, Volume

if TYPE_CHECKING:
    from hftn_sr.volumes.registration import Registration

__all__ = ["Placed", "place_reference"]

ALIGNMENT_SLICES, ALIGNMENT_VOXELS = 12, 2**20
ALIGNMENT_REACH, LEAST_REACH = 12, 3  # voxels of the result; of what was measured
# Voxels of the result, from x2 on; there 0.24 is already not `Alignment.in_place`. A reference in place is measured at most 0.21 off at x2
# and 0.28 at x4; at x4 one that lies 0.47 off is still `in_place` and loses a fifth of the gain. From FINE on, where fewer samples tell
# the place, half a voxel off is seen as 0.16 and a turn by one degree as 0.25, which cost 0.6 and 2 dB: there it is tried earlier, and what
# makes edges lie better is kept (bundle/docs/design-log.md).
REGISTERED_FROM, REGISTERED_FROM_FINE, FINE = 0.3, 0.15, 3.0
ACROSS = 0.4  # of a slice, by which slices of the reference are displaced to see where across the target's they lie
UNCHECKED = "slices are too small or too smooth to check whether the reference fits; it is used all the same"
FAINT = 1e-4  # share of the reference's intensity range; a spline leaves less than that of voxels far away


@dataclass(frozen=True)
class Placed:
    """A reference in the target's space.

    Args:
        volume: the reference, placed by its affine.
        on_grid: its voxels on the target's high-resolution grid, for the network; None where it is left out.
        unit: intensity that counts as 1.
        coverage: covered share of that grid.
        alignment: alignment of its edges with the target's; None where slices are too small or too smooth.
        record: entries of the side file about the placement.
        warnings: warnings for the user.
    """

    volume: Volume
    on_grid: Scratch | None
    unit: float
    coverage: float
    alignment: Alignment | None
    record: dict[str, Any]
    warnings: tuple[str, ...]


def place_reference(
    target: Volume,
    reference: Volume,
    acquired: Acquired,
    options: PairOptions,
    by_index: bool,
    folder: Path,
    reporter: Reporter | None = None,
    may_register: bool | None = True,
    thinner: float = 1.0,
) -> Placed:
    """Place a reference by header and transform, register it where it does not lie in place, and decide whether it is of use.

    Args:
        target: low-resolution image.
        reference: image of another contrast, placed by its header or its index.
        acquired: what the target's scan kept, and the grid of the result.
        options: how the two become a pair; `reference_transform`, `register` and `unfit_reference` count.
        by_index: whether the two were paired by index. `auto` does not register these: their headers do not say where slices lie, so that a
            movement in mm means nothing through-plane.
        folder: folder for voxels too large for memory.
        reporter: listener that hears of a registration.
        may_register: whether there is memory for a registration that `auto` calls for; None registers nothing and says that a run would.
        thinner: slices of the result for each of the target's, which `acquired` leaves as they are.

    Raises:
        Fault: the transform cannot be read; with `unfit_reference` "use", the reference covers too little or has no signal.
    """
    record: dict[str, Any] = {"transform": None, "register": options.register}
    if options.reference_transform:
        reference = reference.moved(read_transform(options.reference_transform))
        record["transform"] = options.reference_transform.name
    grid, through_plane = acquired.grid, acquired.through_plane

    blank = reference.data.max() <= max(reference.data.min(), 0)

    def lying(volume: Volume) -> _Lying:
        share = coverage(volume.grid, grid)
        if blank:
            return _Lying(volume, share, None, None)
        first, count = _compared(grid, acquired.samples, through_plane)
        start, number = (0, grid.shape[through_plane]) if share >= MIN_COVERAGE else (first, count)
        slices = _slices(volume, grid, through_plane, start, number, folder)
        alignment = _alignment(target, slices, acquired, slice(first, first + count), start)
        slices.release()
        if alignment and thinner > 1:
            alignment = replace(alignment, across=_across(target, volume, acquired, slice(first, first + count), folder) * thinner)
        return _Lying(volume, share, alignment, slices if share >= MIN_COVERAGE else None)

    lies, warnings = lying(reference), []
    doubted = options.register == "auto" and not by_index and _worth_registering(lies.alignment)
    tried = registered = unsure = ""
    if may_register is None and (doubted or (options.register == "rigid" and not blank)):
        record["registration_planned"] = True
        return Placed(lies.volume, None, 1.0, lies.coverage, lies.alignment, record, (_planned(lies.alignment, doubted),))
    if doubted and not may_register:
        tried, record["registration_skipped"] = NO_MEMORY, "too little memory"
        warnings += _in_vain(lies.alignment, tried)
    elif doubted or (options.register == "rigid" and not blank):
        tried = NOT_MENDED
        if doubted and reporter:
            found_out = "may not lie quite" if _nearly_in_place(lies.alignment) else "does not lie"
            reporter.log(f"the reference {found_out} in place: registering it, which takes some seconds")
        from hftn_sr.volumes.registration import register_rigid  # loads SimpleITK, which few runs need

        lies = replace(lies, on_grid=None)  # its memory is needed
        found = register_rigid(target, reference)
        moved = lying(reference.moved(found.matrix)) if found.kept else lies
        kept = found.kept and moved.coverage >= min(lies.coverage, MOSTLY_COVERED) and (not doubted or moved.better_than(lies))
        record["registration"] = {**_registration(found, kept), "alignment_before": alignment_record(lies.alignment)}
        if doubted and kept:
            registered = _registered(found, lies.alignment, moved.alignment, options.placing)
        elif doubted:
            warnings += _in_vain(lies.alignment, tried)
        if kept and lies.alignment and unfit_reason(lies.alignment) and moved.alignment:
            unsure = unsure_reason(moved.alignment)
        lies = moved if kept else lies
        del moved  # with it the voxels of a place that was not taken

    fault = _not_covering(lies, tried, options.placing)
    if fault is None:
        reason = (unfit_reason(lies.alignment) or unsure) if lies.alignment and options.unfit_reference == "leave-out" else ""
        if reason:
            return _left_out(lies, record, *_reason_and_cure(reason, tried, options.placing))
        on_grid = lies.on_grid or _slices(lies.volume, grid, through_plane, 0, grid.shape[through_plane], folder)
        if not blank and (unit := _unit(on_grid, lies.volume)):
            if registered:
                warnings.append(registered)
            else:
                warnings += misplaced(lies.alignment, tried, options.placing) if lies.alignment else [UNCHECKED]
            return Placed(lies.volume, on_grid, unit, lies.coverage, lies.alignment, record, tuple(warnings))
        fault = Fault(reference.path, "no signal where the target lies", "check this image and its position")
    if options.unfit_reference == "use":
        raise fault
    return _left_out(lies, record, fault.finding, fault.fix)


@dataclass(frozen=True)
class _Lying:
    """A reference at some place: the share of the target's high-resolution grid that it covers, its alignment, its voxels on that grid."""

    volume: Volume
    coverage: float
    alignment: Alignment | None
    on_grid: Scratch | None

    def better_than(self, other: _Lying) -> bool:
        """Whether this place is better; only where edges match does the place mean anything."""
        return bool(self.alignment and self.alignment.fits and other.alignment and self.alignment.better_than(other.alignment))


def _left_out(lies: _Lying, record: dict[str, Any], finding: str, cure: str) -> Placed:
    warning = f"{lies.volume.path}: the reference was left out, the result is made from the target alone: {finding}. Fix: {cure}"
    return Placed(lies.volume, None, 1.0, lies.coverage, lies.alignment, record, (warning,))


def _not_covering(lies: _Lying, tried: str, placing: str) -> Fault | None:
    if lies.coverage >= MIN_COVERAGE:
        return None
    finding = f"covers {lies.coverage:.0%} of the target, at least {MIN_COVERAGE:.0%} is needed"
    cures = placing if tried else f"try --register rigid, or {placing}"
    return Fault(lies.volume.path, finding, f"check that both files belong to one patient and visit, or {cures}")


def _reason_and_cure(reason: str, tried: str, placing: str) -> tuple[str, str]:
    cures = f"check that both files belong to one patient and visit, {placing}, or use it by --unfit-reference use"
    return (f"{reason}; {tried}", cures) if tried else (reason, f"try --register rigid, {cures}")


def _unit(on_grid: Scratch, reference: Volume) -> float:
    """Intensity that counts as 1; 0 where the reference has no signal on the grid."""
    faint = FAINT * (float(reference.data.max()) - float(reference.data.min()))
    ends = [(float(part.min()), float(part.max())) for part in on_grid.parts()]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return intensity_unit_of(on_grid.parts(), on_grid.volume.size) if min(high - low, high) > faint else 0.0


def _worth_registering(alignment: Alignment | None) -> bool:
    """Whether a reference lies so far off that a registration may bring something."""
    if alignment is None or not alignment.in_place:
        return alignment is not None
    return alignment.factor >= LOST and alignment.displacement > (REGISTERED_FROM if alignment.factor < FINE else REGISTERED_FROM_FINE)


def _nearly_in_place(alignment: Alignment | None) -> bool:
    """Whether a reference lies where most right ones are seen, so that a registration is tried, but nothing speaks against the pair."""
    return alignment is not None and alignment.in_place and alignment.displacement <= REGISTERED_FROM


def _registration(found: Registration, kept: bool) -> dict[str, Any]:
    return {
        "kept": kept,
        "similarity_before": round(found.similarity_before, 4),
        "similarity_after": round(found.similarity_after, 4),
        "target_to_reference_ras": np.round(found.matrix, 6).tolist(),
    }


def _planned(alignment: Alignment | None, doubted: bool) -> str:
    """Finding about a registration that a run would make."""
    if not doubted:
        return Note("a run would register the reference, as asked; whether it then fits is not known")
    text = f"the reference lies {_where(alignment)}: a run would register it, and use it where it then fits"
    return Note(text) if _nearly_in_place(alignment) else text


def _registered(found: Registration, before: Alignment | None, after: Alignment | None, placing: str) -> str:
    """Warning about a registration that `auto` made and kept, and about what it left; a note where it only made a good place better."""
    moved = f"moved by {found.translation:.1f} mm, turned by {found.rotation:.1f} degrees"
    text = f"the reference lay {_where(before)} and was registered: {moved}"
    if after is None or after.in_place:
        return Note(text) if _nearly_in_place(before) else text
    return f"{text}; it still seems to lie {apart(after)} away, which costs detail; {placing}"


def _where(alignment: Alignment | None) -> str:
    return f"{apart(alignment)} away" if alignment and alignment.fits else "where its edges do not match the target's"


def _in_vain(alignment: Alignment | None, tried: str) -> list[str]:
    """Warning about one that failed or had no memory, for a reference that `misplaced` calls in place."""
    if alignment is None or not alignment.in_place or _nearly_in_place(alignment):
        return []
    return [f"the reference seems to lie {apart(alignment)} away; {tried}"]


def _compared(grid: Grid, samples: tuple[int, ...], through_plane: int) -> tuple[int, int]:
    """First and number of the slices whose edges are compared: the middle ones, fewer if they are large, to need less than 100 MB."""
    depth, height, width = (samples[axis] for axis in grid.slice_axes(through_plane))
    count = min(depth, max(1, min(ALIGNMENT_SLICES, ALIGNMENT_VOXELS // (height * width))))
    return (depth - count) // 2, count


def _alignment(target: Volume, reference: Scratch, acquired: Acquired, compared: slice, start: int) -> Alignment | None:
    """Alignment of the slices `compared` at the target's resolution, the reference being on the finer grid from slice `start` on."""
    height, width = acquired.plane.ratios(acquired.slice_size)
    lowered = _lowered(reference, acquired, compared, start)
    return edge_alignment(_measured(target, acquired, compared), lowered, _reach(acquired), (height, width))


def _across(target: Volume, reference: Volume, acquired: Acquired, compared: slice, folder: Path) -> float:
    """Slices of the target by which a reference lies out of place across them."""
    beside = []
    for offset in (-ACROSS, 0.0, ACROSS):
        affine = acquired.grid.affine.copy()
        affine[:3, 3] += offset * affine[:3, acquired.through_plane]
        slices = _slices(
            reference,
            replace(acquired.grid, affine=affine),
            acquired.through_plane,
            compared.start,
            compared.stop - compared.start,
            folder,
        )
        beside.append(_lowered(slices, acquired, compared, compared.start))
        slices.release()
    before, there, behind = beside
    return displacement_across(_measured(target, acquired, compared), (before, there, behind), ACROSS, _reach(acquired))


def _measured(target: Volume, acquired: Acquired, compared: slice) -> Tensor:
    return _within_1(acquired.measured(in_plane_last(torch.from_numpy(target.data), acquired.axes)[compared]))


def _lowered(reference: Scratch, acquired: Acquired, compared: slice, start: int) -> Tensor:
    """Slices of the reference as the target's scan would have measured them in-plane."""
    slices = in_plane_last(torch.from_numpy(reference.volume), acquired.axes)[compared.start - start : compared.stop - start]
    return _within_1(torch.stack([acquired.plane.simulate(each) for each in slices]))


def _reach(acquired: Acquired) -> int:
    return max(int(ALIGNMENT_REACH / acquired.factor), LEAST_REACH)


def _within_1(slices: Tensor) -> Tensor:
    """Slices in a unit in which squares stay within float32."""
    peak = max(float(slices.max()), -float(slices.min()))
    return slices / peak if peak else slices


def _slices(reference: Volume, grid: Grid, through_plane: int, first: int, count: int, folder: Path) -> Scratch:
    """`count` slices of the reference from slice `first` of the grid on."""
    start, shape = [0, 0, 0], list(grid.shape)
    start[through_plane], shape[through_plane] = first, count
    part = grid.cropped((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
    slices = Scratch(part.shape, through_plane, folder)
    for _ in resample_into(reference, part, slices.volume):
        slices.release()
    return slices
