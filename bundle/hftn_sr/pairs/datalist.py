"""Datalists: which pair of files is a training, validation or test case."""

from __future__ import annotations

import json
import os
import reprlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from hftn_sr.errors import Fault, NothingToDo, end_in_one_line
from hftn_sr.pairs.entries import PATHS, nearest, resolved_entry
from hftn_sr.pairs.leaks import check_sections_apart, patients_in_two_sections
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
    "workflow_sections_apart",
    "workflow_shares",
    "write_cases",
]

Section = Literal["training", "validation", "testing"]

DATALIST = "datalist.json"
SECTIONS: tuple[Section, ...] = get_args(Section)
SHAPE = 'write {"training": [...], "validation": [...], "testing": [...]}'


def load_datalist(folder: Path | str, section: Section, may_be_empty: bool = False) -> list[dict[str, Any]]:
    """Cases of one section of `folder`/datalist.json, with absolute paths.

    The file is {"training": [...], "validation": [...], "testing": [...]}; a case has `case`, `target` and `reference`, and optionally
    `transform` (ITK file that maps target points to reference points), `inverse_transform` (ITK file whose inverse comes before that: one
    that maps reference points to target points or, for two images registered to a third, both files), `lesions` (mask of the target's
    lesions, which only the study of robustness reads), `weight` (how often it is drawn in training, 1 if absent) and `grid` ("header": the
    reference is placed by the two headers, the default; "index": slice i of one image belongs to slice i of the other, whatever the headers
    say). Paths are relative to `folder`; NIfTI or fastMRI .h5 files.

    `read` says how a file without a single right reading is read, see `ReadOptions`, for example {"nan_to_num": true}.

    Args:
        folder: with the datalist.
        section: the one to read.
        may_be_empty: whether a section without cases, or no such section, is an empty list rather than a fault.

    Raises:
        Fault: no such file, not a datalist, an empty section, one case twice, or a case that cannot be meant, see `resolved_entry`.
    """
    path = Path(folder).absolute() / DATALIST
    cases = _content(path).get(section, [])
    if not isinstance(cases, list):
        raise Fault(path, f'"{section}" is no list of cases ({reprlib.repr(cases)})', SHAPE)
    if not cases and not may_be_empty:
        raise Fault(path, f"no {section} case in it", f'list at least one under "{section}"')
    resolved = [resolved_entry(path, case) for case in cases]
    _check_each_once(path, section, resolved)
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
    """`load_datalist` for a workflow configuration: a fault ends the process with one line instead of MONAI's traceback.

    The section `validation` may be empty.
    """
    with end_in_one_line():
        return load_datalist(folder, section, may_be_empty=section == "validation")


def workflow_sections_apart(folder: Path | str) -> None:
    """End a workflow with one line where an image stands in two sections of `folder`'s datalist; warn where a patient seems to."""
    path = Path(folder).absolute() / DATALIST
    with end_in_one_line():
        content = _content(path)
        sections: dict[str, Any] = {name: content.get(name) for name in SECTIONS}
        check_sections_apart(path, sections)
    for warning in patients_in_two_sections(content, sections):
        sys.stderr.write(f"WARNING {path}: {warning}\n")


def workflow_shares(folder: Path | str, cases: Sequence[Any], processes: int) -> None:
    """End a workflow with one line where `processes` are to share fewer `cases` of `folder`'s datalist: one without a case cannot score.

    MONAI's sampler would refuse them, too, in a traceback that names no file.
    """
    if len(cases) < processes and cases:
        found = f"{processes} processes are to share {len(cases)} of its cases for the scores, and each needs at least one"
        with end_in_one_line():
            raise Fault(Path(folder) / DATALIST, found, f"--nproc_per_node={len(cases)}, or list more cases")
    if not cases and processes > 1:
        with end_in_one_line():
            raise Fault(Path(folder) / DATALIST, "no validation case in it", "list one for each process, or train in a single process")


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        fix = f"hftn-sr data open-ms --output '{path.parent}' fetches open data; --dataset_dir DIR names your own"
        raise Fault(path, "no such file: the dataset folder must hold a datalist.json", fix) from None
    except OSError as error:
        raise Fault(path, f"cannot be read ({error.strerror})", "check its permissions, or name another --dataset_dir") from None
    except RecursionError:
        raise Fault(path, "not a datalist (nested too deeply)", SHAPE) from None
    except ValueError as error:
        raise Fault(path, f"not a datalist, nor JSON at all ({error})", SHAPE) from None
    if not isinstance(content, dict):
        raise Fault(path, f"not a datalist ({reprlib.repr(content)})", SHAPE)
    for name in content.keys() - {*SECTIONS}:
        if meant := nearest(name, SECTIONS) or _begun(name):
            raise Fault(path, f'has the section {json.dumps(name)} (did you mean "{meant}"?)', f'rename it to "{meant}"')
    return content


def _begun(name: str) -> str | None:
    """The section of which `name` is the beginning, as `val` is."""
    return next((section for section in SECTIONS if len(name) > 2 and section.startswith(name.lower())), None)


def _check_each_once(path: Path, section: str, cases: Sequence[Mapping[str, Any]]) -> None:
    names = Counter(case["case"] for case in cases)
    if twice := [str(name) for name, count in names.items() if count > 1]:
        raise Fault(path, f"several {section} cases of one name ({', '.join(twice[:3])})", "give each case a name of its own")
    seen: dict[tuple[str, ...], str] = {}
    for case in cases:
        other = seen.setdefault(tuple(case[key] for key in PATHS), case["case"])
        if other != case["case"]:
            finding = f"cases {other} and {case['case']} of {section} are the same files"
            raise Fault(path, finding, 'remove one; "weight": 2 draws a case twice as often')
