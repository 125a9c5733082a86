"""From two files to the network's input, and from its output back to a volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.inferers import SliceInferer
from torch import Tensor, nn

from hftn_sr.degradation import brightness, in_plane_first, in_plane_last, stack_channels
from hftn_sr.errors import Fault, check_choice
from hftn_sr.inference.findings import LOW_SIMILARITY, MIN_COVERAGE, choose_scale, interpolated_in_plane
from hftn_sr.kspace import Decomposition, band_residual, replace_band
from hftn_sr.volumes.nifti import ReadOptions, read_nifti
from hftn_sr.volumes.placement import read_transform, similarity
from hftn_sr.volumes.registration import register_rigid
from hftn_sr.volumes.resampling import covered, resample
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["PairOptions", "PreparedPair", "apply_network", "prepare_pair", "restore_volume"]

SLICES_AT_ONCE = 1  # more bring nothing on a CPU and cost memory


@dataclass(frozen=True)
class PairOptions:
    """How two files become a pair.

    Args:
        scale: 2 or 4; None takes the one nearest to the ratio of in-plane voxel sizes.
        through_plane: the target's through-plane array axis 0, 1 or 2; None takes the one whose voxel size differs.
        reference_transform: ITK file that maps a target point to a reference point, before any registration.
        register: `rigid` moves the reference where that makes the pair more similar.
        decomposition: how the reference is split, see `kspace.decompose`; must be the one that the network was trained with.
        read: how ambiguous files are read.
    """

    scale: int | None = None
    through_plane: int | None = None
    reference_transform: Path | None = None
    register: Literal["none", "rigid"] = "none"
    decomposition: Decomposition = "band"
    read: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Raises UsageFault."""
        check_choice("--register", self.register, ("none", "rigid"))
        check_choice("--through-plane", self.through_plane, (0, 1, 2, None))


@dataclass(frozen=True)
class PreparedPair:
    """A pair on the high-resolution grid, ready for the network.

    Args:
        image: (3, H, W, D), see the network's input; intensities around 0 to 1, through-plane last.
        measured: (D, h, w), the low-resolution target in the same unit.
        reference: (D, H, W), the reference on the grid in its own unit.
        unit: target intensity that counts as 1.
        grid: of the result, in the target's axis order.
        through_plane: the target's through-plane axis.
        target: as read.
        reference_sha256: of the reference's file.
        scale: upscaling factor s.
        record: what the side file says of the pair.
        warnings: what the user must know.
    """

    image: Tensor
    measured: Tensor
    reference: Tensor
    unit: float
    grid: Grid
    through_plane: int
    target: Volume
    reference_sha256: str
    scale: int
    record: dict[str, Any]
    warnings: tuple[str, ...]


def prepare_pair(target_path: Path, reference_path: Path, options: PairOptions) -> PreparedPair:
    """Read a low-resolution target and its reference, place the reference on the target's high-resolution grid and stack both.

    Raises:
        Fault: a file that cannot be used, or a pair that does not belong together.
    """
    target, reference = read_nifti(target_path, options.read), read_nifti(reference_path, options.read)
    if target.sha256 == reference.sha256 or np.array_equal(target.data, reference.data):
        raise Fault(reference_path, "is the same image as the target", "give another contrast of the same head as --reference")
    warnings = [*target.notes, *reference.notes]
    through_plane = target.grid.through_plane() if options.through_plane is None else options.through_plane
    scale, why = choose_scale(target, reference, through_plane, options.scale)
    if options.scale is None:
        warnings.append(f"scale {scale} chosen: {why}")
    reference, placement = _placed(target, reference, options)
    grid = target.grid.finer(scale, through_plane)
    share = float(covered(reference.grid, grid).mean())
    if share < MIN_COVERAGE:
        raise Fault(
            reference_path,
            f"covers {share:.0%} of the target, at least {MIN_COVERAGE:.0%} is needed",
            "check that both files belong to one patient and visit, or place it by --reference-transform or --register rigid",
        )
    on_grid = resample(reference, grid)
    alike = similarity(target, reference)
    warnings += _findings(target, reference, through_plane, grid, share, alike)
    axes = grid.slice_axes(through_plane)
    low, high = (in_plane_last(torch.from_numpy(data), axes) for data in (target.data, on_grid))
    unit = _unit(target.path, target.data)
    image = stack_channels(low / unit, high / _unit(reference_path, on_grid), scale, options.decomposition)
    record = {
        "scale": scale,
        "scale_chosen": why,
        "through_plane": through_plane,
        "coverage": round(share, 4),
        "voxels_without_reference": round((1 - share) * on_grid.size),
        "similarity": {"measure": "normalised mutual information, 1 to 2", "value": round(alike, 4)},
        "placement": placement,
    }
    return PreparedPair(
        image.movedim(1, -1).contiguous(),
        low / unit,
        high,
        unit,
        grid,
        through_plane,
        target,
        reference.sha256,
        scale,
        record,
        tuple(warnings),
    )


def apply_network(network: nn.Module, pair: PreparedPair, device: torch.device | str, each: Callable[[int], None] | None = None) -> Tensor:
    """The network on every slice.

    Args:
        network: takes (B, 3, H, W), gives (B, 1, H, W).
        pair: what to apply it to.
        device: where it runs.
        each: called with the number of slices just finished.

    Returns:
        (H, W, D) in the unit of pair.image.
    """

    def counted(slices: Tensor) -> Tensor:
        result: Tensor = network(slices)
        if each:
            each(slices.shape[0])
        return result

    inferer = SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=SLICES_AT_ONCE, sw_device=device, device="cpu")
    with torch.inference_mode():
        pred = inferer(pair.image[None], counted)
    result: Tensor = torch.as_tensor(pred)[0, 0]
    return result


def restore_volume(pair: PreparedPair, pred: Tensor, data_consistency: bool = False) -> tuple[Volume, float]:
    """The network's output as a volume on the high-resolution grid of the target, in the target's intensity.

    Args:
        pair: what the network was given.
        pred: (H, W, D), what it gave.
        data_consistency: put the measured band of k-space back.

    Returns:
        the volume, and the relative L2 distance between its low band and the target.

    Raises:
        Fault: the network gave numbers that are not finite.
    """
    slices = pred.movedim(-1, 0).double()
    if not torch.isfinite(slices).all():
        raise Fault(pair.target.path, "the network's output is not finite", "check the intensities of both images and the model")
    measured = pair.measured.double()
    if data_consistency:
        slices = replace_band(slices, measured, pair.scale)
    stored = (slices * pair.unit).float()
    residual = band_residual(stored.double() / pair.unit, measured, pair.scale)
    return pair.target.on(pair.grid, in_plane_first(stored, pair.grid.slice_axes(pair.through_plane)).numpy()), residual


def _placed(target: Volume, reference: Volume, options: PairOptions) -> tuple[Volume, dict[str, Any]]:
    record: dict[str, Any] = {"transform": None, "register": options.register}
    if options.reference_transform:
        reference = reference.moved(read_transform(options.reference_transform))
        record["transform"] = options.reference_transform.name
    if options.register == "rigid":
        found = register_rigid(target, reference)
        record["registration"] = {
            "kept": found.kept,
            "similarity_before": round(found.similarity_before, 4),
            "similarity_after": round(found.similarity_after, 4),
            "target_to_reference_ras": np.round(found.matrix, 6).tolist(),
        }
        reference = reference.moved(found.matrix) if found.kept else reference
    return reference, record


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
        found.append("the target's outer k-space is empty: it was interpolated after the scan, its true resolution is lower than its grid")
    finest = float(reference.grid.spacing.min())
    wanted = float(np.delete(grid.spacing, through_plane).max())
    if finest > 1.5 * wanted:
        found.append(f"the reference's voxels ({finest:.2f} mm) are coarser than the result's ({wanted:.2f} mm); are the two swapped?")
    return found


def _unit(path: Path, data: Any) -> float:
    try:
        return brightness(data)
    except ValueError:
        raise Fault(path, "no positive voxel where the target lies", "check the image and its position") from None
