"""Every message that the package can refuse an input with, read from the syntax trees of its modules.

A message is found where a `Fault` is made. Names are followed to their assignments in the function and its module, and to constants of
other modules; what is only known at run time becomes an ellipsis.
"""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hftn_sr.errors import Fault, NothingToDo, UsageFault

Codes = Mapping[str, int]  # class of the message to its code
__all__ = ["EXIT_CODES", "Entry", "faults_of"]

EXIT_CODES: Codes = {kind.__name__: kind.exit_code for kind in (Fault, UsageFault, NothingToDo)}
UNKNOWN = "…"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Scopes = tuple[ast.AST, ...]  # from the module inwards


@dataclass(frozen=True)
class Entry:
    """A message: of the module at `module`, relative to its folder; what it says, how it is cured, and its code."""

    module: str
    finding: str
    fix: str
    code: int


def faults_of(folder: Path, package: Path, codes: Codes = EXIT_CODES) -> list[Entry]:
    """The messages of all modules below `folder`, in the order of modules and lines, each once a module.

    Args:
        folder: where modules are looked for.
        package: folder of `hftn_sr`, from which they may import a constant.
        codes: the classes of messages, and the code of each.
    """
    entries: dict[Entry, None] = {}
    for path in sorted(folder.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for name, call, scopes in _calls(module, (module,)):
            if name in codes:
                entries |= dict.fromkeys(_entries(path.relative_to(folder).as_posix(), codes[name], call, scopes, package))
    return list(entries)


def _calls(node: ast.AST, scopes: Scopes) -> Iterator[tuple[str, ast.Call, Scopes]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            yield child.func.id, child, scopes
        yield from _calls(child, (*scopes, child) if isinstance(child, FUNCTIONS) else scopes)


def _entries(module: str, code: int, call: ast.Call, scopes: Scopes, package: Path) -> Iterator[Entry]:
    given = dict(zip(("path", "finding", "fix"), call.args, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}
    place = given["path"]
    option = f"{place.value}: " if isinstance(place, ast.Constant) and isinstance(place.value, str) else ""
    fix = " or ".join(dict.fromkeys(_texts(given["fix"], scopes, package)))
    findings = _texts(given["finding"], scopes, package)
    for finding in [text for text in findings if text not in ("", UNKNOWN)] or [UNKNOWN]:
        yield Entry(module, option + finding, fix, code)


def _texts(node: ast.expr, scopes: Scopes, package: Path) -> list[str]:
    """What the expression can be, with an ellipsis for each part that is known only at run time."""
    if isinstance(node, ast.Constant):  # a number that a function assigns is a start value or a count
        return [str(node.value) if isinstance(node.value, str) or len(scopes) == 1 else UNKNOWN]
    if isinstance(node, ast.FormattedValue):
        found = _texts(node.value, scopes, package) if isinstance(node.value, ast.Name) else [UNKNOWN]
        return found if all(found) and UNKNOWN not in found else [UNKNOWN]
    if isinstance(node, ast.JoinedStr):
        return _joined(node.values, scopes, package)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined([node.left, node.right], scopes, package)
    if isinstance(node, ast.IfExp):
        return _texts(node.body, scopes, package) + _texts(node.orelse, scopes, package)
    if isinstance(node, ast.Name):
        return _assigned(node.id, node.lineno, scopes, package) or [UNKNOWN]
    return [UNKNOWN]


def _joined(parts: list[ast.expr], scopes: Scopes, package: Path) -> list[str]:
    texts = ("".join(choice) for choice in itertools.product(*(_texts(part, scopes, package) for part in parts)))
    return [text.replace(UNKNOWN * 2, UNKNOWN) for text in texts]


def _assigned(name: str, line: int, scopes: Scopes, package: Path) -> list[str]:
    """What `name`, used in this line, is given before it in the innermost scope that assigns it or imports it from this package."""
    for depth in range(len(scopes), 0, -1):
        scope, inner = scopes[depth - 1], scopes[:depth]
        before = line if depth == len(scopes) else sys.maxsize
        found = [value for node in _own(scope) for value in _values(node, name) if value.lineno < before]
        if found:
            always = {value for node in getattr(scope, "body", ()) for value in _values(node, name)}  # not only under a condition
            last = max((value.lineno for value in found if value in always), default=0)  # what stood there before is gone
            return list(dict.fromkeys(text for value in found if value.lineno >= last for text in _texts(value, inner, package)))
        for path in (path for node in _own(scope) for path in _source(node, name, package)):
            return _assigned(name, sys.maxsize, (ast.parse(path.read_text(encoding="utf-8")),), package)
        if isinstance(scope, FUNCTIONS) and name in {each.arg for each in (*scope.args.args, *scope.args.kwonlyargs)}:
            return []
    return []


def _source(node: ast.AST, name: str, package: Path) -> Iterator[Path]:
    """The module of the package from which this statement imports `name`."""
    if isinstance(node, ast.ImportFrom) and name in {each.name for each in node.names}:
        path = package.joinpath(*str(node.module).split(".")[1:]).with_suffix(".py")
        if path.is_file() and str(node.module).startswith("hftn_sr."):
            yield path


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the functions inside it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, FUNCTIONS):
            yield from _own(child)


def _values(node: ast.AST, name: str) -> Iterator[ast.expr]:
    """What an assignment gives `name`."""
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if isinstance(target, ast.Name) and target.id == name:
            yield node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            for each, value in zip(target.elts, node.value.elts, strict=False):
                if isinstance(each, ast.Name) and each.id == name:
                    yield value
