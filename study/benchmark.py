"""What each network costs: parameters, MACs, time against EDSR's, memory, and how near it comes to the machine's limit.

python study/benchmark.py --output bench.json
python study/benchmark.py --table comparison/table.csv --plot time_psnr.png
python study/benchmark.py --networks base --growth only

Times are process CPU time of one thread. All networks take turns within each round, EDSR before each of them, so that a machine that slows
down slows both, and a ratio is the median of the rounds' ratios. The limit is the largest rate, in MACs per second, that a 3x3
convolution of the networks' sizes reaches in the same rounds. With a table of scores, as `compare.py` writes it, the networks have the
sizes that the scores are of. Weights are random: they do not change the time. Each figure that a bound is set for has it beside it, with
whether it is kept.
"""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import matplotlib as mpl
import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmark_measures import (
    DTYPES,
    LARGEST_EXPONENT,
    LARGEST_MEMORY,
    PRECISIONS,
    SMALLEST_GAIN,
    Job,
    Row,
    bfloat16_gains,
    machine,
    measured,
    measured_growth,
)
from comparison.colours import COLOURS
from comparison.rows import title
from hftn_sr.networks import METHODS
from hftn_sr.volumes.files import write_bytes, write_json

WITHOUT_WEIGHTS = ("zero_filling", "cubic")
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)  # of the plot's time
GROWING = ("base", "small")  # those with a bound on growth and on what bfloat16 gains
STANDARD = [name for name in METHODS if name not in WITHOUT_WEIGHTS and "ablation" not in name] + [f"{name}:bfloat16" for name in GROWING]
Growth = Literal["with", "without", "only"]


def main(
    networks: Annotated[str, typer.Option(help=f"Comma-separated; all (of --table): {', '.join(METHODS)}; :bf16 for bfloat16.")] = "",
    scales: Annotated[list[int], typer.Option(help="2, 4 or both.")] = [2, 4],  # noqa: B006 - typer copies it
    rounds: Annotated[int, typer.Option(help="Turns of each network after one to warm up.", min=1)] = 7,
    side: Annotated[int, typer.Option(help="Voxels of a side of the output.", min=16)] = 320,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV with the columns method, scale, psnr and, if it has it, options.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of time against PSNR to write; needs --table.")] = None,
    growth: Annotated[Growth, typer.Option(help="Time against pixels, 128^2 to 1024^2: with the table, without it, or only it.")] = "with",
) -> None:
    """Print the table, and write what is asked for."""
    torch.set_num_threads(1)
    known = read_table(table) if table else {}
    in_table = [name for name in METHODS if name not in WITHOUT_WEIGHTS and name in {method for method, _ in known}]
    names = networks.split(",") if networks else in_table or list(STANDARD)
    runs = [(name.removesuffix(":bfloat16"), PRECISIONS[name.endswith(":bfloat16")]) for name in names]
    checks = [("--networks", name, tuple(METHODS)) for name, _ in runs] + [("--device", device, ("cpu", "cuda"))]
    for option, given, allowed in checks:
        if given not in allowed:
            raise typer.BadParameter(f"{given!r} is not known (need one of {', '.join(allowed)})", param_hint=option)
    wanted = [(name, scale, how) for scale in scales for name, how in runs if networks or not known or (name, scale) in known]
    jobs = [Job(name, scale, how, known[name, scale].options if (name, scale) in known else "{}") for name, scale, how in wanted]
    result: dict[str, Any] = {"machine": machine(device), "side": side, "rounds": rounds}
    if growth != "only":
        rows, limits = measured(jobs, rounds, side, device)
        result |= {"limits_gmac_per_s": limits, "rows": [asdict(row) for row in rows]}
        _print_rows(rows, limits)
        _plot_or_say_why_not(rows, known, table, plot)
    growing = [job for job in jobs if growth == "only" or (job.name in GROWING and job.precision == "float32" and job.options == "{}")]
    if growth != "without" and growing:
        result["growth"] = measured_growth(growing, rounds, device)
        _print_growth(result["growth"])
    if output:
        write_json(output, result)


def _print_rows(rows: Sequence[Row], limits: Mapping[str, float]) -> None:
    shown = Table(title="one slice, batch 1, one thread", title_justify="left")
    for heading in ("network", "parameters, M", "GMAC", "time, ms", "ratio to EDSR (spread)", "bound", "memory, MB", "of the limit"):
        shown.add_column(heading, justify="left" if heading == "network" else "right")
    for row in rows:
        bound = "" if row.ratio_bound is None else f"{row.ratio_bound:.2f} {_verdict(row.ratio_edsr <= row.ratio_bound)}"
        memory = f"{row.rss_mb:.0f}"
        if row.scale == 2 and row.ratio_bound is not None:
            memory += f" (bound {LARGEST_MEMORY:.0f} {_verdict(row.rss_mb <= LARGEST_MEMORY)})"
        spread = f"{row.ratio_edsr:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})"
        cells = [f"{row.params / 1e6:.2f}", f"{row.gmac:.1f}", f"{row.cpu_ms:.0f}", spread, bound, memory, f"{row.limit_share:.0%}"]
        other = ", ".join(f"{name} {value}" for name, value in json.loads(row.options).items())
        shown.add_row(f"{row.name} x{row.scale} {row.precision}" + (f" ({other})" if other else ""), *cells)
    Console(width=140).print(shown)
    for precision, limit in limits.items():
        typer.echo(f"limit, {DTYPES[precision]}: {limit:.0f} GMAC/s by a 3x3 convolution")
    for (name, scale), gain in bfloat16_gains(rows).items():
        bound = f" (bound {SMALLEST_GAIN}, {_verdict(gain >= SMALLEST_GAIN)})" if name in GROWING else ""
        typer.echo(f"{name} x{scale}: bfloat16 is {gain:.2f} times as fast as float32{bound}")


def _verdict(kept: bool) -> str:
    return "kept" if kept else "missed"


def _print_growth(found: Sequence[Mapping[str, Any]]) -> None:
    for each in found:
        seconds = ", ".join(f"{side}^2 {value:.2f} s" for side, value in each["seconds"].items())
        kept = _verdict(each["exponent"] <= LARGEST_EXPONENT)
        exponent_of = f"time grows with pixels to the power {each['exponent']:.3f} (bound {LARGEST_EXPONENT}, {kept})"
        typer.echo(f"{each['name']} x{each['scale']} {each['precision']}: {exponent_of}; {seconds}")


class Score(NamedTuple):
    """Mean PSNR in dB of a method at one scale, and what differs from the method's own options, JSON."""

    psnr: float
    options: str


def read_table(table: Path) -> dict[tuple[str, int], Score]:
    """Scores of each method and scale in a CSV file with the columns `method`, `scale`, `psnr` and, if it has it, `options`.

    Raises:
        typer.BadParameter: no such columns.
    """
    with table.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        if not {"method", "scale", "psnr"} <= set(reader.fieldnames or ()):
            raise typer.BadParameter(f"{table}: columns {reader.fieldnames}, need method, scale and psnr", param_hint="--table")
        cases: dict[tuple[str, int], list[Score]] = {}
        for line in reader:
            score = Score(float(line["psnr"]), line.get("options") or "{}")
            cases.setdefault((line["method"], int(line["scale"].removeprefix("x"))), []).append(score)
    return {key: Score(statistics.mean(score.psnr for score in scores), scores[0].options) for key, scores in cases.items()}


def _plot_or_say_why_not(rows: Sequence[Row], scores: Mapping[tuple[str, int], Score], table: Path | None, plot: Path | None) -> None:
    if plot is None:
        return
    shown = [row for row in rows if (row.name, row.scale) in scores and row.options == scores[row.name, row.scale].options]
    if not shown:
        typer.echo("no plot: " + ("--table is missing" if table is None else f"{table} has none of these networks"), err=True)
        return
    _plot(shown, scores, plot)


def _plot(rows: Sequence[Row], scores: Mapping[tuple[str, int], Score], path: Path) -> None:
    import io

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import NullLocator

    scales = sorted({row.scale for row in rows})
    figure, axes = plt.subplots(1, len(scales), figsize=(8 * len(scales), 5.5), layout="constrained", squeeze=False)
    for axis, scale in zip(axes[0], scales, strict=True):
        points = sorted(((scores[row.name, scale].psnr, row) for row in rows if row.scale == scale), key=lambda point: -point[0])
        line, height = (points[0][0] - points[-1][0]) / 22, math.inf
        for psnr, row in points:
            point, height = (row.ratio_edsr, psnr), min(psnr, height - line)  # labels of neighbours stand below each other
            axis.plot(*point, "o" if row.precision == "float32" else "s", color=COLOURS[row.name], markersize=8)
            label = title(row.name) if row.precision == "float32" else f"{title(row.name)} ({row.precision})"
            arrow = {"arrowstyle": "-", "color": "0.7", "shrinkA": 0, "shrinkB": 3}
            axis.annotate(label, point, (1.05 * row.ratio_edsr, height), va="center", fontsize=10, arrowprops=arrow)
        axis.set_xmargin(0.2)
        axis.set(xscale="log", xlabel="time of a slice, EDSR of 64 channels = 1", ylabel="PSNR, dB")
        axis.set_title(f"x{scale}", loc="left")
        low, high = axis.get_xlim()
        axis.set_xticks([tick for tick in TICKS if low <= tick <= high])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    plt.close(figure)
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    typer.run(main)
