"""The reference, from docstrings by pdoc; formulas become MathML, which browsers show without a script or a font from elsewhere."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import latex2mathml.converter
from jinja2 import pass_context
from jinja2.runtime import Context
from pdoc import doc, render
from pdoc.render_helpers import to_markdown_with_context

from documentation.pages import TEMPLATES

__all__ = ["reference"]

BLOCK = re.compile(r"^(?P<indent> *)\.\. math::(?P<first>.*)\n(?P<rest>(?:(?P=indent) +\S.*\n?)*)", re.MULTILINE)
INSIDE = re.compile(r'<a href="#(?P<id>[^"]+)">(?P<text>[^<]*)</a>')
INLINE = re.compile(r":math:`(?P<formula>[^`]+)`")


def reference(package: str, output: Path, advance: Callable[[int, int], None]) -> None:
    """Write one page for each module of `package` into the folder `output`, and a search index.

    Args:
        package: name of an installed package.
        output: folder to write into.
        advance: called with the pages written and the pages in all.
    """
    render.configure(docformat="google", template_directory=TEMPLATES, show_source=False)  # a clone has the source beside it
    render.env.filters["to_markdown"] = with_formulas
    root = import_module(package)
    vars(root).update({name: getattr(root, name) for name in root.__all__})  # pdoc does not ask a module's __getattr__
    names = [package, *(found.name for found in pkgutil.walk_packages(root.__path__, f"{package}.") if not found.name.endswith("__main__"))]
    modules = {name: doc.Module.from_name(name) for name in names}
    for each in (each for module in modules.values() for each in vars(module.obj).values()):
        if isinstance(each, type) and hasattr(each, "_fields"):  # a named tuple's constructor does not know the module of its types
            each.__new__.__annotations__ = get_type_hints(each)
    for name, module in modules.items():  # pdoc leaves out those that __all__ does not name
        module.submodules = [modules[each] for each in names if each.rpartition(".")[0] == name]
    for done, (name, module) in enumerate(modules.items(), 1):
        page = output / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_without_empty_links(render.html_module(module, modules)), encoding="utf-8")
        advance(done, len(modules))
    (output / "index.html").write_text(render.html_index(modules), encoding="utf-8")
    (output / "search.js").write_text(render.search_index(modules), encoding="utf-8")


def _without_empty_links(html: str) -> str:
    """pdoc makes a link of each name in backticks that resolves, also of a member from another package, which the page does not show."""
    ids = set(re.findall(r' id="([^"]+)"', html))
    return INSIDE.sub(lambda found: found[0] if found["id"] in ids else found["text"], html)


@pass_context
def with_formulas(context: Context, docstring: str) -> str:
    """pdoc's own filter, after formulas were turned into MathML."""
    docstring = BLOCK.sub(lambda found: f"{found['indent']}{mathml(found['first'] + ' ' + found['rest'], 'block')}\n\n", docstring)
    return to_markdown_with_context(context, INLINE.sub(lambda found: mathml(found["formula"], "inline"), docstring))


def mathml(formula: str, display: str) -> str:
    """A formula in LaTeX as one line of MathML."""
    return latex2mathml.converter.convert(" ".join(formula.split()), display=display)
