"""The figures of bundle/docs/study.md, from the files of the published study.

python study/draw_study.py --output bundle/docs
python study/draw_study.py --output bundle/docs --data data

Without images: each method's PSNR less that of NEU, the gain during training, and the gain with a wrong reference. With the open data, as
`hftn-sr data open-ms` fetches it, also what some networks make of one slice at x4.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from comparison.colours import COLOURS
from comparison.figures import png, validation_gain
from comparison.recording import read_table
from comparison.reproduction import Published, published_tables
from comparison.robustness_table import gain_picture
from comparison.rows import title
from comparison.scoring import middle, predictor
from draw_result import compact
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.pictures import Panel, change, picture, white
from hftn_sr.training.protocols import restore
from hftn_sr.training.transforms import LoadPaird
from hftn_sr.volumes.files import write_files

STUDY = Path(__file__).absolute().parent
SCALES = (4, 2)
LEFT_OUT = ("cubic",)  # below zero-filling
DRAWN = ("zero_filling", "edsr", "hftn", "mcsr", "neu", "base")  # of one slice


def main(
    output: Annotated[Path, typer.Option(help="Folder for the PNG files.")],
    data: Annotated[Optional[Path], typer.Option(help="Folder with datalist.json, for the picture of a slice.")] = None,  # noqa: UP045
) -> None:
    """Draw the figures."""
    tables = {table.rows[0].scale: table for table in published_tables(STUDY) if table.folder.name == "validation"}
    files = {"study_ranking.png": ranking([tables[scale] for scale in SCALES])}
    for scale, table in tables.items():
        files[f"study_x{scale}_curves.png"] = curves(table)
        files[f"study_x{scale}_robustness.png"] = gain_picture(
            read_table(STUDY / f"x{scale}" / "robustness.csv"), "9 validation pairs, 6 middle slices of each"
        )
    if data:
        files["study_x4.png"] = reconstructions(tables[4], data)
    write_files({output / name: content for name, content in files.items()})


def ranking(tables: Sequence[Published]) -> bytes:
    """PSNR of each method less that of NEU, with its interval."""
    figure = _figure(9, 5)
    for axis, table in zip(figure.subplots(1, len(tables)), tables, strict=True):
        lines = sorted((line for line in table.lines if line["method"] not in LEFT_OUT), key=lambda line: float(line["psnr"]))
        for place, line in enumerate(lines):
            low, middle, high = (float(line[name]) for name in ("difference_low", "difference", "difference_high"))
            errors = [[middle - low], [high - middle]]
            axis.errorbar(middle, place, xerr=errors, fmt="o", color=COLOURS[line["method"]], markersize=6, linewidth=1.8, capsize=2.5)
        axis.set_yticks(range(len(lines)), [f"{title(line['method'])}  {float(line['psnr']):.2f}" for line in lines], fontsize=10)
        axis.axvline(0, color="0.7", linewidth=0.8)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("PSNR less that of NEU, dB")
        axis.set_title(f"x{table.rows[0].scale}: method and its PSNR, dB", fontsize=11, loc="left")
    return png(figure)


def curves(table: Published) -> bytes:
    """Gain over zero-filling of each network at its validations, two slices of each validation volume."""
    figure = _figure(9, 4.6)
    axis = figure.subplots()
    for row in table.rows:
        if row.trained:
            steps, gains = validation_gain(table.folder.parent / "runs" / row.name, table.trained[row.name].iterations)
            axis.plot(steps, gains, marker="o", markersize=3.5, linewidth=1.6, color=COLOURS[row.method], label=title(row.method))
    low, high = axis.get_ylim()
    axis.set(xlabel="training steps", ylabel="gain over zero-filling, dB", ylim=(max(low, -0.25 * high), high))
    axis.set_title(f"x{table.rows[0].scale}: validation during training", fontsize=11, loc="left")
    axis.grid(color="0.9")
    axis.spines[["top", "right"]].set_visible(False)
    _legend(figure, axis)
    return png(figure)


def reconstructions(table: Published, data: Path) -> bytes:
    """What some networks make of one slice: the part of it where zero-filling errs most, and the error there."""
    wanted = read_table(table.folder / "cases.csv")[0]["case"]
    case: Any = next(case for case in load_datalist(data, "validation") if case["case"] == wanted)
    pair = LoadPaird(4)(case)
    chosen = middle(pair["label"].shape[-1], 1)
    prepared = table.protocol.prepare(pair["label"][..., chosen], pair["reference"][..., chosen], 4, "band")
    views: dict[str, Any] = {}
    for row in table.rows:
        if row.method in DRAWN:
            weights = table.trained[row.name].weights if row.trained else None
            views[row.method] = _upright(restore(predictor(row, weights, table.protocol)(prepared.image), prepared.mean, prepared.std))
    truth, reference = _upright(restore(prepared.label, prepared.mean, prepared.std)), _upright(prepared.image[1:].sum(0, keepdim=True))
    peak, part = float(pair["label"].max()), _part(views["zero_filling"], truth)
    scores = {line["method"]: float(line["psnr"]) for line in table.lines}
    limits = (0.0, white(truth))
    low, high = np.percentile(reference, (0.2, 99.8))
    shown = [
        Panel("truth", truth[part], limits),
        *(Panel(f"{title(name)}, {scores[name]:.2f} dB", views[name][part], limits) for name in DRAWN),
    ]
    errors = [Panel("reference", reference[part], (float(low), float(high)))]
    errors += [change("error", (views[name] - truth)[part], peak) for name in DRAWN]
    half = 1 + len(DRAWN) // 2
    place = f"slice {chosen.start + 1} of {pair['label'].shape[-1]}"
    first = shown[:half] + errors[:half]
    second = [shown[0], *shown[half:], errors[0], *errors[half:]]
    heading = f"{case['case']} at x4, {place}; PSNR over the nine validation pairs"
    return compact(picture([*first, *second], heading, columns=half, unit="% of the truth's maximum"))


def _part(zero_filled: Any, truth: Any) -> tuple[slice, slice]:
    """The third of each side where zero-filling errs most."""
    height, width = (size // 3 for size in truth.shape)
    sums = np.pad(np.abs(zero_filled - truth), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    row, column = (int(index) for index in np.unravel_index(int(windows.argmax()), windows.shape))
    return slice(row, row + height), slice(column, column + width)


def _upright(image: Any) -> Any:
    """(rows, columns) of (1, H, W, 1), anterior up: the open data's first axis runs to the left, its second to the front."""
    return image[0, ..., 0].numpy().T[::-1]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # type: ignore[union-attr,call-arg]
    FigureCanvasAgg(figure)
    return figure


def _legend(figure: Figure, axis: Any) -> None:
    """Beside the curves, in the order in which they end."""
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: -handles[place].get_ydata()[-1])
    figure.legend([handles[place] for place in order], [labels[place] for place in order], loc="outside right center", fontsize=9)


if __name__ == "__main__":
    typer.run(main)
