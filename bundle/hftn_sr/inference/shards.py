"""A part of the cases, for jobs that share a folder of results and know nothing of each other."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from hftn_sr.errors import UsageFault
from hftn_sr.inference.case import Case, Outcome

__all__ = ["choose_shard", "of_shard"]

SLURM = "slurm"
OPTION = "--shard"
TASK = "SLURM_ARRAY_TASK_{}"


def choose_shard(given: str, environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Number I, from 1 on, and count N of a shard.

    Args:
        given: `I/N`, or `slurm` for this task of a Slurm job array.
        environment: variables that Slurm sets; None for those of the process.

    Raises:
        UsageFault: not of that form, I is not among 1 to N, or the array is not numbered in steps of one from 0 or 1.
    """
    if given == SLURM:
        return _of_slurm(os.environ if environment is None else environment)
    if not re.fullmatch(r"\d+/\d+", given):
        raise UsageFault(OPTION, f"{given!r} (need I/N, or {SLURM})", f"{OPTION} 1/4, the first of four parts")
    number, count = map(int, given.split("/"))
    if not 1 <= number <= count:
        raise UsageFault(
            OPTION, f"{given} (I counts from 1 to N)", f"{OPTION} 1/{max(count, 1)} to {OPTION} {max(count, 1)}/{max(count, 1)}"
        )
    return number, count


def _of_slurm(environment: Mapping[str, str]) -> tuple[int, int]:
    names = [TASK.format(name) for name in ("ID", "COUNT", "MIN", "MAX")]
    try:
        task, count, first, last = (int(environment[name]) for name in names)
    except (KeyError, ValueError):
        lacking = next(name for name in names if not environment.get(name, "").isdigit())
        raise UsageFault(f"{OPTION} {SLURM}", f"{lacking} is not set: no Slurm job array", f"sbatch --array=1-4, or {OPTION} I/N") from None
    if first not in (0, 1) or last - first + 1 != count or not first <= task <= last:
        finding = f"the array has {count} tasks numbered {first} to {last}: which part task {task} is, it does not tell"
        raise UsageFault(f"{OPTION} {SLURM}", finding, f"sbatch --array=1-N, or {OPTION} $SLURM_ARRAY_TASK_ID/N")
    return task - first + 1, count


def of_shard(cases: Sequence[Case], failed: Sequence[Outcome], shard: tuple[int, int]) -> tuple[list[Case], list[Outcome]]:
    """Every N-th case by name, from the I-th on, whether it can run or has failed before."""
    number, count = shard
    names = sorted([*(case.name for case in cases), *(outcome.case for outcome in failed)])[number - 1 :: count]
    own = set(names)
    return [case for case in cases if case.name in own], [outcome for outcome in failed if outcome.case in own]
