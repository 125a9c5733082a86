"""Where a reference lies on its target, and whether it is of use there or better left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from hftn_sr.degradation import in_plane_last
from hftn_sr.inference.findings import alignment_record, misfit_of, misplaced
from hftn_sr.kspace import truncate
from hftn_sr.volumes.alignment import Alignment, edge_alignment
from hftn_sr.volumes.placement import read_transform
from hftn_sr.volumes.registration import Registration, register_rigid
from hftn_sr.volumes.resampling import resample_into
from hftn_sr.volumes.scratch import Scratch
from hftn_sr.volumes.volume import Grid, Volume

if TYPE_CHECKING:
    from hftn_sr.inference.pair import PairOptions

__all__ = ["Misfit", "Placed", "Register", "place_reference"]

Register = Literal["auto", "none", "rigid"]
Misfit = Literal["leave-out", "use"]

ALIGNMENT_SLICES, ALIGNMENT_VOXELS = 12, 2**20
ALIGNMENT_REACH = 12  # voxels of the result
# A reference in place is seen at most 0.28 voxels of the result off; at x4 one 0.47 off, still in place by `Alignment.in_place`, loses a
# fifth of the gain (bundle/docs/design-log.md).
REGISTERED_FROM = 0.3


@dataclass(frozen=True)
class Placed:
    """A reference in the target's space.

    Args:
        volume: placed by its affine.
        used: whether the network gets to see it.
        alignment: how its edges lie on the target's; None where that cannot be told.
        record: what the side file says of the placement.
        warnings: what the user must know.
    """

    volume: Volume
    used: bool
    alignment: Alignment | None
    record: dict[str, Any]
    warnings: tuple[str, ...]


def place_reference(
    target: Volume,
    reference: Volume,
    scale: int,
    through_plane: int,
    options: PairOptions,
    by_index: bool,
    folder: Path,
    tell: Callable[[str], None] | None = None,
) -> Placed:
    """Place a reference by header and transform, register it where it does not lie in place, and decide whether it is of use.

    Args:
        target: low-resolution.
        reference: of another contrast, where its header or its index puts it.
        scale: upscaling factor s.
        through_plane: the target's through-plane axis.
        options: `reference_transform`, `register` and `misfit` count.
        by_index: whether the two were paired by index: `auto` does not register these, whose headers do not say where slices lie, so that
            a movement in mm means nothing through-plane.
        folder: where slices too large for memory are put meanwhile.
        tell: called with what takes long, before it begins.

    Raises:
        Fault: the transform cannot be read.
    """
    record: dict[str, Any] = {"transform": None, "register": options.register}
    if options.reference_transform:
        reference = reference.moved(read_transform(options.reference_transform))
        record["transform"] = options.reference_transform.name

    def alignment_of(placed: Volume) -> Alignment | None:
        return _alignment(target, placed, scale, through_plane, folder)

    warnings: list[str] = []
    if options.register == "rigid":
        found = register_rigid(target, reference)
        reference = reference.moved(found.matrix)
        record["registration"] = _registration(found, found.kept)
    alignment = alignment_of(reference)
    if options.register == "auto" and alignment and _worth_registering(alignment, scale) and not by_index:
        if tell:
            tell("the reference does not lie in place: registering it, which takes about half a minute")
        found = register_rigid(target, reference)
        moved = reference.moved(found.matrix)
        after = alignment_of(moved) if found.kept else alignment
        better = after is not None and after.better_than(alignment)
        record["registration"] = {**_registration(found, better), "alignment_before": alignment_record(alignment, scale)}
        warnings.append(_told(found, better, alignment, scale))
        reference, alignment = (moved, after) if better else (reference, alignment)
    misfit = misfit_of(alignment, scale) if alignment else ""
    used = not misfit or options.misfit == "use"
    registered = "registration" in record
    if alignment and used:
        warnings += misplaced(alignment, scale, registered)
    elif misfit:
        cures = "check that both files belong to one patient and visit, place it by --reference-transform, or insist by --misfit use"
        warnings.append(
            f"{reference.path}: the reference was left out, the result is made from the target alone: {misfit}. "
            f"Fix: {'' if registered else 'try --register rigid, '}{cures}"
        )
    return Placed(reference, used, alignment, record, tuple(warnings))


def _worth_registering(alignment: Alignment, scale: int) -> bool:
    return not alignment.in_place or alignment.displacement * scale > REGISTERED_FROM


def _registration(found: Registration, kept: bool) -> dict[str, Any]:
    return {
        "kept": kept,
        "similarity_before": round(found.similarity_before, 4),
        "similarity_after": round(found.similarity_after, 4),
        "target_to_reference_ras": np.round(found.matrix, 6).tolist(),
    }


def _told(found: Registration, kept: bool, before: Alignment, scale: int) -> str:
    where = f"{before.displacement * scale:.1f} voxels of the result away" if before.fits else "where its edges do not match the target's"
    if not kept:
        return f"the reference seems to lie {where}, and rigid registration found no better place for it"
    return f"the reference lay {where} and was registered: moved by {found.translation:.1f} mm, turned by {found.rotation:.1f} degrees"


def _alignment(target: Volume, reference: Volume, scale: int, through_plane: int, folder: Path) -> Alignment | None:
    """Of the middle slices, at the target's resolution; fewer of large ones, so that the memory for it stays below 100 MB."""
    fine = target.grid.finer(scale, through_plane)
    axes = fine.slice_axes(through_plane)
    measured = in_plane_last(torch.from_numpy(target.data), axes)
    depth, height, width = measured.shape
    count = min(depth, max(1, min(ALIGNMENT_SLICES, ALIGNMENT_VOXELS // (height * width))))
    first = (depth - count) // 2
    slices = in_plane_last(torch.from_numpy(_slices(reference, fine, through_plane, first, count, folder).array.T), axes)
    lowered = torch.stack([truncate(each, scale) for each in slices])
    return edge_alignment(measured[first : first + count], lowered, ALIGNMENT_REACH // scale)


def _slices(reference: Volume, grid: Grid, through_plane: int, first: int, count: int, folder: Path) -> Scratch:
    """`count` slices of the reference from slice `first` of the grid on."""
    start, shape = [0, 0, 0], list(grid.shape)
    start[through_plane], shape[through_plane] = first, count
    part = grid.cropped((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
    slices = Scratch(part.shape[::-1], folder)
    for _ in resample_into(reference, part, slices.array.T):
        slices.release()
    return slices
