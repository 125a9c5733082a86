"""Notes, warnings, errors and two option types that all commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from hftn_sr.errors import INTERNAL, Fault, Note, interrupted, printable

__all__ = ["Debug", "OptionalPath", "one_line_errors", "say", "tell", "warn"]

Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback instead of one line.")]
OptionalPath = Optional[Path]  # noqa: UP045 - typer reads annotations on Python 3.10


def say(text: object, err: bool = False) -> None:
    """Print one line, whatever characters the names in it have."""
    typer.echo(printable(str(text)), err=err)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    say(f"WARNING {text}", err=True)


def tell(finding: str, case: str = "") -> None:
    """Print a finding on stderr, as a warning unless it is a note; after the name of its case, where it does not begin with that."""
    named = f"{case} {finding}" if case and not finding.startswith(f"{case}:") else finding
    say(named if isinstance(finding, Note) else f"WARNING {named}", err=True)


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """End the command at a fault, with one line on stderr and its exit code."""
    try:
        yield
    except Fault as fault:
        if interrupted(fault):
            raise KeyboardInterrupt from fault
        if debug:
            raise
        say(f"ERROR {fault}", err=True)
        raise typer.Exit(fault.exit_code) from None
    except (typer.Exit, KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        if debug:
            raise
        kind = type(error).__name__
        say(f"ERROR internal fault: {kind}: {error}. Fix: run again with --debug and report the traceback.", err=True)
        raise typer.Exit(INTERNAL) from None
