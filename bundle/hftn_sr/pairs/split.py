"""The user's own pairs, divided by patient into training, validation and testing."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path
from typing import Any

from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.pairs.cases import CaseFiles, case_files, case_folders
from hftn_sr.pairs.datalist import SECTIONS, Section, relative

__all__ = ["FRACTIONS", "PATIENT", "Split", "missing_sections", "shuffled", "split_cases", "split_patients"]

FRACTIONS = (70.0, 10.0, 20.0)  # training, validation, testing: HFTN-SR, section 3.1 (AXA)
PATIENT = r"^[^_]+"  # "p01_visit2" is of patient "p01"


@dataclass(frozen=True)
class Split:
    """Which case is for what.

    Args:
        cases: entries of the datalist by section, paths relative to the dataset folder.
        patients: names of the patients of each section, sorted.
        faults: sub-folders that were left out, and why.
        rule: how the sections came about, for the datalist.
    """

    cases: dict[Section, list[dict[str, Any]]]
    patients: dict[Section, list[str]]
    faults: list[Fault]
    rule: dict[str, Any]


def split_cases(folder: Path, output: Path, fractions: Sequence[float] = FRACTIONS, seed: int = 0, patient: str = PATIENT) -> Split:
    """Divide the cases of `folder`, see `pairs.cases`, so that all visits of a patient come to one section.

    The result depends on the names of the cases, the fractions, the seed and the rule for patients, not on the order in which a
    system lists a folder, nor on a random number generator.

    Args:
        folder: its sub-folders are the cases.
        output: the dataset folder, which paths are relative to.
        fractions: shares of the patients in training, validation and testing, in any unit.
        seed: another one gives another division.
        patient: regular expression found in a case's name; its first group, or else all that it matches, is the patient.

    Raises:
        UsageFault: a fraction that is not positive, or an expression that does not compile.
        NothingToDo: no case at all.
        Fault: the folder is missing, or a name in which no patient is found.
    """
    named = _pattern(patient)
    found: dict[str, list[tuple[str, CaseFiles]]] = {}
    faults: list[Fault] = []
    for sub in case_folders(folder):
        try:
            files = case_files(sub)
        except Fault as fault:
            faults.append(fault)
            continue
        if files:
            found.setdefault(_patient(sub, named), []).append((sub.name, files))
    if not found:
        left_out = f"; {len(faults)} incomplete, the first: {faults[0]}" if faults else ""
        raise NothingToDo(
            folder,
            f"no case found (searched */target.nii.gz with */reference.nii.gz and the like, or folders of DICOM){left_out}",
            "name the files so",
        )
    patients = split_patients(found, fractions, seed)
    cases = {
        section: [_entry(name, files, output) for member in members for name, files in found[member]]
        for section, members in patients.items()
    }
    return Split(cases, patients, faults, {"fractions": list(fractions), "seed": seed, "patient": patient})


def split_patients(patients: Iterable[str], fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> dict[Section, list[str]]:
    """Patients of each section, sorted; the fractions hold to less than one patient, but that no section is empty.

    Seats are given out by largest remainder, ties to the earlier section; a section that would be empty takes one from the largest.
    Of two patients, one trains and one validates. A single one trains. See `missing_sections`.

    Raises:
        UsageFault: not three positive fractions.
    """
    if len(fractions) != len(SECTIONS) or not all(isfinite(part) and part > 0 for part in fractions):
        raise UsageFault("--fractions", f"found {' '.join(f'{part:g}' for part in fractions)}, need three positive numbers", "70 10 20")
    order = shuffled(patients, seed)
    if len(order) < len(SECTIONS):
        return {section: order[index : index + 1] for index, section in enumerate(SECTIONS)}
    shares = [Fraction(part) for part in fractions]
    quotas = [len(order) * share / sum(shares) for share in shares]
    seats = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(seats)), key=lambda index: seats[index] - quotas[index])
    for index in by_remainder[: len(order) - sum(seats)]:
        seats[index] += 1
    while 0 in seats:
        seats[seats.index(max(seats))] -= 1
        seats[seats.index(0)] = 1
    ends = [sum(seats[: index + 1]) for index in range(len(seats))]
    return {section: sorted(order[end - count : end]) for section, count, end in zip(SECTIONS, seats, ends, strict=True)}


def missing_sections(patients: Mapping[Section, Sequence[str]]) -> str | None:
    """What cannot be validated or tested with so few patients, and the way out; None where each section has one."""
    if all(patients.values()):
        return None
    (trained,), validated = patients["training"], patients["validation"]
    if validated:
        finding = f"two patients only: {trained} trains, {validated[0]} validates and chooses the best weights, nobody is left for testing"
        return f"{finding}; the gain on {validated[0]} is no independent score. A third patient gives one"
    finding = f"one patient only: {trained} trains, nothing can be validated or tested, and the last weights are saved as the best"
    return f"{finding}. Add patients, or name them with --patient REGEX if several were taken for one"


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Distinct names in an order that depends only on them and the seed, the same in every version of every system."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())


def _pattern(patient: str) -> re.Pattern[str]:
    try:
        return re.compile(patient)
    except re.error as error:
        raise UsageFault("--patient", f"{patient!r} is no regular expression ({error})", f"--patient '{PATIENT}'") from None


def _patient(case: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(unicodedata.normalize("NFC", case.name))  # macOS may give the same letters another way
    name = match and match[1 if pattern.groups else 0]
    if not name:
        raise Fault(case, f"no patient in its name (searched {pattern.pattern!r})", "--patient REGEX, its first group the patient")
    return str(name)


def _entry(name: str, files: CaseFiles, output: Path) -> dict[str, Any]:
    transform = relative(files.transform, output) if files.transform else ""
    return {"case": name, "target": relative(files.target, output), "reference": relative(files.reference, output), "transform": transform}
