"""Measuring what networks cost: times by turns, shares of the machine's limit, peak memory, growth with pixels. See benchmark.py."""

from __future__ import annotations

import gc
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from comparison.cost import method_cost, network_cost
from hftn_sr.networks import METHODS, build_network, channels_last
from hftn_sr.networks.precision import ChosenPrecision, has_bfloat16, prepare_network

YARDSTICK = "edsr"
OWN = ("hftn", "base", "small")  # whatever network they become
PRECISIONS: tuple[ChosenPrecision, ...] = ("float32", "bfloat16")
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONVOLUTIONS = ((48, 1), (64, 1), (48, 2), (64, 2), (48, 4), (64, 4))  # channels and divisor of the side: those of the networks here
GROWTH_SIDES = (128, 192, 256, 384, 512, 768, 1024)
BOUNDS = {("hftn", 2): 5.2, ("hftn", 4): 3.9, ("small", 2): 1.0, ("small", 4): 1.0}  # of the ratio to EDSR
MARGIN = 1.1  # of EDSR's time per multiplication, for other networks of this kind
LARGEST_MEMORY = 250.0  # MB at x2
LARGEST_EXPONENT = 1.15
SMALLEST_GAIN = 2.0  # of bfloat16 over float32


class Job(NamedTuple):
    """A network to be measured.

    Args:
        name: method.
        scale: s.
        precision: how it is computed.
        options: what differs from the method's own, JSON.
    """

    name: str
    scale: int
    precision: ChosenPrecision
    options: str = "{}"

    def build(self) -> nn.Module:
        """The network, untrained."""
        return build_network(self.name, self.scale, json.loads(self.options))


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Args:
        name: method.
        scale: s.
        precision: how it was computed.
        options: what differs from the method's own, JSON.
        params: parameters.
        gmac: MACs in thousand millions, for one slice.
        cpu_ms: median time of a slice in ms; on CUDA the device's time.
        ratio_edsr: median over the rounds of the time divided by that of EDSR at the same scale, computed eagerly right before.
        ratio_low: smallest of the rounds.
        ratio_high: largest.
        ratio_bound: largest ratio wanted; None where none is.
        rss_mb: peak resident memory above that after the import, in MB; on CUDA the device's.
        limit_share: MACs per second over those of the fastest 3x3 convolution of the same precision.
    """

    name: str
    scale: int
    precision: ChosenPrecision
    options: str
    params: int
    gmac: float
    cpu_ms: float
    ratio_edsr: float
    ratio_low: float
    ratio_high: float
    ratio_bound: float | None
    rss_mb: float
    limit_share: float


def measured(jobs: Sequence[Job], rounds: int, side: int = 320, device: str = "cpu") -> tuple[list[Row], dict[str, float]]:
    """Rows of the jobs and the machine's limit in GMAC per second by precision; EDSR is measured along with them.

    Args:
        jobs: what to measure.
        rounds: how often each network and each convolution has its turn.
        side: voxels of a side of the output.
        device: `cpu` or `cuda`.
    """
    yardsticks = {scale: Job(YARDSTICK, scale, "float32") for scale in dict.fromkeys(job.scale for job in jobs)}
    all_jobs = list(dict.fromkeys([*yardsticks.values(), *jobs]))
    memory = {job: peak_memory(job, side, device) for job in all_jobs}  # first: this process is small now
    calls = _after_the_yardstick({job: _forward(job, side, device) for job in all_jobs}, yardsticks)
    work: dict[Any, float] = {}
    for how in dict.fromkeys(job.precision for job in all_jobs):
        for channels, divisor in CONVOLUTIONS:
            calls[how, channels, divisor], work[how, channels, divisor] = _convolution(channels, side // divisor, DTYPES[how], device)
    times = take_turns(calls, rounds, _timer(device))
    limits: dict[str, float] = {}
    for key, gmac in work.items():
        limits[key[0]] = max(limits.get(key[0], 0.0), gmac / statistics.median(times[key]))
    in_order = sorted(all_jobs, key=lambda job: job.scale)
    rows = [_row(job, times[job], times.get((YARDSTICK, job), times[job]), memory[job], limits[job.precision], side) for job in in_order]
    return rows, limits


def _after_the_yardstick(calls: Mapping[Job, Callable[[], Any]], yardsticks: Mapping[int, Job]) -> dict[Any, Callable[[], Any]]:
    """Each call with that of EDSR before it: where minutes lie between the two, a machine that others use has changed."""
    turns: dict[Any, Callable[[], Any]] = {}
    for job, call in calls.items():
        if job != yardsticks[job.scale]:
            turns[YARDSTICK, job] = calls[yardsticks[job.scale]]
        turns[job] = call
    return turns


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


def ratio_bound(job: Job) -> float | None:
    """The ratio to EDSR that is wanted: BOUNDS, else 1.1 of EDSR's time per multiplication for HFTN-SR, none for peers and other sizes."""
    name, scale = job.name, job.scale
    if job.precision != "float32" or job.options != "{}" or (name not in OWN and METHODS[name].network != "hftn"):
        return None
    return BOUNDS.get((name, scale)) or MARGIN * method_cost(name, scale).macs / method_cost(YARDSTICK, scale).macs


def bfloat16_gains(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """How many times faster a network is in bfloat16, by name and scale, for those measured in both ways."""
    ratios = {(row.name, row.scale, row.precision): row.ratio_edsr for row in rows if row.options == "{}"}
    return {
        (name, scale): ratios[name, scale, "float32"] / value
        for (name, scale, precision), value in ratios.items()
        if precision == "bfloat16" and (name, scale, "float32") in ratios
    }


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
        by_side = dict(zip(map(str, sides), seconds, strict=True))
        found.append({**job._asdict(), "seconds": by_side, "exponent": exponent(sides, seconds)})
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
    cost = network_cost(job.build, side)
    middle, low, high = ratio(times, yardstick)
    seconds = statistics.median(times)
    bound = ratio_bound(job)
    share = cost.gmac / seconds / limit
    return Row(*job, cost.parameters, cost.gmac, 1e3 * seconds, middle, low, high, bound, memory, share)


def _forward(job: Job, side: int, device: str) -> Callable[[], Tensor]:
    torch.manual_seed(0)
    network = channels_last(job.build().eval().requires_grad_(False)).to(device)
    prepared = prepare_network(network, job.precision)
    return _call(prepared, torch.rand(1, 3, side, side, device=device))


def _convolution(channels: int, side: int, dtype: torch.dtype, device: str) -> tuple[Callable[[], Tensor], float]:
    """A 3x3 convolution, channels last, and its thousand millions of MACs; small maps come in batches."""
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
