"""What in a pair speaks against a trustworthy result: refused where no result could be right, a warning otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hftn_sr.degradation import in_plane_last
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.volumes.alignment import FARTHEST, Alignment
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.scratch import blocks
from hftn_sr.volumes.volume import Volume

__all__ = ["alignment_record", "choose_scale", "interpolated_in_plane", "LOW_SIMILARITY", "MIN_COVERAGE", "misfit_of", "misplaced"]

SCALES = (2, 4)
SCALE_TOLERANCE = 0.25  # relative distance of the voxel sizes' ratio from a scale
ONE_AXIS = 1.5  # ratio of the two in-plane voxel sizes from which only one axis has low resolution
MIN_COVERAGE = 0.8  # share of the target's grid that the reference must cover
LOW_SIMILARITY = 1.02  # normalised mutual information; unrelated volumes stay below, aligned contrasts of one head well above
NO_MATCH = "the edges of target and reference do not match"
WORSE_THAN_NONE = 1.0  # voxels of the result from which a displaced reference gains less than none (bundle/docs/design-log.md)
OUTER, INNER = (0.75, 1.0), (0.4, 0.65)  # bands of k-space as shares of the Nyquist frequency
EMPTY = 1e-3  # power density of the outer band relative to the inner one that no measured image has


def choose_scale(
    target: Volume | VolumeHeader, reference: Volume | VolumeHeader | None, through_plane: int, asked: int | None
) -> tuple[int, str]:
    """The upscaling factor, and in words how it was chosen.

    Args:
        target: low-resolution.
        reference: high-resolution; None where there is none.
        through_plane: the target's through-plane axis.
        asked: what the user asked for, if anything.

    Raises:
        UsageFault: asked is neither 2 nor 4, or is needed because there is no reference.
        Fault: the voxel sizes fit neither scale, or only one in-plane axis has low resolution.
    """
    if asked is not None:
        if asked not in SCALES:
            raise UsageFault("--scale", f"scale {asked} (need 2 or 4)", "--scale 2 or --scale 4")
        return asked, "as asked"
    if reference is None:
        raise UsageFault("--scale", "is missing, and without a reference nothing tells it", "--scale 2 or --scale 4")
    own = np.delete(target.grid.spacing, through_plane)
    if own.max() / own.min() > ONE_AXIS:
        raise Fault(
            target.path,
            f"in-plane voxels of {own[0]:.2f} x {own[1]:.2f} mm: low resolution along one axis only, which this method does not treat",
            "give a target with one in-plane resolution, or --scale if this one has it",
        )
    finest = np.delete(reference.grid.spacing, reference.grid.through_plane())
    ratio = float(np.sqrt(own.prod() / finest.prod()))
    nearest = min(SCALES, key=lambda scale: abs(ratio - scale) / scale)
    if abs(ratio - nearest) / nearest > SCALE_TOLERANCE:
        because = " (thick slices alone are not this method's task)" if ratio < SCALES[0] else ""
        raise Fault(
            target.path,
            f"in-plane voxels are {ratio:.2f} times those of the reference, near neither 2 nor 4{because}",
            "--scale 2 or --scale 4, whichever the scan was shortened by",
        )
    return nearest, f"nearest to the ratio {ratio:.2f} of in-plane voxel sizes"


def interpolated_in_plane(target: Volume, through_plane: int) -> bool:
    """Whether the outer k-space of the target is empty: its scanner interpolated it, and its true resolution is lower than its grid."""
    slices = in_plane_last(torch.from_numpy(target.data), target.grid.slice_axes(through_plane))
    power = np.zeros(slices.shape[1:])
    for block in blocks(len(slices), 4 * slices[0].nbytes):
        power += torch.fft.fft2(slices[block]).abs().square().sum(0).numpy()
    rows, columns = (np.abs(np.fft.fftfreq(size)) * 2 for size in power.shape)
    radius = np.maximum(rows[:, None], columns)
    densities = [power[(radius >= low) & (radius <= high)] for low, high in (OUTER, INNER)]
    if min(density.size for density in densities) == 0:
        return False
    return bool(densities[0].mean() < EMPTY * densities[1].mean())


def misfit_of(alignment: Alignment, scale: int) -> str:
    """Why a reference gains less than none; empty where it gains more."""
    if not alignment.fits:
        return f"{NO_MATCH} (agreement {alignment.prominence:.2f}, usually above 0.24): another patient, another visit, or far out of place"
    if alignment.displacement * scale > WORSE_THAN_NONE:
        return f"it seems to lie {_apart(alignment, scale)} away from where it belongs, and then gains less than none"
    return ""


def misplaced(alignment: Alignment, scale: int, registered: bool = False) -> list[str]:
    """A warning where a reference that is used shows something else than the target, or lies somewhere else; empty where it is in place.

    Args:
        alignment: of the reference as it is used.
        scale: upscaling factor s.
        registered: whether that was tried already, so that it is no cure.
    """
    if alignment.in_place:
        return []
    cure = "place it by --reference-transform" if registered else "try --register rigid"
    if not alignment.fits:
        return [f"{misfit_of(alignment, scale)}; {cure}, and do not trust fine detail"]
    return [f"the reference seems to lie {_apart(alignment, scale)} away from where it belongs, which costs detail: {cure}"]


def _apart(alignment: Alignment, scale: int) -> str:
    apart = [f"{alignment.displacement * scale:.1f} voxels of the result"] if alignment.displacement > FARTHEST else []
    return " and ".join([*apart, *(["a slice"] if alignment.slice_offset else [])])


def alignment_record(alignment: Alignment | None, scale: int) -> dict[str, Any] | None:
    """What the record says of it; None where slices are too small or without edges."""
    if alignment is None:
        return None
    return {
        "measure": "agreement of edge directions, 0 to 1",
        "value": round(alignment.prominence, 4),
        "displacement_voxels": round(alignment.displacement * scale, 2),
        "slice_offset": alignment.slice_offset,
    }
