"""The listener to a run's progress."""

from __future__ import annotations

from hftn_sr.inference.case import Case, CaseImages, Outcome

__all__ = ["Reporter"]


class Reporter:
    """Listener to a run; this one ignores all calls. Subclasses override what they want to show."""

    def begin(self, cases: int) -> None:
        """A run of so many cases begins."""

    def case(self, name: str) -> None:
        """A case begins."""

    def log(self, step: str) -> None:
        """A long step of the case begins; `step` says in words which."""

    def slices(self, count: int) -> None:
        """The network begins with the first of so many slices."""

    def advance(self, count: int) -> None:
        """The network has finished so many more slices."""

    def saved(self, case: Case, images: CaseImages) -> None:
        """The result of a case stands on the disk; its images are freed after this call."""

    def end(self, outcome: Outcome) -> None:
        """A case is over."""
