"""Progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hftn_sr.inference.reporter import Reporter

if TYPE_CHECKING:
    from hftn_sr.inference.case import Outcome

__all__ = ["ByteBar", "ConsoleReporter"]


class ConsoleReporter(Reporter):
    """A bar with the time left for the slices of the current case, and a line per case that is over.

    Args:
        console: where to; the bar is drawn only on a terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("slices, left:"), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task: TaskID | None = None
        self.position, self.cases, self.name = 0, 0, ""

    def __enter__(self) -> ConsoleReporter:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def begin(self, cases: int) -> None:
        """So many cases will be run."""
        self.cases = cases

    def case(self, name: str) -> None:
        """This case begins."""
        self.name = name
        number = f"[{self.position + 1}/{self.cases}] " if self.cases > 1 else ""
        self.task = self.progress.add_task(f"{number}{name}".replace("[", r"\["), total=None)

    def log(self, step: str) -> None:
        """This takes long and begins now: a line, above the bar where there is one."""
        self.console.print(f"{self.name} {step}", markup=False, highlight=False, soft_wrap=True)

    def slices(self, count: int) -> None:
        """The network will see so many slices."""
        if self.task is not None:
            self.progress.update(self.task, total=count)

    def advance(self, count: int) -> None:
        """So many slices more are done."""
        if self.task is not None:
            self.progress.advance(self.task, count)

    def end(self, outcome: Outcome) -> None:
        """The case is over."""
        self.position += 1
        if self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None


class ByteBar:
    """A bar over bytes with the time left, called with (done, in all)."""

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
        """So much is there."""
        self.progress.update(self.task, completed=done, total=total)
