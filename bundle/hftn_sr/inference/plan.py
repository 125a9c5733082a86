"""What the headers of a pair say of its run, before any voxel is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hftn_sr.errors import Fault
from hftn_sr.inference.findings import check_distinct, choose_scale
from hftn_sr.inference.memory import Demand, demand
from hftn_sr.inference.options import PairOptions
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.reading import read_volume, read_volume_header
from hftn_sr.volumes.resampling import same_grid
from hftn_sr.volumes.volume import Grid

__all__ = ["Plan", "plan_pair"]


@dataclass(frozen=True)
class Plan:
    """A pair before any of its voxels is read.

    Args:
        target: low-resolution header.
        reference: high-resolution header; None for none.
        through_plane: the target's through-plane array axis.
        scale: upscaling factor s.
        scale_chosen: reason for the scale, in words.
        grid: grid of the result.
    """

    target: VolumeHeader
    reference: VolumeHeader | None
    through_plane: int
    scale: int
    scale_chosen: str
    grid: Grid

    @property
    def voxels(self) -> int:
        """Number of voxels of the result."""
        return math.prod(self.grid.shape)

    @property
    def slice_size(self) -> tuple[int, int]:
        """(H, W) of a slice of the result, as the network sees it."""
        first, second = self.grid.slice_axes(self.through_plane)[1:]
        return self.grid.shape[first], self.grid.shape[second]

    def demand(self, network: nn.Module, device: str) -> tuple[Demand, Demand]:
        """Memory without and with registration, see `memory.demand`."""
        return demand(self.target, self.reference, self.grid, self.slice_size, network, device)


def plan_pair(target_path: Path, reference_path: Path | None, options: PairOptions) -> Plan:
    """Read the headers of a pair and choose its scale.

    Args:
        target_path: low-resolution file or DICOM folder.
        reference_path: high-resolution one; None for none.
        options: how the two become a pair.

    Raises:
        Fault: a header cannot be used, or the two images do not make a pair.
    """
    target = read_volume_header(target_path, options.read)
    reference = read_volume_header(reference_path, options.read) if reference_path else None
    through_plane = target.grid.through_plane() if options.through_plane is None else options.through_plane
    try:
        scale, why = choose_scale(target, reference, through_plane, options.scale)
    except Fault:
        if reference_path and reference and same_grid(reference.grid, target.grid):  # perhaps one image twice, as only its voxels show
            check_distinct(read_volume(target_path, options.read), read_volume(reference_path, options.read, blank=True))
        raise
    return Plan(target, reference, through_plane, scale, why, target.grid.finer(scale, through_plane))
