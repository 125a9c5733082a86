"""Whether two workers do as much as two processes that know nothing of each other, one a core.

python scripts/measure_efficiency.py --output efficiency

The sample pair at x4 many times, in three ways that take turns: two commands with --shard, one with --workers 2, and one with --scheduler
and two Dask workers that run already, started as docs/scaling.md says. All have a CPU thread for each process. Prints the seconds of the
clock and of CPU, and for both engines the ratio to the two commands: of the whole command, and of the time from its first to its last
result. These ratios hold only on a machine that does nothing else: the load is printed, too. All results must be the same bytes. Ends with
code 1 where the median ratio of an engine's whole command is below 0.9.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

import hftn_sr
from hftn_sr.volumes.nifti import read_nifti, save_nifti
from hftn_sr.volumes.simulation import degrade

SAMPLE = Path(hftn_sr.__file__).parent / "sample"
COMMAND = (sys.executable, "-m", "hftn_sr.cli", "super-resolve", "--device", "cpu", "--no-report")
ENOUGH = 0.9
WAYS = ("two commands", "--workers 2", "--scheduler")
SPARING = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}


def main(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("efficiency"),
    cases: Annotated[int, typer.Option(help="Cases of a run; with few of them, starting takes most of the time.")] = 100,
    repeats: Annotated[int, typer.Option(help="Runs of each way.")] = 3,
    model: Annotated[str, typer.Option(help="Weights.")] = "small",
) -> None:
    """Run all ways by turns."""
    shutil.rmtree(output, ignore_errors=True)
    _make(output / "in", cases)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    spans: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats):
        for way in WAYS[repeat % len(WAYS) :] + WAYS[: repeat % len(WAYS)]:
            out = output / f"{way.strip('-').replace(' ', '_')}_{repeat}"
            clock, used, between = _measure(way, output / "in", out, model)
            files = sorted(out.rglob("*.nii.gz"))
            assert len(files) == cases, f"{out}: {len(files)} of {cases} results, see its logs"
            assert len({file.read_bytes() for file in (*files, *output.glob("*_0/p0000/*.nii.gz"))}) == 1, f"{out}: other bytes"
            seconds[way].append(clock)
            spans[way].append(between)
            load = os.getloadavg()[0]
            typer.echo(f"{way:12s} {clock:7.1f} s, {used:7.1f} s of CPU, {between:7.1f} s from first to last result; load {load:.1f}")
    worst = 1.0
    for way in WAYS[1:]:
        whole, running = (_ratios(times[WAYS[0]], times[way]) for times in (seconds, spans))
        worst = min(worst, statistics.median(whole))
        typer.echo(f"{way:12s} does {_range(whole)} of two commands, once all have started {_range(running)}")
    raise typer.Exit(int(worst < ENOUGH))


def _ratios(alone: list[float], shared: list[float]) -> list[float]:
    return [one / other for one, other in zip(alone, shared, strict=True)]


def _range(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def _make(folder: Path, count: int) -> None:
    first = folder / "p0000"
    first.mkdir(parents=True)
    save_nifti(first / "target.nii.gz", degrade(read_nifti(SAMPLE / "synthetic_target.nii.gz"), 4, 2), "sample pair")
    shutil.copyfile(SAMPLE / "synthetic_reference.nii.gz", first / "reference.nii.gz")
    for number in range(1, count):
        shutil.copytree(first, folder / f"p{number:04d}", copy_function=os.link)


def _measure(way: str, cases: Path, out: Path, model: str) -> tuple[float, float, float]:
    """Seconds of the clock, of CPU, and of the clock between the first and the last result."""
    out.mkdir()
    command = [*COMMAND, "--cases", str(cases), "--output", str(out), "--model", model]
    others: list[subprocess.Popen[bytes]] = []
    if way == WAYS[0]:
        commands = [[*command, "--threads", "1", "--shard", f"{number}/2"] for number in (1, 2)]
    elif way == WAYS[1]:
        commands = [[*command, "--threads", "2", "--workers", "2"]]
    else:
        others, address = _start_dask(out)
        commands = [[*command, "--threads", "1", "--scheduler", address]]
    before = os.times()
    started = time.monotonic()
    running = [_start(command, out / f"{number}.log") for number, command in enumerate(commands)]
    codes = [each.wait() for each in running]
    clock = time.monotonic() - started
    for each in reversed(others):
        each.send_signal(signal.SIGTERM)
        each.wait()
    assert not any(codes), f"{out}: exit codes {codes}, see its logs"
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    times = [file.stat().st_mtime for file in out.rglob("*.nii.gz")]
    return clock, used, max(times) - min(times)


def _start_dask(out: Path) -> tuple[list[subprocess.Popen[bytes]], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--host", address, "--no-dashboard"]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", str(out / "dask")]
    others = [_start(each, out / f"dask{number}.log") for number, each in enumerate((scheduler, worker, worker))]
    from distributed import Client

    with Client(address, timeout=120, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=300)
    return others, address


def _start(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **SPARING, "OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    typer.run(main)
