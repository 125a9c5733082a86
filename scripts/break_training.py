"""Train on two nodes under torchrun, lose a worker and then a whole node, bring it back, and compare with a run that nothing breaks.

python scripts/break_training.py --output broken

Both nodes are on this machine, with a process each, on the CPU (gloo). The network is tiny. Prints what was killed, the largest relative
differences of the losses and of the weights, and ends with code 1 if one of them exceeds 1e-4.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import load_file

import hftn_sr
from hftn_sr.volumes.nifti import read_nifti, save_nifti

BUNDLE = Path(hftn_sr.__file__).parents[1]
SAMPLE = BUNDLE / "hftn_sr" / "sample"
OPTIONS = {
    "method": "hftn_light", "options": {"channels": 16, "stages": 1, "embedding": 8}, "crop_size": 32, "crops_per_slice": 2, "amp": False,
    "epochs": 4, "epoch_cases": 8, "cases_per_step": 2, "val_interval": 1, "threads": 1, "processes": 2,
}  # fmt: skip
RTOL = 1e-4
PATIENCE = 3000.0  # seconds for a step of this script
SLOW = "last_call_timeout=60,keep_alive_interval=10,keep_alive_max_attempt=12,read_timeout=600"  # for a busy machine
# Without it an agent of torch 2.13 that is new in a running rendezvous waits for an address which the others do not tell it again.
ALONE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
AWAY = 10.0  # seconds for which the node is lost


def main(output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("broken")) -> None:
    """Run both trainings and compare."""
    shutil.rmtree(output, ignore_errors=True)
    data = _dataset(output / "data")
    started = time.monotonic()
    whole, broken = (_Run(data, output / name) for name in ("unbroken", "broken"))  # at the same time: most of it is waiting
    for run in (whole, broken):
        run.join()
    lost = [run.join() for run in (whole, broken)][1]
    broken.wait_for_epoch(1)
    worker = _children(lost.pid)[0]
    os.kill(worker, signal.SIGKILL)
    typer.echo(f"epoch 1 is saved: worker {worker} killed, its agent {lost.pid} lives")
    broken.wait_for_epoch(2)
    for process in (lost.pid, *_children(lost.pid)):
        os.kill(process, signal.SIGKILL)
    lost.wait()
    epoch = broken.epoch()
    typer.echo(f"epoch {epoch} is saved: node killed, agent {lost.pid} and its worker")
    time.sleep(AWAY)
    broken.nodes.remove(lost)
    broken.join()
    typer.echo(f"after {AWAY:.0f} s the node joins again; saved is still epoch {broken.epoch()}")
    whole.finish()
    broken.finish()
    typer.echo(f"both ended after {time.monotonic() - started:.0f} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    raise typer.Exit(_compare(output / "unbroken", output / "broken"))


class _Run:
    """A training on two nodes, which join one after the other."""

    def __init__(self, data: Path, output: Path) -> None:
        self.data, self.output, self.nodes = data, output, list[subprocess.Popen[bytes]]()
        output.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def join(self) -> subprocess.Popen[bytes]:
        """Start the agent of a node, with its output in a log."""
        configs = str([str(BUNDLE / "configs" / f"{name}.yaml") for name in ("train", "multi_gpu_train")])
        options = {**OPTIONS, "dataset_dir": self.data, "output_dir": self.output}
        command = [
            *(
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes=1:2",
                "--nproc_per_node=1",
                "--max-restarts=3",
                "--monitor-interval=1",
            ),
            *(
                "--rdzv-backend=c10d",
                f"--rdzv-endpoint=127.0.0.1:{self.port}",
                f"--rdzv-id={self.port}",
                "--rdzv-conf=last_call_timeout=20",
            ),
            *("-m", "monai.bundle", "run", "training", "--config_file", configs),
            *(word for name, value in options.items() for word in (f"--{name}", str(value))),
        ]
        log = self.output / f"node{len(list(self.output.glob('node*.log')))}.log"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **ALONE}
        with log.open("wb") as stream:
            node = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        self.nodes.append(node)
        _wait(self._answers, "rendezvous")  # the first node keeps it, and must not be the one that is lost
        return node

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def epoch(self) -> int:
        """Number of the last epoch that is saved; 0 before the first one."""
        latest = self.output / "latest.pt"
        return int(torch.load(latest, weights_only=True)["epoch"]) if latest.is_file() else 0

    def wait_for_epoch(self, number: int) -> None:
        """Wait until an epoch is saved."""
        _wait(lambda: self.epoch() >= number, f"epoch {number} of {self.output}")

    def finish(self) -> None:
        """Wait for the end of all nodes."""
        _wait(lambda: all(node.poll() is not None for node in self.nodes), f"the end of {self.output}")
        codes = [node.returncode for node in self.nodes]
        if any(codes):
            typer.echo(f"{self.output}: exit codes {codes}, see its logs", err=True)
            raise typer.Exit(1)


def _wait(until: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not until():
        if time.monotonic() > end:
            typer.echo(f"no {what} within {PATIENCE:.0f} s", err=True)
            raise typer.Exit(1)
        time.sleep(0.1)


def _children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()]


def _dataset(folder: Path) -> Path:
    """Parts of the synthetic sample: one to train on, two to validate."""
    folder.mkdir(parents=True)
    whole = read_nifti(SAMPLE / "synthetic_target.nii.gz")
    for name, (x, y, z) in {"all": (0, 0, 4), "left": (0, 8, 2), "right": (16, 0, 2)}.items():
        part = whole.on(whole.grid.cropped((70 + x, 80 + y, 2), (48, 56, z)), whole.data[70 + x :, 80 + y :, 2:][:48, :56, :z].copy())
        save_nifti(folder / f"{name}.nii.gz", part, "synthetic")
        shutil.copy(SAMPLE / "synthetic_reference.nii.gz", folder / f"{name}_reference.nii.gz")
    names = {"training": ["all"], "validation": ["left", "right"], "testing": []}
    lists = {
        section: [{"case": name, "target": f"{name}.nii.gz", "reference": f"{name}_reference.nii.gz"} for name in cases]
        for section, cases in names.items()
    }
    (folder / "datalist.json").write_text(json.dumps(lists), encoding="utf-8")
    return folder


def _compare(unbroken: Path, broken: Path) -> int:
    """Print the differences; the exit code."""
    one, other = _losses(unbroken), _losses(broken)
    first, second = (load_file(folder / "best.safetensors") for folder in (unbroken, broken))
    states = [torch.load(folder / "latest.pt", weights_only=True)["network"] for folder in (unbroken, broken)]
    same = one.keys() == other.keys() and first.keys() == second.keys()
    differences = {
        "losses": max((abs(one[step] - other[step]) / abs(one[step]) for step in one.keys() & other.keys()), default=float("inf")),
        "weights, last epoch": _furthest(*states),
        "weights, best epoch": _furthest(first, second),
    }
    typer.echo(f"steps: {len(one)} and {len(other)}, the same ones: {same}")
    for name, value in differences.items():
        typer.echo(f"{name}: largest relative difference {value:.2g}")
    return int(not same or any(value > RTOL for value in differences.values()))


def _furthest(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Largest difference of two sets of tensors, relative to the largest value of each tensor."""
    return max(float((first[name] - second[name]).abs().max() / first[name].abs().max().clamp(min=1e-30)) for name in first)


def _losses(folder: Path) -> dict[int, float]:
    """Step to loss; of a step that was taken again the last one."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = {}
    for path in sorted(folder.glob("events*"), key=lambda each: each.stat().st_mtime):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if "loss" in value.tag:
                    found[event.step] = float(value.tensor.float_val[0])
    return found


if __name__ == "__main__":
    typer.run(main)
