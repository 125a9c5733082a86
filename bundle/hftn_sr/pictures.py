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

from hftn_sr._version import NOTICE
from hftn_sr.volumes.volume import Volume

__all__ = ["Panel", "busiest_slice", "comparison", "picture", "shown"]

BRIGHT = 99.8  # percentile drawn white


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


def comparison(truth: Volume, zero_filled: Volume, result: Volume, reference: Volume, through_plane: int, heading: str) -> bytes:
    """PNG of zero-filling, result and truth with both errors on one scale, and of the reference; all four volumes on one grid."""
    index = busiest_slice(truth, through_plane)
    low, ours, true, other = (shown(volume, through_plane, index) for volume in (zero_filled, result, truth, reference))
    limits, limits_other = ((0.0, float(np.percentile(view, BRIGHT))) for view in (true, other))
    strong = float(np.percentile(np.abs(low - true), 99))
    panels = [
        Panel("target, zero-filled", low, limits),
        Panel("super-resolved", ours, limits),
        Panel("truth", true, limits),
        Panel("error of zero-filling", low - true, (-strong, strong), signed=True),
        Panel("error of super-resolution", ours - true, (-strong, strong), signed=True),
        Panel("reference", other, limits_other),
    ]
    return picture(panels, f"{heading}, slice {index}; both error maps on one scale", columns=3)


def picture(panels: Sequence[Panel], heading: str, columns: int | None = None) -> bytes:
    """PNG of the panels side by side, all of one size; the last signed one gets a colour bar."""
    columns = columns or len(panels)
    rows = -(-len(panels) // columns)
    height, width = panels[0].image.shape
    # In inches. Places are told: to find them takes longer than to draw.
    across, high = 3 * columns + 0.9, (3 * height / width + 0.3) * rows + 0.45
    figure = Figure(figsize=(across, high), dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=10, y=1 - 0.08 / high, va="top")
    last_signed = next((panel for panel in reversed(panels) if panel.signed), None)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        bottom = high - 0.3 - (row + 1) * (3 * height / width + 0.3)
        axis = figure.add_axes(((3 * column + 0.04) / across, bottom / high, 2.92 / across, 3 * height / width / high))
        axis.set_axis_off()
        black, white = panel.limits
        drawn = axis.imshow(panel.image, cmap="RdBu_r" if panel.signed else "gray", vmin=black, vmax=white, interpolation="nearest")
        axis.set_title(panel.title, fontsize=9, y=1.0)  # told where, or all ticks are laid out to find out
        if panel is last_signed:
            beside = figure.add_axes(((3 * columns + 0.08) / across, 0.25, 0.08 / across, 0.5))
            figure.colorbar(drawn, cax=beside, label="intensity").ax.tick_params(labelsize=7)
    figure.text(0.995, 0.005, NOTICE, ha="right", va="bottom", fontsize=6, color="0.4")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()
