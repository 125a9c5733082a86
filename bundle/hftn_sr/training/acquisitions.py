"""Losses of resolution of a training for any acquisition, and those on which it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from hftn_sr.acquisition import Acquisition, Axis, Full, Profile, Slices

__all__ = ["VALIDATED", "in_kspace", "thick_slices"]


def in_kspace(rows: float, columns: float, shape: Sequence[int]) -> Acquisition:
    """Factors `rows` and `columns` less k-space along the two axes of slices of `shape`; 1 for an axis that keeps all."""
    return Acquisition.from_scale((rows, columns), shape)


def thick_slices(
    axis: int, factor: float, shape: Sequence[int], thickness: float = 1.0, profile: Profile = "gaussian", across: Axis | None = None
) -> Acquisition:
    """About a `factor` less samples along one in-plane axis, as a thick-slice scan has them.

    Args:
        axis: 0 for rows, 1 for columns.
        factor: voxels from one thick slice to the next; rounded so that whole slices cover the field of view.
        shape: sizes H, W.
        thickness: of a slice, as a share of that spacing.
        profile: see `Slices`.
        across: what is kept of the other axis; None for all.
    """
    spacing = shape[axis] / max(round(shape[axis] / factor), 1)
    axes = [Slices(thickness * spacing, spacing, profile), across or Full()]
    return Acquisition(tuple(axes if axis == 0 else reversed(axes)))


# What the target keeps, by name, for slices of some shape; rows come first.
VALIDATED: Mapping[str, Callable[[Sequence[int]], Acquisition]] = {
    "x2": partial(in_kspace, 2, 2),
    "x4": partial(in_kspace, 4, 4),
    "x3": partial(in_kspace, 3, 3),
    "x1.6": partial(in_kspace, 1.6, 1.6),
    "1x2": partial(in_kspace, 1, 2),
    "2x1": partial(in_kspace, 2, 1),
    "1x4": partial(in_kspace, 1, 4),
    "2x4": partial(in_kspace, 2, 4),
    "slices_4x1": partial(thick_slices, 0, 4),
    "slices_1x4": partial(thick_slices, 1, 4),
    "slices_6x1": partial(thick_slices, 0, 6),
    "slices_1x6": partial(thick_slices, 1, 6),
}
