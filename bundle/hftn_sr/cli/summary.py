"""The summary of a run while cases come in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hftn_sr.cli.faults import say
from hftn_sr.errors import SOME_FAILED, Fault, interrupted

if TYPE_CHECKING:
    from hftn_sr.inference.case import Outcome

__all__ = ["Summary"]


class Summary:
    """Writes the summary after every case. Where it cannot be written, that is said once, and the cases go on.

    Args:
        folder: folder of the summary; None writes none.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.fault = folder, ""

    def write(self, outcomes: Sequence[Outcome], broken_off: bool = False) -> None:
        """Write the summary of these outcomes; `broken_off` says that the run was interrupted."""
        from hftn_sr.inference.batch import write_summary

        if self.folder is None:
            return
        try:
            write_summary(self.folder, outcomes, broken_off)
        except Fault as fault:
            if interrupted(fault) and not broken_off:
                raise KeyboardInterrupt from fault
            if not self.fault:
                say(f"ERROR {fault}", err=True)
            self.fault = str(fault)
        else:
            self.fault = ""

    def exit_code(self, code: int) -> int:
        """The exit code of a run whose cases give `code`: at least that of a failed case where the summary is missing."""
        return max(code, SOME_FAILED) if self.fault else code
