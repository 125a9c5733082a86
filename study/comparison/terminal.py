"""A comparison on the terminal: its options, progress while it goes on, a table when it is over; plain lines where there is no terminal."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from comparison.results import Comparison
from comparison.rows import OUR_READING, Row, title
from comparison.run import Progress

__all__ = ["TerminalProgress", "folder_option", "summary"]

READ = 5.0  # seconds; a row that takes less was found finished, and tells nothing of the others


class TerminalProgress(Progress):
    """A bar for each row at work, a line for each that is over, with the rows and about the time that are left.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bars = Bars(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.tasks: dict[str, TaskID] = {}
        self.rows, self.done = 0, 0
        self.begun: dict[str, float] = {}
        self.seconds: list[float] = []  # of the rows that were made now, not read from an earlier attempt
        self.lock = threading.Lock()

    def __enter__(self) -> TerminalProgress:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def sizes(self, method: str, scale: int) -> None:
        """The channels of this network are being fitted."""
        self.console.print(f"fitting the channels of {title(method)} x{scale}", highlight=False)

    def begin(self, rows: Sequence[Row]) -> None:
        """These rows will be made."""
        self.rows = len(rows)
        self.console.print(f"{self.rows} rows", highlight=False)

    def stage(self, row: Row, stage: str, total: int) -> None:
        """A row is being measured, trained or scored, in so many steps."""
        with self.lock:
            self.begun.setdefault(row.name, time.monotonic())
            if row.name in self.tasks:
                self.bars.remove_task(self.tasks.pop(row.name))
            self.tasks[row.name] = self.bars.add_task(f"{row.name}: {stage}", total=total)

    def advance(self, row: Row, done: int) -> None:
        """So many steps of it are done."""
        with self.lock:
            self.bars.update(self.tasks[row.name], completed=done)

    def end(self, row: Row, finding: str | None) -> None:
        """A row is finished, or failed and why."""
        with self.lock:
            at_once = max(len(self.tasks), 1)
            if row.name in self.tasks:
                self.bars.remove_task(self.tasks.pop(row.name))
            self.done += 1
            seconds = time.monotonic() - self.begun.get(row.name, time.monotonic())
            self.seconds += [seconds] if seconds > READ else []
            left = self.rows - self.done
            text = f"[{self.done}/{self.rows}] {row.name} {'done' if finding is None else 'FAILED ' + finding}"
            if left and self.seconds:
                text += f"; {left} rows left, about {sum(self.seconds) / len(self.seconds) * left / at_once / 60:.0f} min"
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def summary(comparison: Comparison) -> Table:
    """What the terminal shows at the end; more is in table.md."""
    table = Table(title="; ".join(comparison.captions()[:2]), title_justify="left")
    table.add_column("method")
    for heading in ("scale", "channels", "PSNR, dB", "interval", "SSIM", "NMSE", "gain, dB", "M", "GMAC", "iterations", "minutes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in comparison.results:
        row, means = result.row, result.means()
        psnr, gain = means["psnr"], comparison.lead(result, "zero_filling")
        table.add_row(
            row.label(comparison.seeds) + (" (our reading)" if row.method in OUR_READING else ""),
            f"x{row.scale}", str(row.channels or "-"), f"{psnr.value:.2f}", f"{psnr.low:.2f} to {psnr.high:.2f}",
            f"{means['ssim'].value:.4f}", f"{means['nmse'].value:.5f}",
            f"{gain.value:+.2f}" if gain else "-", f"{row.cost.parameters / 1e6:.3f}", f"{row.cost.gmac:.2f}",
            str(result.iterations), f"{result.minutes:.1f}",
        )  # fmt: skip
    for failure in comparison.failures:
        table.add_row(failure.row.label(comparison.seeds), f"x{failure.row.scale}", "failed")
    return table


def folder_option(text: str) -> Path:
    """The folder that an option of a script names.

    Raises:
        argparse.ArgumentTypeError: an empty name, as of a variable that is not set: it would be the current folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("no folder is named")
    return Path(text)
