"""The command `hftn-sr`."""

import os

# OpenMP reads it once, when torch is loaded. Threads that spin while they wait make two of them up to six times as slow as one beside another
# job; asleep they lose a tenth on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from hftn_sr.cli.commands import main  # noqa: E402 - after the setting, in case a command comes to load torch with its module

__all__ = ["main"]
