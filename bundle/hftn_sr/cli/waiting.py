"""A spinner for steps that take seconds and cannot be counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["waiting"]


@contextmanager
def waiting(step: str, console: Console | None = None) -> Iterator[None]:
    """Show `step` and the elapsed time while the block runs; nothing where stderr is no terminal.

    Args:
        step: name of the step.
        console: console for the spinner; None for stderr.
    """
    console = console or Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn(step, markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task(step, total=None)
        yield
