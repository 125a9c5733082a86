"""Many cases: found in a folder, run one after another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import torch

from hftn_sr.errors import Fault, NothingToDo, UsageFault, interrupted
from hftn_sr.inference.case import RESULTS, Case, Outcome, Status
from hftn_sr.inference.options import OutputFormat, RunOptions
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.run import run_case
from hftn_sr.networks.weights import Model, load_model, stand_in
from hftn_sr.pairs.cases import case_files, case_folders, lone_target

__all__ = ["find_cases", "lone_case", "run_cases"]

PLACING = "put its transform into the folder of the case as reference_transform.txt"


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


def _one_line(case: Case, error: BaseException) -> str:
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error):  # the last is PyTorch's on a CPU
        return str(Fault(case.target, "not enough memory for this case", "close other programs or use a machine with more memory"))
    if isinstance(error, OSError):
        return str(Fault(case.target, f"the system refused ({error})", "check the disk and permissions"))
    return str(Fault(case.target, f"internal fault, {type(error).__name__}: {error}", "run again with --debug and report the traceback"))
