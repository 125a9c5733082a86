"""What a case will be, known from the headers of its files."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from hftn_sr.errors import Fault
from hftn_sr.inference.case import Case
from hftn_sr.inference.findings import choose_scale
from hftn_sr.inference.memory import Demand, demand
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.pair import prepare_pair
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.reading import read_volume_header
from hftn_sr.volumes.resampling import same_grid
from hftn_sr.volumes.volume import Grid

__all__ = ["Plan", "plan_case"]


@dataclass(frozen=True)
class Plan:
    """A case before any of its voxels is read.

    Args:
        target: low-resolution.
        reference: None where there is none.
        scale: upscaling factor s.
        grid: of the result.
        slice_size: of one slice of it, as the network sees it.
    """

    target: VolumeHeader
    reference: VolumeHeader | None
    scale: int
    grid: Grid
    slice_size: tuple[int, int]

    @property
    def voxels(self) -> int:
        """Of the result."""
        return math.prod(self.grid.shape)

    def demand(self, network: nn.Module, device: str) -> tuple[Demand, Demand]:
        """Memory for it without and with registration, see `memory.demand`."""
        return demand(self.target, self.reference, self.grid, self.slice_size, network, device)


def plan_case(case: Case, options: PairOptions) -> Plan:
    """Read the headers of a case.

    Raises:
        Fault: as `prepare_pair`, for what headers show.
    """
    chosen = case.pair_options(options)
    target = read_volume_header(case.target, chosen.read)
    reference = read_volume_header(case.reference, chosen.read) if case.reference else None
    through_plane = target.grid.through_plane() if chosen.through_plane is None else chosen.through_plane
    try:
        scale, _ = choose_scale(target, reference, through_plane, chosen.scale)
    except Fault:
        if reference and same_grid(reference.grid, target.grid):  # perhaps one image twice, which only its voxels tell
            prepare_pair(case.target, case.reference, chosen)
        raise
    grid = target.grid.finer(scale, through_plane)
    first, second = grid.slice_axes(through_plane)[1:]
    return Plan(target, reference, scale, grid, (grid.shape[first], grid.shape[second]))
