"""What came of a comparison, before it is put into tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison.rows import Row, title
from comparison.scoring import Scored
from comparison.statistics import Mean, mean_score, paired_difference
from hftn_sr.scoring.metrics import SCORES
from hftn_sr.training.protocols import Protocol

__all__ = ["Comparison", "Failure", "Result", "slices_words"]


@dataclass(frozen=True)
class Result:
    """A finished row.

    Args:
        row: which.
        folder: of its run.
        scored: on the test cases.
        iterations: that its network was trained for.
        minutes: that these took.
    """

    row: Row
    folder: Path
    scored: Scored
    iterations: int = 0
    minutes: float = 0.0

    def means(self) -> dict[str, Mean]:
        """PSNR, SSIM and NMSE over the test cases."""
        return {name: mean_score(self.scored.cases, name) for name in SCORES}

    def without_data_consistency(self) -> Mean:
        """PSNR of the network's output as it is."""
        return mean_score(self.scored.without_data_consistency, "psnr")


@dataclass(frozen=True)
class Failure:
    """A row that could not be finished, and why."""

    row: Row
    finding: str


@dataclass(frozen=True)
class Comparison:
    """All rows, and what the figures are of.

    Args:
        results: finished rows, in the order of the tables.
        failures: the others.
        protocol: one for all rows.
        baseline: method that the others are compared with.
        scales: in order.
        seeds: in order.
        section: of the datalist that was scored.
        eval_slices: of each volume, from its middle; None for all.
        seen: scored cases whose target was trained on.
        budget: in words.
        sizes: in words.
    """

    results: Sequence[Result]
    failures: Sequence[Failure]
    protocol: Protocol
    baseline: str
    scales: Sequence[int]
    seeds: Sequence[int]
    section: str
    eval_slices: int | None
    seen: Sequence[str]
    budget: str
    sizes: str

    def find(self, method: str, scale: int, seed: int | None) -> Result | None:
        """The finished row of a method; interpolation fits every seed."""
        fits = (each for each in self.results if (each.row.method, each.row.scale) == (method, scale) and each.row.seed in (seed, None))
        return next(fits, None)

    def lead(self, result: Result, over: str) -> Mean | None:
        """PSNR of a row less that of the method `over` at the same scale with the same seed, in dB; None where there is no such row."""
        other = self.find(over, result.row.scale, self.seeds[0] if result.row.seed is None else result.row.seed)
        return paired_difference(result.scored.cases, other.scored.cases, "psnr") if other else None

    def captions(self) -> list[str]:
        """What must stand over every table of these figures: protocol first, then what intervals and differences are."""
        some = next(iter(self.results)).means()["psnr"]
        cases = len(next(iter(self.results)).scored.cases)
        warning = [f"WARNING: trained on {len(self.seen)} of the scored cases ({', '.join(self.seen[:3])})"] if self.seen else []
        own = "without data consistency: PSNR of a network's output as it is"
        return [
            self.protocol.description,
            *warning,
            f"{cases} {self.section} cases, {slices_words(self.eval_slices)}; intervals: 95 %, bootstrap over {some.count} {some.over}",
            f"difference: PSNR less that of {title(self.baseline)}, paired, with its interval; {own}",
            f"{self.sizes}; {self.budget}, weights of the last iteration",
        ]


def slices_words(eval_slices: int | None) -> str:
    """Which slices of each volume were scored: so many from its middle, or all for None."""
    if eval_slices is None:
        return "all slices"
    return f"the {eval_slices} middle slices of each volume, which are the volume for peaks and means"
