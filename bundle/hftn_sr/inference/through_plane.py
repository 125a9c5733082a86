"""Thinner slices from thick ones: the in-plane network on the planes that hold the slice axis, made to agree with what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.acquisition import Acquisition, Full, Slices
from hftn_sr.errors import Fault
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.reporter import Reporter
from hftn_sr.volumes.resampling import covered, resample_into
from hftn_sr.volumes.scratch import Scratch
from hftn_sr.volumes.simulation import in_plane_last, stack_channels
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["ThickSlices", "applied", "on_result_grid", "share_of"]

BORDER = 4  # voxels of the result over which the reference's share falls to nothing towards the edge of what it covers
TOLERANCE = 1e-3  # of the signal, to which the slices of the result agree with the measured ones, unless these overlap
STEPS, STEPS_OF_OVERLAP = 100, 1  # of back-projection at most; where slices overlap, more multiply their noise (docs/design-log.md)


@dataclass(frozen=True)
class ThickSlices:
    """A pair whose target has thicker slices than its result.

    Args:
        acquired: what was measured, on the grid of the result.
        reference: the reference on that grid, in its own unit; None for none.
        reference_unit: reference intensity that counts as 1.
        unit: target intensity that counts as 1.
        reference_grid: grid of the placed reference, where it does not cover all of the result.
    """

    acquired: Acquired
    reference: Scratch | None
    reference_unit: float
    unit: float
    reference_grid: Grid | None = None

    @property
    def profile(self) -> Acquisition:
        """What of the result's three axes the slices kept, in-plane resolution apart."""
        through = self.acquired.through_plane
        return Acquisition(tuple(self.acquired.kept.axes[axis] if axis == through else Full() for axis in range(3)))

    def averaged(self, into: Scratch) -> None:
        """Fill `into` with the reference as the thick slices would show it."""
        if self.reference is None:
            return
        fixed = self.acquired.axes[1]
        for index in range(into.volume.shape[fixed]):
            plane, kept = self._plane(self.reference.volume, fixed, index), self._of_plane(fixed)
            self._put(into.volume, fixed, index, kept.simulate(plane))
        self.reference.release()
        into.release()

    def thinner(self, slices: NDArray[np.float32], network: nn.Module, device: str, folder: Path, reporter: Reporter) -> Scratch:
        """The result: the mean over both families of planes that hold the slice axis, projected onto the slices.

        Args:
            slices: (X, Y, Z), of the target's slices and the result's in-plane resolution, in the target's unit.
            network: that serves any acquisition, on `device`.
            device: of the network.
            folder: for voxels too large for memory.
            reporter: hears of the planes.

        Raises:
            Fault: the network's output is not finite.
        """
        _, first, second = self.acquired.axes
        shape = self.acquired.grid.shape
        result = Scratch(shape, first, folder)
        reporter.log("making slices thinner, plane by plane")
        reporter.slices(shape[first] + shape[second])
        for fixed in (first, second):
            for index in range(shape[fixed]):
                image = self._channels(slices, fixed, index)[None].to(device)
                share = share_of(self.reference_grid, self.acquired.grid, fixed, index) if self.reference_grid else None
                pred = applied(network, image, share) * self.unit
                if not torch.isfinite(pred).all():
                    raise Fault("network", "its output is not finite", "check the intensities of both images and the model")
                self._put(result.volume, fixed, index, self._plane(result.volume, fixed, index) + pred / 2)
                reporter.advance(1)
            result.release()
        across = self.acquired.kept.axes[self.acquired.through_plane]
        steps = STEPS_OF_OVERLAP if isinstance(across, Slices) and across.thickness > 1.01 * across.spacing else STEPS
        for index in range(shape[first]):
            measured = self._plane(slices, first, index).double()
            projected = self._of_plane(first).project(self._plane(result.volume, first, index).double(), measured, TOLERANCE, steps)
            self._put(result.volume, first, index, projected.float())
        result.release()
        return result

    def residual(self, result: NDArray[np.float32], slices: NDArray[np.float32]) -> float:
        """Relative L2 distance between what the thick slices would show of the result and `slices`."""
        first = self.acquired.axes[1]
        off = norm = 0.0
        for index in range(result.shape[first]):
            measured = self._plane(slices, first, index).double()
            off += float((self._of_plane(first).simulate(self._plane(result, first, index).double()) - measured).square().sum())
            norm += float(measured.square().sum())
        return float((off / max(norm, np.finfo(float).tiny)) ** 0.5)

    def plane(self, slices: NDArray[np.float32], result: NDArray[np.float32], fixed: int, index: int) -> tuple[Tensor, Tensor, Acquisition]:
        """The network's input (3, H, W) for a plane, the result on it (H, W) in the same unit, and what the slices kept of it."""
        return self._channels(slices, fixed, index), self._plane(result, fixed, index) / self.unit, self._of_plane(fixed)

    def views(self, result: NDArray[np.float32], fixed: int, index: int) -> tuple[NDArray[np.float32], ...]:
        """A plane of thick slices interpolated, of the reference and of the result, each (X, Y, Z) with one index along `fixed`."""
        ours = self._plane(result, fixed, index)
        kept = self._of_plane(fixed)
        other = self._plane(self.reference.volume, fixed, index) if self.reference else torch.zeros_like(ours)
        whole = [np.empty([1 if axis == fixed else size for axis, size in enumerate(result.shape)], np.float32) for _ in range(3)]
        low = kept.interpolate(kept.simulate(ours), ours.shape)  # the result's slices are the target's
        for part, plane in zip(whole, (low, other, ours), strict=True):
            self._put(part, fixed, 0, plane)
        return tuple(whole)

    def _channels(self, slices: NDArray[np.float32], fixed: int, index: int) -> Tensor:
        """(3, H, W), the network's input for a plane."""
        measured = self._plane(slices, fixed, index) / self.unit
        if self.reference is None:
            reference = measured.new_zeros([self.acquired.grid.shape[axis] for axis in self._axes(fixed)])
        else:
            reference = self._plane(self.reference.volume, fixed, index) / self.reference_unit
        return stack_channels(measured, reference, self._of_plane(fixed))

    def _axes(self, fixed: int) -> tuple[int, int]:
        """Array axes of a plane in the network's order."""
        _, height, width = self.acquired.grid.slice_axes(fixed)
        return height, width

    def _of_plane(self, fixed: int) -> Acquisition:
        return self.profile.select(self._axes(fixed))

    def _plane(self, volume: NDArray[np.float32], fixed: int, index: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(volume.transpose(fixed, *self._axes(fixed))[index]))

    def _put(self, volume: NDArray[np.float32], fixed: int, index: int, plane: Tensor) -> None:
        volume.transpose(fixed, *self._axes(fixed))[index] = plane.numpy()


def share_of(reference: Grid, grid: Grid, fixed: int, index: int) -> Tensor | None:
    """(H, W), the share in the result that the network's output with the reference has on a plane: 0 outside what the reference covers.

    Args:
        reference: grid of the placed reference.
        grid: of the result.
        fixed: array axis across the planes.
        index: of the plane.

    Returns:
        None where the reference covers the whole plane.
    """
    start = (index if fixed == 0 else 0, index if fixed == 1 else 0, index if fixed == 2 else 0)
    shape = [1 if axis == fixed else size for axis, size in enumerate(grid.shape)]
    inside = covered(reference, grid.cropped(start, (shape[0], shape[1], shape[2])))
    mask = in_plane_last(torch.from_numpy(inside), grid.slice_axes(fixed))[0].float()
    if mask.all():
        return None
    size = 2 * BORDER + 1
    padded = functional.pad(mask[None, None], (2 * BORDER,) * 4, mode="replicate")
    eroded = -functional.max_pool2d(-padded, size, stride=1)
    return functional.avg_pool2d(eroded, size, stride=1)[0, 0]


def applied(network: nn.Module, image: Tensor, share: Tensor | None) -> Tensor:
    """(H, W), the network's output for (1, 3, H, W), which is overwritten; of the target alone where `share_of` a reference is 0."""
    with torch.inference_mode():
        pred: Tensor = network(image)[0, 0].cpu()
        if share is None:
            return pred
        image[:, 1:] = 0
        alone: Tensor = network(image)[0, 0].cpu()
        return alone + share * (pred - alone)


def on_result_grid(reference: Volume, acquired: Acquired, folder: Path) -> Scratch:
    """A placed reference on the grid of the result."""
    whole = Scratch(acquired.grid.shape, acquired.through_plane, folder)
    for _ in resample_into(reference, acquired.grid, whole.volume):
        whole.release()
    return whole
