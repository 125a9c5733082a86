"""Many cases: found in a folder, run one after another, listed in a summary."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from hftn_sr.errors import ALL_FAILED, INTERRUPTED, NOTHING, OK, SOME_FAILED, Fault, NothingToDo, UsageFault, interrupted, printable
from hftn_sr.inference.case import LEFT_ALONE, RESULTS, Case, Outcome, Status
from hftn_sr.inference.options import OutputFormat, RunOptions
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.run import run_case
from hftn_sr.networks.weights import Model, load_model, stand_in
from hftn_sr.pairs.cases import case_files, case_folders, lone_target
from hftn_sr.volumes.files import write_bytes, write_json

__all__ = ["check_summary", "exit_code", "find_cases", "lone_case", "run_cases", "write_summary"]

PLACING = "put its transform into the folder of the case as reference_transform.txt"
FORMULA = ("=", "+", "-", "@", "'")  # how texts begin that a spreadsheet computes; the apostrophe, so that it can be undone


def find_cases(
    folder: str | PathLike[str], output: str | PathLike[str], reference_optional: bool = False, output_format: OutputFormat = "nifti"
) -> tuple[list[Case], list[Outcome]]:
    """Cases of a folder: each sub-folder with `target.nii.gz` and `reference.nii.gz`, or what else `case_files` takes.

    A sub-folder may also hold `reference_transform` (.txt, .tfm, .mat or .h5), an ITK file that maps target points to reference points.

    Args:
        folder: folder of the cases.
        output: folder of the results.
        reference_optional: whether a target without a reference is a case too.
        output_format: `dicom` names the results target_sr/, folders of a derived series.

    Returns:
        cases whose results go to `output`/<sub-folder>/target_sr.nii.gz, and a failed outcome for each sub-folder that has one of the two
        images without the other, or both .nii and .nii.gz of one.

    Raises:
        NothingToDo: no sub-folder holds a pair.
        Fault: the folder is missing.
    """
    cases, failed = [], []
    for sub in case_folders(Path(folder)):
        result = Path(output) / sub.name / RESULTS[output_format]
        try:
            if reference_optional and (target := lone_target(sub)):
                cases.append(Case(sub.name, target, None, result))
            elif files := case_files(sub):
                cases.append(Case(sub.name, files.target, files.reference, result, files.transform, placing=PLACING))
        except Fault as fault:
            failed.append(Outcome(sub.name, "failed", result, str(fault)))
    if not cases and not failed:
        raise NothingToDo(
            folder,
            "no case found (searched */target.nii.gz with */reference.nii.gz and the like, or folders of DICOM)",
            "name the files like that",
        )
    return cases, failed


def lone_case(target: Path, reference: Path | None, output: Path, transform: Path | None) -> Case:
    """The case of one pair, or of a target alone.

    Args:
        target: low-resolution file or DICOM folder.
        reference: high-resolution one of another contrast; None for none.
        output: NIfTI file, or folder of a DICOM series, to write.
        transform: ITK file that maps target points to reference points; None for none.

    Raises:
        UsageFault: a transform without a reference.
    """
    if reference is None and transform:
        raise UsageFault("--reference-transform", "needs a reference", "--reference FILE, or leave it out")
    return Case(target.name, target, reference, output, transform)


def run_cases(
    cases: Sequence[Case], options: RunOptions, reporter: Reporter, failed: Sequence[Outcome] = (), strict: bool = False
) -> Iterator[Outcome]:
    """Run cases one after another; a bad one does not stop the rest. The model is loaded once.

    Args:
        cases: cases to run.
        options: options of the run.
        reporter: listener to the run's progress.
        failed: outcomes of cases that failed before they could run, which come first.
        strict: whether an error ends the run; otherwise its case fails alone.

    Yields:
        the outcome of each case, failed ones included.

    Raises:
        Exception: with `strict`, whatever a case raises.
    """
    model: Callable[[int | None], Model] = functools.lru_cache(
        lambda scale: load_model(stand_in(options.model, scale), scale, options.device)
    )
    reporter.begin(len(cases) + len(failed))
    for outcome in failed:
        reporter.end(outcome)
        yield outcome
    for case in cases:
        reporter.case(case.name)
        try:
            outcome = run_case(case, options, model, reporter)
        except Exception as error:
            if interrupted(error):
                raise KeyboardInterrupt from error
            if strict:
                raise
            status: Status = "skipped" if isinstance(error, NothingToDo) else "failed"
            outcome = Outcome(case.name, status, case.output, _one_line(case, error))
        reporter.end(outcome)
        yield outcome


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Exit code of a command: 0 all well, 3 nothing to do, 8 some cases failed, 9 all cases failed."""
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if failed:
        return ALL_FAILED if failed == len(outcomes) else SOME_FAILED
    return NOTHING if all(outcome.status in LEFT_ALONE for outcome in outcomes) else OK


def check_summary(folder: Path) -> None:
    """Refuse a folder, before the first case, in which the summary would replace a file of another program.

    Raises:
        Fault: another program wrote `summary.json` or `summary.csv` in `folder`.
    """
    table, record = folder / "summary.csv", folder / "summary.json"
    try:
        own = not record.is_file() or {"interrupted", "exit_code", "cases"} <= set(json.loads(record.read_bytes()))
    except (OSError, ValueError, TypeError):
        own = False
    if not own:
        raise Fault(record, "is not of this program and would be overwritten", "choose another --output, or move it away")
    if table.is_file() and not _begins(table, (b"case,status,output", b"case\r\n")):
        raise Fault(table, "is not of this program and would be overwritten", "choose another --output, or move it away")


def _begins(path: Path, starts: tuple[bytes, ...]) -> bool:
    try:
        return path.read_bytes().startswith(starts)
    except OSError:
        return False


def write_summary(folder: Path, outcomes: Sequence[Outcome], interrupted: bool = False) -> None:
    """Write `summary.json` and `summary.csv` of a run into `folder`, each replaced in one step.

    Raises:
        Fault: one of the two cannot be written; the other one is then.
    """
    rows = [_row(outcome) for outcome in outcomes]
    code = INTERRUPTED if interrupted else exit_code(outcomes)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else ["case"])
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    try:
        write_json(folder / "summary.json", {"interrupted": interrupted, "exit_code": code, "cases": rows})
    finally:
        write_bytes(folder / "summary.csv", table.getvalue().encode())


def _row(outcome: Outcome) -> dict[str, Any]:
    """What the summary says of a case, on one line each and in characters that every file takes."""
    record, there = outcome.record, outcome.status in ("done", "done before")
    similarity = record.get("similarity")
    row = {
        "case": outcome.case,
        "status": outcome.status,
        "output": outcome.output.name if there else "",
        "scale": record.get("scale"),
        "reference": _reference(record.get("reference")),
        "similarity": similarity.get("value") if isinstance(similarity, dict) else None,
        "coverage": record.get("coverage"),
        "uncertainty_mean": record.get("uncertainty_mean"),
        "seconds": round(outcome.seconds, 2),
        "warnings": "; ".join(outcome.warnings),
        "message": outcome.message,
        "notes": "; ".join(outcome.notes),
    }
    return {key: printable(value) if isinstance(value, str) else _number(value) for key, value in row.items()}


def _reference(told: Any) -> str:
    """Use of the reference: `used`, `left out` or `none`; empty where a record does not tell it."""
    if not isinstance(told, dict) or not {"file", "used"} <= set(told):
        return ""
    return "used" if told["used"] else "left out" if told["file"] else "none"


def _number(value: Any) -> int | float | str:
    """A figure of a record, which another hand may have changed; empty where it is none."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else ""


def _cell(value: int | float | str) -> int | float | str:
    """A value of the table; a text that a spreadsheet would take for a formula begins with an apostrophe there."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _one_line(case: Case, error: BaseException) -> str:
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error):  # the last is PyTorch's on a CPU
        return str(Fault(case.target, "not enough memory for this case", "close other programs or use a machine with more memory"))
    if isinstance(error, OSError):
        return str(Fault(case.target, f"the system refused ({error})", "check the disk and permissions"))
    return str(Fault(case.target, f"internal fault, {type(error).__name__}: {error}", "run again with --debug and report the traceback"))
