"""Where the bundle's folders lie: beside this package in a clone and in an unpacked bundle, inside it where it was installed."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BUNDLE", "INSTALLED", "work_folder"]

_PACKAGE = Path(__file__).absolute().parent
INSTALLED = (_PACKAGE / "bundle").is_dir()  # what pip makes of this package, see pyproject.toml
BUNDLE = _PACKAGE / "bundle" if INSTALLED else _PACKAGE.parent


def work_folder() -> Path:
    """Where a workflow writes unless told otherwise: the bundle's folder, or the current one where the package is installed."""
    return Path.cwd() if INSTALLED else BUNDLE
