"""Datalists: which pair of files is a training, validation or test case."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

from hftn_sr.errors import Fault

__all__ = ["Section", "load_datalist", "workflow_datalist"]

Section = Literal["training", "validation", "testing"]

DATALIST = "datalist.json"
PATHS = ("target", "reference", "transform")


def load_datalist(folder: Path | str, section: Section) -> list[dict[str, Any]]:
    """Cases of one section of `folder`/datalist.json, with absolute paths.

    The file is {"training": [...], "validation": [...], "testing": [...]}; a case has `case`, `target` and `reference`, and optionally
    `transform` (ITK file that maps target points to reference points) and `weight` (how often it is drawn in training, 1 if absent).
    Paths are relative to `folder`.

    Raises:
        Fault: no such file, not a datalist, an empty section, or a case with a missing file.
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
    return [_resolved(path, folder, case) for case in cases]


def workflow_datalist(folder: Path | str, section: Section) -> list[dict[str, Any]]:
    """`load_datalist` for a workflow configuration: a fault ends the process with one line instead of MONAI's traceback."""
    try:
        return load_datalist(folder, section)
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        raise SystemExit(fault.exit_code) from None


def _resolved(path: Path, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(case, dict) or not {"case", "target", "reference"} <= case.keys():
        raise Fault(path, f"a case without case, target and reference: {case}", "complete or remove it")
    resolved = {"weight": 1.0, **case, **{key: str(folder / case[key]) if case.get(key) else "" for key in PATHS}}
    for key in PATHS:
        if resolved[key] and not Path(resolved[key]).is_file():
            raise Fault(
                resolved[key], f"no such file, but case {case['case']} of {path} needs it", "fetch it again or correct the datalist"
            )
    return resolved
