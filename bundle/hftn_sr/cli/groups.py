"""Help of a command with many options, in groups."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["GroupedCommand"]


class GroupedCommand(TyperCommand):
    """A command whose help lists options under the name of their group, `rich_help_panel`; those without one come last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or "Other", []).append(record)
        for name, records in groups.items():
            with formatter.section(name):
                formatter.write_dl(records)
