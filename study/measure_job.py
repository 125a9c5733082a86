"""What a whole job of `hftn-sr super-resolve` costs, step by step: how much of it is not the network.

python study/measure_job.py --rounds 3 --output job.json

A pair of noisy slices is made of the built-in one, both files in 16-bit integers as scanners store them. Nothing is registered: the
reference lies where it belongs. Each job is a process of its own with one thread, and its times are process CPU time, so that other work
on the machine counts little; jobs take turns within each round, and each figure is the median over the rounds. `network` is what the
network itself takes; its input and output are outside of it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmark_measures import machine
from hftn_sr.volumes.files import write_json
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import degrade
from hftn_sr.volumes.volume import Grid, Volume

SAMPLE = Path(__file__).parents[1] / "bundle" / "hftn_sr" / "sample"
MODELS, SCALES, REFERENCES = ("base", "small"), (2, 4), ("same grid", "turned")
BOUNDS = {"base": 0.15, "small": 0.40}  # of the time of a case, largest share wanted outside the network
TURNED = (3.0, -2.0, 4.0)  # degrees about the three axes
NOISE = 0.02  # of the brightest voxel
CHILD = """
import json, sys, time
from hftn_sr.inference import run
marks, network = {}, [0.0]
class Timed:
    def __init__(self, module):
        self.module = module
    def __call__(self, image):
        before = time.thread_time()
        pred = self.module(image)
        network[0] += time.thread_time() - before
        return pred
def marked(name, function):
    def call(*arguments):
        marks[f"before {name}"] = time.process_time()
        result = function(*arguments)
        marks[f"after {name}"] = time.process_time()
        return result
    return call
apply_network, save_result = run.apply_network, run.save_result
run.apply_network = lambda module, *rest: apply_network(Timed(module), *rest)
run.save_result = marked("saving", save_result)
from hftn_sr.inference import batch
batch.run_case = marked("case", run.run_case)
from hftn_sr.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
times = [0.0] + [marks[name] for name in ("before case", "before saving", "after saving")] + [time.process_time()]
start, placing, saving, page = (after - before for before, after in zip(times, times[1:]))
found = {"start": start, "read_and_place": placing, "network": network[0], "restore_and_save": saving - network[0], "page": page}
json.dump(found, sys.stdout)
"""


def main(
    rounds: Annotated[int, typer.Option(help="Turns of each job.", min=1)] = 3,
    side: Annotated[int, typer.Option(help="In-plane voxels of a side of the result.", min=64)] = 320,
    slices: Annotated[int, typer.Option(min=1)] = 48,
    models: Annotated[list[str], typer.Option(help="Shipped weights, or files.")] = [*MODELS],  # noqa: B006 - typer copies it
    scales: Annotated[list[int], typer.Option(help="2, 4 or both.")] = [*SCALES],  # noqa: B006 - typer copies it
    output: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Print the table, and write what is asked for."""
    jobs = list(product(models, scales, REFERENCES))
    found: dict[tuple[str, int, str], list[dict[str, float]]] = {job: [] for job in jobs}
    with TemporaryDirectory() as name:
        put_pairs(Path(name), side, slices, scales)
        for _ in range(rounds):
            for job in jobs:
                found[job].append(run_job(Path(name), *job))
    rows = []
    for (model, scale, reference), times in found.items():
        seconds = {step: statistics.median(each[step] for each in times) for step in times[0]}
        outside = seconds["read_and_place"] + seconds["restore_and_save"]
        rows.append(
            {"model": model, "scale": scale, "reference": reference, **seconds, "outside": outside / (outside + seconds["network"])}
        )
    _print(rows)
    if output:
        write_json(output, {"machine": machine("cpu"), "rounds": rounds, "side": side, "slices": slices, "rows": rows})


def put_pairs(folder: Path, side: int, slices: int, scales: list[int]) -> None:
    """A target for each scale, and its reference on the result's grid and turned against it."""
    truth, other = (read_nifti(SAMPLE / f"synthetic_{role}.nii.gz") for role in ("target", "reference"))
    through = truth.grid.through_plane()
    shape = np.full(3, side)
    shape[through] = slices
    grid = grid_over(truth.grid, shape, (0.0, 0.0, 0.0))
    for scale in scales:
        write_as_scanned(folder / f"target_x{scale}.nii.gz", degrade(noisy(truth, grid, 0), scale, through))
    write_as_scanned(folder / "same grid.nii.gz", noisy(other, grid, 1))
    write_as_scanned(folder / "turned.nii.gz", noisy(other, grid_over(truth.grid, shape, TURNED), 1))


def run_job(folder: Path, model: str, scale: int, reference: str) -> dict[str, float]:
    """CPU seconds of the steps of one job."""
    options = {"target": f"target_x{scale}.nii.gz", "reference": f"{reference}.nii.gz", "output": "out/result.nii.gz", "scale": str(scale)}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-c", CHILD, "super-resolve", *arguments, "--model", model, "--threads", "1", "--register", "none"]
    command += ["--overwrite", "always"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{model} x{scale}, {reference}: {done.stderr}")
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def grid_over(of: Grid, shape: NDArray[np.int_], degrees: tuple[float, float, float]) -> Grid:
    """`shape` voxels over the field of view of `of`, turned about its centre."""
    affine = of.affine.copy()
    affine[:3, :3] = _turn(degrees) @ (affine[:3, :3] * (np.array(of.shape) / shape))
    centre = of.affine[:3, :3] @ (np.subtract(of.shape, 1) / 2) + of.affine[:3, 3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    x, y, z = shape.tolist()
    return Grid((x, y, z), affine)


def _turn(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (other for other in range(3) if other != axis)
        about = np.eye(3)
        about[[first, second], [first, second]] = np.cos(angle)
        about[first, second], about[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ about
    return turn


def noisy(volume: Volume, grid: Grid, seed: int) -> Volume:
    """`volume` on another grid, with noise of its own."""
    data = resample(volume, grid)
    return volume.on(grid, data + np.random.default_rng(seed).normal(0, NOISE * float(data.max()), grid.shape).astype(np.float32))


def write_as_scanned(path: Path, volume: Volume) -> None:
    """Write a volume in 16-bit integers, as scanners store them."""
    scaled = volume.data * (4000 / float(volume.data.max()))
    image = nib.Nifti1Image(scaled.round().astype(np.int16), volume.affine, dtype=np.int16)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _print(rows: list[dict[str, object]]) -> None:
    shown = Table(title="CPU seconds of one process, one thread", title_justify="left")
    for heading in ("model", "reference", "start", "read, check, place", "network", "put back, save", "QC page", "outside the network"):
        shown.add_column(heading, justify="left" if heading in ("model", "reference") else "right")
    for row in rows:
        steps = [f"{row[step]:.2f}" for step in ("start", "read_and_place", "network", "restore_and_save", "page")]
        bound = BOUNDS.get(str(row["model"]))
        verdict = "" if bound is None else f" (bound {bound:.0%}, {'kept' if float(str(row['outside'])) <= bound else 'missed'})"
        shown.add_row(f"{row['model']} x{row['scale']}", str(row["reference"]), *steps, f"{row['outside']:.0%}{verdict}")
    Console(width=140).print(shown)


if __name__ == "__main__":
    typer.run(main)
