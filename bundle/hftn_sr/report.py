"""Pictures that a person can judge a result by."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hftn_sr.volumes.volume import Volume

__all__ = ["NOTICE", "Panel", "busiest_slice", "picture", "shown"]

NOTICE = "Research use only. Not for clinical use."


@dataclass(frozen=True)
class Panel:
    """One image of a picture.

    Args:
        title: above it.
        image: as `shown` gives it.
        limits: intensities drawn black and white.
        signed: blue below zero, red above, white at zero.
    """

    title: str
    image: NDArray[np.float32]
    limits: tuple[float, float]
    signed: bool = False


def busiest_slice(volume: Volume, through_plane: int) -> int:
    """Index along the through-plane axis of the slice with the most signal."""
    return int(np.moveaxis(volume.data, through_plane, 0).clip(0).mean(axis=(1, 2)).argmax())


def shown(volume: Volume, through_plane: int, index: int) -> NDArray[np.float32]:
    """One slice (rows, columns) as radiologists look at it: anterior or head up, the patient's right on the left."""
    slices = volume.data[tuple(slice(index, index + 1) if axis == through_plane else slice(None) for axis in range(3))]
    to_ras = nib.io_orientation(volume.affine)
    upright = nib.apply_orientation(slices, to_ras)
    through_ras = int(to_ras[through_plane, 0])
    flat = upright.take(0, axis=through_ras)
    if through_ras != 0:  # the first axis left is right-left
        flat = flat[::-1]
    rows: NDArray[np.float32] = flat.T[::-1]
    return rows


def picture(panels: Sequence[Panel], heading: str, columns: int | None = None) -> bytes:
    """PNG of the panels side by side; signed panels get a colour bar."""
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    height, width = panels[0].image.shape
    figure = Figure(figsize=(3.2 * columns, 3.2 * rows * height / width + 0.5 * rows + 0.4), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels, strict=False):
        low, high = panel.limits
        drawn = axis.imshow(panel.image, cmap="RdBu_r" if panel.signed else "gray", vmin=low, vmax=high, interpolation="nearest")
        axis.set_title(panel.title, fontsize=9)
        if panel.signed:
            figure.colorbar(drawn, ax=axis, shrink=0.7).ax.tick_params(labelsize=7)
    for axis in axes:
        axis.set_axis_off()
    figure.text(0.995, 0.005, NOTICE, ha="right", va="bottom", fontsize=6, color="0.4")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
