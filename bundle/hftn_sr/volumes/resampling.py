"""A volume's voxels on another grid, through physical space."""

from __future__ import annotations

from typing import Any

import itk
import numpy as np
from numpy.typing import NDArray

from hftn_sr.kspace import FWHM_TO_SIGMA
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["covered", "resample"]

SAME_PLACE = 1e-3  # of a voxel, that a corner may lie off for two grids to count as one
SPLINE_ORDER = 3


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
    index = _index_map(volume.grid, grid)
    if grid.shape == volume.data.shape and np.abs((index - np.eye(4)) @ [*grid.shape, 1]).max() < SAME_PLACE:
        return volume.data
    # A spline needs more samples than its order: single slices and thin stacks are continued at both ends, and cut off by `covered`.
    margin = [SPLINE_ORDER if size <= SPLINE_ORDER else 0 for size in volume.data.shape]
    data = _widened(np.pad(volume.data, [(width, width) for width in margin], mode="edge"), index)
    image = itk.image_from_array(np.ascontiguousarray(data.T))
    transform = itk.AffineTransform[itk.D, 3].New()
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(index[:3, :3])))
    transform.SetTranslation([float(offset + width) for offset, width in zip(index[:3, 3], margin, strict=True)])
    resampled = itk.resample_image_filter(
        image,
        transform=transform,
        interpolator=itk.BSplineInterpolateImageFunction[type(image), itk.D, itk.F].New(SplineOrder=SPLINE_ORDER),
        size=list(grid.shape),
        default_pixel_value=0,
    )
    on_grid: NDArray[np.float32] = np.ascontiguousarray(itk.array_view_from_image(resampled).T)
    on_grid[~covered(volume.grid, grid)] = 0
    return on_grid


def covered(source: Grid, grid: Grid) -> NDArray[np.bool_]:
    """Which voxels of `grid` lie inside the field of view of `source`, its outermost half voxels included; shape of `grid`."""
    index = _index_map(source, grid)
    x, y, z = (np.arange(size, dtype=float) for size in grid.shape)
    inside = np.ones(grid.shape, dtype=bool)
    for row, size in zip(index[:3], source.shape, strict=True):
        position = (row[0] * x + row[3])[:, None, None] + (row[1] * y)[:, None] + row[2] * z
        inside &= (position >= -0.5) & (position < size - 0.5)
    return inside


def _index_map(source: Grid, grid: Grid) -> NDArray[np.floating[Any]]:
    """(4, 4), voxel index of `grid` to voxel index of `source`."""
    return np.linalg.solve(source.affine, grid.affine)


def _widened(data: NDArray[np.float32], index: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Smooth along each axis on which a voxel of the grid is wider than one of the data, by what the data's own voxel leaves to do."""
    width = np.linalg.norm(index[:3, :3], axis=1)
    sigmas = np.sqrt(np.maximum(width**2 - 1, 0)) * FWHM_TO_SIGMA
    for axis, sigma in enumerate(sigmas.tolist()):
        radius = int(np.ceil(4 * sigma))
        offsets = np.arange(-radius, radius + 1)
        weights = np.exp(-((offsets / max(sigma, 1e-6)) ** 2) / 2).astype(np.float32)
        padded = np.pad(data, [(radius, radius) if other == axis else (0, 0) for other in range(3)], mode="edge")
        shifted = (np.moveaxis(np.moveaxis(padded, axis, 0)[start : start + data.shape[axis]], 0, axis) for start in range(offsets.size))
        data = sum((weight * part for weight, part in zip(weights / weights.sum(), shifted, strict=True)), np.zeros_like(data))
    return data
