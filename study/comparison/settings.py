"""What a row was made with, so that a later command knows whether it may go on with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hftn_sr.errors import Fault, UsageFault, differences
from hftn_sr.pairs.datalist import Section, load_datalist
from hftn_sr.volumes.files import sha256_of, write_json

__all__ = ["SETTINGS", "check_unchanged", "data_digest", "network_options", "read_record"]

SETTINGS = "settings.json"

SAMPLE = 1 << 20  # bytes from either end of a file that are hashed; whole volumes of a large data set would take hours


def data_digest(folder: Path, sections: Iterable[Section]) -> str:
    """Short SHA-256 of the cases of some sections and of their files: sizes, first and last MiB. Paths do not matter.

    Raises:
        Fault: see `load_datalist`.
    """
    found = hashlib.sha256()
    seen: dict[str, str] = {}
    for section in sections:
        for case in load_datalist(folder, section):
            keys = ("target", "reference", "transform", "inverse_transform")
            files = {key: seen.setdefault(case[key], _ends(Path(case[key]))) for key in keys if case.get(key)}
            found.update(json.dumps([section, case["case"], case["weight"], case["grid"], files], sort_keys=True).encode())
    return found.hexdigest()[:16]


def network_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every option that a run's network was built with, but for the scale, which its `Row` has itself."""
    return {name: value for name, value in settings["options"].items() if name != "scale"}


def check_unchanged(folder: Path, wanted: Mapping[str, Any], overwrite: bool) -> None:
    """Make sure that a run's folder is empty or holds a run with the wanted settings, and note them in it.

    Args:
        folder: of the run.
        wanted: its settings, JSON.
        overwrite: remove a run with other settings instead of refusing.

    Raises:
        UsageFault: the folder holds a run with other settings; the message names what differs. Or it holds something else.
    """
    found = read_record(folder / SETTINGS)
    if found == wanted:
        return
    if not found and not overwrite and folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UsageFault(folder, f"holds files but no {SETTINGS}", "move them away, name another --output, or --overwrite to remove them")
    if found and not overwrite:
        finding = f"made with other settings ({'; '.join(differences(found, wanted))})"
        raise UsageFault(folder, finding, "repeat those settings, name another --output, or --overwrite to begin this row anew")
    if folder.exists():
        shutil.rmtree(folder)
    write_json(folder / SETTINGS, dict(wanted))


def read_record(path: Path) -> dict[str, Any]:
    """A record, empty where there is none.

    Raises:
        Fault: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Fault(path, f"damaged ({error})", "remove that file and run again") from None
    if not isinstance(record, dict):
        raise Fault(path, f"damaged (holds a {type(record).__name__}, not a record)", "remove that file and run again")
    return record


def _ends(path: Path) -> str:
    size = path.stat().st_size
    if size <= 2 * SAMPLE:
        return sha256_of(path)
    with path.open("rb") as stream:
        found = hashlib.sha256(f"{size} ".encode() + stream.read(SAMPLE))
        stream.seek(-SAMPLE, 2)
        found.update(stream.read())
    return found.hexdigest()
