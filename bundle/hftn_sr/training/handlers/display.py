"""Display of a run: progress, curves, pictures."""

from __future__ import annotations

import atexit
import io
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

__all__ = ["CaseProgress", "Curves", "Progress", "preview"]


class Progress:
    """Progress of a training: one log line per epoch; on a terminal also a bar with the time left.

    Attach before other handlers that log: the bar disappears when the epoch ends.

    Args:
        optimizer: optimizer with the learning rate to log.
        console: console of the bar; standard error if None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, console: Console | None = None) -> None:
        self.optimizer = optimizer
        console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps, left:"), TimeRemainingColumn())
        # No refresh thread: it would write over the message of a failed epoch.
        self.bar = Bar(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=None)
        self.losses: list[float] = []
        self.started, self.first_epoch = 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Act when an epoch starts, after each iteration and when the epoch ends."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.EPOCH_STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)
        atexit.register(self.bar.stop)  # restores the cursor of the terminal, however the run ends

    def begin(self, engine: Engine) -> None:
        """Show the bar."""
        self.losses = []
        if not self.started:
            self.started, self.first_epoch = time.monotonic(), engine.state.epoch
        steps = engine.state.max_epochs * engine.state.epoch_length
        self.bar.update(self.task, description=self._epoch(engine), completed=engine.state.iteration, total=steps)
        self.bar.start()

    def advance(self, engine: Engine) -> None:
        """Move the bar."""
        self.losses.append(engine.state.output["loss"].item())
        self.bar.update(self.task, description=f"{self._epoch(engine)}, loss {self.losses[-1]:.4f}", completed=engine.state.iteration)
        self.bar.refresh()

    def __call__(self, engine: Engine) -> None:
        """Remove the bar and log the epoch."""
        self.bar.stop()
        per_epoch = (time.monotonic() - self.started) / (engine.state.epoch - self.first_epoch + 1)
        left = timedelta(seconds=round(per_epoch * (engine.state.max_epochs - engine.state.epoch)))
        loss, rate = np.mean(self.losses), self.optimizer.param_groups[0]["lr"]
        engine.logger.info(f"{self._epoch(engine)}: mean loss {loss:.5f}, learning rate {rate:.2e}, left {left}")

    def _epoch(self, engine: Engine) -> str:
        return f"epoch {engine.state.epoch}/{engine.state.max_epochs}"


class CaseProgress:
    """Progress of an evaluation or inference: one log line per case, with the time left."""

    def __init__(self) -> None:
        self.started = 0.0

    def attach(self, engine: Engine) -> None:
        """Act when the run starts and after each case."""
        if idist.get_rank() > 0:
            return
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def begin(self, engine: Engine) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def __call__(self, engine: Engine) -> None:
        """Log the case."""
        done, total = engine.state.iteration, engine.state.epoch_length
        case = engine.state.batch["case"]
        left = timedelta(seconds=round((time.monotonic() - self.started) / done * (total - done)))
        engine.logger.info(f"case {done}/{total} done, {case[0] if isinstance(case, list) else case.name}, left {left}")


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
