"""What each network costs: parameters, multiplications, time against EDSR's, memory, and how near it comes to the machine's limit.

python scripts/benchmark.py --output bench.json
python scripts/benchmark.py --networks base,base:bf16,sanet --scales 2 --rounds 7 --table results/table.csv --plot time_psnr.png
python scripts/benchmark.py --networks base --growth

Times are process CPU time of one thread. All networks take turns within each round, so that a machine that slows down slows all of them,
and a ratio is the median of the rounds' ratios. The limit is the largest rate, in multiplications per second, that a 3x3 convolution of
the networks' sizes reaches in the same rounds. Weights are random: they do not change the time.
"""

from __future__ import annotations

import csv
import gc
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hftn_sr.networks import METHODS, build_network, channels_last
from hftn_sr.networks.cost import method_cost, network_cost
from hftn_sr.runtime import ChosenRuntime, has_bfloat16, prepare_network
from hftn_sr.volumes.files import write_bytes, write_json

YARDSTICK = "edsr"
OWN = ("paper", "base", "small")  # whatever network they become
WITHOUT_WEIGHTS = ("zero_filling", "cubic")
RUNTIMES: tuple[ChosenRuntime, ...] = ("eager", "bf16")
PRECISION: dict[str, torch.dtype] = {"eager": torch.float32, "bf16": torch.bfloat16}
CONVOLUTIONS = ((48, 1), (64, 1), (48, 2), (64, 2), (48, 4), (64, 4))  # channels and divisor of the side: those of the networks here
GROWTH_SIDES = (128, 192, 256, 384, 512, 768, 1024)
BOUNDS = {("paper", 2): 5.2, ("paper", 4): 3.9, ("small", 2): 1.0, ("small", 4): 1.0}  # of the ratio to EDSR
MARGIN = 1.1  # of EDSR's time per multiplication, for other networks of this kind
LARGEST_MEMORY = 250.0  # MB at x2
LARGEST_EXPONENT = 1.15

Job = tuple[str, int, ChosenRuntime]  # method, scale, runtime


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        name: method.
        scale: s.
        runtime: how it was computed.
        params: parameters.
        gmac: multiplications in thousand millions, for one slice.
        cpu_ms: median time of a slice in ms; on CUDA the device's time.
        ratio_edsr: median over the rounds of the time divided by that of EDSR at the same scale, computed eagerly in the same round.
        ratio_low: smallest of the rounds.
        ratio_high: largest.
        ratio_bound: largest ratio wanted; None where none is.
        rss_mb: peak resident memory above that after the import, in MB; on CUDA the device's.
        limit_share: multiplications per second over those of the fastest 3x3 convolution of the same precision.
    """

    name: str
    scale: int
    runtime: ChosenRuntime
    params: int
    gmac: float
    cpu_ms: float
    ratio_edsr: float
    ratio_low: float
    ratio_high: float
    ratio_bound: float | None
    rss_mb: float
    limit_share: float


def main(
    networks: Annotated[str, typer.Option(help=f"Comma-separated, all without it: {', '.join(METHODS)}; name:bf16 for bfloat16.")] = "",
    scales: Annotated[list[int], typer.Option(help="2, 4 or both.")] = [2, 4],  # noqa: B006 - typer copies it
    rounds: Annotated[int, typer.Option(help="Turns of each network after one to warm up.", min=1)] = 7,
    side: Annotated[int, typer.Option(help="Voxels of a side of the output.", min=16)] = 320,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV with the columns method, scale, psnr, for the plot.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of time against PSNR to write; needs --table.")] = None,
    growth: Annotated[bool, typer.Option("--growth", help="Time against pixels from 128^2 to 1024^2 instead.")] = False,
) -> None:
    """Print the table, and write what is asked for."""
    torch.set_num_threads(1)
    names = networks.split(",") if networks else [name for name in METHODS if name not in WITHOUT_WEIGHTS and "ablation" not in name]
    runs = [(name.removesuffix(":bf16"), RUNTIMES[name.endswith(":bf16")]) for name in names]
    checks = [("--networks", name, tuple(METHODS)) for name, _ in runs] + [("--device", device, ("cpu", "cuda"))]
    for option, given, known in checks:
        if given not in known:
            raise typer.BadParameter(f"{given!r} is not known (need one of {', '.join(known)})", param_hint=option)
    jobs: list[Job] = [(name, scale, runtime) for scale in scales for name, runtime in runs]
    result: dict[str, Any] = {"machine": machine(device), "side": side, "rounds": rounds}
    if growth:
        found = measured_growth(jobs, rounds, device)
        result["growth"] = found
        _print_growth(found)
    else:
        rows, limits = measured(jobs, rounds, side, device)
        result |= {"limits_gmac_per_s": limits, "rows": [asdict(row) for row in rows]}
        _print_rows(rows, limits)
        _plot_or_say_why_not(rows, table, plot)
    if output:
        write_json(output, result)


def measured(jobs: Sequence[Job], rounds: int, side: int = 320, device: str = "cpu") -> tuple[list[Row], dict[str, float]]:
    """Rows of the jobs and the machine's limit in GMAC per second by runtime; EDSR is measured along with them.

    Args:
        jobs: what to measure.
        rounds: how often each network and each convolution has its turn.
        side: voxels of a side of the output.
        device: `cpu` or `cuda`.
    """
    yardsticks: list[Job] = [(YARDSTICK, scale, "eager") for scale in dict.fromkeys(scale for _, scale, _ in jobs)]
    all_jobs = list(dict.fromkeys([*yardsticks, *jobs]))
    memory = {job: peak_memory(job, side, device) for job in all_jobs}  # first: this process is small now
    calls: dict[Any, Callable[[], Any]] = {job: _forward(job, side, device) for job in all_jobs}
    work: dict[Any, float] = {}
    for how in dict.fromkeys(job[2] for job in all_jobs):
        for channels, divisor in CONVOLUTIONS:
            calls[how, channels, divisor], work[how, channels, divisor] = _convolution(channels, side // divisor, PRECISION[how], device)
    times = take_turns(calls, rounds, _timer(device))
    limits: dict[str, float] = {}
    for key, gmac in work.items():
        limits[key[0]] = max(limits.get(key[0], 0.0), gmac / statistics.median(times[key]))
    rows = [_row(job, times[job], times[YARDSTICK, job[1], "eager"], memory[job], limits[job[2]], side) for job in all_jobs]
    return sorted(rows, key=lambda row: (row.scale, all_jobs.index((row.name, row.scale, row.runtime)))), limits


def take_turns(calls: Mapping[Any, Callable[[], Any]], rounds: int, timer: Callable[[Callable[[], Any]], float]) -> dict[Any, list[float]]:
    """Seconds of each call in each round: all calls once to warm up, then round by round."""
    for call in calls.values():
        call()
    times: dict[Any, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            times[key].append(timer(call))
    return times


def ratio(times: Sequence[float], yardstick: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest over the rounds of one time divided by the other's."""
    ratios = [one / other for one, other in zip(times, yardstick, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def ratio_bound(name: str, scale: int, runtime: str) -> float | None:
    """The ratio to EDSR that is wanted: BOUNDS, else 1.1 of EDSR's time per multiplication for HFTN-SR, none for the peers."""
    if runtime != "eager" or (name not in OWN and METHODS[name].network != "hftn"):
        return None
    return BOUNDS.get((name, scale)) or MARGIN * method_cost(name, scale).multiplications / method_cost(YARDSTICK, scale).multiplications


def exponent(sides: Sequence[int], seconds: Sequence[float]) -> float:
    """Slope of log time over log pixels, least squares."""
    slope, _ = np.polyfit(2 * np.log(sides), np.log(seconds), 1)
    return float(slope)


def measured_growth(jobs: Sequence[Job], rounds: int, device: str = "cpu", sides: Sequence[int] = GROWTH_SIDES) -> list[dict[str, Any]]:
    """For each job its median seconds by side, and the exponent of time over pixels fitted to them."""
    calls = {(job, side): _forward(job, side, device) for side in sides for job in jobs}
    times = take_turns(calls, rounds, _timer(device))
    found = []
    for job in jobs:
        seconds = [statistics.median(times[job, side]) for side in sides]
        name, scale, runtime = job
        by_side = dict(zip(map(str, sides), seconds, strict=True))
        found.append({"name": name, "scale": scale, "runtime": runtime, "seconds": by_side, "exponent": exponent(sides, seconds)})
    return found


def peak_memory(job: Job, side: int, device: str) -> float:
    """Peak resident memory of two slices, in MB above that after the import, in a process of its own; on CUDA the device's peak."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_memory_here, job, side, device).result()


def machine(device: str) -> dict[str, Any]:
    """The kind of machine: what the processor can do, not its name."""
    features = {"avx512_bf16": torch.cpu._is_avx512_bf16_supported(), "amx": torch.cpu._is_amx_tile_supported(), "bfloat16": has_bfloat16()}
    kind: dict[str, Any] = {"architecture": platform.machine(), "system": platform.system(), **features, "torch": torch.__version__}
    kind |= {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(), "device": device}
    return kind | ({"cuda": torch.cuda.get_device_name()} if device == "cuda" else {})


def _row(job: Job, times: Sequence[float], yardstick: Sequence[float], memory: float, limit: float, side: int) -> Row:
    name, scale, runtime = job
    cost = network_cost(lambda: build_network(name, scale), side)
    middle, low, high = ratio(times, yardstick)
    seconds = statistics.median(times)
    bound = ratio_bound(name, scale, runtime)
    share = cost.gmac / seconds / limit
    return Row(name, scale, runtime, cost.parameters, cost.gmac, 1e3 * seconds, middle, low, high, bound, memory, share)


def _forward(job: Job, side: int, device: str) -> Callable[[], Tensor]:
    name, scale, runtime = job
    torch.manual_seed(0)
    network = channels_last(build_network(name, scale).eval().requires_grad_(False)).to(device)
    prepared = prepare_network(network, runtime)
    return _call(prepared, torch.rand(1, 3, side, side, device=device))


def _convolution(channels: int, side: int, dtype: torch.dtype, device: str) -> tuple[Callable[[], Tensor], float]:
    """A 3x3 convolution, channels last, and its thousand millions of multiplications; small maps come in batches."""
    batch = max(1, 320**2 // side**2)
    convolution = channels_last(nn.Conv2d(channels, channels, 3, padding=1).requires_grad_(False)).to(device, dtype)
    image = torch.rand(batch, channels, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return _call(convolution, image), batch * side**2 * 9 * channels**2 / 1e9


def _call(network: nn.Module, image: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.inference_mode():
            pred: Tensor = network(image)
        return pred

    return call


def _timer(device: str) -> Callable[[Callable[[], Any]], float]:
    return _seconds_on_cuda if device == "cuda" else _seconds_of_process


def _seconds_of_process(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _seconds_on_cuda(call: Callable[[], Any]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _peak_memory_here(job: Job, side: int, device: str) -> float:
    torch.set_num_threads(1)
    gc.collect()
    before = _peak_resident()
    call = _forward(job, side, device)
    call()
    call()
    return torch.cuda.max_memory_allocated() / 1e6 if device == "cuda" else _peak_resident() - before


def _peak_resident() -> float:
    """MB. Linux hands the peak that `getrusage` tells on from parent to child; that of /proc is the process's own."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


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
        shown.add_row(f"{row.name} x{row.scale} {row.runtime}", *cells)
    Console(width=140).print(shown)
    for runtime, limit in limits.items():
        typer.echo(f"limit, {PRECISION[runtime]}: {limit:.0f} GMAC/s by a 3x3 convolution")


def _verdict(kept: bool) -> str:
    return "kept" if kept else "missed"


def _print_growth(found: Sequence[Mapping[str, Any]]) -> None:
    for each in found:
        seconds = ", ".join(f"{side}^2 {value:.2f} s" for side, value in each["seconds"].items())
        kept = _verdict(each["exponent"] <= LARGEST_EXPONENT)
        exponent_of = f"time grows with pixels to the power {each['exponent']:.3f} (bound {LARGEST_EXPONENT}, {kept})"
        typer.echo(f"{each['name']} x{each['scale']} {each['runtime']}: {exponent_of}; {seconds}")


def read_psnr(table: Path) -> dict[tuple[str, int], float]:
    """Mean PSNR in dB of each method and scale in a CSV file with the columns `method`, `scale` and `psnr`.

    Raises:
        typer.BadParameter: no such columns.
    """
    with table.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        if not {"method", "scale", "psnr"} <= set(reader.fieldnames or ()):
            raise typer.BadParameter(f"{table}: columns {reader.fieldnames}, need method, scale and psnr", param_hint="--table")
        cases: dict[tuple[str, int], list[float]] = {}
        for line in reader:
            cases.setdefault((line["method"], int(line["scale"].removeprefix("x"))), []).append(float(line["psnr"]))
    return {key: statistics.mean(values) for key, values in cases.items()}


def _plot_or_say_why_not(rows: Sequence[Row], table: Path | None, plot: Path | None) -> None:
    if plot is None:
        return
    scores = read_psnr(table) if table else {}
    shown = [row for row in rows if (row.name, row.scale) in scores]
    if not shown:
        typer.echo("no plot: " + ("--table is missing" if table is None else f"{table} has none of these networks"), err=True)
        return
    _plot(shown, scores, plot)


def _plot(rows: Sequence[Row], scores: Mapping[tuple[str, int], float], path: Path) -> None:
    import io

    mpl.use("agg")
    from matplotlib import pyplot as plt

    scales = sorted({row.scale for row in rows})
    figure, axes = plt.subplots(1, len(scales), figsize=(5 * len(scales), 4), layout="constrained", squeeze=False)
    for axis, scale in zip(axes[0], scales, strict=True):
        for row in (row for row in rows if row.scale == scale):
            point = row.ratio_edsr, scores[row.name, scale]
            axis.plot(*point, "o" if row.runtime == "eager" else "s", color="C0" if METHODS[row.name].network == "hftn" else "C7")
            label = row.name if row.runtime == "eager" else f"{row.name} ({row.runtime})"
            axis.annotate(label, point, xytext=(4, 4), textcoords="offset points")
        axis.set(xscale="log", xlabel="time of a slice, EDSR = 1", ylabel="PSNR, dB", title=f"x{scale}")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    plt.close(figure)
    write_bytes(path, content.getvalue())


if __name__ == "__main__":
    typer.run(main)
