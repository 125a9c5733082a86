"""A scalar MR volume in memory and the grids that follow from its header."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "Volume"]

CLEARLY = 1.5  # ratio of the largest voxel size to the next, from which the axis lies across slices though all three sizes differ
EQUAL_SPACING = 0.01  # relative difference up to which two voxel sizes count as equal


@dataclass(frozen=True)
class Grid:
    """Where voxels lie.

    Args:
        shape: number of voxels along the three array axes.
        affine: (4, 4), voxel index to RAS+ position in mm.
        slice_axis: the array axis across the slices of the scan, where the file says it; None where it does not.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    slice_axis: int | None = None

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Voxel size along the three array axes in mm."""
        spacing: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return spacing

    def through_plane(self) -> int:
        """The array axis across the slices.

        The file's own word counts first, then a single slice, then the odd one out in voxel size, then the axis closest to head-foot.
        """
        if self.slice_axis is not None:
            return self.slice_axis
        if self.shape.count(1) == 1:
            return self.shape.index(1)
        spacing = self.spacing
        equal = [pair for pair in combinations(range(3), 2) if abs(np.log(spacing[pair[0]] / spacing[pair[1]])) < EQUAL_SPACING]
        if len(equal) == 1:
            return 3 - sum(equal[0])
        return int(np.argmax(np.abs(self.affine[2, :3] / spacing)))

    def odd_axis(self) -> int | None:
        """The array axis across the slices by the sizes: that of a single slice, or the odd one out of the voxel sizes.

        None where they cannot. An axis of smaller voxels than the other two must have the fewest of them, too: slices as thick as the phase
        direction is coarse leave the frequency direction as the odd one.
        """
        if self.shape.count(1) == 1:
            return self.shape.index(1)
        least, middle, most = (int(axis) for axis in np.argsort(self.spacing, kind="stable"))
        sizes = self.spacing
        low, high = sizes[middle] / sizes[least], sizes[most] / sizes[middle]
        if high > (1 + EQUAL_SPACING if low < 1 + EQUAL_SPACING else CLEARLY):
            return most
        fewest = self.shape[least] < min(self.shape[middle], self.shape[most])
        return least if high < 1 + EQUAL_SPACING < low and fewest else None

    def slice_axes(self, through_plane: int) -> tuple[int, int, int]:
        """The array axes as a network sees a slice: through-plane, then the in-plane ones in the order right-left, front-back, head-foot.

        A network is not the same for an image and its transpose, so that the order in which a file stores its axes must not matter.
        """
        direction = np.abs(self.affine[:3, :3] / self.spacing).argmax(axis=0)
        first, second = sorted((axis for axis in range(3) if axis != through_plane), key=lambda axis: int(direction[axis]))
        return through_plane, first, second

    def finer(self, factor: int, through_plane: int) -> Grid:
        """The high-resolution grid of this low-resolution one: sample j lies at sample factor*j, no half-voxel shift."""
        steps = np.full(3, factor)
        steps[through_plane] = 1
        affine = self.affine.copy()
        affine[:3, :3] /= steps
        return replace(self, shape=_shape(np.multiply(self.shape, steps)), affine=affine)

    def coarser(self, factor: int, through_plane: int) -> Grid:
        """The low-resolution grid of this high-resolution one, whose in-plane sizes factor must divide."""
        steps = np.full(3, factor)
        steps[through_plane] = 1
        affine = self.affine.copy()
        affine[:3, :3] *= steps
        return replace(self, shape=_shape(np.floor_divide(self.shape, steps)), affine=affine)

    def cropped(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """The part of this grid that begins at voxel `start` and has the given shape."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.asarray(start, dtype=float)
        return replace(self, shape=shape, affine=affine)


@dataclass(frozen=True)
class Volume:
    """Voxels with their grid and what must survive a round trip through a file.

    Args:
        data: (X, Y, Z) float32, in the axis order of the file.
        affine: (4, 4), voxel index to RAS+ position in mm.
        path: the file it came from, for messages.
        sha256: of that file's bytes; empty for a volume made in memory.
        units: NIfTI xyzt_units code.
        codes: NIfTI (sform_code, qform_code).
        notes: what was found and done while reading, in plain words: `Note`s, other texts are warnings.
        slice_axis: see `Grid`.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    path: Path = Path("(in memory)")
    sha256: str = ""
    units: int = 2
    codes: tuple[int, int] = (1, 1)
    notes: tuple[str, ...] = field(default=())
    slice_axis: int | None = None

    @property
    def grid(self) -> Grid:
        """Where these voxels lie."""
        return Grid(_shape(self.data.shape), self.affine, self.slice_axis)

    def moved(self, target_to_reference: NDArray[np.float64]) -> Volume:
        """This reference placed in the space of a target, by a (4, 4) RAS+ matrix that maps a target point to a point of this volume."""
        return replace(self, affine=np.linalg.inv(target_to_reference) @ self.affine)

    def on(self, grid: Grid, data: NDArray[np.float32]) -> Volume:
        """Other voxels on another grid, with the header information of this volume."""
        return replace(self, data=data, affine=grid.affine)


def _shape(sizes: NDArray[np.int_] | tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (int(size) for size in sizes)
    return x, y, z
