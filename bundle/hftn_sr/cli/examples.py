"""Examples at the end of a command's help."""

from __future__ import annotations

__all__ = ["examples"]


def examples(*lines: str, program: str = "hftn-sr") -> str:
    """Text of the examples: each on a line of its own, after the name of the command."""
    heading = "Examples:" if len(lines) > 1 else "Example:"
    return "\n".join(["\b", heading, *(f" {program} {line}" for line in lines)])  # \b: not to be wrapped into one paragraph
