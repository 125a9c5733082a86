"""Slices as pictures, side by side in one file: zero-filled target, result, what was added, the reference's detail, the reference, and the
expected error where it was estimated."""

from __future__ import annotations

import io
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from matplotlib.image import imsave
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from hftn_sr.pictures import CHANGE, ERROR, STRONG, percent, shown, white
from hftn_sr.report.case import Images
from hftn_sr.volumes.simulation import intensity_unit
from hftn_sr.volumes.volume import Volume

__all__ = ["Extent", "Strips", "cropped", "find_extent", "draw_strips"]

SLICES = 5  # that are drawn of each case
LARGEST = 512  # pixels along a side of a picture; larger slices are drawn smaller
SIGNAL = 0.1  # share of the intensity unit from which a voxel counts as tissue
FILLED = 0.005  # share of such voxels from which a row or a column belongs to the head
RICH = 0.3  # share of the fullest slice's tissue from which a slice is worth a look
MARGIN = 4  # voxels around the head

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Extent:
    """Where there is something to see.

    Args:
        box: the head, for each array axis; the whole of the through-plane one.
        slices: indices of slices to draw, spread over the head.
    """

    box: Box
    slices: tuple[int, ...]

    @property
    def middle(self) -> int:
        """Index of the slice in the middle of the head."""
        return self.slices[len(self.slices) // 2]


@dataclass(frozen=True)
class Strips:
    """The drawn slices of a case.

    Args:
        files: a PNG for each slice of the extent: pictures of one size side by side.
        count: number of pictures in a file: five, and a sixth where there is an expected error.
        size: width and height of one of them, in pixels.
        white: intensity drawn white in target and result.
    """

    files: tuple[bytes, ...]
    count: int
    size: tuple[int, int]
    white: float


def find_extent(volume: Volume, through_plane: int) -> Extent:
    """The head in a volume.

    Raises:
        ValueError: no voxel is positive.
    """
    tissue = volume.data > SIGNAL * intensity_unit(volume.data)
    shares = [tissue.mean(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    full, axes = shares[through_plane], [slice(0, size) for size in volume.data.shape]
    for axis in set(range(3)) - {through_plane}:
        inside = np.flatnonzero(shares[axis] > FILLED)
        if inside.size:
            axes[axis] = slice(max(int(inside[0]) - MARGIN, 0), int(inside[-1]) + MARGIN + 1)
            axes[axis] = slice(*axes[axis].indices(volume.data.shape[axis])[:2])
    rich = np.flatnonzero(full >= RICH * full.max())
    chosen = np.unique(np.linspace(rich[0], rich[-1], min(SLICES, rich.size)).round().astype(int))
    return Extent((axes[0], axes[1], axes[2]), tuple(chosen.tolist()))


def cropped(volume: Volume, box: Box) -> Volume:
    """The part of a volume in a box."""
    start, shape = tuple(part.start for part in box), tuple(part.stop - part.start for part in box)
    return volume.on(volume.grid.cropped(start, shape), volume.data[box])


def draw_strips(images: Images, extent: Extent, uncertainty: Volume | None = None) -> Strips:
    """Draw the slices of `extent`, all with the same limits, so that they can be compared.

    Args:
        images: of a case.
        extent: where the head is.
        uncertainty: expected absolute error on the result's grid; None where it was not estimated.
    """
    rows = [_views(images, index, extent.box, uncertainty) for index in extent.slices]
    brightest, brightest_reference = (white(np.concatenate([row[panel].ravel() for row in rows])) for panel in (0, 4))
    peak, peak_reference = float(images.target.data.max()), float(images.reference.data.max()) if images.reference else 1.0
    files = []
    for zero_filled, result, added, detail, reference, *error in rows:
        panels = [_grey(zero_filled / brightest), _grey(result / brightest), _coloured(percent(added, peak))]
        panels += [_coloured(percent(detail, peak_reference)), _grey(reference / brightest_reference)]
        files.append(_png(np.hstack([*panels, *(_heat(percent(each, peak)) for each in error)])))
    height, width = rows[0][0].shape
    return Strips(tuple(files), len(rows[0]), (width, height), brightest)


def _views(images: Images, index: int, box: Box, uncertainty: Volume | None) -> list[NDArray[np.float32]]:
    slab, through_plane = images.slab(index, 1), images.through_plane
    here = tuple(slice(0, 1) if axis == through_plane else part for axis, part in enumerate(box))
    empty = slab.result.on(slab.result.grid, np.zeros_like(slab.result.data))
    parts = [slab.zero_filled, slab.result, slab.added, slab.detail or empty, slab.reference or empty]
    if uncertainty:
        parts.append(slab.result.on(slab.result.grid, uncertainty.data.take([index], axis=through_plane)))
    cut = [cropped(volume, here) for volume in parts]  # type: ignore[arg-type]
    return [_square_pixels(shown(part, through_plane, 0), part, through_plane) for part in cut]


def _square_pixels(view: NDArray[np.float32], volume: Volume, through_plane: int) -> NDArray[np.float32]:
    """`view` of a volume in its true proportions, no larger than LARGEST along a side."""
    to_ras = nib.io_orientation(volume.affine)[:, 0]
    columns, rows = sorted((axis for axis in range(3) if axis != through_plane), key=lambda axis: float(to_ras[axis]))
    spacing = volume.grid.spacing[[rows, columns]]
    size = np.array(view.shape) * spacing / spacing.min()
    if np.abs(size - view.shape).max() < 1:  # square but for rounding
        size = np.array(view.shape, dtype=float)
    wanted = np.maximum(np.round(size * min(1.0, LARGEST / size.max())), 1).astype(int)
    if tuple(wanted) == view.shape:
        return view
    image = torch.from_numpy(np.ascontiguousarray(view))[None, None]
    return np.asarray(interpolate(image, size=wanted.tolist(), mode="bilinear", antialias=True, align_corners=False)[0, 0].numpy())


def _grey(view: NDArray[np.float32]) -> NDArray[np.uint8]:
    level = (np.clip(view, 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(level[..., None], 3, axis=2)


def _coloured(view: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours of changes in percent of the range."""
    return np.asarray(CHANGE((view / STRONG + 1) / 2, bytes=True)[..., :3])


def _heat(view: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colours of an expected error in percent of the range."""
    return np.asarray(ERROR(view / STRONG, bytes=True)[..., :3])


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1})  # type: ignore[dict-item]
    return buffer.getvalue()
