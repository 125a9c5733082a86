"""How close a prediction comes to the truth, on the voxels that both have."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hftn_sr.errors import SCALES, Fault, notes_among, warnings_among
from hftn_sr.scoring.metrics import CONVENTIONS, WINDOW, scores
from hftn_sr.volumes.resampling import ON_LATTICE, lattice_offset
from hftn_sr.volumes.simulation import zero_filled
from hftn_sr.volumes.volume import Volume

__all__ = ["common_part", "evaluate_volumes", "zero_filled_like"]


def common_part(prediction: Volume, truth: Volume) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The voxels that both volumes have, of two grids of which one is an exact crop of the other's lattice.

    Raises:
        Fault: the grids do not coincide, or share nothing.
    """
    offset, apart = lattice_offset(truth.grid, prediction.grid)
    if apart > ON_LATTICE:
        raise Fault(
            prediction.path,
            f"its grid does not coincide with that of {truth.path} (up to {apart:.3g} voxels apart)",
            "compare volumes of one grid; nothing is resampled, since that would change the figures",
        )
    start, stop = np.maximum(offset, 0), np.minimum(np.add(offset, prediction.data.shape), truth.data.shape)
    if (stop <= start).any():
        raise Fault(prediction.path, f"shares no voxel with {truth.path}", "compare volumes of one subject")
    part = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
    own = tuple(slice(low, high) for low, high in zip(start - offset, stop - offset, strict=True))
    return prediction.data[own], truth.data[part]


def zero_filled_like(target: Volume, prediction: Volume) -> Volume:
    """The target with zeros outside its measured k-space, on the grid of the prediction that was made from it.

    Raises:
        Fault: the prediction's grid is not the target's made 2 or 4 times finer in plane.
    """
    for scale, through_plane in product(SCALES, range(3)):
        offset, apart = lattice_offset(prediction.grid, target.grid.finer(scale, through_plane))
        same = target.grid.finer(scale, through_plane).shape == prediction.grid.shape and not any(offset)
        if same and apart <= ON_LATTICE:
            return zero_filled(target, scale, through_plane)
    finding = f"its grid made 2 or 4 times finer in plane is not that of {prediction.path}"
    raise Fault(target.path, finding, "give the low-resolution image that the prediction was made from")


def evaluate_volumes(prediction: Volume, truth: Volume, through_plane: int | None = None) -> dict[str, Any]:
    """PSNR, SSIM and NMSE by protocol `corrected`, with their conventions and what was compared.

    Args:
        prediction: on the truth's grid or a crop of it.
        truth: measured volume.
        through_plane: the axis along which SSIM takes slices; None for the truth's own.
    """
    found = (*prediction.notes, *truth.notes)
    axis = truth.grid.through_plane() if through_plane is None else through_plane
    ours, theirs = (torch.from_numpy(np.moveaxis(part, axis, -1).copy()) for part in common_part(prediction, truth))
    if min(theirs.shape[:2]) < WINDOW or theirs.max() <= 0:
        raise Fault(truth.path, f"cannot be scored (slices of {theirs.shape[0]} x {theirs.shape[1]}, maximum {float(theirs.max()):g})",
                    f"give slices of at least {WINDOW} x {WINDOW} with positive signal")  # fmt: skip
    return {
        "protocol": "corrected",
        **scores(ours, theirs),
        "conventions": CONVENTIONS,
        "warnings": list(warnings_among(found)),
        "notes": list(notes_among(found)),
        "voxels_compared": list(theirs.shape),
        "prediction": {"file": Path(prediction.path).name, "sha256": prediction.sha256},
        "truth": {"file": Path(truth.path).name, "sha256": truth.sha256},
    }
