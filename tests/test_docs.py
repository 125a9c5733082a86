"""The tables of bundle/docs/equations.md name only what exists."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "bundle" / "docs" / "equations.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("|") and not re.match(r"\| (---|eq\.|model|figure|identity|score) ", line)]
TESTS = sorted(set(re.findall(r"tests/[\w/]+\.py::\w+", TEXT)))
NAMES = sorted(set(re.findall(r"`((?:hftn_sr|comparison|torch)\.[\w.]+)`", TEXT)))


@pytest.mark.parametrize("test", TESTS)
def test_every_test_that_the_equations_name_exists(test):
    path, name = test.split("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_the_equations_give_resolves(name):
    parts = name.split(".")
    length = next(length for length in range(len(parts), 0, -1) if _is_module(".".join(parts[:length])))
    found = importlib.import_module(".".join(parts[:length]))
    for part in parts[length:]:
        found = getattr(found, part)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_row_of_the_equations_names_code_and_a_test(row):
    *_, code, tests, _ = row.split("|")
    assert re.search(r"`(hftn_sr|comparison|torch)\.", code)
    assert re.fullmatch(r" `tests/[\w/]+\.py::\w+`(, `tests/[\w/]+\.py::\w+`)* ", tests)


@pytest.mark.parametrize("equation", [*(f"({number})" for number in range(1, 20)), "decomposition", "FEB", "C", "DConv", "output,"])
def test_every_equation_of_the_paper_has_its_row(equation):
    assert len([row for row in ROWS if row.split()[1] == equation]) == 1


def _is_module(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True
