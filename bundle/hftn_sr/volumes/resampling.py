"""A volume's voxels on another grid, through physical space."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftn_sr.kspace import FWHM_TO_SIGMA
from hftn_sr.volumes.scratch import blocks
from hftn_sr.volumes.splines import along_axes, at_points
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["coverage", "covered", "parallel", "plan", "resample", "resample_into", "same_grid"]

Part = tuple[slice, slice, slice]

ROUNDING = 1e-3  # of a voxel, that a corner may lie off for two grids to count as one
ON_LATTICE = 0.01  # of a voxel, that the voxels of two files may lie apart and still be compared one by one
SPLINE_REACH = 14  # samples after which a cubic spline has forgotten one: 0.268 to the power of 12 is 1e-7
BOX = 16 << 20  # voxels of the volume, and of the grid, that are worked on at a time
SMALLEST = 16  # voxels along a side below which a block is not divided any more


def resample(volume: Volume, grid: Grid) -> NDArray[np.float32]:
    """`volume` at the positions of `grid`, by cubic B-spline; 0 outside its field of view.

    Where the volume is finer than the grid, a Gaussian comes first that widens its voxels to the grid's, so that detail which the grid
    cannot hold does not fold back. A volume that already lies on the grid keeps its voxels, bit for bit.

    Args:
        volume: (X, Y, Z), placed by its affine; sheared affines too.
        grid: where voxels are wanted.

    Returns:
        grid.shape, float32, in the volume's unit.
    """
    if same_grid(volume.grid, grid):
        return volume.data
    resampled = np.empty(grid.shape, np.float32, order="F")
    for place in resample_into(volume, grid, resampled):
        del place
    return resampled


def resample_into(volume: Volume, grid: Grid, resampled: NDArray[np.float32]) -> Iterator[Part]:
    """`resample`, block by block, so that little more than the volume is in memory.

    A block sees the volume around it as far as the spline and the Gaussian reach: what lies further away changes no voxel by more than
    1e-7 of the range of intensities.

    Args:
        volume: image to resample, see `resample`.
        grid: where voxels are wanted, see `resample`.
        resampled: grid.shape, is filled.

    Yields:
        each block of `resampled`, when it is done.
    """
    if same_grid(volume.grid, grid):
        for part in blocks(grid.shape[2], 4 * grid.shape[0] * grid.shape[1]):
            place = (slice(None), slice(None), part)
            resampled[place] = volume.data[place]
            yield place
        return
    for place, box in plan(volume.grid, grid):
        start = tuple(part.start for part in box)
        block, source = _part(grid, place), volume.on(volume.grid.cropped(start, _sizes(box)), volume.data[box])
        resampled[place] = _interpolated(source, block)
        if not _all_covered(volume.grid, block):
            resampled[place][~covered(volume.grid, block)] = 0
        yield place


def plan(source: Grid, grid: Grid) -> list[tuple[Part, Part]]:
    """Blocks of `grid`, each with the part of `source` that its voxels depend on, which is at most BOX voxels where that can be had."""
    index = _index_map(source, grid)
    margin = np.ceil(SPLINE_REACH + 4 * _sigmas(index)).astype(int)

    def box_of(place: Part) -> Part:
        corners = np.array(list(product(*((part.start, part.stop - 1) for part in place)))) @ index[:3, :3].T + index[:3, 3]
        low = np.clip(np.floor(corners.min(0)).astype(int) - margin, 0, np.subtract(source.shape, 1))
        high = np.clip(np.ceil(corners.max(0)).astype(int) + margin + 1, low + 1, source.shape)
        return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))  # type: ignore[return-value]

    def split(place: Part) -> Iterator[tuple[Part, Part]]:
        box, sizes = box_of(place), _sizes(place)
        axis = max(range(3), key=lambda axis: sizes[axis] * np.linalg.norm(index[:3, axis]))
        if max(np.prod(_sizes(box), dtype=np.int64), np.prod(sizes, dtype=np.int64)) <= BOX or sizes[axis] <= SMALLEST:
            yield place, box
            return
        middle = place[axis].start + sizes[axis] // 2
        for half in (slice(place[axis].start, middle), slice(middle, place[axis].stop)):
            yield from split(tuple(half if other == axis else part for other, part in enumerate(place)))  # type: ignore[arg-type]

    return list(split(tuple(slice(0, size) for size in grid.shape)))  # type: ignore[arg-type]


def same_grid(source: Grid, grid: Grid) -> bool:
    """Whether two grids are the same but for rounding."""
    # Magnitudes first: a map that swaps two equal axes has corners that stay where they are.
    off = np.abs(_index_map(source, grid) - np.eye(4)) @ [*grid.shape, 1]
    return grid.shape == source.shape and bool(off.max() < ROUNDING)


def lattice_offset(grid: Grid, other: Grid) -> tuple[tuple[int, int, int], float]:
    """Offset of the first voxel of `other` from that of `grid`, in whole voxels, and how far the two lattices lie apart then.

    Returns:
        the offset along the three axes of `grid`, and the largest distance of a corner of `other` from a voxel of the endless lattice of
        `grid` in voxels, summed over the axes; infinity where the two are not comparable.
    """
    index = _index_map(grid, other)
    if not np.isfinite(index).all():
        return (0, 0, 0), float("inf")
    exact = np.eye(4)
    exact[:3, 3] = offset = np.round(index[:3, 3])
    x, y, z = (int(step) for step in offset)
    return (x, y, z), float(np.abs(index - exact).sum(0) @ [*other.shape, 1])


def parallel(source: Grid, grid: Grid) -> bool:
    """Whether the axes of two grids run along each other, in whatever order and direction."""
    index = _index_map(source, grid)
    along = _axes(index)
    askew = index[:3, :3].copy()
    askew[range(3), along] = 0
    return len(set(along.tolist())) == 3 and bool((np.abs(askew) @ grid.shape).max() < ROUNDING)


def covered(source: Grid, grid: Grid) -> NDArray[np.bool_]:
    """Which voxels of `grid` lie inside the field of view of `source`, its outermost half voxels included; shape of `grid`."""
    index = _index_map(source, grid)
    x, y, z = (np.arange(size, dtype=float) for size in grid.shape)
    inside = np.ones(grid.shape, dtype=bool)
    for row, size in zip(index[:3], source.shape, strict=True):
        position = (row[0] * x + row[3])[:, None, None] + (row[1] * y)[:, None] + row[2] * z
        inside &= (position >= -0.5) & (position < size - 0.5)
    return inside


def coverage(source: Grid, grid: Grid) -> float:
    """Share of the voxels of `grid` that are `covered` by `source`."""
    if _all_covered(source, grid):
        return 1.0
    parts = (
        covered(source, grid.cropped((part.start, 0, 0), (part.stop - part.start, *grid.shape[1:])))
        for part in blocks(grid.shape[0], 24 * grid.shape[1] * grid.shape[2])
    )
    return float(sum(int(part.sum()) for part in parts) / np.prod(grid.shape, dtype=np.int64))


def _all_covered(source: Grid, grid: Grid) -> bool:
    """Whether the corners of a grid are covered well inside, and so everything between them."""
    corners = np.array(list(product(*((0, size - 1) for size in grid.shape))))
    index = _index_map(source, grid)
    place = corners @ index[:3, :3].T + index[:3, 3]
    return bool(((place > -0.5 + ROUNDING) & (place < np.subtract(source.shape, 0.5 + ROUNDING))).all())


def _interpolated(volume: Volume, grid: Grid) -> NDArray[np.float32]:
    index = _index_map(volume.grid, grid)
    if parallel(volume.grid, grid):
        return along_axes(volume.data, grid.shape, index, _axes(index), _sigmas(index))
    return at_points(volume.data, grid.shape, index, _sigmas(index))


def _axes(index: NDArray[np.floating[Any]]) -> NDArray[np.intp]:
    """The axis of the grid along which each axis of the source runs."""
    return np.abs(index[:3, :3]).argmax(axis=1)


def _part(grid: Grid, place: Part) -> Grid:
    return grid.cropped((place[0].start, place[1].start, place[2].start), _sizes(place))


def _sizes(place: Part) -> tuple[int, int, int]:
    x, y, z = (part.stop - part.start for part in place)
    return x, y, z


def _index_map(source: Grid, grid: Grid) -> NDArray[np.floating[Any]]:
    """(4, 4), voxel index of `grid` to voxel index of `source`."""
    return np.linalg.solve(source.affine, grid.affine)


def _sigmas(index: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Width of the Gaussian along each axis of the data, on which a voxel of the grid may be wider than one of the data."""
    width = np.linalg.norm(index[:3, :3], axis=1)
    sigmas: NDArray[np.float64] = np.sqrt(np.maximum(width**2 - 1, 0)) * FWHM_TO_SIGMA
    return sigmas
