"""The command `hftn-sr report`, and the drawing of the QC page with a bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hftn_sr.cli.faults import Debug, OptionalPath, one_line_errors, say, tell
from hftn_sr.errors import Note

if TYPE_CHECKING:
    from hftn_sr.inference.case import Case
    from hftn_sr.report import QcCase

__all__ = ["draw_report", "report"]

IMAGE_SUFFIXES = (".nii.gz", ".nii")
SHOWN = 10  # names of missing cases that are printed; the summary has all


def report(
    results: Annotated[Path, typer.Option(help="Folder written by super-resolve --cases or --bids, or one result.")],
    cases: Annotated[OptionalPath, typer.Option(help="Folder of their cases; results are scored by truth.nii.gz in a case.")] = None,
    bids: Annotated[OptionalPath, typer.Option(help="For results of --bids: their source dataset, if it was moved.")] = None,
    target: Annotated[OptionalPath, typer.Option(help="For one result: its low-resolution image.")] = None,
    reference: Annotated[OptionalPath, typer.Option(help="For one result: its reference, if it had one.")] = None,
    reference_transform: Annotated[OptionalPath, typer.Option(help="For one result: its ITK transform, if it had one.")] = None,
    truth: Annotated[OptionalPath, typer.Option(help="For one result: measured high-resolution image that scores it.")] = None,
    debug: Debug = False,
) -> None:
    """Write report.html, the QC page of existing results.

    It shows warnings, slices, scores and a viewer. Of a run in parts (--shard), or one that was killed, it also makes the summary.
    """
    with one_line_errors(debug):
        from hftn_sr.errors import OK, SOME_FAILED, Fault, UsageFault
        from hftn_sr.inference.case import side_files
        from hftn_sr.inference.result import own_record
        from hftn_sr.pairs.bids_derivative import is_derivative
        from hftn_sr.report import QcCase

        if not results.exists():
            raise Fault(results, "no such file or folder", "give --results a folder or file that super-resolve wrote")
        single = {"--target": target, "--reference": reference, "--reference-transform": reference_transform, "--truth": truth}
        if results.is_dir() and not own_record(side_files(results.absolute())[0]):
            for name, value in single.items():
                if value:
                    raise UsageFault(name, "does not go with a folder of results", "name one result, or give --cases")
            if cases is None and is_derivative(results):
                complete = _merge(results, None)
                say(draw_report(results, _of_dataset(results, bids)))
                raise typer.Exit(OK if complete else SOME_FAILED)
            if bids is not None:
                raise UsageFault("--bids", f"{results} holds no results of a BIDS dataset", "--cases FOLDER, or leave it out")
            if cases is None:
                raise UsageFault("--cases", "is missing", "--cases FOLDER, whose sub-folders the results were made from")
            shown = _of_folder(cases, results)
            complete = _merge(results, [case.name for case in shown])
            say(draw_report(results, shown))
            raise typer.Exit(OK if complete else SOME_FAILED)
        for name, folder in (("--cases", cases), ("--bids", bids)):
            if folder is not None:
                raise UsageFault(name, "does not go with one result", "--target FILE --reference FILE")
        had_one = own_record(side_files(results)[0]).get("reference", {}).get("file", "") is not None
        for name in ("--target", "--reference") if had_one else ("--target",):
            if single[name] is None:
                raise UsageFault(name, "is missing", f"{name} FILE, from which the result was made")
        for path in filter(None, single.values()):
            if not path.exists():
                raise Fault(path, "no such file or folder", "check the name")
        case = QcCase(results.name, results, target, reference, reference_transform, truth)
        say(draw_report(results.parent, [case]))


def _merge(results: Path, names: list[str] | None) -> bool:
    """Make one summary of those that parts of a run left, say what nobody did, and give whether that is nothing."""
    from hftn_sr.inference.summary import merge_summary

    merged = merge_summary(results, names, tell)
    if merged is None:
        return True
    lacking = len(merged.missing) + merged.unnamed
    if not lacking:
        tell(Note(f"{results}: {merged.cases} cases in one summary, none is missing"))
        return True
    named = ", ".join(merged.missing[:SHOWN]) + (", ..." if len(merged.missing) > SHOWN else "")
    shards = f", shards {', '.join(merged.shards)} are not over" if merged.shards else ""
    cure = f"run shard {merged.shards[0]} again" if merged.shards else "give the command of the run again"
    say(f"ERROR {results}: {lacking} of {merged.cases} cases were not done{': ' * bool(named)}{named}{shards}. Fix: {cure}.", err=True)
    return False


def draw_report(folder: Path, cases: Sequence[QcCase]) -> Path:
    """`write_report` with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hftn_sr.report import write_report

    console = Console(stderr=True)
    columns = (TextColumn("report"), BarColumn(), MofNCompleteColumn(), TextColumn("cases, left:"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("report", total=len(cases))
        return write_report(folder, cases, lambda _: bar.advance(task))


def _made(case: Case) -> Case:
    """The case with its result as it stands: a NIfTI file, else the folder of a DICOM series."""
    from hftn_sr.inference.case import RESULTS

    series = case.output.with_name(RESULTS["dicom"])
    return replace(case, output=series) if series.is_dir() and not case.output.exists() else case


def _of_dataset(results: Path, dataset: Path | None) -> list[QcCase]:
    """Cases of a derivative dataset, by what its side files say."""
    from hftn_sr.errors import NothingToDo
    from hftn_sr.pairs.bids import check_dataset
    from hftn_sr.pairs.bids_derivative import find_results, source_dataset
    from hftn_sr.report import QcCase

    if dataset:
        check_dataset(dataset)
    found = list(find_results(results, dataset or source_dataset(results)))
    if not found:
        raise NothingToDo(results, "no result in it (searched sub-*/**/*_desc-sr_*.json)", "run super-resolve --bids first")
    return [_shown(QcCase(each.name, each.output, each.target, each.reference)) for each in found]


def _shown(case: QcCase) -> QcCase:
    """The case, with its state if its result is not there."""
    if case.output.exists():
        return case
    return replace(case, status="no result", message=f"{case.output}: not there. Fix: run super-resolve.")


def _of_folder(folder: Path, results: Path) -> list[QcCase]:
    from hftn_sr.inference.batch import find_cases
    from hftn_sr.report import QcCase

    made, failed = find_cases(folder, results)
    found = [_made(case) for case in made]
    lone = [_made(case) for case in find_cases(folder, results, True)[0] if case.reference is None]
    alone = {case.name: case for case in lone if case.output.exists()}
    found, failed = [*found, *alone.values()], [each for each in failed if each.case not in alone]
    cases = [QcCase(each.case, each.output, status=each.status, message=each.message) for each in failed]
    for case in found:
        truths = [path for suffix in IMAGE_SUFFIXES if (path := case.target.with_name(f"truth{suffix}")).is_file()]
        found_truth = truths[0] if truths else None
        cases.append(_shown(QcCase(case.name, case.output, case.target, case.reference, case.transform, found_truth)))
    return cases
