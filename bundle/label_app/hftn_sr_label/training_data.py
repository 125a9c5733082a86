"""The pairs of a datastore as a datalist for the training workflow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hftn_sr.errors import Fault, NothingToDo, UsageFault, differences
from hftn_sr.pairs.datalist import DATALIST, SECTIONS, write_cases
from hftn_sr.pairs.split import PATIENT, shuffled
from hftn_sr.volumes.files import write_json
from hftn_sr.volumes.nifti import ReadOptions, read_nifti
from hftn_sr_label.pairing import Images, NameRule, paired_images

__all__ = ["COARSER", "TrainingData", "check_settings", "divide", "training_data", "write_training_data"]

COARSER = 1.5  # in-plane voxel size, relative to the reference's, from which a target counts as low-resolution


@dataclass(frozen=True)
class TrainingData:
    """Pairs to learn from.

    Args:
        cases: datalist entries with absolute paths, by name.
        left_out: why pairs of the datastore are not among them.
    """

    cases: dict[str, dict[str, str]]
    left_out: list[str]


def training_data(images: Images, rules: Iterable[NameRule]) -> TrainingData:
    """The pairs of two high-resolution images: low resolution is simulated, so that a target of low resolution teaches nothing.

    Raises:
        NothingToDo: there is none.
    """
    cases, left_out = {}, []
    rules = tuple(rules)
    for image_id, reference_id in paired_images(images, rules).items():
        target, reference = (Path(images.get_image_uri(name)) for name in (image_id, reference_id))
        try:
            ratio = _in_plane_ratio(target, reference)
        except Fault as fault:
            left_out.append(str(fault))
            continue
        if ratio >= COARSER:
            finding = f"in-plane voxels are {ratio:.2f} times those of {reference_id}: a low-resolution image, none to learn from"
            left_out.append(str(Fault(image_id, finding, "add its high-resolution image for training")))
        else:
            cases[image_id] = {"case": image_id, "target": str(target), "reference": str(reference)}
    if not cases:
        patterns = ", ".join(f"{rule.target} with {rule.reference}" for rule in rules)
        first = f"; left out {len(left_out)}, the first: {left_out[0]}" if left_out else ""
        raise NothingToDo("datastore", f"no pair of high-resolution images in it (searched {patterns}){first}", "add pairs, or give names")
    return TrainingData(cases, left_out)


def divide(cases: Iterable[str], known: dict[str, str], share: float, seed: int, patient: str) -> dict[str, str]:
    """Section, `training` or `validation`, of each case; all cases of a patient go to one, and a patient that is known stays where it was.

    Args:
        cases: names.
        known: patient to section, from an earlier division.
        share: of the patients that validate, at least one.
        seed: draws them.
        patient: regular expression found in a case's name; its first group, or else all that it matches, is the patient.

    Raises:
        UsageFault: an expression that does not compile.
        Fault: a name without a patient, or a single patient.
    """
    of = _patient_of(patient)
    patients = {case: of(case) for case in cases}
    order = shuffled(patients.values(), seed)
    if len(order) < 2:
        finding = f"one patient only ({', '.join(order)}), training needs another one to validate"
        raise Fault("datastore", finding, "add patients, or give patient, a regular expression that separates them")
    sections = {name: known[name] for name in order if name in known}
    new = [name for name in order if name not in known]
    missing = max(1, round(share * len(order))) - list(sections.values()).count("validation")
    taken = set(new[: max(0, min(missing, len(order) - 1))])
    sections |= {name: "validation" if name in taken else "training" for name in new}
    if len(set(sections.values())) < 2:
        raise Fault("datastore", f"all {len(order)} patients are for {sections[order[0]]}", "add patients, or begin another run")
    return {case: sections[name] for case, name in patients.items()}


def write_training_data(folder: Path, data: TrainingData, share: float, seed: int, patient: str) -> dict[str, int]:
    """Write `folder`/datalist.json; patients of one that is there stay in their section. Gives the number of cases by section.

    Raises:
        Fault: as `divide`, or a datalist that cannot be read.
    """
    of = _patient_of(patient)
    path = folder / DATALIST
    known = {}
    if path.exists():
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
            known = {of(case["case"]): section for section in SECTIONS for case in earlier[section]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Fault(path, f"not a datalist ({error!r})", "begin another run") from None
    sections = divide(data.cases, known, share, seed, patient)
    cases: dict[Any, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
    for name in sorted(data.cases):
        cases[sections[name]].append(dict(data.cases[name]))
    write_cases(folder, cases, {"validation_share": share, "seed": seed, "patient": patient})
    return {section: len(entries) for section, entries in cases.items() if entries}


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a run in `folder` when it begins; a run that goes on must have the same.

    Raises:
        UsageFault: they differ.
    """
    path = folder / "settings.json"
    if not path.exists():
        write_json(path, settings)
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        differing = differences({name: earlier.get(name) for name in settings}, settings)
    except (OSError, ValueError, AttributeError) as error:
        raise Fault(path, f"cannot be read ({error})", "begin another run") from None
    if differing:
        raise UsageFault(f"run {folder.name}", f"was begun with {'; '.join(differing)}", "give the same again, or another run")


def _in_plane_ratio(target: Path, reference: Path) -> float:
    grids = [read_nifti(path, ReadOptions()).grid for path in (target, reference)]
    own, other = (np.delete(grid.spacing, grid.through_plane()).prod() for grid in grids)
    return float(np.sqrt(own / other))


def _patient_of(patient: str) -> Callable[[str], str]:
    try:
        pattern = re.compile(patient)
    except re.error as error:
        raise UsageFault("patient", f"{patient!r} is no regular expression ({error})", f"patient {PATIENT}") from None

    def of(case: str) -> str:
        match = pattern.search(case)
        name = match and match[1 if pattern.groups else 0]
        if not name:
            raise Fault(case, f"no patient in its name (searched {patient!r})", "give patient, a regular expression for it")
        return str(name)

    return of
