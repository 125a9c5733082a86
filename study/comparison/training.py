"""One row trained by the training workflow, in a process of its own that may be killed at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.recording import TRAINING, read_table
from comparison.rows import Row
from comparison.schedule import Schedule
from comparison.settings import read_record
from hftn_sr._bundle import BUNDLE
from hftn_sr.errors import Fault
from hftn_sr.networks import build_network
from hftn_sr.networks.weights import is_finite, save_weights
from hftn_sr.training.handlers.state import read_checkpoint
from hftn_sr.volumes.files import sha256_of, write_json

__all__ = [
    "CHECKPOINT",
    "TRAIN_YAML",
    "WEIGHTS",
    "Stopped",
    "Trained",
    "finished_training",
    "seconds_per_iteration",
    "train_row",
    "workflow_overlay",
]

TRAIN_YAML = BUNDLE / "configs" / "train.yaml"
STUDY = str(Path(__file__).absolute().parents[1])
CHECKPOINT, WEIGHTS, RECORD, OVERLAY, LOG = "latest.pt", "weights.safetensors", "trained.json", "workflow.json", "training.log"

CASES_PER_STEP = 2
VALIDATION_SLICES = 2  # of each validation volume, for the curves alone
PAUSE = 0.3  # seconds between two looks at a child
SETTLED = 3  # iterations after which a training runs at its pace
HERE = "comparison.recording"
OUTPUT_VARIABLE, DATASET_VARIABLE = "HFTN_SR_COMPARISON_OUTPUT", "HFTN_SR_COMPARISON_DATASET"
STARTED = "input summary of monai.bundle"  # in the first line that the workflow logs
EXCEPTION = re.compile(r"[\w.]+(Error|Exception|Fault)\b")

Told = Callable[[int], None]


class Stopped(Exception):  # noqa: N818 - a wish of the user, not an error
    """The user, or a fault elsewhere, ended the comparison."""


@dataclass(frozen=True)
class Trained:
    """A network after its last iteration.

    Args:
        weights: its file.
        sha256: of that file.
        iterations: that it was trained for.
        minutes: that these iterations took, data included, validations and loading not.
        patches: digest of all patches that it saw.
    """

    weights: Path
    sha256: str
    iterations: int
    minutes: float
    patches: str


def workflow_overlay(row: Row, plan: Schedule, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a row sets in `train.yaml`, as a configuration to be laid over it.

    The folders come by environment variables: in a path that stands in a configuration, MONAI would take `@` and `#` for its own.

    Args:
        row: method, scale, seed and options.
        plan: epochs.
        hyperparameters: what all rows of the comparison have in common, by name in `train.yaml`.
    """
    return {
        "+imports": ["$import os", "$import comparison", f"$import {HERE}"],
        "parent": 0,
        "initialize": [f"${HERE}.end_with(@parent)"],
        "sections_apart": None,  # a table says which of its cases were trained on
        "output_dir": f"$os.environ['{OUTPUT_VARIABLE}']",
        "dataset_dir": f"$os.environ['{DATASET_VARIABLE}']",
        "method": row.method,
        "options": dict(row.options),
        "scale": row.scale,
        "seed": row.seed,
        "epochs": plan.epochs,
        "epoch_cases": plan.steps * CASES_PER_STEP,
        "cases_per_step": CASES_PER_STEP,
        "val_interval": plan.val_interval,
        "validation_slices": VALIDATION_SLICES,
        **hyperparameters,
        "+train#handlers": [{"_target_": f"{HERE}.TrainingLog", "folder": "@output_dir"}],
        "+validate#handlers": [{"_target_": f"{HERE}.ValidationLog", "folder": "@output_dir"}],
    }


def train_row(
    folder: Path,
    dataset: Path,
    row: Row,
    plan: Schedule,
    hyperparameters: Mapping[str, Any],
    stop: threading.Event,
    told: Told = lambda done: None,
) -> Trained:
    """Train a row, or go on with it, or find it trained.

    What is kept are the weights of the last iteration: every row has had the same number, and none is chosen by a validation. They are
    rounded to float16 before they are scored, so that all rows of a study can be shipped with their figures: the rounding is an eighth of
    that of bfloat16, in which they were trained.

    Args:
        folder: of the run; holds settings that were found equal to these.
        dataset: folder with datalist.json.
        row: see `workflow_overlay`.
        plan: likewise.
        hyperparameters: likewise.
        stop: ends the training when set.
        told: called with the iterations that are done.

    Raises:
        Fault: the training failed.
        Stopped: `stop` was set.
    """
    if trained := finished_training(folder):
        return trained
    if _iteration(folder) < plan.iterations:
        _run(folder, dataset, workflow_overlay(row, plan, hyperparameters), stop, told)
    if (found := _iteration(folder)) != plan.iterations:
        raise Fault(folder, f"training ended after {found} of {plan.iterations} iterations", f"look into {folder / LOG}")
    rows = read_table(folder / TRAINING)
    network = build_network(row.method, row.scale, row.options)
    network.load_state_dict(read_checkpoint(folder / CHECKPOINT)["network"])
    record = {"workflow": "train.yaml", "method": row.method, "seed": row.seed, "steps": plan.iterations, **hyperparameters}
    network.half()
    if not is_finite(network):
        raise Fault(folder / CHECKPOINT, "holds weights that are not finite, or too large for float16", "train this row with another seed")
    save_weights(folder / WEIGHTS, network, record)
    minutes = sum(float(each["seconds"]) for each in rows) / 60
    patches = _joined([each["patches"] for each in rows])
    content = {"sha256": sha256_of(folder / WEIGHTS), "iterations": plan.iterations, "minutes": round(minutes, 4), "patches": patches}
    write_json(folder / RECORD, content)
    return Trained(folder / WEIGHTS, **content)  # type: ignore[arg-type]


def seconds_per_iteration(
    folder: Path,
    dataset: Path,
    row: Row,
    steps: int,
    hyperparameters: Mapping[str, Any],
    stop: threading.Event,
    told: Told = lambda done: None,
) -> float:
    """Median time of one iteration, from a short training of its own in `folder`.

    Raises:
        Fault: see `train_row`.
        Stopped: likewise.
    """
    _run(folder, dataset, workflow_overlay(row, Schedule(1, steps, 2), hyperparameters), stop, told)
    return statistics.median([float(each["seconds"]) for each in read_table(folder / TRAINING)][SETTLED:])


def finished_training(folder: Path) -> Trained | None:
    """What was trained in the run's `folder`; None where that is not over, or its weights are missing or not those that were recorded."""
    record = read_record(folder / RECORD)
    weights = folder / WEIGHTS
    if not record or not weights.is_file() or sha256_of(weights) != record["sha256"]:
        return None
    return Trained(weights, **record)


def _iteration(folder: Path) -> int:
    """That the checkpoint holds."""
    path = folder / CHECKPOINT
    return int(read_checkpoint(path)["iteration"]) if path.is_file() else 0


def _run(folder: Path, dataset: Path, overlay: Mapping[str, Any], stop: threading.Event, told: Told) -> None:
    write_json(folder / OVERLAY, dict(overlay))
    configs = json.dumps([str(TRAIN_YAML), str(folder / OVERLAY)])
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", configs, "--parent", str(os.getpid())]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(overlay["threads"]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (STUDY, os.environ.get("PYTHONPATH")))),  # for what the overlay names in `comparison`
        OUTPUT_VARIABLE: str(folder),
        DATASET_VARIABLE: str(dataset),
    }
    with (folder / LOG).open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=folder, env=environment)
        try:
            _wait(child, folder, stop, told)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode:
        finding = _finding((folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines())
        raise Fault(folder / LOG, f"training ended with code {child.returncode}: {finding[:300]}", "look into that file, run again")


def _finding(lines: list[str]) -> str:
    """What a log says of the failure: our own line, else the first exception since the last start, which those after it only wrap."""
    start = max((index for index, line in enumerate(lines) if STARTED in line), default=0)
    lines = [line.strip() for line in lines[start:] if line.strip()]
    ours = next((line for line in lines if line.startswith("ERROR")), None)
    return ours or next((line for line in lines if EXCEPTION.match(line)), lines[-1] if lines else "no output")


def _wait(child: subprocess.Popen[bytes], folder: Path, stop: threading.Event, told: Told) -> None:
    seen = None
    while child.poll() is None:
        if stop.wait(PAUSE):
            raise Stopped
        table = folder / TRAINING
        if table.is_file() and (now := table.stat().st_mtime_ns) != seen:
            seen = now
            told(int(read_table(table)[-1]["iteration"]))


def _joined(digests: list[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]
