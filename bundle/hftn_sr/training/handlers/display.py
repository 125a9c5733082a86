"""Display of a run: progress, curves, pictures."""

from __future__ import annotations

import atexit
import io
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import matplotlib.image
import numpy as np
import torch
from ignite.engine import Engine, Events
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from hftn_sr.pictures import Panel, change, picture, white

__all__ = ["WITHOUT_START", "CaseProgress", "Curves", "Progress", "preview"]


INTERVAL = 60.0  # seconds between two lines within an epoch, where no bar is shown


class _WithoutStart(logging.Filter):
    """Drops Ignite's line at the start of a run: it says `resuming from iteration 0` of a fresh run and of a resumed one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for that line."""
        return not str(record.msg).startswith("Engine run resuming from iteration")


WITHOUT_START = _WithoutStart()  # one for all engines: those of a class share their logger


class Progress:
    """Progress of a training: one log line at the start and per epoch; on a terminal also a bar with the time left.

    Elsewhere, as in a log file, a line each minute. Attach before other handlers that log: the bar disappears when the epoch ends.

    Args:
        optimizer: optimizer with the learning rate to log.
        console: console of the bar; standard error if None.
        interval: seconds between two lines within an epoch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, console: Console | None = None, interval: float = INTERVAL) -> None:
        self.optimizer, self.interval = optimizer, interval
        console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps, left:"), TimeRemainingColumn())
        # No refresh thread: it would write over the message of a failed epoch.
        self.bar = Bar(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=None)
        self.losses: list[float] = []
        self.started: float | None = None
        self.first_epoch, self.first_step, self.told = 0, 0, 0.0

    def attach(self, engine: Engine) -> None:
        """Act when an epoch starts, after each iteration and when the epoch ends."""
        engine.logger.addFilter(WITHOUT_START)
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        atexit.register(self.bar.stop)  # restores the cursor of the terminal, however the run ends

    def begin(self, engine: Engine) -> None:
        """Show the bar; before the first epoch, log where the run starts."""
        self.losses = []
        steps = engine.state.max_epochs * engine.state.epoch_length
        if self.started is None:
            self.started = self.told = time.monotonic()
            self.first_epoch, self.first_step = engine.state.epoch, engine.state.iteration
            begun = "starting" if self.first_epoch == 1 else "going on"
            engine.logger.info(f"{begun} at {self._epoch(engine)}, {engine.state.epoch_length} steps per epoch, {steps} in all")
        self.bar.update(self.task, description=self._epoch(engine), completed=engine.state.iteration, total=steps)
        self.bar.start()

    def advance(self, engine: Engine) -> None:
        """Move the bar, or log a line each interval where there is none."""
        self.losses.append(engine.state.output["loss"].item())
        self.bar.update(self.task, description=f"{self._epoch(engine)}, loss {self.losses[-1]:.4f}", completed=engine.state.iteration)
        self.bar.refresh()
        state, now = engine.state, time.monotonic()
        if not self.bar.disable or now - self.told < self.interval or state.iteration % state.epoch_length == 0:
            return
        self.told = now
        left = self._left(state.iteration - self.first_step, state.max_epochs * state.epoch_length - state.iteration)
        step = state.iteration % state.epoch_length
        engine.logger.info(f"{self._epoch(engine)}, step {step}/{state.epoch_length}: loss {np.mean(self.losses):.5f}, left {left}")

    def __call__(self, engine: Engine) -> None:
        """Remove the bar and log the epoch."""
        self.bar.stop()
        self.told = time.monotonic()
        left = self._left(engine.state.epoch - self.first_epoch + 1, engine.state.max_epochs - engine.state.epoch)
        loss, rate = np.mean(self.losses), self.optimizer.param_groups[0]["lr"]
        engine.logger.info(f"{self._epoch(engine)}: mean loss {loss:.5f}, learning rate {rate:.2e}, left {left}")

    def _left(self, done: int, more: int) -> timedelta:
        assert self.started is not None
        return timedelta(seconds=round((time.monotonic() - self.started) / done * more))

    def _epoch(self, engine: Engine) -> str:
        return f"epoch {engine.state.epoch}/{engine.state.max_epochs}"


class CaseProgress:
    """Progress of an evaluation or inference: one log line per case, with the time left."""

    def __init__(self) -> None:
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Act when the run starts and after each case."""
        engine.logger.addFilter(WITHOUT_START)
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def begin(self, engine: Engine) -> None:
        """Start the clock and log how many cases there are."""
        self.started = time.monotonic()
        engine.logger.info(f"starting, cases {engine.state.epoch_length}")

    def __call__(self, engine: Engine) -> None:
        """Log the case."""
        done, total = engine.state.iteration, engine.state.epoch_length
        batch = engine.state.batch
        case = batch["case"]
        name = ", ".join(batch[key][0] for key in ("case", "acquisition") if key in batch) if isinstance(case, list) else case.name
        left = timedelta(seconds=round((time.monotonic() - self.started) / done * (total - done)))
        engine.logger.info(f"case {done}/{total} done, {name}, left {left}")


class Curves:
    """TensorBoard: loss and learning rate of each step, scores and a picture of the first case of each validation.

    The x axis counts optimizer steps. A resumed run writes its own file beside the earlier ones and purges later steps from them: each step
    is shown once. With several processes, the loss is that of the main process's batch.

    Args:
        folder: folder of the event files.
        optimizer: optimizer with the learning rate to draw.
        evaluator: validation engine.
    """

    def __init__(self, folder: Path | str, optimizer: torch.optim.Optimizer, evaluator: Engine) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("curves need TensorBoard, which is not installed: pip install tensorboard") from None
        self.new_writer = SummaryWriter
        self.folder, self.optimizer, self.evaluator = str(folder), optimizer, evaluator
        self.writer: Any = None
        self.picture: bytes | None = None

    def attach(self, engine: Engine) -> None:
        """Act after each iteration and epoch. Attach after the handler that validates and before the one that saves the state."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED(event_filter=lambda _, iteration: iteration == 1), self.draw)

    def open(self, engine: Engine) -> None:
        """Open a file, after the run has resumed."""
        if self.writer is None:
            self.writer = self.new_writer(self.folder, purge_step=engine.state.iteration + 1)

    def add_step(self, engine: Engine) -> None:
        """Add the loss and the learning rate."""
        self.writer.add_scalar("train/loss", engine.state.output["loss"].item(), engine.state.iteration)
        self.writer.add_scalar("train/learning_rate", self.optimizer.param_groups[0]["lr"], engine.state.iteration)

    def draw(self, evaluator: Engine) -> None:
        """Keep the picture of the first case."""
        output, case = evaluator.state.output, evaluator.state.batch.get("case", [""])[0]
        image, label, pred = (output[key][0].float().cpu() for key in ("image", "label", "pred"))
        self.picture = preview(image, label, pred, f"{case}, epoch {evaluator.state.epoch}")

    def __call__(self, engine: Engine) -> None:
        """Add the validation of this epoch and flush the file, before the checkpoint is written."""
        if self.evaluator.state.epoch == engine.state.epoch:
            for name, score in self.evaluator.state.metrics.items():
                self.writer.add_scalar(f"validation/{name}", score, engine.state.iteration)
        if self.picture is not None:
            image = matplotlib.image.imread(io.BytesIO(self.picture))[..., :3]
            self.writer.add_image("validation/first_case", image, engine.state.iteration, dataformats="HWC")
            self.picture = None
        self.writer.flush()


def preview(image: Tensor, label: Tensor, pred: Tensor, heading: str) -> bytes:
    """PNG of the middle slice of a case: zero-filled target, reference, prediction, truth and error.

    Intensities and errors are drawn alike for every prediction of one case.

    Args:
        image: network input (3, H, W, D); the reference is the sum of channels 1 and 2.
        label: truth (1, H, W, D).
        pred: prediction (1, H, W, D).
        heading: above the picture.
    """
    middle = label.shape[-1] // 2
    channels = (image[0], image[1] + image[2], pred[0], label[0])
    low, reference, ours, truth = (np.flipud(channel[..., middle].numpy().T) for channel in channels)
    limits, limits_reference = ((min(0.0, float(view.min())), white(view)) for view in (truth, reference))
    panels = [
        Panel("target, zero-filled", low, limits),
        Panel("reference", reference, limits_reference),
        Panel("prediction", ours, limits),
        Panel("truth", truth, limits),
        change("error of the prediction", ours - truth, float(label.max())),
    ]
    return picture(panels, f"{heading}, slice {middle + 1} of {label.shape[-1]}", unit="% of the truth's maximum (PSNR's peak)")
