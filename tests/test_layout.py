"""The rooms of the package import in one direction only, and the bundle folder is complete in itself."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import hftn_sr

PACKAGE = Path(hftn_sr.__file__).parent
FLOORS = [  # a room may import from the floors above it in this list, and from itself
    ["_version", "_bundle", "errors", "allocator", "kspace"],
    ["acquisition"],
    ["volumes"],
    ["pictures", "networks", "pairs", "scoring"],
    ["inference", "training"],
    ["api", "report"],
    ["cli"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
STUDY = {"comparison"}  # the workshop's package, which nothing that is installed may need


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Names of the modules that a file imports, at any place in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms_imported(path):
    named = (name.split(".") for name in imported(path))
    return {parts[1] for parts in named if parts[0] == "hftn_sr" and len(parts) > 1 and parts[1] in FLOOR}


MODULES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def test_every_module_belongs_to_a_room():
    assert {room_of(path) for path in MODULES} == set(FLOOR)


def test_imports_lead_down_or_stay_in_the_room():
    elsewhere = [(path, room_of(path), room) for path in MODULES for room in rooms_imported(path) if room != room_of(path)]
    assert [f"{path.relative_to(PACKAGE)} imports {room}" for path, own, room in elsewhere if FLOOR[room] >= FLOOR[own]] == []


def test_modules_import_each_other_in_no_circle():
    names = {".".join(("hftn_sr", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path for path in MODULES}
    graph = {name: {other for other in imported(path) if other in names and other != name} for name, path in names.items()}
    for name in graph:  # a package's own __init__ gathers its modules, which is no circle
        graph[name] -= {parent for parent in graph[name] if name.startswith(f"{parent}.")}
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_the_package_does_without_the_study():
    assert [path for path in PACKAGE.parent.rglob("*.py") if STUDY & {name.split(".")[0] for name in imported(path)}] == []


def test_no_link_leads_out_of_the_bundle_and_no_file_is_too_large_for_the_model_zoo():
    files = [path for path in PACKAGE.parent.rglob("*") if not {"runs", "data", "eval", "__pycache__"} & set(path.parts)]
    assert [path for path in files if path.is_symlink()] == []
    assert [path for path in files if path.is_file() and path.stat().st_size > 25e6] == []


def test_the_root_metadata_is_the_bundle_s():
    root = PACKAGE.parents[1]
    assert (root / "metadata.json").resolve() == PACKAGE.parent / "configs" / "metadata.json"
    assert (root / "LICENSE").read_bytes() == (root / "bundle" / "LICENSE").read_bytes()
