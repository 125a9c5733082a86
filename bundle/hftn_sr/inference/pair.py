"""From two files to the network's input and output, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hftn_sr.degradation import brightness_of, in_plane_last, stack_channels
from hftn_sr.errors import Fault, UsageFault, check_choice
from hftn_sr.inference.findings import (
    LOW_SIMILARITY,
    MIN_COVERAGE,
    alignment_record,
    choose_scale,
    interpolated_in_plane,
)
from hftn_sr.inference.reference import Misfit, Register, place_reference
from hftn_sr.kspace import Decomposition
from hftn_sr.volumes.nifti import ReadOptions
from hftn_sr.volumes.placement import paired_by_index, similarity
from hftn_sr.volumes.reading import is_fastmri, read_volume
from hftn_sr.volumes.resampling import coverage, resample_into
from hftn_sr.volumes.scratch import Scratch
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["PairBy", "PairOptions", "PreparedPair", "apply_network", "prepare_pair"]

PairBy = Literal["auto", "header", "index"]

INTERPOLATED = (
    "the target's outer k-space is empty: it was interpolated after the scan, its true resolution is lower than its grid; "
    "its k-space is not put back into the result"
)
SLICES_AT_ONCE = 1  # more bring nothing on a CPU and cost memory


@dataclass(frozen=True)
class PairOptions:
    """How two files become a pair.

    Args:
        scale: 2 or 4; None takes the one nearest to the ratio of in-plane voxel sizes.
        through_plane: the target's through-plane array axis 0, 1 or 2; None takes the one whose voxel size differs.
        reference_transform: ITK file that maps a target point to a reference point, before any registration.
        register: `rigid` moves the reference where that makes the pair more similar; `auto` does where it does not lie in place, and keeps
            that only if its edges then lie better; `none` does not.
        misfit: whether a reference that gains less than none, as that of another patient, is left out or used all the same.
        pair_by: `header` places the reference by the two headers, `index` puts slice i on slice i, see `paired_by_index`; `auto` is `index`
            for two fastMRI files, whose headers do not say where they lie, unless a transform is given.
        decomposition: how the reference is split, see `kspace.decompose`; must be the one that the network was trained with.
        read: how ambiguous files are read.
    """

    scale: int | None = None
    through_plane: int | None = None
    reference_transform: Path | None = None
    register: Register = "auto"
    misfit: Misfit = "leave-out"
    pair_by: PairBy = "auto"
    decomposition: Decomposition = "band"
    read: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Raises UsageFault."""
        check_choice("--register", self.register, get_args(Register))
        check_choice("--misfit", self.misfit, get_args(Misfit))
        check_choice("--through-plane", self.through_plane, (0, 1, 2, None))
        check_choice("--pair-by", self.pair_by, get_args(PairBy))
        if self.pair_by == "index" and self.reference_transform:
            raise UsageFault("--reference-transform", "does not go with --pair-by index", "--pair-by header, or leave one out")

    def by_index(self, target: Path, reference: Path) -> bool:
        """Whether these two files are paired by index."""
        positions_unknown = is_fastmri(target) and is_fastmri(reference) and not self.reference_transform
        return self.pair_by == "index" or (self.pair_by == "auto" and positions_unknown)


@dataclass(frozen=True)
class PreparedPair:
    """A pair on the high-resolution grid, ready for the network, slice by slice.

    Args:
        target: low-resolution, as read.
        on_grid: the reference on the grid in its own unit, (Z, Y, X); None where none is used, and the network gets zeros.
        unit: target intensity that counts as 1.
        reference_unit: that of the reference.
        grid: of the result, in the target's axis order.
        through_plane: the target's through-plane axis.
        reference_sha256: of the reference's file; None where there is none.
        scale: upscaling factor s.
        decomposition: how the reference is split.
        record: what the side file says of the pair.
        warnings: what the user must know.
    """

    target: Volume
    on_grid: Scratch | None
    unit: float
    reference_unit: float
    grid: Grid
    through_plane: int
    reference_sha256: str | None
    scale: int
    decomposition: Decomposition
    record: dict[str, Any]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        """Number of slices."""
        return self.grid.shape[self.through_plane]

    @property
    def axes(self) -> tuple[int, int, int]:
        """The array axes as the network sees them, see `Grid.slice_axes`."""
        return self.grid.slice_axes(self.through_plane)

    def measured(self, index: int) -> Tensor:
        """(h, w), a slice of the target, its brightness being 1."""
        return in_plane_last(torch.from_numpy(self.target.data), self.axes)[index] / self.unit

    def reference(self, index: int) -> Tensor:
        """(H, W), a slice of the reference in its own unit; zeros without one."""
        if self.on_grid is None:
            return torch.zeros([self.grid.shape[axis] for axis in self.axes[1:]])
        return in_plane_last(torch.from_numpy(self.on_grid.array.T), self.axes)[index]

    def slice(self, index: int) -> Tensor:
        """(3, H, W), what the network sees of a slice; intensities around 0 to 1."""
        return stack_channels(self.measured(index), self.reference(index) / self.reference_unit, self.scale, self.decomposition)

    @property
    def image(self) -> Tensor:
        """(3, H, W, D), what the network sees of all slices, through-plane last."""
        return torch.stack([self.slice(index) for index in range(len(self))], -1)


def prepare_pair(
    target_path: Path,
    reference_path: Path | None,
    options: PairOptions,
    folder: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> PreparedPair:
    """Read a low-resolution target and its reference, and place the reference on the target's high-resolution grid.

    Args:
        target_path: NIfTI or fastMRI .h5 file.
        reference_path: likewise; None for none, which needs `options.scale`.
        options: how the two become a pair.
        folder: where a reference too large for memory is put meanwhile; None for the system's folder for temporary files.
        tell: called with what takes long, before it begins.

    Raises:
        Fault: a file that cannot be used, or a pair that does not belong together.
    """
    target = read_volume(target_path, options.read)
    if reference_path is None:
        return _target_only(target, options)
    reference = read_volume(reference_path, options.read)
    if target.sha256 == reference.sha256 or np.array_equal(target.data, reference.data):
        raise Fault(reference_path, "is the same image as the target", "give another contrast of the same head as --reference")
    through_plane = target.grid.through_plane() if options.through_plane is None else options.through_plane
    scale, why = choose_scale(target, reference, through_plane, options.scale)
    by_index = options.by_index(target_path, reference_path)
    if by_index:
        target, reference = paired_by_index(target, reference, scale, through_plane)
    warnings = list(dict.fromkeys((*target.notes, *reference.notes)))
    if options.scale is None:
        warnings.append(f"scale {scale} chosen: {why}")
    temporary, grid = folder or Path(gettempdir()), target.grid.finer(scale, through_plane)
    placed = place_reference(target, reference, scale, through_plane, options, by_index, temporary, tell)
    reference = placed.volume
    share = coverage(reference.grid, grid)
    if share < MIN_COVERAGE:
        raise Fault(
            reference_path,
            f"covers {share:.0%} of the target, at least {MIN_COVERAGE:.0%} is needed",
            "check that both files belong to one patient and visit, or place it by --reference-transform or --register rigid",
        )
    alike = similarity(target, reference)
    warnings += _findings(target, reference, through_plane, grid, share, alike)
    warnings += placed.warnings
    size = int(np.prod(grid.shape, dtype=np.int64))
    on_grid = _on_grid(reference, grid, temporary) if placed.used else None
    record = {
        "scale": scale,
        "scale_chosen": why,
        "through_plane": through_plane,
        "interpolated_in_plane": INTERPOLATED in warnings,
        "coverage": round(share, 4),
        "voxels_without_reference": round((1 - share) * size) if placed.used else size,
        "similarity": {"measure": "normalised mutual information, 1 to 2", "value": round(alike, 4)},
        "alignment": alignment_record(placed.alignment, scale),
        "placement": {"by": "index" if by_index else "header", **placed.record},
    }
    return PreparedPair(
        target,
        on_grid,
        _unit(target.path, [target.data], target.data.size),
        _unit(reference_path, on_grid.parts(), size) if on_grid else 1.0,
        grid,
        through_plane,
        reference.sha256,
        scale,
        options.decomposition,
        record,
        tuple(warnings),
    )


def apply_network(
    network: nn.Module, pair: PreparedPair, device: torch.device | str, each: Callable[[int], None] | None = None
) -> Iterator[Tensor]:
    """The network on every slice, one after another.

    Args:
        network: takes (B, 3, H, W), gives (B, 1, H, W).
        pair: what to apply it to.
        device: where it runs.
        each: called with the number of slices just finished.

    Yields:
        (H, W) in the unit of pair.slice.
    """
    for start in range(0, len(pair), SLICES_AT_ONCE):
        image = torch.stack([pair.slice(index) for index in range(start, min(start + SLICES_AT_ONCE, len(pair)))])
        with torch.inference_mode():
            pred = network(image.to(device))[:, 0].cpu()
        if each:
            each(len(pred))
        yield from pred


def _target_only(target: Volume, options: PairOptions) -> PreparedPair:
    """Of a target without a reference."""
    through_plane = target.grid.through_plane() if options.through_plane is None else options.through_plane
    scale, why = choose_scale(target, None, through_plane, options.scale)
    grid = target.grid.finer(scale, through_plane)
    warnings = [*target.notes, "no reference was given: the result is made from the target alone, with less detail than a reference brings"]
    interpolated = interpolated_in_plane(target, through_plane)
    if interpolated:
        warnings.append(INTERPOLATED)
    record = {
        "scale": scale,
        "scale_chosen": why,
        "through_plane": through_plane,
        "interpolated_in_plane": interpolated,
        "coverage": 0.0,
        "voxels_without_reference": int(np.prod(grid.shape, dtype=np.int64)),
        "similarity": None,
        "alignment": None,
        "placement": None,
    }
    unit = _unit(target.path, [target.data], target.data.size)
    return PreparedPair(target, None, unit, 1.0, grid, through_plane, None, scale, options.decomposition, record, tuple(warnings))


def _on_grid(reference: Volume, grid: Grid, folder: Path) -> Scratch:
    on_grid = Scratch(grid.shape[::-1], folder)
    for _ in resample_into(reference, grid, on_grid.array.T):
        on_grid.release()
    return on_grid


def _findings(target: Volume, reference: Volume, through_plane: int, grid: Grid, share: float, alike: float) -> list[str]:
    found = []
    if share < 1 - 1e-6:
        found.append(f"the reference covers {share:.1%} of the target; elsewhere the result has no detail from it")
    if alike < LOW_SIMILARITY:
        found.append(
            f"target and reference are hardly alike (normalised mutual information {alike:.3f}, usually above {LOW_SIMILARITY}): "
            "check that they belong together, or try --register rigid"
        )
    if interpolated_in_plane(target, through_plane):
        found.append(INTERPOLATED)
    finest = float(reference.grid.spacing.min())
    wanted = float(np.delete(grid.spacing, through_plane).max())
    if finest > 1.5 * wanted:
        found.append(f"the reference's voxels ({finest:.2f} mm) are coarser than the result's ({wanted:.2f} mm); are the two swapped?")
    return found


def _unit(path: Path, parts: Iterable[NDArray[np.float32]], size: int) -> float:
    try:
        return brightness_of(parts, size)
    except ValueError:
        raise Fault(path, "no positive voxel where the target lies", "check the image and its position") from None
