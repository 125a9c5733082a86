"""Pictures that a person can judge a result by."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hftn_sr._version import NOTICE
from hftn_sr.volumes.volume import Volume

__all__ = [
    "BRIGHT", "CHANGE", "ERROR", "MARK", "STRONG", "Panel", "caption", "change",
    "comparison", "headline", "middle_slice", "percent", "picture", "shown", "white",
]  # fmt: skip

View = NDArray[np.float32]
Box = tuple[slice, slice]

BRIGHT = 99.8  # percentile drawn white
STRONG = 5.0  # percent of the range drawn in full colour, in every picture
# Blue and orange are told apart with every colour vision deficiency. Black at zero fits the images beside it, on light and dark pages.
CHANGE = LinearSegmentedColormap.from_list("change", ["#6cc4ff", "#1766ad", "#000000", "#ad5c0b", "#ffb14d"])
# Dark at zero, ever lighter, and told apart with every colour vision deficiency (matplotlib's inferno, which report.css repeats).
ERROR = colormaps["inferno"]
GROUND, INK, MARK = "#0d0f12", "#f1f3f5", "#ffd43b"
TISSUE = 0.1  # share of white from which a pixel counts as tissue
MARGIN = 4  # pixels around the head
ZOOM = 4  # the head is so many times as wide as an inset
COLUMN, GAP, BAR = 3.0, 0.06, 1.05  # inches: width of a panel, between panels, of the colour bar with its labels
HEADING, LINE, FOOT = 0.4, 0.24, 0.22  # inches: heights of the heading, a line of a title, the notice


@dataclass(frozen=True)
class Panel:
    """One image of a picture.

    Args:
        title: above it, of one or more lines.
        image: as `shown` gives it.
        limits: intensities drawn black and white; percent in full blue and full orange of a signed one.
        signed: blue below zero, orange above, black at zero.
        box: part to outline.
    """

    title: str
    image: View
    limits: tuple[float, float]
    signed: bool = False
    box: Box | None = None


def white(view: NDArray[np.float32]) -> float:
    """Intensity drawn white, above zero."""
    return max(float(np.percentile(view, BRIGHT)), 1e-30)


def percent(difference: View, peak: float) -> View:
    """A difference of intensities in percent of the range, from 0 to `peak`."""
    return np.asarray(difference * (100 / max(peak, 1e-30)), dtype=np.float32)


def change(title: str, difference: View, peak: float) -> Panel:
    """Panel of a difference in percent of the range, on the scale of all pictures."""
    return Panel(title, percent(difference, peak), (-STRONG, STRONG), signed=True)


def caption(scores: Mapping[str, Any]) -> str:
    """Scores of an image as `evaluate_volumes` gives them, in a line."""
    return f"PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.3f}"


def middle_slice(volume: Volume, through_plane: int) -> int:
    """Index of the middle slice."""
    return int(volume.data.shape[through_plane]) // 2


def shown(volume: Volume, through_plane: int, index: int) -> View:
    """One slice (rows, columns) as radiologists look at it: anterior or head up, the patient's right on the left."""
    slices = volume.data[tuple(slice(index, index + 1) if axis == through_plane else slice(None) for axis in range(3))]
    to_ras = nib.io_orientation(volume.affine)
    upright = nib.apply_orientation(slices, to_ras)
    through_ras = int(to_ras[through_plane, 0])
    flat = upright.take(0, axis=through_ras)
    if through_ras != 0:  # the first axis left is right-left
        flat = flat[::-1]
    rows: View = flat.T[::-1]
    return rows


def comparison(
    truth: Volume,
    zero_filled: Volume,
    result: Volume,
    reference: Volume,
    through_plane: int,
    heading: str,
    scores: Sequence[str] = ("", ""),
) -> bytes:
    """PNG of `headline` with both errors and the reference below.

    Args:
        truth: high-resolution image, on whose grid the others lie.
        zero_filled: what super-resolution started from.
        result: super-resolved.
        reference: other contrast.
        through_plane: the array axis along which slices lie.
        heading: above the picture.
        scores: captions of zero_filled and result.
    """
    low, ours, true, other = _head(truth, through_plane, zero_filled, result, truth, reference)
    peak = float(truth.data.max())
    panels = [
        *_rows(low, ours, true, scores),
        change("error of zero-filling", low - true, peak),
        change("error of super-resolution", ours - true, peak),
        Panel("reference", other, (0.0, white(other))),
    ]
    place = f"slice {middle_slice(truth, through_plane) + 1} of {truth.data.shape[through_plane]}"
    return picture(panels, f"{heading}, {place}", columns=3, unit="% of the truth's maximum (PSNR's peak)")


def headline(
    truth: Volume, zero_filled: Volume, result: Volume, through_plane: int, heading: str, scores: Sequence[str], dpi: int = 160
) -> bytes:
    """PNG of zero-filling, result and truth, and below each the part in which the result comes nearest to the truth.

    Args:
        truth: high-resolution image, on whose grid the others lie.
        zero_filled: what super-resolution started from.
        result: super-resolved.
        through_plane: the array axis along which slices lie.
        heading: above the picture.
        scores: captions of zero_filled and result.
        dpi: pixels an inch; the picture is some 9 inches wide.
    """
    low, ours, true = _head(truth, through_plane, zero_filled, result, truth)
    return picture(_rows(low, ours, true, scores), heading, columns=3, dpi=dpi)


def _head(truth: Volume, through_plane: int, *volumes: Volume) -> list[View]:
    """The middle slices of volumes, cut to the head in the truth."""
    index = middle_slice(truth, through_plane)
    true = shown(truth, through_plane, index)
    tissue = true > TISSUE * white(true)
    box = []
    for axis in (1, 0):
        inside = np.flatnonzero(tissue.mean(axis=axis) > 0.01)
        ends = (int(inside[0]), int(inside[-1])) if inside.size else (0, true.shape[1 - axis] - 1)
        box.append(slice(max(ends[0] - MARGIN, 0), ends[1] + MARGIN + 1))
    return [shown(volume, through_plane, index)[box[0], box[1]] for volume in volumes]


def _rows(low: View, ours: View, true: View, scores: Sequence[str]) -> list[Panel]:
    """Three whole images with their scores, and an inset of each."""
    limits, inset = (0.0, white(true)), _inset(low, ours, true)
    titles = [f"zero-filled\n{scores[0]}", f"super-resolved\n{scores[1]}", "truth\n"]
    if not any(scores):
        titles = [title.strip() for title in titles]
    views = (low, ours, true)
    whole = [Panel(title, view, limits, box=inset) for title, view in zip(titles, views, strict=True)]
    everything = (slice(0, inset[0].stop - inset[0].start), slice(0, inset[1].stop - inset[1].start))
    return whole + [Panel("", view[inset], limits, box=everything) for view in views]


def _inset(low: View, ours: View, true: View) -> Box:
    """The part, off the rim of the image, in which the squared error falls most from `low` to `ours`."""
    gain = (low - true) ** 2 - (ours - true) ** 2
    height, width = gain.shape
    side = max(min(height, width) // ZOOM, 1)
    size = (max(side * 3 // 4, 1), side)
    rim = (height // 6, width // 6)
    inner = gain[rim[0] : height - rim[0], rim[1] : width - rim[1]]
    sums = sliding_window_view(inner, size).sum(axis=(2, 3))
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    top, left = int(row) + rim[0], int(column) + rim[1]
    return slice(top, top + size[0]), slice(left, left + size[1])


def picture(panels: Sequence[Panel], heading: str, columns: int | None = None, unit: str = "", dpi: int = 110) -> bytes:
    """PNG of the panels side by side.

    Args:
        panels: those of one row have one size.
        heading: above them.
        columns: panels in a row; all if None.
        unit: of signed panels, beside their colour bar.
        dpi: pixels an inch; a panel is 3 inches wide.
    """
    columns = columns or len(panels)
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    # In inches. Places are given: to find them takes longer than to draw.
    heights = [COLUMN * row[0].image.shape[0] / row[0].image.shape[1] for row in rows]
    titles = [max(panel.title.count("\n") + bool(panel.title) for panel in row) * LINE + GAP for row in rows]
    signed = any(panel.signed for panel in panels)
    across, high = COLUMN * columns + GAP * (columns + 1) + BAR * signed, HEADING + sum(heights) + sum(titles) + FOOT
    figure = Figure(figsize=(across, high), dpi=dpi, facecolor=GROUND)
    FigureCanvasAgg(figure)
    figure.text(0.5, 1 - 0.1 / high, heading, ha="center", va="top", fontsize=13, color=INK)
    top = high - HEADING
    for row, height, title in zip(rows, heights, titles, strict=True):
        top -= title
        for column, panel in enumerate(row):
            left = GAP + (COLUMN + GAP) * column
            axis = figure.add_axes((left / across, (top - height) / high, COLUMN / across, height / high))
            _draw(panel, axis)
            figure.text((left + COLUMN / 2) / across, (top + 0.06) / high, panel.title, ha="center", va="bottom", fontsize=12, color=INK)
        top -= height
    if signed:
        beside = figure.add_axes(((across - BAR + 0.06) / across, 0.2, 0.12 / across, 0.6))
        _bar(figure, beside, unit)
    figure.text(1 - GAP / across, 0.05 / high, NOTICE, ha="right", va="bottom", fontsize=8, color=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def _draw(panel: Panel, axis: Axes) -> None:
    axis.set_axis_off()
    axis.imshow(panel.image, cmap=CHANGE if panel.signed else "gray", norm=Normalize(*panel.limits), interpolation="bicubic", aspect="auto")
    if panel.box:
        rows, columns = panel.box
        corner = (columns.start - 0.5, rows.start - 0.5)
        axis.add_patch(Rectangle(corner, columns.stop - columns.start, rows.stop - rows.start, fill=False, edgecolor=MARK, linewidth=1.5))


def _bar(figure: Figure, axis: Axes, unit: str) -> None:
    bar = figure.colorbar(ScalarMappable(Normalize(-STRONG, STRONG), CHANGE), cax=axis, ticks=np.linspace(-STRONG, STRONG, 5))
    bar.set_label(unit, color=INK, fontsize=12)
    bar.ax.tick_params(labelsize=11, colors=INK)
    bar.outline.set_edgecolor(INK)
