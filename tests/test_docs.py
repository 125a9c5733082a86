"""The tables of bundle/docs/equations.md name only code and tests that exist."""

import ast
import pkgutil
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "bundle" / "docs" / "equations.md").read_text(encoding="utf-8")


def test_every_test_that_the_equations_name_exists():
    named = set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", TEXT))
    found = {path: _functions(ROOT / path) for path, _ in named}
    assert len(named) > 50
    assert [f"{path}::{name}" for path, name in sorted(named) if name not in found[path]] == []


def test_every_name_that_the_equations_give_resolves():
    names = set(re.findall(r"`((?:hftn_sr|comparison|torch)\.[\w.]+)`", TEXT))
    assert len(names) > 50
    for name in names:
        pkgutil.resolve_name(name)  # raises ImportError or AttributeError


def _functions(path):
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
