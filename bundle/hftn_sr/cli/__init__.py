"""The command `hftn-sr`."""

import os

# OpenMP reads it once, when torch is loaded, which the commands do late. Two threads that spin while they wait are up to six times as slow
# beside another job; two that sleep lose a tenth on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from hftn_sr.cli.commands import main

__all__ = ["main"]
