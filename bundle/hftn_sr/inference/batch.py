"""Many cases: found in a folder, and run."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
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

__all__ = ["Engine", "Models", "Outcomes", "attempt", "find_cases", "lasting_models", "lone_case", "run_cases", "use_threads"]

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


Models = Callable[[int | None], Model]
Outcomes = Generator[Outcome, None, None]
Engine = Callable[[Sequence[Case]], Outcomes]


def run_cases(
    cases: Sequence[Case],
    options: RunOptions,
    reporter: Reporter,
    failed: Sequence[Outcome] = (),
    strict: bool = False,
    engine: Engine | None = None,
) -> Outcomes:
    """Run cases; a bad one does not stop the rest. The model is loaded once.

    Args:
        cases: cases to run.
        options: options of the run.
        reporter: listener to the run's progress.
        failed: outcomes of cases that failed before they could run, which come first.
        strict: whether an error ends the run; otherwise its case fails alone.
        engine: what runs the cases elsewhere; None runs them here, one after another.

    Yields:
        the outcome of each case, failed ones included.

    Raises:
        Exception: with `strict`, whatever a case raises.
    """
    reporter.begin(len(cases) + len(failed))
    with closing(engine(cases) if engine else _one_by_one(cases, options, reporter, strict)) as running:  # at once: it may have workers
        for outcome in itertools.chain(failed, running):
            reporter.end(outcome)
            yield outcome


def _one_by_one(cases: Sequence[Case], options: RunOptions, reporter: Reporter, strict: bool) -> Outcomes:
    models = lasting_models(options.model, options.device)
    for case in cases:
        yield attempt(case, options, models, reporter, strict)


def lasting_models(model: str, device: str) -> Models:
    """Function from a scale, or None for another loss of resolution, to its model, which stays loaded."""
    return functools.lru_cache(lambda scale: load_model(stand_in(model, scale), scale, device))


def attempt(case: Case, options: RunOptions, models: Models, reporter: Reporter, strict: bool = False, patience: float = 0) -> Outcome:
    """Run one case; an error becomes its outcome.

    Args:
        case: case to run.
        options: options of the run.
        models: see `lasting_models`.
        reporter: listener to the run's progress.
        strict: whether an error is raised instead.
        patience: seconds to wait for another run that writes the same output.

    Raises:
        KeyboardInterrupt: the run is interrupted.
        Exception: with `strict`, whatever the case raises.
    """
    reporter.case(case.name)
    try:
        return run_case(case, options, models, reporter, patience)
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        if strict:
            raise
        status: Status = "skipped" if isinstance(error, NothingToDo) else "failed"
        return Outcome(case.name, status, case.output, _one_line(case, error), usage=isinstance(error, UsageFault))


def use_threads(threads: int | None) -> None:
    """Limit PyTorch and ITK to so many threads; None sets no limit."""
    if threads:
        torch.set_num_threads(threads)
        os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)  # loading ITK only for this would take a second
        if "itk" in sys.modules:
            sys.modules["itk"].MultiThreaderBase.SetGlobalDefaultNumberOfThreads(threads)


def _one_line(case: Case, error: BaseException) -> str:
    if isinstance(error, Fault):
        return str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in str(error):  # the last is PyTorch's on a CPU
        return str(Fault(case.target, "not enough memory for this case", "close other programs or use a machine with more memory"))
    if isinstance(error, OSError):
        return str(Fault(case.target, f"the system refused ({error})", "check the disk and permissions"))
    return str(Fault(case.target, f"internal fault, {type(error).__name__}: {error}", "run again with --debug and report the traceback"))
