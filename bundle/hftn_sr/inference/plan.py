"""What the headers of a pair, and the target's voxels, say of its run before the reference is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from hftn_sr.errors import NothingToDo
from hftn_sr.inference.acquired import Acquired, choose_acquired, slice_axis
from hftn_sr.inference.findings import check_distinct
from hftn_sr.inference.memory import Demand, check_room, demand
from hftn_sr.inference.options import PairOptions
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.reading import read_volume, read_volume_header
from hftn_sr.volumes.resampling import same_grid
from hftn_sr.volumes.scan_matrix import ScanMatrix, beside, scan_matrix
from hftn_sr.volumes.scratch import IN_MEMORY
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["Plan", "plan_pair"]

OF_SLICES = 8  # bytes for each voxel of the target's slices, in-plane resolution raised


@dataclass(frozen=True)
class Plan:
    """A pair before its reference is read.

    Args:
        target: low-resolution header.
        reference: high-resolution header; None for none.
        volume: the target's voxels.
        acquired: what its scan kept, and the grid of the result.
    """

    target: VolumeHeader
    reference: VolumeHeader | None
    volume: Volume
    acquired: Acquired

    @property
    def grid(self) -> Grid:
        """Grid of the result."""
        return self.acquired.grid

    @property
    def voxels(self) -> int:
        """Number of voxels of the result."""
        return math.prod(self.grid.shape)

    def demand(self, network: nn.Module, device: str, maps: bool = False) -> tuple[Demand, Demand]:
        """Memory without and with registration, see `memory.demand`; with `maps` also for the further volumes, made one after another."""
        y, z = sorted(self.grid.shape)[1:]
        size = (y, z) if self.acquired.thick else self.acquired.slice_size  # the largest plane, whichever it is
        needed = demand(self.target, self.reference, self.grid, size, network, device)
        extra = 0
        if maps:
            extra = (2 if self.acquired.thick else 1) * min(4 * self.voxels, IN_MEMORY)  # two families of planes
        if self.acquired.thick:
            extra += OF_SLICES * math.prod(self.acquired.in_slices().grid.shape)  # result and reference on the target's slices
        plain, registering = (replace(each, peak=each.peak + extra, more=each.more + extra) for each in needed)
        return plain, registering


def plan_pair(target_path: Path, reference_path: Path | None, options: PairOptions, scan: Mapping[str, Any] | None = None) -> Plan:
    """Read the headers of a pair and the target's voxels, and find out what was measured.

    Args:
        target_path: low-resolution file or DICOM folder.
        reference_path: high-resolution one; None for none.
        options: how the two become a pair.
        scan: how the target was measured, by the names of BIDS; None takes its header, or the JSON file beside it.

    Raises:
        Fault: a header cannot be used, or the two images do not make a pair.
        NothingToDo: there is nothing to gain.
    """
    target = read_volume_header(target_path, options.read)
    reference = read_volume_header(reference_path, options.read) if reference_path else None
    check_room(target)
    through_plane = slice_axis(target, options.through_plane)
    volume = read_volume(target_path, options.read)
    try:
        acquired = choose_acquired(target, volume, reference, through_plane, options, _scan(target, through_plane, scan))
    except NothingToDo:
        if reference_path and reference and same_grid(reference.grid, target.grid):  # perhaps one image twice, as only its voxels show
            check_distinct(volume, read_volume(reference_path, options.read, blank=True))
        raise
    return Plan(target, reference, volume, acquired)


def _scan(target: VolumeHeader, through_plane: int, scan: Mapping[str, Any] | None) -> ScanMatrix:
    if target.scan:
        return scan_matrix(target.scan, target.grid, through_plane, "AcquisitionMatrix")
    known = beside(target.path) if scan is None else scan
    return scan_matrix(known, target.grid, through_plane, "its side file")
