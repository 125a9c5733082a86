"""Slices as pictures: zero-filled target, result, reference and what was added, side by side in one file."""

from __future__ import annotations

import io
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from matplotlib.image import imsave
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from hftn_sr.pictures import CHANGE, STRONG, percent, shown, white
from hftn_sr.report.case import Images, Slab
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
        files: a PNG for each slice of the extent: four pictures of one size side by side.
        size: width and height of one of the four, in pixels.
        white: intensity drawn white in target and result.
    """

    files: tuple[bytes, ...]
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


def draw_strips(images: Images, extent: Extent) -> Strips:
    """Draw the slices of `extent`, all with the same limits, so that they can be compared."""
    rows = [_views(images.slab(index, 1), images.through_plane, extent.box) for index in extent.slices]
    brightest, brightest_reference = (white(np.concatenate([row[panel].ravel() for row in rows])) for panel in (0, 2))
    peak = float(images.target.data.max())
    files = []
    for zero_filled, result, reference, added in rows:
        grey = [_grey(zero_filled / brightest), _grey(result / brightest), _grey(reference / brightest_reference)]
        files.append(_png(np.hstack([*grey, _coloured(percent(added, peak))])))
    height, width = rows[0][0].shape
    return Strips(tuple(files), (width, height), brightest)


def _views(slab: Slab, through_plane: int, box: Box) -> list[NDArray[np.float32]]:
    here = tuple(slice(0, 1) if axis == through_plane else part for axis, part in enumerate(box))
    reference = slab.reference or slab.result.on(slab.result.grid, np.zeros_like(slab.result.data))
    parts = [cropped(volume, here) for volume in (slab.zero_filled, slab.result, reference, slab.added)]  # type: ignore[arg-type]
    return [_square_pixels(shown(part, through_plane, 0), part, through_plane) for part in parts]


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


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, pixels, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1})  # type: ignore[dict-item]
    return buffer.getvalue()
