"""Warnings, errors and two option types that all commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer

from hftn_sr.errors import INTERNAL, Fault

__all__ = ["Debug", "OptionalPath", "one_line_errors", "warn"]

Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback instead of one line.")]
OptionalPath = Optional[Path]  # noqa: UP045 - typer reads annotations on Python 3.10


def warn(note: str) -> None:
    """Print a warning on stderr."""
    typer.echo(f"WARNING {note}", err=True)


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """End the command at a fault, with one line on stderr and its exit code."""
    try:
        yield
    except Fault as fault:
        if debug:
            raise
        typer.echo(f"ERROR {fault}", err=True)
        raise typer.Exit(fault.exit_code) from None
    except (typer.Exit, KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        typer.echo(f"ERROR internal fault: {kind}: {error}. Fix: run again with --debug and report the traceback.", err=True)
        raise typer.Exit(INTERNAL) from None
