"""Training of `Correspondence`: the search first, supervised with displacements that the training draws, then the whole network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from hftn_sr.errors import UsageFault
from hftn_sr.networks import METHODS
from hftn_sr.networks.correspondence import Correspondence
from hftn_sr.networks.transfer_attention import Found

__all__ = [
    "CorrespondenceInferer",
    "CorrespondenceLoss",
    "Searched",
    "Stages",
    "TwoCosines",
    "check_searches",
    "prepare_batch",
    "search_losses",
]

Stage = Literal["search", "synthesis", "all"]
RIGHT = 1.0  # voxels; S says whether a displacement errs by less


class Searched(NamedTuple):
    """What the network gives in training.

    Args:
        pred: (B, 1, H, W); None while only the search is trained.
        found: None while only the synthesis is trained.
    """

    pred: Tensor | None
    found: Found | None


def check_searches(method: str, options: Mapping[str, Any] | None) -> None:
    """Refuse a method without a search, before the cases are read.

    Args:
        method: key of METHODS.
        options: differences from the method's own.

    Raises:
        UsageFault: `train_correspondence.yaml` was laid over a training of another network.
    """
    if method in METHODS and METHODS[method].network != "correspondence":
        fix = "--method correspondence or correspondence_small, or leave out train_correspondence.yaml"
        raise UsageFault("--method", f"{method} has no search to train", fix)
    if not (options or {}).get("searching", True):
        raise UsageFault(
            "--options",
            "without a search there is none to train",
            "leave searching out of --options, or leave out train_correspondence.yaml",
        )


def prepare_batch(
    batch: Mapping[str, Tensor], device: Any = None, non_blocking: bool = False, **_: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """`image`, and what `CorrespondenceLoss` compares with: `label`, `displacement`, `placed` and `painted`."""
    on = {key: batch[key].to(device, non_blocking=non_blocking) for key in ("image", "label", "displacement", "placed", "painted")}
    return on.pop("image"), on


class CorrespondenceInferer(Inferer):
    """The network in training: `search`, `synthesis` or `all` of it, see `Stages`. One process only.

    Args:
        enabled: mixed precision.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.stage: Stage = "all"

    def __call__(self, inputs: Tensor, network: Correspondence, *_: Any, **__: Any) -> Searched:
        """Crops (B, 3, H, W) of sizes that the network need not pad."""
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=self.enabled):
            with torch.set_grad_enabled(self.stage != "synthesis"):
                found = network.search(inputs)
            pred = None if self.stage == "search" else network.fuse(inputs, found).float()
        return Searched(pred, None if self.stage == "synthesis" else found)


class CorrespondenceLoss(nn.Module):
    """Mean absolute error of the image, equation (19), plus the losses of the search.

    Args:
        search_weight: of `search_losses`, once the image counts.
        spot_weight: of a voxel that `PaintSpots` painted, beside the 1 of any voxel; so few of them hardly count otherwise.
    """

    def __init__(self, search_weight: float = 0.01, spot_weight: float = 8.0) -> None:
        super().__init__()
        self.search_weight, self.spot_weight = search_weight, spot_weight

    def forward(self, searched: Searched, truth: Mapping[str, Tensor]) -> Tensor:
        """What `CorrespondenceInferer` and `prepare_batch` give."""
        total = torch.zeros((), device=truth["label"].device)
        if searched.pred is not None:
            weight = 1 + self.spot_weight * truth["painted"]
            total = total + ((searched.pred - truth["label"]).abs() * weight).mean()
        if searched.found is not None:
            share = 1.0 if searched.pred is None else self.search_weight
            total = total + share * sum(search_losses(searched.found, truth["displacement"], truth["placed"]).values())
        return total


def search_losses(found: Found, displacement: Tensor, placed: Tensor) -> dict[str, Tensor]:
    """What a search is taught, means over places.

    `place`: cross-entropy of the softmax against the true place, split between its four neighbours. `remainder`: error of the displacement
    in places, beyond 2 only logarithmically. `relevance`: cross-entropy of S against whether the displacement errs by less than a voxel.
    The first two count where there is a true place within reach and within the image.

    Args:
        found: on half the grid, (B, ..., H/2, W/2).
        displacement: (B, 2, H, W) in voxels.
        placed: (B, 1, H, W), 1 where the reference shows what the target does.
    """
    truth = functional.avg_pool2d(displacement, 2) / 2
    signal = functional.avg_pool2d(placed, 2)[:, 0]
    radius = math.isqrt(found.logits.shape[1]) // 2
    height, width = truth.shape[-2:]
    rows = torch.arange(height, device=truth.device)[:, None] + truth[:, 0]
    columns = torch.arange(width, device=truth.device) + truth[:, 1]
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    within = signal * (inside & (truth.abs().amax(1) < radius))
    count = within.sum().clamp_min(1)
    place = -(_split(truth, radius) * found.logits.log_softmax(1)).sum(1)
    error = (found.displacement - truth).square().sum(1).add(1e-6).sqrt()
    capped = torch.where(error < 2, error, 2 + 2 * (error / 2).clamp_min(1).log())
    right = (2 * error.detach() < RIGHT).float() * signal
    counted = functional.binary_cross_entropy_with_logits(found.relevance[:, 0], right, reduction="none")
    return {"place": (place * within).sum() / count, "remainder": (capped * within).sum() / count, "relevance": counted.mean()}


class Stages:
    """Train the search alone, then the synthesis with the search as it is, then both together.

    The stage follows from the number of the epoch, so that a resumed run is in the right one.

    Args:
        search_epochs: epochs of the search alone.
        all_epochs: epochs of both at the end, of a small learning rate by then.
        inferer: what computes the network.
    """

    def __init__(self, search_epochs: int, all_epochs: int, inferer: CorrespondenceInferer) -> None:
        self.search_epochs, self.all_epochs, self.inferer = search_epochs, all_epochs, inferer

    def attach(self, engine: Engine) -> None:
        """Act before each epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Set the stage."""
        epoch, last = engine.state.epoch, engine.state.max_epochs or 0
        self.inferer.stage = "search" if epoch <= self.search_epochs else "all" if epoch > last - self.all_epochs else "synthesis"


class TwoCosines(LRScheduler):
    """Learning rates that fall to 0 along a cosine over the search's steps, and again over the others.

    Args:
        optimizer: whose learning rates.
        search_steps: steps of the first fall; may be 0.
        steps: all steps.
    """

    def __init__(self, optimizer: Optimizer, search_steps: int, steps: int) -> None:
        self.search_steps, self.steps = search_steps, steps
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Of each group of parameters."""
        first = self.last_epoch < self.search_steps
        done, length = (
            (self.last_epoch, self.search_steps) if first else (self.last_epoch - self.search_steps, self.steps - self.search_steps)
        )
        share = (1 + math.cos(math.pi * min(done / max(length, 1), 1))) / 2
        return [float(base) * share for base in self.base_lrs]


def _split(truth: Tensor, radius: int) -> Tensor:
    """Target of the softmax (B, (2 r + 1)^2, h, w): each place (B, 2, h, w) shared by its neighbours; 0 for those out of reach."""
    steps = torch.arange(-radius, radius + 1, dtype=truth.dtype, device=truth.device).view(1, -1, 1, 1)
    rows, columns = ((1 - (truth[:, axis : axis + 1] - steps).abs()).clamp_min(0) for axis in (0, 1))
    return (rows[:, :, None] * columns[:, None]).flatten(1, 2)
