"""Findings that speak against a trustworthy result: a refusal where no result could be right, a warning otherwise."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from hftn_sr.errors import SCALES, Fault, Note, UsageFault, check_scale
from hftn_sr.inference.options import PLACING
from hftn_sr.volumes.alignment import FARTHEST, Alignment
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.scratch import blocks
from hftn_sr.volumes.simulation import in_plane_last
from hftn_sr.volumes.volume import Grid, Volume

__all__ = [
    "alignment_record",
    "apart",
    "check_distinct",
    "choose_scale",
    "coarser_along",
    "interpolated_axes",
    "interpolation_warning",
    "LOW_SIMILARITY",
    "MIN_COVERAGE",
    "unfit_reason",
    "misplaced",
    "NO_MEMORY",
    "NOT_MENDED",
    "missing_scale",
    "partly_covered",
]

SCALE_TOLERANCE = 0.15  # relative distance of the voxel sizes' ratio from a scale
COARSER = 1.5  # ratio of voxel sizes from which a reference counts as coarser than the result
ONE_AXIS = 1.5  # ratio of the two in-plane voxel sizes from which only one axis has low resolution
MIN_COVERAGE = 0.8  # share of the target's grid that the reference must cover
LOW_SIMILARITY = 1.02  # normalised mutual information; unrelated volumes stay below, aligned contrasts of one head well above
NO_MATCH = "the edges of target and reference do not match"
WORSE_THAN_NONE = 1.0  # voxels of the result; a reference displaced further does more harm than good (bundle/docs/design-log.md)
NOT_MENDED = "rigid registration did not mend that"
NO_MEMORY = "too little memory is free to register it"
DIRECTIONS = ("left-right", "front-back", "head-foot")  # of the axes of RAS+
# Measured along both axes of 24 real volumes (bundle/docs/design-log.md): truncated by 2 and 4, magnitudes, noisy, rounded 0.20 to 0.49;
# these with a Hamming window 0.045 to 0.11, and filled with zeros from half of k-space on 0.0004 to 0.034; of 18 native ones 16 fall below
# 0.04 along the axis that their scanners filled, two stay above (0.043, 0.054).
EMPTY = 0.04  # share of a band's power density left two bands further out, below which k-space ends in between
BANDS, BAND = np.arange(0.3, 0.61, 0.05), 0.1  # where the bands compared begin, and how wide they are, as shares of the Nyquist frequency
BESIDE = 0.3  # share of the other axis' Nyquist frequency: scanners leave the corners of k-space out
FEWEST_LINES = 32  # a side, below which a band holds too few


def choose_scale(
    target: Volume | VolumeHeader, reference: Volume | VolumeHeader | None, through_plane: int, asked: int | None
) -> tuple[int, str]:
    """Upscaling factor and the reason for it, in words.

    Args:
        target: low-resolution image.
        reference: high-resolution image; None for none.
        through_plane: the target's through-plane axis.
        asked: scale that the user asked for; None for none.

    Raises:
        UsageFault: asked is neither 2 nor 4, or is needed because there is no reference.
        Fault: the voxel sizes fit neither scale, or only one in-plane axis has low resolution.
    """
    if asked is not None:
        check_scale(asked)
        return asked, "as asked"
    if reference is None:
        raise missing_scale()
    own = np.delete(target.grid.spacing, through_plane)
    if own.max() / own.min() > ONE_AXIS:
        raise Fault(
            target.path,
            f"in-plane voxels of {own[0]:.2f} x {own[1]:.2f} mm: low resolution along one axis only, which this method does not treat",
            "give a target with one in-plane resolution",
        )
    finest = np.delete(reference.grid.spacing, reference.grid.through_plane())
    ratio = float(np.sqrt(own.prod() / finest.prod()))
    nearest = min(SCALES, key=lambda scale: abs(ratio - scale) / scale)
    if abs(ratio - nearest) / nearest > SCALE_TOLERANCE:
        finding = f"in-plane voxels are {ratio:.2f} times those of the reference, near neither 2 nor 4"
        coarser = [scale for scale in SCALES if scale <= ratio]
        if not coarser:
            raise Fault(target.path, f"{finding}: too little to gain in-plane, and thick slices are not treated", "give a coarser target")
        raise Fault(target.path, finding, f"--scale {coarser[-1]}, whose voxels stay coarser than the reference's")
    return nearest, f"nearest to the ratio {ratio:.2f} of in-plane voxel sizes"


def missing_scale() -> UsageFault:
    """The fault of a target that has neither a reference nor a scale."""
    return UsageFault(
        "--scale", "is missing, it cannot be found without a reference", "--scale 2 or --scale 4, or --reference FILE of another contrast"
    )


def coarser_along(reference: Grid, grid: Grid, through_plane: int) -> list[str]:
    """Warning for a reference whose voxels are wider than those of the result along an in-plane axis of the result; empty otherwise."""
    axes = [axis for axis in range(3) if axis != through_plane]
    along = grid.affine[:3, axes] / grid.spacing[axes]  # a column a direction
    widths = 1 / np.linalg.norm(np.linalg.solve(reference.affine[:3, :3], along), axis=0)
    wanted = grid.spacing[axes]
    coarse = widths > COARSER * wanted
    told = [" x ".join(f"{size:.2f}" for size in sizes) for sizes in (widths, wanted)]
    if coarse.all():
        return [f"the reference's voxels ({told[0]} mm in plane) are coarser than the result's ({told[1]} mm); are the two swapped?"]
    if coarse.any():
        index = int(coarse.argmax())
        name = DIRECTIONS[int(np.abs(along[:, index]).argmax())]
        sizes = f"{widths[index]:.2f} mm, the result's {wanted[index]:.2f} mm"
        return [f"the reference's voxels are coarse along {name} ({sizes}): the result gains little detail there"]
    return []


def partly_covered(share: float) -> str:
    """Finding about a reference that covers this share of the target: a note while it is most of it."""
    text = f"the reference covers {share:.1%} of the target; elsewhere the result has no detail from it"
    return Note(text) if share >= MIN_COVERAGE else text


def check_distinct(target: Volume, reference: Volume) -> None:
    """Refuse one image given twice.

    Raises:
        Fault: the two files, or the voxels in them, are the same.
    """
    if target.sha256 == reference.sha256 or np.array_equal(target.data, reference.data):
        raise Fault(reference.path, "is the same image as the target", "give another contrast of the same head as --reference")


def interpolated_axes(target: Volume, through_plane: int) -> tuple[int, ...]:
    """In-plane array axes along which the outer k-space of the target is empty: the image was interpolated there after the scan.

    Each axis is judged by itself: scanners often measure less of k-space along the phase direction alone and fill it up with zeros. The
    power density along the axis, over the inner part of the other axis, then drops at a cliff; without zero-filling it declines slowly.
    Magnitude voxels, noise and rounding to integers leave some power in the empty part. Resampling leaves more: on a grid twice as fine
    cubic resampling is mostly found and linear mostly missed; on one 1.5 times as fine it is hardly ever found. Slices below 32 voxels a
    side are not judged.
    """
    slices = in_plane_last(torch.from_numpy(target.data), target.grid.slice_axes(through_plane))
    axes = target.grid.slice_axes(through_plane)[1:]
    if min(slices.shape[1:]) < FEWEST_LINES:
        return ()
    # So that squares stay within float32. By NumPy: torch would copy a volume whose axes do not lie in order.
    peak = max(float(target.data.max()), -float(target.data.min()))
    power = np.zeros(slices.shape[1:])
    for block in blocks(len(slices), 6 * slices[0].nbytes):
        power += torch.fft.fft2(slices[block] / peak).abs().square().sum(0).numpy()
    rows, columns = (np.abs(np.fft.fftfreq(size)) * 2 for size in power.shape)
    densities = (rows, power[:, columns <= BESIDE].mean(1)), (columns, power[rows <= BESIDE].mean(0))
    return tuple(axis for axis, density in zip(axes, densities, strict=True) if _cliff(*density) < EMPTY)


def _cliff(frequencies: NDArray[np.float64], density: NDArray[np.float64]) -> float:
    """Smallest ratio of power density between a band and one nearer to the centre."""

    def mean(start: float) -> float:
        return float(density[(frequencies >= start) & (frequencies <= start + BAND)].mean())

    return min(mean(start + 2 * BAND) / max(mean(start), np.finfo(float).tiny) for start in BANDS)


def interpolation_warning(grid: Grid, axes: tuple[int, ...]) -> str:
    """Warning for a target on `grid` that was interpolated along these array axes."""
    directions = nib.orientations.io_orientation(grid.affine)[:, 0]
    along = " and ".join(DIRECTIONS[int(directions[axis])] for axis in axes)
    return (
        f"the target's outer k-space is empty along {along}: it was interpolated after the scan, and its true resolution is lower "
        "than its voxel size; its k-space is not put back into the result"
    )


def unfit_reason(alignment: Alignment, scale: int) -> str:
    """Why a reference would make the result worse than using none; empty where it would not."""
    if not alignment.fits:
        return f"{NO_MATCH} (agreement {alignment.prominence:.2f}, usually above 0.24): another patient, another visit, or far out of place"
    if alignment.displacement * scale > WORSE_THAN_NONE:
        return f"it seems to lie {apart(alignment, scale)} away from where it belongs, which is worse than no reference"
    return ""


def misplaced(alignment: Alignment, scale: int, tried: str = "", placing: str = PLACING) -> list[str]:
    """Warning for a reference that is used although it shows something else than the target, or lies elsewhere; empty if in place.

    Args:
        alignment: alignment of the reference as it is used.
        scale: upscaling factor s.
        tried: why registration is no cure, `NOT_MENDED` or `NO_MEMORY`; empty where it was not tried.
        placing: how a transform is given, in the words of a cure.
    """
    if alignment.in_place:
        return []
    cure = f"{tried}; {placing}" if tried else "try --register rigid"
    if not alignment.fits:
        return [f"{unfit_reason(alignment, scale)}; {cure}, and do not trust fine detail"]
    return [f"the reference seems to lie {apart(alignment, scale)} away from where it belongs, which costs detail; {cure}"]


def apart(alignment: Alignment, scale: int) -> str:
    """Distance of a reference from where it belongs, in words."""
    in_plane = alignment.displacement > FARTHEST or not alignment.slice_offset
    distance = alignment.displacement * scale
    voxels = [f"{distance:.{1 if distance >= 1 else 2}f} voxels of the result"] if in_plane else []
    return " and ".join([*voxels, *(["a slice"] if alignment.slice_offset else [])])


def alignment_record(alignment: Alignment | None, scale: int) -> dict[str, Any] | None:
    """Entry of the record for an alignment; None where slices are too small or without edges."""
    if alignment is None:
        return None
    return {
        "measure": "agreement of edge directions, 0 to 1",
        "value": round(alignment.prominence, 4),
        "displacement_voxels": round(alignment.displacement * scale, 2),
        "slice_offset": alignment.slice_offset,
    }
