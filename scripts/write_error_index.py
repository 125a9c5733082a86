"""Write bundle/docs/errors.md, the index of all messages that refuse an input.

python scripts/write_error_index.py
"""

from __future__ import annotations

from pathlib import Path

from documentation.error_index import error_index

BUNDLE = Path(__file__).absolute().parents[1] / "bundle"


def main() -> None:
    """Replace the page."""
    (BUNDLE / "docs" / "errors.md").write_text(error_index(BUNDLE), encoding="utf-8")


if __name__ == "__main__":
    main()
