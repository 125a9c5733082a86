"""Validation of a training, and scores of whole volumes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.handlers import ValidationHandler

from hftn_sr.scoring.metrics import scores
from hftn_sr.training.acquisitions import VALIDATED
from hftn_sr.training.handlers.display import WITHOUT_START

__all__ = ["AcquisitionGains", "EarlyStop", "Validation", "VolumeScore", "has_cases"]


class Validation(ValidationHandler):
    """MONAI's ValidationHandler, which also validates after the last epoch.

    The learning rate ends at 0, so that the weights of the last epochs are mostly the best. Only validated weights are kept. Without a case
    to validate nothing happens.

    Args:
        validator: evaluation engine.
        interval: epochs between validations.
    """

    def __init__(self, validator: Any, interval: int) -> None:
        super().__init__(interval, validator)

    def attach(self, engine: Engine) -> None:
        """Act when an epoch ends."""
        if not has_cases(self.validator):
            return
        getattr(self.validator, "logger", logging.getLogger()).addFilter(WITHOUT_START)

        def due(engine: Engine, epoch: int) -> bool:
            return epoch % self.interval == 0 or epoch == engine.state.max_epochs

        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=due), self)


class EarlyStop:
    """End a training after several validations without a better score.

    Attach after the handler that saves, to the trainer. MONAI's EarlyStopHandler needs the trainer when the evaluator is made, and the
    trainer needs the evaluator.

    Args:
        evaluator: validation engine with a key metric; larger is better.
        patience: validations without a better score after which the run ends.
    """

    def __init__(self, evaluator: Any, patience: int) -> None:
        self.evaluator, self.patience = evaluator, patience
        self.best, self.worse, self.seen = float("-inf"), 0, 0

    def attach(self, engine: Engine) -> None:
        """Act when an epoch ends."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Count, and end the run."""
        state = self.evaluator.state
        if state.epoch != engine.state.epoch or state.epoch == self.seen:
            return
        self.seen, score = state.epoch, state.metrics[state.key_metric_name]
        self.best, self.worse = max(self.best, score), 0 if score > self.best else self.worse + 1
        if self.worse >= self.patience:
            engine.logger.info(f"stopping after epoch {engine.state.epoch}: {self.worse} validations without a better score")
            engine.terminate()


def has_cases(evaluator: Any) -> bool:
    """Whether an evaluation engine has data; one without a loader counts as having some."""
    loader = getattr(evaluator, "data_loader", None)
    return loader is None or len(loader) > 0


class VolumeScore(Metric):
    """Mean over volumes of one score, or of its gain over the zero-filled target.

    Each iteration gives (pred, label, image), batches of volumes (B, C, H, W, D) in intensities, see `RestoreIntensityd`.
    With several processes, each validates its own volumes, and all get the mean over every volume.

    Args:
        name: `psnr` (dB), `ssim` or `nmse`.
        gain: subtract the score of the zero-filled target, the first channel of `image`.
        output_transform: function from the engine's output to that triple.
    """

    def __init__(self, name: str, gain: bool = False, output_transform: Callable[[Any], Any] = lambda output: output) -> None:
        self.name, self.gain = name, gain
        super().__init__(output_transform)

    def reset(self) -> None:
        """Drop all volumes."""
        self.values: list[float] = []

    def update(self, output: tuple[Any, Any, Any]) -> None:
        """Add the volumes of one batch."""
        for pred, label, image in zip(*output, strict=True):
            value = scores(pred[0], label[0])[self.name]
            self.values.append(value - scores(image[0], label[0])[self.name] if self.gain else value)

    def compute(self) -> float:
        """Mean over the volumes."""
        total = torch.tensor([sum(self.values), len(self.values)], dtype=torch.float64, device=idist.device())
        value, count = idist.all_reduce(total).tolist()
        return float(value / count)


class AcquisitionGains:
    """Mean PSNR gain over the interpolated target for each acquisition, as the metric `psnr_gain_NAME`, see `CachedCases`.

    Attach before the handlers that log metrics. The mean over all of them is `VolumeScore`'s.
    """

    def __init__(self) -> None:
        self.gains: dict[str, list[float]] = {}

    def attach(self, engine: Engine) -> None:
        """Act when a validation starts, after each volume and when it ends."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def reset(self, engine: Engine) -> None:
        """Drop all volumes."""
        self.gains = {name: [] for name in VALIDATED}

    def update(self, engine: Engine) -> None:
        """Add the volumes of one batch."""
        output, names = engine.state.output, engine.state.batch["acquisition"]
        for name, pred, label, image in zip(names, output["pred"], output["label"], output["image"], strict=True):
            self.gains[name].append(scores(pred[0], label[0])["psnr"] - scores(image[0], label[0])["psnr"])

    def __call__(self, engine: Engine) -> None:
        """Put the means into the engine's metrics; with several processes, over every volume."""
        sums = [[sum(gains), len(gains)] for gains in self.gains.values()]
        total = idist.all_reduce(torch.tensor(sums, dtype=torch.float64, device=idist.device()))
        for name, (gain, count) in zip(self.gains, total.tolist(), strict=True):
            if count:
                engine.state.metrics[f"psnr_gain_{name}"] = gain / count
