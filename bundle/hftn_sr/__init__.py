"""HFTN-SR: multi-contrast super-resolution of MR images, as a MONAI bundle.

>>> import hftn_sr
>>> outcome = hftn_sr.super_resolve("flair_lr.nii.gz", "t2.nii.gz", "flair_sr.nii.gz", scale=2)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hftn_sr._version import __version__

if TYPE_CHECKING:
    from hftn_sr.api import degrade, evaluate, find_cases, run_options, super_resolve, super_resolve_cases

__all__ = ["__version__", "degrade", "evaluate", "find_cases", "run_options", "super_resolve", "super_resolve_cases"]


def __getattr__(name: str) -> Any:
    """Import PyTorch, MONAI and ITK only when a function of the API is used: `hftn-sr --help` stays instant."""
    if name in __all__:
        return getattr(import_module("hftn_sr.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
