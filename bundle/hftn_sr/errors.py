"""Faults, the errors that name a user's file or option, the finding and the cure; and notes, findings that speak against nothing."""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

__all__ = [
    "SCALES",
    "check_choice",
    "check_scale",
    "differences",
    "end_in_one_line",
    "interrupted",
    "notes_among",
    "printable",
    "warnings_among",
    "Fault",
    "Note",
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
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, surrogates, separators of lines and of paragraphs
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
        super().__init__(printable(f"{self.path}: {finding}. Fix: {fix}."))

    def __reduce__(self) -> tuple[type[Fault], tuple[str, str, str]]:
        return type(self), (self.path, self.finding, self.fix)


class Note(str):
    """A finding that the user should know and that speaks against nothing; other findings are warnings."""

    __slots__ = ()


def warnings_among(findings: Iterable[str]) -> tuple[str, ...]:
    """The findings that may be wrong, each once."""
    return tuple(dict.fromkeys(finding for finding in findings if not isinstance(finding, Note)))


def notes_among(findings: Iterable[str]) -> tuple[str, ...]:
    """The notes among findings, each once."""
    return tuple(dict.fromkeys(finding for finding in findings if isinstance(finding, Note)))


def printable(text: str) -> str:
    """`text` on one line that every encoding of Unicode takes: control characters and bytes that are not UTF-8 are escaped."""
    return "".join(_escaped(each) if unicodedata.category(each) in UNPRINTABLE else each for each in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()  # first: PEP 383


def interrupted(error: BaseException) -> bool:
    """Whether an error came up while a KeyboardInterrupt was on its way, which would be lost with it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, KeyboardInterrupt):
            return True
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
    return False


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
