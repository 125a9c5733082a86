"""Findings that speak against a trustworthy result: a refusal where no result could be right, a warning otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hftn_sr.errors import Fault, Note
from hftn_sr.inference.options import PLACING
from hftn_sr.volumes.alignment import Alignment
from hftn_sr.volumes.scratch import blocks
from hftn_sr.volumes.simulation import in_plane_last
from hftn_sr.volumes.volume import Grid, Volume

__all__ = [
    "alignment_record",
    "apart",
    "check_distinct",
    "coarser_along",
    "filled_beyond",
    "measured_samples",
    "LOW_SIMILARITY",
    "MIN_COVERAGE",
    "MOSTLY_COVERED",
    "unfit_reason",
    "unsure_reason",
    "misplaced",
    "NO_MEMORY",
    "NOT_MENDED",
    "partly_covered",
]

COARSER = 1.5  # ratio of voxel sizes from which a reference counts as coarser than the result
MIN_COVERAGE, MOSTLY_COVERED = 0.2, 0.8  # shares of the target's grid: that the reference must cover; up from which it is only a note
LOW_SIMILARITY = 1.02  # normalised mutual information; unrelated volumes stay below, aligned contrasts of one head well above
NO_MATCH = "the edges of target and reference do not match"
# Voxels of the result; a reference displaced further does more harm than good: where resolution was lost in-plane, and where it was not, as
# beside slices that were thick alone (bundle/docs/design-log.md).
WORSE_THAN_NONE, WORSE_THAN_NONE_THICK = 1.0, 3.0
# Agreement of edges from which a registration that had to move a reference far has found its place. The same head bent by a smooth field of
# 4 voxels agrees by 0.37; other heads before they are moved by up to 0.27, and a registration lays them where they agree best.
SURE = 0.3
NOT_MENDED = "rigid registration did not mend that"
NO_MEMORY = "too little memory is free to register it"
DIRECTIONS = ("left-right", "front-back", "head-foot")  # of the axes of RAS+
# Measured along both axes of 24 real volumes (bundle/docs/design-log.md): truncated by 2 and 4, magnitudes, noisy, rounded 0.20 to 0.49;
# these with a Hamming window 0.045 to 0.11, and filled with zeros from half of k-space on 0.0004 to 0.034; of 18 native ones 16 fall below
# 0.04 along the axis that their scanners filled, two stay above (0.043, 0.054).
EMPTY = 0.04  # share of a band's power density left two bands further out, below which k-space ends in between
BANDS, BAND = np.arange(0.3, 0.61, 0.05), 0.1  # where the bands compared begin, and how wide they are, as shares of the Nyquist frequency
GOES_ON = 0.5  # share of the power before an edge that is left behind it where there is none
EDGE = 0.02  # share of the Nyquist frequency on either side over which the power's fall is looked for
BESIDE = 0.3  # share of the other axis' Nyquist frequency: scanners leave the corners of k-space out
FEWEST_LINES = 32  # a side, below which a band holds too few


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
    return Note(text) if share >= MOSTLY_COVERED else text


def check_distinct(target: Volume, reference: Volume) -> None:
    """Refuse one image given twice.

    Raises:
        Fault: the two files, or the voxels in them, are the same.
    """
    if target.sha256 == reference.sha256 or np.array_equal(target.data, reference.data):
        raise Fault(reference.path, "is the same image as the target", "give another contrast of the same head as --reference")


def measured_samples(target: Volume, through_plane: int) -> dict[int, int]:
    """Samples of k-space that hold anything, by in-plane array axis along which the outer ones are empty: interpolated after the scan.

    Each axis is judged by itself: scanners often measure less of k-space along the phase direction alone and fill it up with zeros. The
    power density along the axis, over the inner part of the other axis, then drops at a cliff; without zero-filling it declines slowly.
    Magnitude voxels, noise and rounding to integers leave some power in the empty part. Resampling leaves more: on a grid twice as fine
    cubic resampling is mostly found and linear mostly missed; on one 1.5 times as fine it is hardly ever found. Slices below 32 voxels a
    side are not judged. The count is rather a few too large than too small, so that nothing is taken for empty that was measured.
    """
    axes, densities = _densities(target, through_plane)
    edges = {axis: _edge(*density) for axis, density in zip(axes, densities, strict=True) if _cliff(*density) < EMPTY}
    return {axis: count for axis, count in edges.items() if count is not None}


def filled_beyond(target: Volume, through_plane: int, axis: int, samples: int) -> bool:
    """Whether k-space along an in-plane axis goes on behind so many central samples as if nothing ended there.

    False where the power falls at that place as it does at the edge of what a scan measured; magnitudes and resampling after the scan
    leave up to 0.36 of it (three stacks of a localizer), an image that was measured whole may fall as much, so that this proves little.
    """
    axes, densities = _densities(target, through_plane)
    if axis not in axes:
        return False
    frequencies, density = densities[axes.index(axis)]
    edge = samples / target.data.shape[axis]
    inside = density[(frequencies > edge - BAND) & (frequencies <= edge)].mean()
    outside = density[(frequencies > edge + BAND) & (frequencies <= edge + 2 * BAND)]
    return bool(len(outside) and outside.mean() > GOES_ON * max(inside, np.finfo(float).tiny))


def _densities(target: Volume, through_plane: int) -> tuple[tuple[int, ...], list[tuple[NDArray[np.float64], NDArray[np.float64]]]]:
    """In-plane array axes, and frequencies and power density along each; none of slices that are too small to tell."""
    slices = in_plane_last(torch.from_numpy(target.data), target.grid.slice_axes(through_plane))
    axes = target.grid.slice_axes(through_plane)[1:]
    if min(slices.shape[1:]) < FEWEST_LINES:
        return (), []
    # So that squares stay within float32. By NumPy: torch would copy a volume whose axes do not lie in order.
    peak = max(float(target.data.max()), -float(target.data.min()))
    power = np.zeros(slices.shape[1:])
    for block in blocks(len(slices), 6 * slices[0].nbytes):
        power += torch.fft.fft2(slices[block] / peak).abs().square().sum(0).numpy()
    rows, columns = (np.abs(np.fft.fftfreq(size)) * 2 for size in power.shape)
    return axes, [(rows, power[:, columns <= BESIDE].mean(1)), (columns, power[rows <= BESIDE].mean(0))]


def _edge(frequencies: NDArray[np.float64], density: NDArray[np.float64]) -> int | None:
    """Number of central samples before the cliff: where the logarithm of the power falls most from a few samples to the next few.

    None where it falls most at the first place looked at, which is no edge that was found.
    """
    size = len(frequencies)
    half = size // 2
    both = np.array([density[k] + density[-k] for k in range(1, half + 1)])  # from 1 to the Nyquist frequency, both signs
    level = np.log(both + both.max() * np.finfo(np.float32).eps ** 2)
    width = max(2, round(EDGE * half))
    start = int(BANDS[0] * half)
    falls = [level[k - width : k].mean() - level[k : k + width].mean() for k in range(start, half - width)]
    return min(size, 2 * (start + int(np.argmax(falls))) + 1) if np.argmax(falls) else None


def _cliff(frequencies: NDArray[np.float64], density: NDArray[np.float64]) -> float:
    """Smallest ratio of power density between a band and one nearer to the centre."""

    def mean(start: float) -> float:
        return float(density[(frequencies >= start) & (frequencies <= start + BAND)].mean())

    return min(mean(start + 2 * BAND) / max(mean(start), np.finfo(float).tiny) for start in BANDS)


def unfit_reason(alignment: Alignment) -> str:
    """Why a reference would make the result worse than using none; empty where it would not."""
    if not alignment.fits:
        return f"{NO_MATCH} (agreement {alignment.prominence:.2f}, usually above 0.24): another patient, another visit, or far out of place"
    if alignment.displacement > (WORSE_THAN_NONE if alignment.factor > 1 else WORSE_THAN_NONE_THICK):
        return f"it seems to lie {apart(alignment)} away from where it belongs, which is worse than no reference"
    return ""


def unsure_reason(alignment: Alignment) -> str:
    """Why a reference that would have been left out where it lay does not belong where a registration put it, either; empty if it does."""
    if alignment.prominence >= SURE:
        return ""
    agreement = f"agreement {alignment.prominence:.2f}, then above {SURE:.2f}"
    return f"{NO_MATCH} well where a registration moved it ({agreement}): another patient or visit"


def misplaced(alignment: Alignment, tried: str = "", placing: str = PLACING) -> list[str]:
    """Warning for a reference that is used although it shows something else than the target, or lies elsewhere; empty if in place.

    Args:
        alignment: alignment of the reference as it is used.
        tried: why registration is no cure, `NOT_MENDED` or `NO_MEMORY`; empty where it was not tried.
        placing: how a transform is given, in the words of a cure.
    """
    if alignment.in_place:
        return []
    cure = f"{tried}; {placing}" if tried else "try --register rigid"
    if not alignment.fits:
        return [f"{unfit_reason(alignment)}; {cure}, and do not trust fine detail"]
    return [f"the reference seems to lie {apart(alignment)} away from where it belongs, which costs detail; {cure}"]


def apart(alignment: Alignment) -> str:
    """Distance of a reference from where it belongs, in words."""
    distance, parts = alignment.displacement, []
    if distance > alignment.farthest or not (alignment.off_across or alignment.slice_offset):
        parts.append(f"{distance:.{1 if distance >= 1 else 2}f} voxels of the result")
    if alignment.off_across:
        parts.append(f"{abs(alignment.across or 0):.1f} voxels of the result across the slices")
    if alignment.slice_offset:
        parts.append("a slice")
    return " and ".join(parts)


def alignment_record(alignment: Alignment | None) -> dict[str, Any] | None:
    """Entry of the record for an alignment; None where slices are too small or without edges."""
    if alignment is None:
        return None
    return {
        "measure": "agreement of edge directions, 0 to 1",
        "value": round(alignment.prominence, 4),
        "displacement_voxels": round(alignment.displacement, 2),
        **({} if alignment.across is None else {"displacement_across_voxels": round(alignment.across, 2)}),
        "slice_offset": alignment.slice_offset,
    }
