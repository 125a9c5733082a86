"""What a run says while it goes on."""

from __future__ import annotations

from hftn_sr.inference.case import Outcome

__all__ = ["Reporter"]


class Reporter:
    """What a run tells while it goes on; this one keeps silent."""

    def begin(self, cases: int) -> None:
        """So many cases will be run."""

    def case(self, name: str) -> None:
        """This case begins."""

    def log(self, step: str) -> None:
        """This takes long and begins now, in words."""

    def slices(self, count: int) -> None:
        """The network will see so many slices."""

    def advance(self, count: int) -> None:
        """So many slices more are done."""

    def end(self, outcome: Outcome) -> None:
        """The case is over."""
