"""The command `hftn-sr`."""

from hftn_sr.cli.commands import main

__all__ = ["main"]
