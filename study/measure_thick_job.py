"""What thin slices cost: time and memory of `hftn-sr super-resolve` beside the program's prediction and beside the ordinary x2 job.

python study/measure_thick_job.py

Two results of one grid are made with the same reference: from slices five times as thick, and from half of the in-plane k-space. Each job
is a process of its own with one thread. Seconds are process CPU time, start and QC page included; memory is its largest resident set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer

from benchmark_measures import machine
from hftn_sr.acquisition import Acquisition, Axis, Full, Slices
from hftn_sr.volumes.files import write_json
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.simulation import acquire, degrade
from measure_job import SAMPLE, grid_over, noisy, write_as_scanned

JOBS = ("thick slices", "x2")


def main(
    side: Annotated[int, typer.Option(help="In-plane voxels of a side of the result.", min=64)] = 256,
    slices: Annotated[int, typer.Option(help="Thick slices.", min=2)] = 30,
    factor: Annotated[int, typer.Option(help="Slices of the result for each thick one.", min=2, max=6)] = 5,
    model: Annotated[str, typer.Option(help="Shipped weights that serve any acquisition, or a file.")] = "small",
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print both jobs and their ratio for a voxel of the result, and write what is asked for."""
    with TemporaryDirectory() as name:
        through = put_files(Path(name), side, slices, factor)
        rows = {job: run_job(Path(name), job, model, through) for job in JOBS}
    for job, row in rows.items():
        told = f"{job}: {' x '.join(map(str, row['shape']))} voxels, {row['cpu_s']:.1f} s of CPU, {row['wall_s']:.1f} s, "
        typer.echo(f"{told}{row['peak_gb']:.2f} GB at most, {row['predicted_gb']:.2f} GB predicted")
    ratio = rows["thick slices"]["cpu_s"] / rows["x2"]["cpu_s"]
    typer.echo(f"a voxel of the result from thick slices costs {ratio:.2f} times one of x2")
    if output:
        write_json(output, {"machine": machine("cpu"), "model": model, "jobs": rows, "ratio": ratio})


def put_files(folder: Path, side: int, slices: int, factor: int) -> int:
    """Write both targets and the reference; give the array axis across the slices."""
    truth, other = (read_nifti(SAMPLE / f"synthetic_{role}.nii.gz") for role in ("target", "reference"))
    through = truth.grid.through_plane()
    shape = np.full(3, side)
    shape[through] = slices * factor
    grid = grid_over(truth.grid, shape, (0.0, 0.0, 0.0))
    fine = noisy(truth, grid, 0)
    kept: list[Axis] = [Full(), Full(), Full()]
    kept[through] = Slices(factor, factor)
    write_as_scanned(folder / "thick slices.nii.gz", acquire(fine, Acquisition(tuple(kept))))
    write_as_scanned(folder / "x2.nii.gz", degrade(fine, 2, through))
    write_as_scanned(folder / "reference.nii.gz", noisy(other, grid, 1))
    return through


def run_job(folder: Path, job: str, model: str, through_plane: int) -> dict[str, Any]:
    """Sizes of the result, CPU and clock seconds, measured and predicted memory of one job."""
    result = folder / f"{job} result.nii.gz"
    command = [sys.executable, "-m", "hftn_sr.cli", "super-resolve", "--target", f"{job}.nii.gz", "--reference", "reference.nii.gz"]
    command += ["--output", result.name, "--model", model, "--threads", "1", "--register", "none", "--unfit-reference", "use"]
    command += ["--through-plane", str(through_plane), *(["--scale", "2"] if job == "x2" else [])]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{job}: exit code {os.waitstatus_to_exitcode(status)}")
    record = json.loads(result.with_name(f"{job} result.json").read_text(encoding="utf-8"))
    return {
        "shape": record["acquired"]["shape"],
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - started,
        "peak_gb": usage.ru_maxrss * 1024 / 1e9,
        "predicted_gb": record["memory"]["peak_predicted_gb"],
    }


if __name__ == "__main__":
    typer.run(main)
