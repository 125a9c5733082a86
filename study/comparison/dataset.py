"""The data of a comparison, also where they have no datalist of their own."""

from __future__ import annotations

import json
from pathlib import Path

from hftn_sr.errors import Fault
from hftn_sr.pairs.datalist import DATALIST, PATHS, SECTIONS
from hftn_sr.pairs.open_ms import open_ms_pairs, write_datalist
from hftn_sr.volumes.files import write_json

__all__ = ["dataset_folder"]


def dataset_folder(data: Path, output: Path) -> Path:
    """A folder with a datalist, absolute: the data themselves, or one in the output that names the files of a copy of the open data.

    Args:
        data: folder with datalist.json, or a copy of the open data without one.
        output: its sub-folder `data` gets the datalist that is missing.
    """
    if (data / DATALIST).is_file() or not data.is_dir():
        return data.absolute()
    try:
        open_ms_pairs(data)
    except Fault:
        return data.absolute()  # reading it says what is missing
    root, own = data.absolute(), output.absolute() / "data"
    write_datalist(root, own / DATALIST)
    content = json.loads((own / DATALIST).read_text(encoding="utf-8"))
    for section in SECTIONS:
        for case in content[section]:
            case |= {key: str(root / case[key]) for key in PATHS if case.get(key)}
    write_json(own / DATALIST, content)
    return own
