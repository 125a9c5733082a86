"""Do all links of a folder of pages lead somewhere?"""

from __future__ import annotations

import posixpath
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["broken_links"]

LOADED = {"img", "script", "link", "iframe", "source", "video"}  # elements whose address the browser fetches by itself


class _Addresses(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors, self.links, self.fetched = set[str](), set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                (self.fetched if tag in LOADED else self.links).add(value)


def broken_links(folder: Path) -> list[str]:
    """For each link to a file or heading that is not in `folder`, and each picture or script from elsewhere, a line that names it."""
    pages = {path.relative_to(folder).as_posix(): _Addresses(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    broken = []
    for name, page in pages.items():
        for link in sorted(page.links | page.fetched):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                if link in page.fetched and address.scheme != "data":
                    broken.append(f"{name}: loads {link}")
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(address.path))) if address.path else name
            if not (folder / target).is_file():
                broken.append(f"{name}: no file {link}")
            elif address.fragment and target in pages and unquote(address.fragment) not in pages[target].anchors:
                broken.append(f"{name}: no heading {link}")
    return broken
