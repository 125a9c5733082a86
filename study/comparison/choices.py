"""What a user wants compared, and whether that can be meant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.schedule import schedule, timed_schedule
from comparison.sizes import GMAC, Sizes
from hftn_sr.errors import UsageFault
from hftn_sr.pairs.datalist import Section
from hftn_sr.training.protocols import ProtocolName, choose_protocol

__all__ = ["Choices", "check_choices"]


@dataclass(frozen=True)
class Choices:
    """What is compared, and how.

    Args:
        data: folder with datalist.json, or a copy of the open data without one.
        output: folder for tables, pictures and runs; a later command goes on with what it finds there.
        methods: keys of METHODS.
        scales: 2, 4 or both.
        seeds: of weights and patches.
        sizes: `matched`, every network with as many channels as a bound on its MACs allows, or `paper`, the published sizes.
        gmac: that bound for every scale; None for `sizes.GMAC`.
        iterations: that every network is trained for; or else
        minutes: that the training of every network may take, from a measurement at its beginning.
        eval_slices: scored slices of each volume, from its middle; None for all.
        protocol: key of PROTOCOLS.
        protocol_crop: for `sanet`, side of its central square in voxels; None for the published 320.
        section: of the datalist that is scored.
        baseline: method that differences refer to; None for early fusion or, without it, zero-filling.
        jobs: rows at a time.
        crop_size: side of the training patches in voxels.
        learning_rate: at the start; None for that of train.yaml.
        overwrite: begin rows anew that were made with other settings.
    """

    data: Path
    output: Path
    methods: Sequence[str]
    scales: Sequence[int] = (2, 4)
    seeds: Sequence[int] = (0,)
    sizes: Sizes = "matched"
    gmac: float | None = None
    iterations: int | None = None
    minutes: float | None = None
    eval_slices: int | None = None
    protocol: ProtocolName = "corrected"
    protocol_crop: int | None = None
    section: Section = "testing"
    baseline: str | None = None
    jobs: int = 1
    crop_size: int = 64
    learning_rate: float | None = None
    overwrite: bool = False

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What all rows set in train.yaml. One thread: a second one would change sums, and thus figures, in their last digits."""
        data = {"crop_size": self.crop_size, "protocol": self.protocol, "protocol_crop": self.protocol_crop, "voxel_size_prob": 0.0}
        return {**data, "threads": 1, **({} if self.learning_rate is None else {"learning_rate": self.learning_rate})}

    @property
    def reference_method(self) -> str:
        """That differences refer to."""
        return self.baseline or ("early_fusion" if "early_fusion" in self.methods else "zero_filling")

    @property
    def budget_words(self) -> str:
        """As tables say it."""
        return f"{self.iterations} iterations" if self.iterations is not None else f"{self.minutes:g} minutes of training"

    @property
    def size_words(self) -> str:
        """Likewise."""
        if self.sizes == "paper":
            return "published sizes"
        bounds = " and ".join(f"{self.gmac or GMAC[scale]:g} GMAC at x{scale}" for scale in self.scales)
        return f"each network with as many channels as {bounds} allow"


def check_choices(choices: Choices) -> None:
    """Raise UsageFault where they cannot be meant."""
    if (choices.iterations is None) == (choices.minutes is None):
        raise UsageFault("--iterations", "one budget is needed, iterations or minutes", "--iterations 1000")
    if choices.iterations is not None:
        schedule(choices.iterations)
    if choices.minutes is not None:
        timed_schedule(choices.minutes, 1)
    for scale in choices.scales:
        if scale not in (2, 4):
            raise UsageFault("--scales", f"{scale} (need 2 or 4)", "--scales 2 4")
    if choices.baseline is not None and choices.baseline not in choices.methods:
        raise UsageFault("--baseline", f"{choices.baseline} is not among the methods", "name it in --methods, too")
    if choices.eval_slices is not None and choices.eval_slices < 1:
        raise UsageFault("--eval-slices", f"{choices.eval_slices} (need at least 1)", "--eval-slices 4")
    if choices.learning_rate is not None and not 0 < choices.learning_rate < math.inf:
        raise UsageFault("--learning-rate", f"{choices.learning_rate} (need a finite number above 0)", "--learning-rate 0.01")
    if choices.jobs < 1:
        raise UsageFault("--jobs", f"{choices.jobs} (need at least 1)", "--jobs 1")
    if choices.gmac is not None and not 0 < choices.gmac < math.inf:
        raise UsageFault("--gmac", f"{choices.gmac} (need a finite number above 0)", f"--gmac {GMAC[4]}")
    if choices.crop_size % 8 or choices.crop_size < 16:
        raise UsageFault("--crop-size", f"{choices.crop_size} (need a multiple of 8, at least 16)", "--crop-size 64")
    try:
        choose_protocol(choices.protocol, choices.protocol_crop)
    except ValueError as error:
        raise UsageFault("--protocol-crop", str(error), "--protocol sanet") from None
