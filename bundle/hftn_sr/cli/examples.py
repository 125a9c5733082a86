"""How the help of a command shows what to type."""

from __future__ import annotations

__all__ = ["examples"]


def examples(*lines: str) -> str:
    """The end of a command's help: these lines, each after `hftn-sr` and on a line of its own."""
    heading = "Examples:" if len(lines) > 1 else "Example:"
    return "\n".join(["\b", heading, *(f" hftn-sr {line}" for line in lines)])  # \b: not to be wrapped into one paragraph
