"""Datalists: which pair of files is a training, validation or test case."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from hftn_sr.errors import Fault, NothingToDo, end_in_one_line
from hftn_sr.volumes.files import write_json

__all__ = [
    "DATALIST",
    "PATHS",
    "SECTIONS",
    "Section",
    "check_new",
    "load_datalist",
    "relative",
    "workflow_datalist",
    "workflow_shares",
    "write_cases",
]

Section = Literal["training", "validation", "testing"]

DATALIST = "datalist.json"
SECTIONS: tuple[Section, ...] = get_args(Section)
PATHS = ("target", "reference", "transform", "inverse_transform", "lesions")
GRIDS = ("header", "index")


def load_datalist(folder: Path | str, section: Section) -> list[dict[str, Any]]:
    """Cases of one section of `folder`/datalist.json, with absolute paths.

    The file is {"training": [...], "validation": [...], "testing": [...]}; a case has `case`, `target` and `reference`, and optionally
    `transform` (ITK file that maps target points to reference points), `inverse_transform` (ITK file whose inverse comes before that: one
    that maps reference points to target points or, for two images registered to a third, both files), `lesions` (mask of the target's
    lesions, which only the study of robustness reads), `weight` (how often it is drawn in training, 1 if absent) and `grid` ("header": the
    reference is placed by the two headers, the default; "index": slice i of one image belongs to slice i of the other, whatever the headers
    say). Paths are relative to `folder`; NIfTI or fastMRI .h5 files.

    Raises:
        Fault: no such file, not a datalist, an empty section, two cases of one name, or a case with a missing file or an unknown grid.
    """
    folder = Path(folder).absolute()
    path = folder / DATALIST
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))[section]
    except (FileNotFoundError, NotADirectoryError):
        fix = f"hftn-sr data open-ms --output '{folder}' fetches open data; --dataset_dir DIR names your own"
        raise Fault(path, "no such file: the dataset folder must hold a datalist.json", fix) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(path, f"not a datalist ({error!r})", 'write {"training": [...], "validation": [...], "testing": [...]}') from None
    if not cases:
        raise Fault(path, f"no {section} case in it", f'list at least one under "{section}"')
    resolved = [_resolved(path, folder, case) for case in cases]
    names = Counter(case["case"] for case in resolved)
    if twice := [str(name) for name, count in names.items() if count > 1]:
        raise Fault(path, f"several {section} cases of one name ({', '.join(twice[:3])})", "give each case a name of its own")
    return resolved


def check_new(folder: Path, overwrite: bool) -> None:
    """Raise NothingToDo where the dataset `folder` has a datalist that may not be replaced."""
    if not overwrite and os.path.lexists(folder / DATALIST):
        raise NothingToDo(folder / DATALIST, "exists already", "--overwrite always, or another --output")


def write_cases(folder: Path, cases: Mapping[Section, list[dict[str, Any]]], rule: dict[str, Any]) -> None:
    """Write `folder`/datalist.json in one step; `rule` says in it how the sections came about.

    Raises:
        Fault: the file cannot be written.
    """
    write_json(folder / DATALIST, {**dict(cases.items()), "split": rule})


def relative(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`, with forward slashes; absolute where no relative path leads there (another drive)."""
    try:
        # Both without links on the way, which ".." would not go back through.
        return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def workflow_datalist(folder: Path | str, section: Section) -> list[dict[str, Any]]:
    """`load_datalist` for a workflow configuration: a fault ends the process with one line instead of MONAI's traceback."""
    with end_in_one_line():
        return load_datalist(folder, section)


def workflow_shares(folder: Path | str, cases: Sequence[Any], processes: int) -> None:
    """End a workflow with one line where `processes` are to share fewer `cases` of `folder`'s datalist: one without a case cannot score.

    MONAI's sampler would refuse them, too, in a traceback that names no file.
    """
    if len(cases) < processes:
        found = f"{processes} processes are to share {len(cases)} of its cases for the scores, and each needs at least one"
        with end_in_one_line():
            raise Fault(Path(folder) / DATALIST, found, f"--nproc_per_node={len(cases)}, or list more cases")


def _resolved(path: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(case, dict) or not {"case", "target", "reference"} <= case.keys():
        raise Fault(path, f"a case without case, target and reference: {case}", "complete or remove it")
    resolved = {"weight": 1.0, "grid": "header", **case, **{key: str(folder / case[key]) if case.get(key) else "" for key in PATHS}}
    for key in PATHS:
        if resolved[key] and not Path(resolved[key]).is_file():
            raise Fault(
                resolved[key], f"no such file, but case {case['case']} of {path} needs it", "fetch it again or correct the datalist"
            )
    transformed = resolved["transform"] or resolved["inverse_transform"]
    if resolved["grid"] not in GRIDS or (resolved["grid"] == "index" and transformed):
        found = f"case {case['case']} has grid {resolved['grid']!r}" + (" and a transform" if transformed else "")
        raise Fault(path, found, '"header", or "index" without a transform')
    return resolved
