"""The commands and their options; nothing runs before all options are understood."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, Optional

import typer

from hftn_sr._version import __version__
from hftn_sr.cli.bids import BidsCommand, bids_cases, bids_request
from hftn_sr.cli.convert import convert
from hftn_sr.cli.data import data
from hftn_sr.cli.doctor import doctor
from hftn_sr.cli.examples import examples
from hftn_sr.cli.export import export
from hftn_sr.cli.faults import Debug, OptionalPath, one_line_errors, say, tell, warn
from hftn_sr.cli.report import draw_report, report
from hftn_sr.errors import INTERRUPTED, Fault, Note, UsageFault, interrupted

if TYPE_CHECKING:
    from hftn_sr.inference.batch import Engine
    from hftn_sr.inference.case import Case, Outcome
    from hftn_sr.inference.cluster import Cluster
    from hftn_sr.inference.options import OutputFormat, RunOptions
    from hftn_sr.inference.reporter import Reporter
    from hftn_sr.volumes.nifti import ReadOptions

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="hftn-sr",
    help="Multi-contrast super-resolution of MR images. Research use only. Not for clinical use.",
    epilog=examples("super-resolve --help", "data open-ms --output data/"),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.add_typer(data)

FIGURES = {"psnr": (" dB", 2), "ssim": ("", 4), "nmse": ("", 5)}  # name to unit and digits
FILES, MANY, RESOLUTION, NETWORK, REFERENCE, READING = (
    "Files",
    "Many cases",
    "Resolution",
    "Network",
    "Reference",
    "Reading",
)  # groups of the options of super-resolve

Labels = Annotated[Optional[list[str]], typer.Option(metavar="<01 02>", help="Only these of a BIDS dataset.", rich_help_panel=FILES)]  # noqa: UP045 - typer
Axis = Annotated[Optional[int], typer.Option(help="Slice axis; default: by voxels.", min=0, max=2, rich_help_panel=READING)]  # noqa: UP045 - typer
Frame = Annotated[Optional[int], typer.Option(help="Volume of a 4D file, from 0.", min=0, rich_help_panel=READING)]  # noqa: UP045 - typer
NanToNum = Annotated[bool, typer.Option("--nan-to-num", help="Replace NaN and infinity by 0.", rich_help_panel=READING)]
Magnitude = Annotated[bool, typer.Option("--magnitude", help="Absolute value of complex voxels.", rich_help_panel=READING)]
AssumeAffine = Annotated[
    Optional[Literal["sform", "qform", "spacing"]],  # noqa: UP045 - typer
    typer.Option(help="Where voxels lie, if the header is unclear.", rich_help_panel=READING),
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"hftn-sr {__version__}")
        raise typer.Exit


@app.command(
    "super-resolve",
    cls=BidsCommand,
    epilog=examples(
        "super-resolve --target lr.nii --reference t2.nii --output sr.nii",
        "super-resolve --cases patients/ --output results/ --overwrite stale",
        "super-resolve --bids ds/ --target FLAIR --reference T2w --output out/",
    ),
)
def super_resolve(
    target: Annotated[OptionalPath, typer.Option(help="Low-resolution image, or DICOM folder.", rich_help_panel=FILES)] = None,
    reference: Annotated[OptionalPath, typer.Option(help="High-resolution image, other contrast.", rich_help_panel=FILES)] = None,
    cases: Annotated[OptionalPath, typer.Option(help="Folder of CASE/target, CASE/reference.", rich_help_panel=FILES)] = None,
    bids: Annotated[OptionalPath, typer.Option(help="BIDS dataset; --target FLAIR is a suffix.", rich_help_panel=FILES)] = None,
    target_entities: Annotated[str, typer.Option(metavar="<acq-x>", help="Which targets of a BIDS dataset.", rich_help_panel=FILES)] = "",
    reference_entities: Annotated[
        str, typer.Option(metavar="<acq-x>", help="Which references; acq-: without acq.", rich_help_panel=FILES)
    ] = "",
    participant_label: Labels = None,
    session_label: Labels = None,
    reference_optional: Annotated[
        bool, typer.Option("--reference-optional", help="Also cases without a reference.", rich_help_panel=FILES)
    ] = False,
    output: Annotated[OptionalPath, typer.Option(help="NIfTI; folder with --cases, --bids.", rich_help_panel=FILES)] = None,
    output_format: Annotated[Literal["nifti", "dicom"], typer.Option(help="dicom: for DICOM targets.", rich_help_panel=FILES)] = "nifti",
    overwrite: Annotated[Literal["never", "stale", "always"], typer.Option(help="Redo existing outputs.", rich_help_panel=FILES)] = "never",
    preview: Annotated[bool, typer.Option(help="Write a picture.", rich_help_panel=FILES)] = True,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Also write the expected error.", rich_help_panel=FILES)] = False,
    added: Annotated[bool, typer.Option("--added", help="Also write the detail that was added.", rich_help_panel=FILES)] = False,
    page: Annotated[bool, typer.Option("--report/--no-report", help="Write a QC page.", rich_help_panel=FILES)] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all inputs, write nothing.", rich_help_panel=FILES)] = False,
    workers: Annotated[int, typer.Option(metavar="<N>", help="Cases at a time, a process each.", min=1, rich_help_panel=MANY)] = 1,
    shard: Annotated[str, typer.Option(metavar="<I/N>", help="Only part I of N; slurm: from the array.", rich_help_panel=MANY)] = "",
    scheduler: Annotated[str, typer.Option(metavar="<address>", help="Run on this Dask cluster.", rich_help_panel=MANY)] = "",
    scale: Annotated[str, typer.Option(metavar="<2|1.6|1x2>", help="Factor; default: by voxel sizes.", rich_help_panel=RESOLUTION)] = "",
    acquired: Annotated[str, typer.Option(metavar="<256x205>", help="Measured matrix of the target.", rich_help_panel=RESOLUTION)] = "",
    voxel: Annotated[str, typer.Option(metavar="<0.5x0.5x1>", help="Voxel size of the result, in mm.", rich_help_panel=RESOLUTION)] = "",
    slice_thickness: Annotated[Optional[float], typer.Option(help="Thickness of its slices, in mm.", rich_help_panel=RESOLUTION)] = None,  # noqa: UP045 - typer
    model: Annotated[str, typer.Option(help="base, small, hftn, correspondence, FILE.", rich_help_panel=NETWORK)] = "base",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the network runs.", rich_help_panel=NETWORK)] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Arithmetic of the network.", rich_help_panel=NETWORK)
    ] = "auto",
    tta: Annotated[Optional[int], typer.Option(help="Mean of 1, 2, 4 or 8 mirror images.", rich_help_panel=NETWORK)] = None,  # noqa: UP045 - typer
    data_consistency: Annotated[bool, typer.Option(help="Keep the measured k-space.", rich_help_panel=NETWORK)] = True,
    threads: Annotated[Optional[int], typer.Option(help="CPU threads; default: all.", min=1, rich_help_panel=NETWORK)] = None,  # noqa: UP045 - typer
    register: Annotated[Literal["auto", "none", "rigid"], typer.Option(help="auto: if out of place.", rich_help_panel=REFERENCE)] = "auto",
    unfit_reference: Annotated[
        Literal["leave-out", "use"], typer.Option(help="If it would do harm.", rich_help_panel=REFERENCE)
    ] = "leave-out",
    reference_transform: Annotated[OptionalPath, typer.Option(help="ITK file, target to reference.", rich_help_panel=REFERENCE)] = None,
    pair_by: Annotated[Literal["auto", "header", "index"], typer.Option(help="auto: .h5 by index.", rich_help_panel=REFERENCE)] = "auto",
    through_plane: Axis = None,
    frame: Frame = None,
    nan_to_num: NanToNum = False,
    magnitude: Magnitude = False,
    assume_affine: AssumeAffine = None,
    debug: Debug = False,
) -> None:
    """Super-resolve an MR volume with help of another contrast."""
    with one_line_errors(debug):
        from hftn_sr.api import run_options, use_threads
        from hftn_sr.inference.workers import check_workers

        if output is None:
            raise UsageFault("--output", "is missing", "--output FILE.nii.gz, or a folder with --cases")
        if reference_optional and cases is None and bids is None:
            finding = "needs --cases or --bids"
            raise UsageFault("--reference-optional", finding, "--cases FOLDER; for one target, leave out --reference instead")
        many = _many(workers, shard, scheduler, cases is not None or bids is not None)
        make_options = partial(
            run_options,
            _absolute(model) if scheduler else model,
            device,
            precision,
            tta,
            overwrite=overwrite,
            dry_run=dry_run,
            data_consistency=data_consistency,
            preview=preview,
            output_format=output_format,
            uncertainty=uncertainty,
            added=added,
            scale=scale or None,
            acquired=acquired or None,
            voxel=voxel or None,
            slice_thickness=slice_thickness,
            through_plane=through_plane,
            reference_transform=reference_transform,
            register=register,
            unfit_reference=unfit_reference,
            pair_by=pair_by,
            read=_read_options(frame, nan_to_num, magnitude, assume_affine),
        )
        entities = (target_entities, reference_entities)
        if bids and output_format == "dicom":
            raise UsageFault("--output-format", "dicom does not go with --bids, whose files are NIfTI", "leave one out")
        labels = (participant_label or [], session_label or [])
        found, failed = _cases(
            target, reference, cases, bids, entities, labels, output, reference_transform, reference_optional, output_format, dry_run
        )
        with _cluster(scheduler) as cluster:
            options = cluster.ask(make_options) if cluster else make_options()
            if cluster is None:
                use_threads(threads)
                check_workers(workers, options.device)
            if bids and not dry_run:
                from hftn_sr.pairs.bids_derivative import write_description

                write_description(bids, output)
            _run(found, failed, options, output if cases or bids else None, page, debug, replace(many, cluster=cluster, threads=threads))


@app.command(epilog=examples("degrade --input flair.nii.gz --output flair_x2.nii.gz --scale 2"))
def degrade(
    input: Annotated[Path, typer.Option(help="High-resolution image, or DICOM folder.")],  # noqa: A002 - the option's name
    output: Annotated[Path, typer.Option(help="NIfTI file to write.")],
    scale: Annotated[str, typer.Option(metavar="<2|1.6|1x2>", help="Loss of in-plane resolution.")] = "",
    slice_thickness: Annotated[Optional[float], typer.Option(help="Of thick slices, in mm.")] = None,  # noqa: UP045 - typer
    slice_spacing: Annotated[Optional[float], typer.Option(help="Between thick slices, in mm; default: thickness.")] = None,  # noqa: UP045 - typer
    magnitude: Annotated[bool, typer.Option("--magnitude", help="Store absolute values, as a scanner does.")] = False,
    overwrite: Annotated[Literal["never", "always"], typer.Option(help="Replace an existing output.")] = "never",
    through_plane: Axis = None,
    frame: Frame = None,
    nan_to_num: NanToNum = False,
    assume_affine: AssumeAffine = None,
    debug: Debug = False,
) -> None:
    """Simulate a faster scan: less resolution, thicker slices.

    The central 1/SCALE of each in-plane k-space axis is kept.
    """
    with one_line_errors(debug):
        from hftn_sr import api
        from hftn_sr.cli.waiting import waiting

        read = _read_options(frame, nan_to_num, magnitude, assume_affine)
        redo = overwrite == "always"
        options = {"magnitude": magnitude, "through_plane": through_plane, "overwrite": redo, "read": read, "log": tell}
        with waiting(f"write {output}"):
            api.degrade(input, output, scale=scale or None, slice_thickness=slice_thickness, slice_spacing=slice_spacing, **options)  # type: ignore[arg-type]
        say(output)


@app.command(epilog=examples("evaluate --prediction sr.nii --truth flair.nii --target lr.nii"))
def evaluate(
    prediction: Annotated[Path, typer.Option(help="Image on the truth's grid or on a crop of it.")],
    truth: Annotated[Path, typer.Option(help="High-resolution image, or DICOM folder.")],
    target: Annotated[OptionalPath, typer.Option(help="Low-resolution image: scores zero-filling.")] = None,
    protocol: Annotated[Literal["corrected"], typer.Option(help="Conventions of the scores; they are printed.")] = "corrected",
    json_file: Annotated[OptionalPath, typer.Option("--json", help="JSON file for the scores.")] = None,
    through_plane: Axis = None,
    frame: Frame = None,
    nan_to_num: NanToNum = False,
    assume_affine: AssumeAffine = None,
    debug: Debug = False,
) -> None:
    """Print PSNR, SSIM and NMSE of a result against the truth. They are taken on the voxels that both have."""
    with one_line_errors(debug):
        from hftn_sr import api
        from hftn_sr.cli.waiting import waiting
        from hftn_sr.volumes.files import write_json

        if json_file and any(json_file.absolute() == path.absolute() for path in (prediction, truth, target) if path):
            raise UsageFault("--json", f"{json_file} is an input, it would be overwritten", "--json FILE.json")
        read = _read_options(frame, nan_to_num, False, assume_affine)
        with waiting(f"compare {prediction}"):
            scores = api.evaluate(prediction, truth, target=target, through_plane=through_plane, read=read)
        for finding in (*scores["notes"], *scores["warnings"]):
            tell(finding)
        for name in FIGURES:
            say(f"{_figure(name, scores)}  ({scores['conventions'][name]})")
        if zero_filling := scores.get("zero_filling"):
            say(f"zero-filling  {'  '.join(_figure(name, zero_filling) for name in FIGURES)}")
        typer.echo(f"protocol {protocol}, {' x '.join(map(str, scores['voxels_compared']))} voxels compared")
        if json_file:
            write_json(json_file, {key: value if value != float("inf") else "infinite" for key, value in scores.items()})


def _figure(name: str, scores: dict[str, float]) -> str:
    unit, digits = FIGURES[name]
    return f"{name.upper()}  {scores[name]:.{digits}f}{unit}"


app.command(epilog=examples("convert dicom/flair --output nifti/", "convert singlecoil_val/file1000041.h5 --output nifti/"))(convert)
app.command(epilog=examples("export --model base --scale 2 --format onnx --output base_x2.onnx"))(export)
app.command(epilog=examples("doctor"))(doctor)
app.command(epilog=examples("report --results results/ --cases patients/", "report --results derivatives/hftn-sr"))(report)


def main() -> NoReturn:
    """Entry point of the command."""
    run(app)


def run(command: Callable[[], object]) -> NoReturn:
    """Run a command and end the process. SIGTERM ends a run as Ctrl-C does: the current case is dropped whole, the summary is written."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _cases(
    target: Path | None,
    reference: Path | None,
    cases: Path | None,
    bids: Path | None,
    entities: tuple[str, str],
    labels: tuple[list[str], list[str]],
    output: Path,
    transform: Path | None,
    reference_optional: bool,
    output_format: OutputFormat,
    dry_run: bool,
) -> tuple[list[Case], list[Outcome]]:
    from hftn_sr.inference.batch import find_cases, lone_case

    for name, given in (("--cases", cases), ("--reference-transform", transform)) if bids else ():
        if given:
            raise UsageFault(name, "does not go with --bids", "leave one out")
    names = ("--target-entities", "--reference-entities", "--participant-label", "--session-label")
    for name, value in () if bids else zip(names, (*entities, *labels), strict=True):
        if value:
            raise UsageFault(name, "needs --bids", "--bids DIR, or leave it out")
    if cases is not None:
        single = {"--target": target, "--reference": reference, "--reference-transform": transform}
        surplus = [name for name, value in single.items() if value]
        if surplus:
            raise UsageFault(surplus[0], "does not go with --cases", "leave one out; a case folder may hold reference_transform.txt")
        if output.is_file():
            raise UsageFault(output, "is a file, a folder is needed with --cases", "give --output a folder")
        return find_cases(cases, output, reference_optional, output_format)
    if bids is not None:
        return bids_cases(bids, bids_request(target, reference, entities, labels, reference_optional), output, dry_run)
    if target is None:
        raise UsageFault("--target", "is missing", "--target FILE --reference FILE, or --cases FOLDER")
    return [lone_case(target, reference, output, transform)], []


def _read_options(
    frame: int | None, nan_to_num: bool, magnitude: bool, assume_affine: Literal["sform", "qform", "spacing"] | None
) -> ReadOptions:
    from hftn_sr.volumes.nifti import ReadOptions

    return ReadOptions(frame=frame, nan_to_num=nan_to_num, magnitude=magnitude, assume_affine=assume_affine)


@dataclass(frozen=True)
class _Many:
    """How many cases are run.

    Args:
        workers: processes on this machine.
        shard: (I, N) of a run of every N-th case.
        threads: CPU threads; None for all.
        cluster: Dask cluster that runs the cases; None for this machine.
    """

    workers: int = 1
    shard: tuple[int, int] | None = None
    threads: int | None = None
    cluster: Cluster | None = None


def _many(workers: int, shard: str, scheduler: str, several: bool) -> _Many:
    """Understand the options for many cases.

    Raises:
        UsageFault: there is one case, or two options exclude each other.
    """
    from hftn_sr.inference.shards import choose_shard

    for option, given in (("--workers", workers > 1), ("--shard", shard), ("--scheduler", scheduler)):
        if given and not several:
            raise UsageFault(option, "needs --cases or --bids", "--cases FOLDER, or leave it out")
        if given and scheduler and option != "--scheduler":
            raise UsageFault(option, "does not go with --scheduler: the cluster divides the cases", "leave one out")
    return _Many(workers, choose_shard(shard) if shard else None)


def _cluster(scheduler: str) -> AbstractContextManager[Cluster | None]:
    if not scheduler:
        return nullcontext()
    from hftn_sr.inference.cluster import Cluster

    cluster = Cluster(scheduler)
    tell(Note(f"{scheduler}: {cluster.workers()} workers{'' if cluster.workers() else ', waiting for the first one'}"))
    return cluster


def _absolute(model: str) -> str:
    """A model for another process, whose current folder may be another one."""
    return str(Path(model).absolute()) if Path(model).is_file() else model


def _run(
    cases: list[Case], failed: list[Outcome], options: RunOptions, folder: Path | None, page: bool, debug: bool, many: _Many
) -> NoReturn:
    from rich.console import Console

    from hftn_sr.api import super_resolve_cases
    from hftn_sr.cli.progress import CasesReporter, ConsoleReporter
    from hftn_sr.cli.summary import Summary
    from hftn_sr.inference.case import STANDING
    from hftn_sr.inference.shards import of_shard
    from hftn_sr.inference.summary import SummaryWriter, check_summary, exit_code
    from hftn_sr.report import EntryReporter

    every = len(cases) + len(failed)
    if many.shard:
        cases, failed = of_shard(cases, failed, many.shard)
        tell(Note(f"shard {many.shard[0]} of {many.shard[1]}: {len(cases) + len(failed)} of {every} cases"))
    outcomes: list[Outcome] = []
    writer = None
    if folder and not options.dry_run:
        check_summary(folder)
        writer = SummaryWriter(folder, [*(each.case for each in failed), *(each.name for each in cases)], many.shard, every)
    summary = Summary(writer)
    summary.begin()
    console, place = Console(stderr=True), folder or cases[0].output.parent
    entries = EntryReporter(place.absolute()) if page else None
    with ConsoleReporter(console, entries) if many.workers == 1 and not many.cluster else CasesReporter(console) as reporter:
        engine = _engine(many, options, entries, debug, reporter, writer.journal if writer else None)
        try:
            with closing(super_resolve_cases(cases, options, reporter, failed=failed, strict=debug, engine=engine)) as results:
                for outcome in results:
                    outcomes.append(replace(outcome, record={}, warnings=(), notes=()))
                    _log(outcome, lone=folder is None)
                    summary.add(outcome)
            summary.end()
        except BaseException as error:
            summary.end(broken_off=True)
            if isinstance(error, KeyboardInterrupt):
                say(f"interrupted after {len(outcomes)} of {len(cases) + len(failed)} cases", err=True)
            raise
    if many.shard and writer:
        tell(Note(f"shard {many.shard[0]} of {many.shard[1]} is over; hftn-sr report makes the summary and the page of all"))
    elif page and any(outcome.status in STANDING for outcome in outcomes):
        _draw_report(place, cases, outcomes, debug)
    raise typer.Exit(summary.exit_code(exit_code(outcomes)))


def _engine(
    many: _Many, options: RunOptions, entries: Reporter | None, debug: bool, reporter: Reporter, journal: Path | None
) -> Engine | None:
    """What runs the cases elsewhere than in this process; None where that does."""
    from hftn_sr.inference.reporter import Reporter
    from hftn_sr.inference.workers import Job, run_in_processes

    job = Job(options, entries or Reporter(), debug, many.threads)
    if many.cluster:
        return partial(many.cluster.run, job=replace(job, witness=journal))
    return partial(run_in_processes, job=job, workers=many.workers, reporter=reporter) if many.workers > 1 else None


def _draw_report(folder: Path, cases: list[Case], outcomes: list[Outcome], debug: bool) -> None:
    """Write the QC page. The results stand already, so that a fault of the page is a warning only."""
    from hftn_sr.report import cases_of_run

    try:
        draw_report(folder, cases_of_run(cases, outcomes))
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        if debug:
            raise
        warn(f"no report: {error}" if isinstance(error, Fault) else f"no report: internal fault: {type(error).__name__}: {error}")


def _log(outcome: Outcome, lone: bool) -> None:
    """Print what became of a case, and what was found out about it unless an earlier run said that."""
    from hftn_sr.inference.case import LEFT_ALONE

    for finding in () if outcome.status in LEFT_ALONE else (*outcome.notes, *outcome.warnings):
        tell(finding, outcome.case)
    if outcome.status == "failed":
        say(f"ERROR {'' if lone else f'{outcome.case} '}{outcome.message}", err=True)
    elif outcome.status == "done":
        say(f"{outcome.output} ({outcome.seconds:.1f} s)")
    else:
        say(f"{outcome.output}: {outcome.message}", err=outcome.status in LEFT_ALONE)
