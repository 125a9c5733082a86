"""A finished comparison tried with wrong references and noise, and on lesions; goes on where it was broken off."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import filelock
import torch

import hftn_sr
from comparison.dataset import dataset_folder
from comparison.disturbance import FOREIGN, Disturbance, Pair, disturbances, load_pair, prepare
from comparison.finished import FinishedRow, Found, finished_rows
from comparison.kept import Kept
from comparison.lesions import RULES, lesions_in, load_lesions
from comparison.scoring import Predict, predictor, sums_columns, sums_from
from comparison.settings import data_digest
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.pairs.datalist import Section, load_datalist
from hftn_sr.scoring.metrics import SliceSums, slice_sums
from hftn_sr.training.protocols import restore
from hftn_sr.volumes.files import sha256_of

__all__ = ["CaseLesions", "Robustness", "Trial", "donors_of", "measure_robustness"]

T = TypeVar("T")
Track = Callable[[Sequence[T], str], Iterable[T]]
Case = dict[Hashable, Any]


@dataclass(frozen=True)
class Trial:
    """What is measured.

    Args:
        data: folder with datalist.json, or a copy of the open data without one.
        comparison: output folder of `compare`, which is only read.
        output: folder for the results; a later command goes on with what it finds there.
        methods: keys of METHODS.
        section: of the datalist whose references are disturbed.
        eval_slices: of each volume, from its middle; None for all. Lesions are looked at in all slices.
        overwrite: measure anew what the output holds of other choices, weights or data.
    """

    data: Path
    comparison: Path
    output: Path
    methods: Sequence[str]
    section: Section = "testing"
    eval_slices: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class CaseLesions:
    """Lesions of one case in what every row made of it.

    Args:
        section: of the datalist that the case is in.
        left_out: parts of its mask that were not measured.
        rows: for each row by name, the lesions.
    """

    section: Section
    left_out: int
    rows: Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Robustness:
    """What came of it.

    Args:
        found: rows of the comparison.
        section: of the datalist.
        eval_slices: of each volume.
        tried: disturbances, in order.
        donors: for each case, whose reference was taken for that of another patient.
        seen: cases whose target was trained on.
        sums: by name of the row and of the disturbance, the cases.
        lesions: by scale, section and name of the case.
    """

    found: Found
    section: Section
    eval_slices: int | None
    tried: Sequence[Disturbance]
    donors: Mapping[str, str]
    seen: Sequence[str]
    sums: Mapping[str, Mapping[str, Mapping[str, SliceSums]]]
    lesions: Mapping[tuple[int, Section, str], CaseLesions]


def measure_robustness(trial: Trial, track: Track[Any] = lambda steps, text: steps) -> Robustness:
    """Measure all finished rows, or read what an earlier command measured.

    Args:
        trial: what.
        track: passes on the steps of one row and case while it shows them under a text.

    Raises:
        UsageFault: choices that cannot be meant, or results of others in the output.
        NothingToDo: no finished row.
        Fault: data or output cannot be used.
    """
    if trial.eval_slices is not None and trial.eval_slices < 1:
        raise UsageFault("--eval-slices", f"{trial.eval_slices} (need at least 1)", "--eval-slices 4")
    found = finished_rows(trial.comparison, trial.methods)
    torch.set_num_threads(1)  # a second one would change sums, and thus figures, in their last digits
    trial.output.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(trial.output / ".lock", timeout=0):
            return _measure(trial, found, track)
    except filelock.Timeout:
        raise Fault(trial.output, "another command is measuring into it", "wait for it, or name another --output") from None


def _measure(trial: Trial, found: Found, track: Track[Any]) -> Robustness:
    dataset = dataset_folder(trial.data, trial.output)
    known: tuple[Section, ...] = tuple(dict.fromkeys(("training", "validation", trial.section)))
    listed: dict[Section, Sequence[Case]] = {section: _cases(dataset, section) for section in known}
    cases = listed[trial.section]
    donors = donors_of(cases, [case for section in known if section != trial.section for case in listed[section]])
    tried = [each for each in disturbances() if each != FOREIGN or len(donors) == len(cases)]
    data, given = data_digest(dataset, known), {case: donor["case"] for case, donor in donors.items()}
    names = [each.name for each in tried]
    record = {"data": data, "section": trial.section, "slices": trial.eval_slices, "tried": names, "donors": given}
    trained_on = {case["target"] for case in listed["training"]}
    return Robustness(
        found=found,
        section=trial.section,
        eval_slices=trial.eval_slices,
        tried=tried,
        donors=given,
        seen=[case["case"] for case in cases if case["target"] in trained_on],
        sums=_disturbed(trial, found, cases, donors, tried, record, track),
        lesions=_lesions(trial, found, listed, data, track),
    )


def _disturbed(
    trial: Trial,
    found: Found,
    cases: Sequence[Case],
    donors: Mapping[str, Case],
    tried: Sequence[Disturbance],
    record: Mapping[str, Any],
    track: Track[Any],
) -> dict[str, dict[str, dict[str, SliceSums]]]:
    """By row, disturbance and case. Case by case, so that each is read once for all rows."""
    kept = {each.row.name: _kept(trial, "rows", found, each, record) for each in found.rows}
    for scale in found.scales:
        for case in cases:
            rows = [each for each in found.rows if each.row.scale == scale and case["case"] not in kept[each.row.name].results]
            if not rows:
                continue
            pair = load_pair(case, donors.get(case["case"]), scale, trial.eval_slices)
            for each in rows:
                predict = predictor(each.row, each.weights, found.protocol)
                steps = track(tried, f"{each.row.name}: {case['case']}")
                result = {step.name: sums_columns(_sums(found, each, pair, step, predict)) for step in steps}
                kept[each.row.name].keep(case["case"], result)
    return {
        row: {step.name: {case["case"]: sums_from(results.results[case["case"]][step.name]) for case in cases} for step in tried}
        for row, results in kept.items()
    }


def _sums(found: Found, each: FinishedRow, pair: Pair, step: Disturbance, predict: Predict) -> SliceSums:
    prepared = prepare(pair, step, found.protocol, each.row.scale, each.decomposition)
    pred, truth = (restore(image, prepared.mean, prepared.std)[0] for image in (predict(prepared.image), prepared.label))
    return slice_sums(pred, truth)


def _lesions(
    trial: Trial, found: Found, listed: Mapping[Section, Sequence[Case]], data: str, track: Track[Any]
) -> dict[tuple[int, Section, str], CaseLesions]:
    """Of all cases that have a mask, whichever section they are in."""
    if found.protocol.name != "corrected":  # the other one crops slices
        return {}
    results: dict[tuple[int, Section, str], CaseLesions] = {}
    masked = {f"{section} {case['case']}": (section, case) for section, cases in listed.items() for case in cases if case["lesions"]}
    masks = {name: sha256_of(Path(case["lesions"])) for name, (_, case) in masked.items()}
    kept = {each.row.name: _kept(trial, "lesions", found, each, {"data": data, "masks": masks, "rules": RULES}) for each in found.rows}
    for scale in found.scales:
        rows = [each for each in found.rows if each.row.scale == scale]
        for name, (section, case) in masked.items():
            if todo := [each for each in rows if name not in kept[each.row.name].results]:
                pair = load_lesions(case, scale)
                for each in track(todo, f"x{scale}, lesions of {case['case']}"):
                    predict = predictor(each.row, each.weights, found.protocol)
                    lesions = lesions_in(pair, predict, found.protocol, scale, each.decomposition)
                    kept[each.row.name].keep(name, {"left_out": pair.left_out, "lesions": lesions})
            by_row = {each.row.name: kept[each.row.name].results[name] for each in rows}
            left_out = next(iter(by_row.values()))["left_out"]
            of_rows = {row: result["lesions"] for row, result in by_row.items()}
            results[scale, section, case["case"]] = CaseLesions(section, left_out, of_rows)
    return results


def _kept(trial: Trial, folder: str, found: Found, each: FinishedRow, record: Mapping[str, Any]) -> Kept:
    """The results of a row, as far as there are, for what they depend on."""
    wanted = {
        **record,
        "protocol": found.protocol.description,
        "version": hftn_sr.__version__,
        "decomposition": each.decomposition,
        "options": dict(each.row.options),
        "weights": each.sha256,
    }
    return Kept(trial.output / folder / f"{each.row.name}.json", wanted, trial.overwrite)


def _cases(dataset: Path, section: Section) -> list[Case]:
    cases: list[Any] = load_datalist(dataset, section)
    return cases


def donors_of(cases: Sequence[Case], others: Sequence[Case]) -> dict[str, Case]:
    """For each case one of another section, and thus of another patient: the one whose name, and thus contrasts, are most alike."""
    donors: dict[str, Case] = {}
    for case in cases:
        name, own = str(case["case"]), {case["target"], case["reference"]}
        apart = {str(other["case"]): other for other in others if own.isdisjoint({other["target"], other["reference"]})}
        if alike := difflib.get_close_matches(name, list(apart), 1, cutoff=0.0):
            donors[name] = apart[alike[0]]
    return donors
