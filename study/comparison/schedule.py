"""How an exact number of iterations is cut into epochs, after each of which a training can go on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hftn_sr.errors import UsageFault

__all__ = ["TIMED_STEPS", "Schedule", "schedule", "timed_schedule"]

STEPS = 250  # iterations of an epoch, about
FEWEST, MOST = 25, 1000  # iterations of an epoch of a long training: checkpoints neither all the time nor hardly ever
LONG = 1000  # iterations
LONGEST = 100_000  # minutes, ten weeks
TIMED_STEPS = 25  # iterations of an epoch where minutes were asked for: the same for all networks, so that they see the same patches


@dataclass(frozen=True)
class Schedule:
    """Epochs of equal length.

    Args:
        epochs: how many.
        steps: iterations of each.
        val_interval: epochs between validations; the last epoch is always validated.
    """

    epochs: int
    steps: int
    val_interval: int

    @property
    def iterations(self) -> int:
        """In all."""
        return self.epochs * self.steps


def schedule(iterations: int) -> Schedule:
    """Exactly so many iterations.

    Raises:
        UsageFault: fewer than one, or many and no divisor of theirs makes a sensible epoch.
    """
    if iterations < 1:
        raise UsageFault("--iterations", f"{iterations} (need at least 1)", "--iterations 1000")
    wanted = min(max(iterations / 4, 1), STEPS)
    steps = min(_divisors(iterations), key=lambda divisor: abs(math.log(divisor / wanted)))
    if iterations >= LONG and not FEWEST <= steps <= MOST:
        near = round(iterations / STEPS) * STEPS
        raise UsageFault("--iterations", f"{iterations} cannot be cut into epochs of {FEWEST} to {MOST}", f"--iterations {near}")
    return _with_validations(iterations // steps, steps)


def timed_schedule(minutes: float, seconds: float) -> Schedule:
    """As many epochs of TIMED_STEPS as fit, at least one.

    Args:
        minutes: that training may take.
        seconds: that one iteration takes.

    Raises:
        UsageFault: no time.
    """
    if not 0 < minutes <= LONGEST:
        raise UsageFault("--minutes", f"{minutes} (need more than 0 and at most {LONGEST})", "--minutes 10")
    epochs = max(int(60 * minutes / seconds) // TIMED_STEPS, 1)
    return _with_validations(epochs if epochs < 8 else epochs // 8 * 8, TIMED_STEPS)


def _with_validations(epochs: int, steps: int) -> Schedule:
    """Up to eight validations; two in a quick look."""
    times = min(max(epochs * steps // 100, 2), 8)
    return Schedule(epochs, steps, next(divisor for divisor in _divisors(epochs) if divisor >= epochs / times))


def _divisors(number: int) -> list[int]:
    """In ascending order."""
    small = [divisor for divisor in range(1, math.isqrt(number) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})
