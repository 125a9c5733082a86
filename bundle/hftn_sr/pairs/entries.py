"""One entry of a datalist: checked for what would be misread, and with absolute paths."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.volumes.dicom import holds_dicom
from hftn_sr.volumes.nifti import ReadOptions

__all__ = ["PATHS", "nearest", "resolved_entry", "shown"]

PATHS = ("target", "reference", "transform", "inverse_transform", "lesions")
IMAGES = ("target", "reference")  # a folder of DICOM files, too
GRIDS = ("header", "index")
READING = {"frame": int, "nan_to_num": bool, "magnitude": bool, "assume_affine": str}
KEYS = ("case", *PATHS, "weight", "grid", "read")
COMPLETE = 'write {"case": NAME, "target": FILE, "reference": FILE}, or remove it'
LARGEST_WEIGHT = 1e6
LONGEST_PATH, LONGEST_NAME = 4096, 200  # characters
ALIKE = 0.75  # similarity from which a key counts as misspelt


def resolved_entry(datalist: Path, case: object) -> dict[str, Any]:
    """An entry of `datalist` with its defaults and absolute paths; keys that nothing here reads are dropped.

    Raises:
        Fault: it is no entry, a key is misspelt, or a value cannot be meant.
    """
    folder = datalist.parent
    if not isinstance(case, dict) or not {"case", *IMAGES} <= case.keys():
        misspelt = _misspelt(case) if isinstance(case, dict) else ""
        raise Fault(datalist, f"a case without case, target and reference{misspelt}: {reprlib.repr(case)}", COMPLETE)
    name = _checked_name(datalist, case["case"])
    if misspelt := _misspelt(case):
        raise Fault(datalist, f"case {name}{misspelt}", "rename the key, or remove it")
    paths = {key: _path(datalist, name, key, case.get(key)) for key in PATHS}
    entry = {"case": name, **{key: str(folder / path) if path else "" for key, path in paths.items()}}
    for key, path in entry.items():
        if key in PATHS and path:
            _check_present(datalist, name, key, path)
    if Path(entry["target"]).samefile(entry["reference"]):
        finding = f"case {name} has one file as target and reference ({case['target']})"
        raise Fault(datalist, finding, "name an image of another contrast as its reference, or remove the case")
    return {**entry, **_settings(datalist, name, case, bool(entry["transform"] or entry["inverse_transform"]))}


def shown(text: str) -> str:
    """`text` as it may stand in a message: in one line, and not long."""
    return text if text.isprintable() and len(text) <= LONGEST_NAME else reprlib.repr(text)


def nearest(key: str, known: Collection[str]) -> str | None:
    """The known key that `key` is a misspelling of, if any."""
    found = get_close_matches(key.lower().strip(), known, 1, ALIKE)
    return found[0] if found and key not in known else None


def _misspelt(case: dict[str, Any]) -> str:
    meant = {key: close for key in case if (close := nearest(key, KEYS))}
    return "".join(f', has the key {json.dumps(key)} (did you mean "{close}"?)' for key, close in list(meant.items())[:1])


def _checked_name(datalist: Path, name: object) -> str:
    if not isinstance(name, str) or not name.strip():
        raise Fault(datalist, f"a case is named {reprlib.repr(name)}, which is no text", 'write "case": "a name of its own"')
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in PureWindowsPath(name).parts
    if outside or shown(name) != name:
        finding = f"case {reprlib.repr(name)} has a name that leads out of a folder, is too long or cannot be printed"
        raise Fault(datalist, finding, 'name it in a few letters, without "..", a root or control characters')
    return name


def _path(datalist: Path, name: str, key: str, path: object) -> str:
    if path is None and key not in IMAGES:
        return ""
    if not isinstance(path, str) or (not path and key in IMAGES) or len(path) > LONGEST_PATH or min(path, default="x") < " ":
        raise Fault(datalist, f"case {name} has {key} {reprlib.repr(path)}, which is no file name", f'write "{key}": "FILE"')
    return path


def _check_present(datalist: Path, name: str, key: str, path: str) -> None:
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for a name too long
        return
    if os.path.isdir(path):  # noqa: PTH112
        if key in IMAGES and holds_dicom(Path(path)):
            return
        wanted = "a folder without DICOM files" if key in IMAGES else "a folder"
        raise Fault(path, f"is {wanted}, but case {name} of {datalist} needs it as {key}", f"name the file as {key}")
    raise Fault(path, f"no such file, but case {name} of {datalist} needs it", "fetch it again or correct the datalist")


def _settings(datalist: Path, name: str, case: dict[str, Any], transformed: bool) -> dict[str, Any]:
    weight, grid, read = case.get("weight", 1.0), case.get("grid", "header"), case.get("read") or {}
    if not _is_positive(weight):
        finding = f"case {name} has weight {reprlib.repr(weight)} (need a number above 0, at most a million)"
        raise Fault(datalist, finding, 'write "weight": 1, or remove the case to leave it out')
    if grid not in GRIDS or (grid == "index" and transformed):
        found = f"case {name} has grid {reprlib.repr(grid)}" + (" and a transform" if transformed else "")
        raise Fault(datalist, found, '"header", or "index" without a transform')
    if not isinstance(read, dict) or any(type(value) is not READING.get(key) for key, value in read.items()):
        known = ", ".join(f"{key} ({kind.__name__})" for key, kind in READING.items())
        raise Fault(datalist, f"case {name} has read {reprlib.repr(read)} (known: {known})", 'for example "read": {"nan_to_num": true}')
    try:
        ReadOptions(**read)
    except UsageFault as fault:
        raise Fault(datalist, f"case {name}: {fault.finding}", fault.fix) from None
    return {"weight": float(weight), "grid": grid, "read": read}


def _is_positive(weight: object) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight <= LARGEST_WEIGHT
