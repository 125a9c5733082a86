"""Faults: the errors that name a user's file or option, the finding and the cure."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import Any

__all__ = [
    "SCALES",
    "check_choice",
    "check_scale",
    "differences",
    "end_in_one_line",
    "Fault",
    "UsageFault",
    "NothingToDo",
    "OK",
    "INTERNAL",
    "USAGE",
    "NOTHING",
    "SOME_FAILED",
    "ALL_FAILED",
    "INTERRUPTED",
]

SCALES = (2, 4)  # upscaling factors that there are networks for
OK, INTERNAL, USAGE, NOTHING, SOME_FAILED, ALL_FAILED, INTERRUPTED = 0, 1, 2, 3, 8, 9, 130  # exit codes of the command


class Fault(Exception):  # noqa: N818 - a finding about a file, not an error of the program
    """A user's file or option makes a right result impossible.

    Args:
        path: file, folder or option.
        finding: what was found and what is needed, without a full stop.
        fix: command or option that cures it, without a full stop.
    """

    exit_code = ALL_FAILED

    def __init__(self, path: str | PathLike[str], finding: str, fix: str) -> None:
        self.path, self.finding, self.fix = str(path), finding, fix
        super().__init__(f"{self.path}: {finding}. Fix: {fix}.")

    def __reduce__(self) -> tuple[type[Fault], tuple[str, str, str]]:
        return type(self), (self.path, self.finding, self.fix)


class UsageFault(Fault):
    """An option, or a combination of options, cannot be meant."""

    exit_code = USAGE


def check_choice(option: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is none of the choices: a misspelt word must not mean something else.

    Raises:
        UsageFault: it is none of them.
    """
    if value not in choices:
        known = ", ".join(map(str, choices))
        raise UsageFault(option, f"{value!r} is not known (need one of {known})", f"{option} {choices[0]}")


def check_scale(scale: int) -> None:
    """Refuse an upscaling factor that there is no network for.

    Raises:
        UsageFault: scale is neither 2 nor 4.
    """
    if scale not in SCALES:
        raise UsageFault("--scale", f"scale {scale} (need 2 or 4)", "--scale 2 or --scale 4")


class NothingToDo(Fault):
    """The request is sound, but no case is left to work on."""

    exit_code = NOTHING


@contextlib.contextmanager
def end_in_one_line() -> Iterator[None]:
    """End the process at a fault with one line and its exit code, instead of MONAI's traceback."""
    try:
        yield
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        raise SystemExit(fault.exit_code) from None


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Differences between two records, as in `iterations 20, now 40`."""
    texts = []
    for key in sorted(found.keys() | wanted.keys()):
        one, other = found.get(key), wanted.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            texts += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            texts.append(f"{prefix}{key} {one}, now {other}")
    return texts
