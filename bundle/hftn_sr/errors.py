"""Faults, the errors that name a user's file or option, the finding and the cure; and notes, findings that speak against nothing."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = [
    "SCALES",
    "check_choice",
    "check_overrides",
    "check_scale",
    "differences",
    "end_in_one_line",
    "errors_in_one_line",
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

    def of_case(self, case: str) -> Fault:
        """The same with the name of the case in front."""
        return type(self)(f"{case} {self.path}", self.finding, self.fix)

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
        known = [str(choice) for choice in choices]
        meant = get_close_matches(str(value), known, 1) or known
        raise UsageFault(option, f"{value!r} is not known (need one of {', '.join(known)})", f"{option} {meant[0]}")


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


def errors_in_one_line(debug: bool | str = False) -> None:
    """From now on, an error of a workflow that ends the process is one line on stderr, with the exit code of its fault.

    MONAI wraps an error in two more for each level of the configuration; the fault at the bottom is what a user can act on. An error that
    does not come from a workflow is shown as before. Notebooks show errors in their own way.

    Args:
        debug: leave the traceback; also as text, as `--debug true` gives it.
    """
    sys.excepthook = sys.__excepthook__ if str(debug).lower() == "true" else _in_one_line


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    fault = next((each for each in chain if isinstance(each, Fault)), None)
    part = next((found for each in reversed(chain) if (found := _part(str(each)))), None)
    if not part or not isinstance(error, Exception):
        sys.__excepthook__(kind, error, trace)
        return
    if fault:
        sys.stderr.write(f"ERROR {fault}\n")
        raise SystemExit(fault.exit_code)
    finding = textwrap.shorten(str(chain[-1]), 300, placeholder=" ...")
    fix = "correct the configuration or the option; --debug true shows the traceback"
    sys.stderr.write(f"ERROR {part}: {type(chain[-1]).__name__}: {finding}. Fix: {fix}.\n")
    raise SystemExit(INTERNAL)


def check_overrides(command: Sequence[str] | None = None) -> None:
    """Refuse an option of `python -m monai.bundle run` whose key the configuration lacks: MONAI would add it, and nothing would read it.

    A key that another option refers to, as `--network_def @own --own ...` does, is not refused, nor is a new argument of a component.

    Args:
        command: words of the command; None for those of this process, which may be another command.

    Raises:
        UsageFault: with the key that was probably meant.
    """
    words = list(sys.argv if command is None else command)
    if Path(words[0]).parts[-3:] != ("monai", "bundle", "__main__.py") or words[1:2] != ["run"]:
        return
    from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, run  # commands that do without MONAI read this module
    from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

    given = _options(words[2:])
    files = given.get("config_file") or _argument(ConfigParser.load_config_file(given["args_file"]), "config_file")
    if not files:
        return
    parser = ConfigParser()
    parser.read_config(_literal(files))
    known = {name for function in (run, create_workflow, ConfigWorkflow.__init__) for name in inspect.signature(function).parameters}
    known |= {*(DEFAULT_MLFLOW_SETTINGS["configs"] if "tracking" in given else ())}
    for name in given:
        if name not in known and not any(f"{sign}{name}" in word for word in words for sign in "@%"):
            _check_key(parser, name.replace("::", "#"), files)


def _options(words: Sequence[str]) -> dict[str, str]:
    """Names and texts of the options among the words of a command, as fire reads them."""
    found = {}
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name.replace("-", "_")] = value or after
    return found


def _argument(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, dict) else None


def _literal(text: Any) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _check_key(parser: Any, name: str, files: Any) -> None:
    above, _, key = name.rpartition("#")
    try:
        place = parser[above] if above else parser.get()
    except (KeyError, IndexError, TypeError, ValueError):
        _check_key(parser, above, files)
        return
    if not isinstance(place, dict) or key in place or (above and (not place or "_target_" in place)):
        return
    meant = get_close_matches(key, place, 1)
    fix = "--" + (f"{above}#" if above else "") + (meant[0] if meant else "KEY, one of the configuration's own")
    raise UsageFault(f"--{name}", f"no such key in {files}, nothing would read it", f"did you mean {fix}")


PARTS = re.compile(
    r"Failed to instantiate component '(?P<component>.+?)'"
    r"|Cannot locate class or function path: '(?P<path>.+?)'"
    r"|Failed to evaluate ConfigExpression:\s*\(?[\"']\$(?P<expression>.+)[\"']"  # in single quotes where it holds none
    r"|the (?:referring|referenced) item `(?P<reference>.+?)` is not defined",
    re.DOTALL,
)  # of MONAI's messages


def _part(message: str) -> str | None:
    """The part of the configuration that MONAI could not make or evaluate, from its message."""
    found = PARTS.search(message)
    if not found or not found.lastgroup:
        return None
    whole = re.sub(r"[\"']\s*\n\s*[\"']", "", found[found.lastgroup])  # a long expression is shown in pieces
    text = re.sub(r"__local_refs\['(.+?)'\]", lambda name: "@" + name[1].replace("::", "#"), whole)
    return textwrap.shorten(text, 100, placeholder=" ...")


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
