"""The rooms of the package import in one direction only, and the bundle folder is complete in itself."""

import ast
from pathlib import Path

import hftn_sr

PACKAGE = Path(hftn_sr.__file__).parent
ROOMS = [
    ["errors", "kspace", "metrics"],
    ["networks", "volumes"],
    ["weights", "degradation", "evaluation", "report", "protocols", "statistics", "optimizers"],
    ["transforms", "pairs", "inferers", "runtime", "export"],
    ["handlers", "inference"],
    ["batch", "qc"],
    ["api", "workflow"],
    ["comparison"],
    ["cli"],
]
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def room_of(name):
    return name.split(".")[1] if name.startswith("hftn_sr.") else None


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names] if isinstance(node, ast.Import) else []
        yield from filter(None, map(room_of, filter(None, names)))


def test_every_module_belongs_to_a_room():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(LEVEL)


def test_imports_point_one_way():
    upward = [
        f"{path.relative_to(PACKAGE)} imports {room}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
        for own in [path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        for room in imported_rooms(path)
        if room != own and LEVEL[room] > LEVEL[own]
    ]
    assert upward == []


def test_no_link_leads_out_of_the_bundle_and_no_file_is_too_large_for_the_model_zoo():
    files = [path for path in PACKAGE.parent.rglob("*") if not {"runs", "data", "eval", "__pycache__"} & set(path.parts)]
    assert [path for path in files if path.is_symlink()] == []
    assert [path for path in files if path.is_file() and path.stat().st_size > 25e6] == []


def test_the_root_metadata_is_the_bundle_s():
    root = PACKAGE.parents[1]
    assert (root / "metadata.json").resolve() == PACKAGE.parent / "configs" / "metadata.json"
    assert (root / "LICENSE").read_bytes() == (root / "bundle" / "LICENSE").read_bytes()
