"""The summary of a run while cases come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hftn_sr.cli.faults import say
from hftn_sr.errors import SOME_FAILED, Fault, interrupted

if TYPE_CHECKING:
    from hftn_sr.inference.case import Outcome
    from hftn_sr.inference.summary import SummaryWriter

__all__ = ["Summary"]


class Summary:
    """Keeps the summary of a run. Where it cannot be written, that is said once, and the cases go on.

    Args:
        writer: what writes it; None writes none.
    """

    def __init__(self, writer: SummaryWriter | None) -> None:
        self.writer, self.fault, self._said = writer, "", ""

    def begin(self) -> None:
        """Begin the journal.

        Raises:
            Fault: another run does the same shard.
        """
        if self.writer and self.writer.shard:
            self.writer.begin()
        elif self.writer:
            self._write(self.writer.begin)

    def add(self, outcome: Outcome) -> None:
        """Keep the row of a case that is over."""
        if self.writer:
            writer = self.writer
            self._write(lambda: writer.add(outcome))

    def end(self, broken_off: bool = False) -> None:
        """Complete the summary; `broken_off` says that the run was interrupted."""
        if self.writer:
            writer = self.writer
            self._write(lambda: writer.end(broken_off), broken_off)

    def _write(self, step: Callable[[], None], broken_off: bool = False) -> None:
        try:
            step()
        except Fault as fault:
            if interrupted(fault) and not broken_off:
                raise KeyboardInterrupt from fault
            self.fault = str(fault)
            if self.fault != self._said:
                say(f"ERROR {fault}", err=True)
            self._said = self.fault
        else:
            self.fault = ""

    def exit_code(self, code: int) -> int:
        """The exit code of a run whose cases give `code`: at least that of a failed case where the summary is missing."""
        return max(code, SOME_FAILED) if self.fault else code
