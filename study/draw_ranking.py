"""The figure at the top of bundle/docs/study.md: each method's PSNR less that of NEU, with its interval, from the published tables.

python study/draw_ranking.py --output bundle/docs/study_ranking.png
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from comparison.colours import COLOURS
from comparison.figures import png
from comparison.rows import title
from hftn_sr.volumes.files import write_bytes

STUDY = Path(__file__).absolute().parent
LEFT_OUT = {"cubic"}  # below zero-filling
SCALES = (4, 2)


def main(output: Annotated[Path, typer.Option(help="PNG to write.")]) -> None:
    """Draw the figure."""
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # type: ignore[union-attr,call-arg]
    FigureCanvasAgg(figure)
    for axis, scale in zip(figure.subplots(1, len(SCALES)), SCALES, strict=True):
        with (STUDY / f"x{scale}" / "validation" / "table.csv").open(encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["method"] not in LEFT_OUT]
        rows.sort(key=lambda row: float(row["psnr"]))
        for place, row in enumerate(rows):
            low, middle, high = (float(row[name]) for name in ("difference_low", "difference", "difference_high"))
            errors = [[middle - low], [high - middle]]
            axis.errorbar(middle, place, xerr=errors, fmt="o", color=COLOURS[row["method"]], markersize=6, linewidth=1.8, capsize=2.5)
        axis.set_yticks(range(len(rows)), [f"{title(row['method'])}  {float(row['psnr']):.2f}" for row in rows], fontsize=10)
        axis.axvline(0, color="0.7", linewidth=0.8)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlabel("PSNR less that of NEU, dB")
        axis.set_title(f"x{scale}: method and its PSNR, dB", fontsize=11, loc="left")
    write_bytes(output, png(figure))


if __name__ == "__main__":
    typer.run(main)
