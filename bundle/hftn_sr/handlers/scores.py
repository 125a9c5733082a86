"""Validation scores of whole volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
import torch
from ignite.metrics import Metric

from hftn_sr.metrics import scores

__all__ = ["VolumeScore"]


class VolumeScore(Metric):
    """Mean over volumes of one score, or of its gain over the zero-filled target.

    Each iteration gives (pred, label, image) with a batch of volumes (B, C, H, W, D), in intensities, which `RestoreIntensityd` sees to.
    Where several processes validate, each has volumes of its own, and all get the mean over every volume.

    Args:
        name: `psnr` (dB), `ssim` or `nmse`.
        gain: subtract the score of the zero-filled target, the first channel of `image`.
        output_transform: from the engine's output to that triple.
    """

    def __init__(self, name: str, gain: bool = False, output_transform: Callable[[Any], Any] = lambda output: output) -> None:
        self.name, self.gain = name, gain
        super().__init__(output_transform)

    def reset(self) -> None:
        """Forget all volumes."""
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
