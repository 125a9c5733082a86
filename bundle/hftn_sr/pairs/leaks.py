"""What stands in two sections of a datalist: training must not see what validates or tests it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from hftn_sr.errors import Fault
from hftn_sr.pairs.entries import shown

__all__ = ["check_sections_apart", "patients_in_two_sections"]

IMAGES = ("target", "reference")
SUBJECT = re.compile(r"(?:^|[/\\_])(sub-[A-Za-z0-9]+)")  # BIDS


def check_sections_apart(datalist: Path, sections: Mapping[str, Any]) -> None:
    """Refuse an image that stands in two sections. Entries that are none are passed over here.

    Args:
        datalist: the file, whose folder relative paths start from.
        sections: entries by section, as they stand in the file.

    Raises:
        Fault: the first such image.
    """
    seen: dict[object, tuple[str, str]] = {}
    for section, name, case in _entries(sections):
        for path in (case.get(key) for key in IMAGES):
            if not isinstance(path, str) or not path:
                continue
            other, other_name = seen.setdefault(_identity(datalist.parent / path), (section, name))
            if other != section:
                finding = f"{shown(path)} stands in {other} (case {other_name}) and in {section} (case {name})"
                raise Fault(datalist, finding, "keep all images of a patient in one section; hftn-sr data split divides by patient")


def patients_in_two_sections(content: Mapping[str, Any], sections: Mapping[str, Any]) -> list[str]:
    """Patients that seem to stand in two sections, one text each.

    A patient is recognised by the rule that `hftn-sr data split` stored, by `sub-...` in a path, or else by the whole name of the case.

    Args:
        content: the whole datalist.
        sections: its sections.
    """
    rule = content.get("split")
    pattern = _compiled(rule.get("patient")) if isinstance(rule, dict) else None
    places: dict[str, dict[str, str]] = {}
    for section, name, case in _entries(sections):
        places.setdefault(_patient(name, case, pattern), {}).setdefault(section, name)
    found = []
    for patient, cases in places.items():
        for one, other in list(combinations(cases, 2))[:1]:
            sections_of = f"{one} (case {cases[one]}) and in {other} (case {cases[other]})"
            found.append(f"patient {shown(patient)} seems to stand in {sections_of}: scores would be too good")
    return found


def _entries(sections: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for section, cases in sections.items():
        for case in cases if isinstance(cases, list) else ():
            if isinstance(case, dict) and isinstance(case.get("case"), str):
                yield section, shown(case["case"]), case


def _identity(path: Path) -> object:
    """The same for two names of one file, links included."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.path.normpath(path)
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


def _compiled(pattern: object) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if isinstance(pattern, str) else None
    except re.error:
        return None


def _patient(name: str, case: Mapping[str, Any], pattern: re.Pattern[str] | None) -> str:
    if pattern and (match := pattern.search(name)):
        return str(match[1 if pattern.groups else 0])
    subject = SUBJECT.search(name) or SUBJECT.search(str(case.get("target")))
    return subject[1] if subject else name
