"""Progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hftn_sr.errors import printable
from hftn_sr.inference.reporter import Reporter

if TYPE_CHECKING:
    from hftn_sr.inference.case import Case, CaseImages, Outcome

__all__ = ["ByteBar", "CasesReporter", "ConsoleReporter"]

EACH = 60.0  # seconds between lines of progress in a log file


class ConsoleReporter(Reporter):
    """A bar with the time left for the slices of the current case.

    Args:
        console: console for bar and lines; the bar is drawn only on a terminal.
        listener: hears of each result that stands.
    """

    unit = "slices"

    def __init__(self, console: Console, listener: Reporter | None = None) -> None:
        self.console, self.listener = console, listener or Reporter()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{self.unit}, left:"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task: TaskID | None = None
        self.position, self.cases, self.name = 0, 0, ""

    def __enter__(self) -> ConsoleReporter:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def begin(self, cases: int) -> None:
        """Note the number of cases."""
        self.cases = cases

    def case(self, name: str) -> None:
        """Show the bar of a case."""
        self.name = name
        number = f"[{self.position + 1}/{self.cases}] " if self.cases > 1 else ""
        self.task = self.progress.add_task(f"{number}{printable(name)}".replace("[", r"\["), total=None)

    def log(self, step: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(printable(f"{self.name} {step}"), markup=False, highlight=False, soft_wrap=True)

    def slices(self, count: int) -> None:
        """Give the bar its length."""
        if self.task is not None:
            self.progress.update(self.task, total=count)

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self.task is not None:
            self.progress.advance(self.task, count)

    def saved(self, case: Case, images: CaseImages) -> None:
        """Tell the listener."""
        self.listener.saved(case, images)

    def end(self, outcome: Outcome) -> None:
        """Take the bar away."""
        self.position += 1
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None


class CasesReporter(ConsoleReporter):
    """A bar with the time left for all cases, where several run at a time; a line each minute where there is no terminal.

    Args:
        console: console for bar and lines.
    """

    unit = "cases"

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.started = self.told = time.monotonic()

    def begin(self, cases: int) -> None:
        """Show the bar."""
        super().begin(cases)
        self.task = self.progress.add_task("super-resolve", total=cases)
        self.started = self.told = time.monotonic()

    def log(self, step: str) -> None:
        """Print a line, above the bar where there is one."""
        self.console.print(printable(step), markup=False, highlight=False, soft_wrap=True)

    def end(self, outcome: Outcome) -> None:
        """Move the bar."""
        self.position += 1
        self.advance(1)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.told >= EACH and self.position < self.cases:
            left = (now - self.started) / self.position * (self.cases - self.position)
            self.log(f"{self.position} of {self.cases} cases, left: {timedelta(seconds=round(left))}")
            self.told = now


class ByteBar:
    """A bar over bytes with the time left, called with (done, total)."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TextColumn("left:"), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("files", total=None)

    def __enter__(self) -> ByteBar:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=done, total=total)
