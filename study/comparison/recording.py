"""What a training of a comparison writes down of itself: Ignite handlers for the training workflow, and their files."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from hftn_sr.volumes.files import write_bytes

__all__ = ["TRAINING", "VALIDATION", "TrainingLog", "ValidationLog", "end_with", "read_table", "table_bytes"]

TRAINING, VALIDATION = "training.csv", "validation.csv"

PAUSE = 0.5  # seconds between two looks at the parent


class TrainingLog:
    """Loss, seconds and a digest of the patches of each iteration, as `training.csv` in `folder`; complete when an epoch's checkpoint is.

    A resumed run goes on in the same file.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / TRAINING
        self.rows: list[dict[str, Any]] = []
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Act in each iteration, the last one of an epoch included, and thus before a checkpoint is written."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.resume)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def resume(self, engine: Engine) -> None:
        """Take up what was written before this epoch; iterations that no checkpoint holds are done, and written, again."""
        self.rows = [row for row in read_table(self.path) if int(row["iteration"]) <= engine.state.iteration]

    def start(self) -> None:
        """Data count as part of an iteration."""
        self.started = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        """Note one iteration."""
        state = engine.state
        loss = state.output["loss"] if isinstance(state.output, dict) else state.output[0]["loss"]
        seconds = time.monotonic() - self.started
        row = {
            "iteration": state.iteration,
            "loss": float(torch.as_tensor(loss).detach()),
            "seconds": round(seconds, 4),
            "patches": digest(state.batch),
        }
        self.rows.append(row)
        if state.iteration % state.epoch_length == 0:
            write_bytes(self.path, table_bytes(self.rows))


class ValidationLog:
    """Metrics of each validation, as `validation.csv` in `folder`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path | str) -> None:
        self.path = Path(folder) / VALIDATION

    def attach(self, engine: Engine) -> None:
        """Act when a validation is over, which is before a checkpoint is written."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Note one validation."""
        before = [row for row in read_table(self.path) if int(row["epoch"]) < engine.state.epoch]
        row = {"epoch": engine.state.epoch, **{name: float(value) for name, value in sorted(engine.state.metrics.items())}}
        write_bytes(self.path, table_bytes([*before, row]))


def digest(batch: Mapping[str, Any]) -> str:
    """Short SHA-256 of the voxels of `image` and `label`: two methods with one digest saw the same patches.

    One whose reference is split in another way has another digest, and so has another processor, by rounding.
    """
    found = hashlib.sha256()
    for key in ("image", "label"):
        found.update(torch.as_tensor(batch[key]).detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def end_with(parent: int) -> None:
    """End this process as soon as the process `parent` has ended without it, even by SIGKILL; 0 for none.

    Nobody waits for it any more, and the next training of its folder waits for it.
    """
    if parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file; none where there is no such file."""
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))


def table_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows of one kind as CSV with a header."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PAUSE)
    os._exit(1)
