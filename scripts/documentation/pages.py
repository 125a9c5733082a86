"""Markdown files of the repository as pages that link to each other, to the reference and to copies of other files."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hftn_sr.errors import Fault

__all__ = ["Page", "Site", "TEMPLATES"]

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("page.html.jinja2")
REMOTE = re.compile(r"[a-z][a-z+.-]*:|//")


@dataclass(frozen=True)
class Page:
    """A page: its file name in the site, the words that lead to it, its Markdown, and the path in the repository that it is written for."""

    name: str
    link: str
    text: str
    source: str


class Site:
    """Writes pages.

    Args:
        root: the repository.
        output: folder for the pages.
        pages: all of them, in the order in which they are offered.
        extra: further links, file to words.
        groups: heading of each group of links to the number of links in it; the last one has the rest.
    """

    def __init__(self, root: Path, output: Path, pages: Sequence[Page], extra: Mapping[str, str], groups: Mapping[str, int]) -> None:
        self.root, self.output, self.pages = root, output, pages
        links = [(page.name, page.link) for page in pages] + list(extra.items())
        self.groups: list[tuple[str, list[tuple[str, str]]]] = []
        for heading, count in groups.items():
            self.groups.append((heading, links[:count]))
            links = links[count:]
        self.groups[-1][1].extend(links)
        self.sections: list[dict[str, str]] = []
        self.names = {page.source: page.name for page in pages}
        self.markdown = MarkdownIt("commonmark").enable("table")
        self.markdown.add_render_rule("table_open", lambda *_: '<div class="table"><table>')
        self.markdown.add_render_rule("table_close", lambda *_: "</table></div>")

    def write(self, page: Page) -> None:
        """Write a page and copy the files that it shows or links to.

        Raises:
            Fault: a link leads to nothing in the repository.
        """
        tokens = self.markdown.parse(page.text)
        _name_headings(tokens)
        for token in (child for block in tokens for child in block.children or ()):
            for attribute in ("href", "src"):
                if attribute in token.attrs:
                    token.attrs[attribute] = self._target(page, str(token.attrs[attribute]))
        self.sections += _sections(page, tokens)
        body = self.markdown.renderer.render(tokens, self.markdown.options, {})
        html = TEMPLATE.render(title=page.link, here=page.name, groups=self.groups, body=body)
        (self.output / page.name).write_text(html, encoding="utf-8")

    def write_search(self) -> None:
        """Write what the search of the pages looks in: a script, since a page opened from a folder may read no other files."""
        (self.output / "search-index.js").write_text(f"const SECTIONS = {json.dumps(self.sections)};\n", encoding="utf-8")
        shutil.copyfile(TEMPLATES / "search.js", self.output / "search.js")

    def _target(self, page: Page, link: str) -> str:
        """Where a link of the page's source leads to in the site."""
        if REMOTE.match(link) or link.startswith("#"):
            return link
        path, hash_sign, anchor = link.partition("#")
        source = posixpath.normpath(posixpath.join(posixpath.dirname(page.source), path))
        if (name := self.names.get(source) or self.names.get(f"{source}/README.md")) is not None:
            return name + hash_sign + anchor
        file = self.root / source
        if source.startswith("bundle/hftn_sr") and (file.suffix == ".py" or (file / "__init__.py").is_file()):
            return "api/" + source.removeprefix("bundle/").removesuffix("/__init__.py").removesuffix(".py") + ".html"
        if not file.is_file():
            raise Fault(self.root / page.source, f"links to {link}, where no file is", "correct the link")
        copy = self.output / "files" / source
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        return f"files/{source}"


def _sections(page: Page, tokens: Sequence[Token]) -> list[dict[str, str]]:
    """The text below each heading of a page, with where it stands."""
    found = [{"page": page.link, "url": page.name, "title": page.link, "text": ""}]
    for token, before in zip(tokens, [None, *tokens], strict=False):
        text = _plain(token) if token.type in ("inline", "fence", "code_block") else ""
        if text and before is not None and before.type == "heading_open":
            found.append({"page": page.link, "url": f"{page.name}#{before.attrs['id']}", "title": text, "text": ""})
        elif text:
            found[-1]["text"] += f"{text} "
    return found


def _plain(token: Token) -> str:
    """The text of a block as its reader sees it, without the marks of Markdown."""
    shown = [child for child in token.children or () if not child.type.endswith(("_open", "_close"))]
    return "".join(child.content or " " for child in shown) or token.content


def _name_headings(tokens: list[Token]) -> None:
    """Give each heading the anchor that git hosts give it."""
    seen: dict[str, int] = {}
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(child.content for child in inline.children or ()).strip().lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            seen[slug] = seen.get(slug, -1) + 1
            token.attrs["id"] = f"{slug}-{seen[slug]}" if seen[slug] else slug
