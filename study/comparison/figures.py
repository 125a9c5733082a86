"""Pictures of a comparison: reconstructions over error maps as in the paper's figures 5 to 7, and training curves."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from comparison.colours import method_colours
from comparison.recording import TRAINING, VALIDATION, read_table
from comparison.results import Comparison, Result
from comparison.rows import OUR_READING, title
from comparison.scoring import View
from hftn_sr._version import NOTICE
from hftn_sr.pictures import BRIGHT, CHANGE, STRONG, percent

__all__ = ["curves", "png", "reconstructions", "validation_gain"]

COLUMNS = 8  # of a picture: the truth and seven methods, as in the paper's figures
ROWS = ("image", "error", "detail")
LETTERS = 24  # of a line above an image, which is as wide as that
DETAIL = 4  # the detail shows a DETAIL-th of each side
POINTS = 60  # of a loss curve, each the mean of the iterations since the one before

Image = NDArray[np.float32]


@dataclass(frozen=True)
class _Block:
    """Up to seven methods at one scale, and what all of these are drawn with."""

    results: Sequence[Result]
    zero_filled: View
    peak: float

    @property
    def white(self) -> float:
        return float(np.percentile(self.zero_filled.truth, BRIGHT)) or 1.0

    @property
    def detail(self) -> tuple[slice, slice]:
        """Where zero-filling errs most."""
        error = np.abs(self.zero_filled.pred - self.zero_filled.truth)
        height, width = (size // DETAIL for size in error.shape)
        sums = np.pad(error, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
        row, column = np.unravel_index(int(windows.argmax()), windows.shape)
        return slice(int(row), int(row) + height), slice(int(column), int(column) + width)


def reconstructions(comparison: Comparison, scales: Sequence[int]) -> bytes:
    """PNG: for each scale what every method made of one slice, below it the error, below that a detail.

    Errors are in percent of the truth's maximum, on the scale of all pictures. The slice is the one with the most signal
    of the first case, the detail where zero-filling errs most. Only the first seed is shown.
    """
    zero_filled = {scale: result.scored.view for scale in scales if (result := comparison.find("zero_filling", scale, None))}
    peak = max(float(view.truth.max()) for view in zero_filled.values()) or 1.0
    blocks = [
        _Block(some, zero_filled[scale], peak)
        for scale in zero_filled
        for results in [[result for result in _first_seed(comparison) if result.row.scale == scale]]
        for some in (results[start : start + COLUMNS - 1] for start in range(0, len(results), COLUMNS - 1))
    ]
    columns = 1 + max(len(block.results) for block in blocks)
    some_view = blocks[0].zero_filled
    height, width = some_view.truth.T.shape
    size = (1.8 * columns + 0.9, (1.8 * height / width + 0.22) * len(ROWS) * len(blocks) + 0.6)
    figure = Figure(figsize=size, layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(ROWS) * len(blocks), columns, squeeze=False)
    drawn = [_draw(axes[len(ROWS) * i : len(ROWS) * (i + 1)], block) for i, block in enumerate(blocks)][-1]
    for axis in axes.ravel():
        axis.set_axis_off()
    figure.suptitle(f"{some_view.case}, slice {some_view.index + 1} of those scored; PSNR over all cases", fontsize=10)
    figure.colorbar(drawn, ax=list(axes.ravel()), shrink=0.5, aspect=50, label="error, % of the maximum").ax.tick_params(labelsize=7)
    return png(figure)


def curves(comparison: Comparison) -> bytes:
    """PNG: training loss and validation gain of every trained row against iterations, one column for each scale."""
    trained = [result for result in _first_seed(comparison) if result.row.trained]
    methods = list(dict.fromkeys(result.row.method for result in trained))
    colours = method_colours(methods)
    figure = Figure(figsize=(5.5 * len(comparison.scales) + 1.8, 6.5), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(comparison.scales), squeeze=False)
    for result in trained:
        column = list(comparison.scales).index(result.row.scale)
        style: dict[str, Any] = {"color": colours[result.row.method], "linewidth": 1.2, "label": title(result.row.method)}
        _curve(axes[0, column], *_loss(result), **style)
        _curve(axes[1, column], *validation_gain(result.folder, result.iterations), marker="o", markersize=3, **style)
    for column, scale in enumerate(comparison.scales):
        axes[0, column].set(title=f"x{scale}", ylabel="training loss (L1)", yscale="log" if trained else "linear")
        axes[1, column].set(xlabel="iterations", ylabel="validation gain, dB")
        axes[1, column].axhline(0, color="0.6", linewidth=0.8)
        low, high = axes[1, column].get_ylim()
        if low < -high < 0:  # one row that broke down for a while would press all others into one line
            axes[1, column].set(ylim=(-high / 2, high), ylabel="validation gain, dB, cut off below")
    if trained:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return png(figure)


def png(figure: Figure) -> bytes:
    """A figure with the notice that stands on all of them."""
    figure.text(0.995, 0.002, NOTICE, ha="right", va="bottom", fontsize=6, color="0.4")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: NDArray[np.object_], block: _Block) -> AxesImage:
    """Three rows of axes; returns an error map, for the colour bar."""
    view, detail, limits = block.zero_filled, block.detail, (0.0, block.white)
    scale = block.results[0].row.scale
    _show(axes[0, 0], view.truth, limits, f"x{scale}: truth", detail)
    low, high = np.percentile(view.reference, (100 - BRIGHT, BRIGHT))  # it has a unit of its own, in which zero may be anywhere
    _show(axes[1, 0], view.reference, (float(low), float(high)), "reference")
    _show(axes[2, 0], view.truth[detail], limits, "detail of the truth")
    for column, result in enumerate(block.results, 1):
        own, name = result.scored.view, f"{_heading(result.row.method)}\n{result.means()['psnr'].value:.2f} dB"
        _show(axes[0, column], own.pred, limits, name, detail)
        drawn = _show(axes[1, column], percent(own.pred - own.truth, block.peak), (-STRONG, STRONG), "", cmap=CHANGE)
        _show(axes[2, column], own.pred[detail], limits, "")
    return drawn


def _heading(method: str) -> str:
    """Its name and mark, in lines no wider than an image."""
    return textwrap.fill(title(method) + (" \u2020" if method in OUR_READING else ""), LETTERS)


def _show(
    axis: Axes,
    image: Image,
    limits: tuple[float, float],
    name: str,
    box: tuple[slice, slice] | None = None,
    cmap: str | Colormap = "gray",
) -> AxesImage:
    """An image (H, W) with its first axis to the right and its second one up, as a head stands upright."""
    axis.set_title(name, fontsize=8)
    if box:
        size = [part.stop - part.start for part in box]
        axis.add_patch(Rectangle((box[0].start - 0.5, box[1].start - 0.5), *size, fill=False, edgecolor="yellow", linewidth=0.8))
    return axis.imshow(image.T, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest", origin="lower")


def _first_seed(comparison: Comparison) -> list[Result]:
    return [result for result in comparison.results if result.row.seed in (None, comparison.seeds[0])]


def _loss(result: Result) -> tuple[list[float], list[float]]:
    rows = read_table(result.folder / TRAINING)
    pieces = np.array_split(np.arange(len(rows)), min(len(rows), POINTS)) if rows else []
    losses = np.array([float(row["loss"]) for row in rows])
    return [float(rows[piece[-1]]["iteration"]) for piece in pieces], [float(losses[piece].mean()) for piece in pieces]


def validation_gain(folder: Path, iterations: int) -> tuple[list[float], list[float]]:
    """Steps at which a run was validated, and its gain over zero-filling there in dB.

    Args:
        folder: of the run.
        iterations: that it was trained for.
    """
    rows = read_table(folder / VALIDATION)
    steps = iterations / max((int(row["epoch"]) for row in rows), default=1)  # the last epoch is always validated
    return [int(row["epoch"]) * steps for row in rows], [float(row["psnr_gain"]) for row in rows]


def _curve(axis: Axes, x: list[float], y: list[float], **style: object) -> None:
    axis.plot(x, y, **style)  # type: ignore[arg-type]
