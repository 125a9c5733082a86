"""Options of the commands, parsed strictly: nothing runs before all of them are understood."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, Optional

import typer

from hftn_sr._version import __version__
from hftn_sr.cli.bids import bids_cases
from hftn_sr.cli.convert import convert
from hftn_sr.cli.data import data
from hftn_sr.cli.doctor import doctor
from hftn_sr.cli.examples import examples
from hftn_sr.cli.export import export
from hftn_sr.cli.faults import Debug, OptionalPath, one_line_errors, warn
from hftn_sr.cli.report import draw_report, report
from hftn_sr.errors import INTERRUPTED, Fault, UsageFault

if TYPE_CHECKING:
    from hftn_sr.inference.case import Case, Outcome
    from hftn_sr.inference.options import RunOptions
    from hftn_sr.inference.reporter import Reporter
    from hftn_sr.volumes.nifti import ReadOptions

__all__ = ["app", "main"]

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

Axis = Annotated[Optional[int], typer.Option(help="Slice axis; else by voxel size.", min=0, max=2)]  # noqa: UP045 - typer
Frame = Annotated[Optional[int], typer.Option(help="Which volume of a 4D file, from 0.", min=0)]  # noqa: UP045 - typer
NanToNum = Annotated[bool, typer.Option("--nan-to-num", help="Take 0 for voxels that are not finite.")]
Magnitude = Annotated[bool, typer.Option("--magnitude", help="Take the absolute value of complex voxels.")]
AssumeAffine = Annotated[
    Optional[Literal["sform", "qform", "spacing"]],  # noqa: UP045 - typer
    typer.Option(help="Where voxels lie, if the header is unclear."),
]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"hftn-sr {__version__}")
        raise typer.Exit


@app.command(
    "super-resolve",
    epilog=examples(
        "super-resolve --target lr.nii --reference t2.nii --output sr.nii",
        "super-resolve --cases patients/ --output results/ --overwrite stale",
        "super-resolve --bids ds/ --target FLAIR --reference T2w --output out/",
    ),
)
def super_resolve(
    target: Annotated[OptionalPath, typer.Option(help="Low-resolution NIfTI, .h5 or DICOM folder.")] = None,
    reference: Annotated[OptionalPath, typer.Option(help="High-resolution one, another contrast.")] = None,
    cases: Annotated[OptionalPath, typer.Option(help="*/target.nii.gz with */reference.nii.gz.")] = None,
    bids: Annotated[OptionalPath, typer.Option(help="BIDS dataset; --target is then a suffix.")] = None,
    target_entities: Annotated[str, typer.Option(metavar="<acq-x>", help="With --bids: which one of several.")] = "",
    reference_entities: Annotated[str, typer.Option(metavar="<acq-x>", help="Likewise; acq- is the one without acq.")] = "",
    output: Annotated[OptionalPath, typer.Option(help="NIfTI file; a folder with --cases, --bids.")] = None,
    scale: Annotated[Optional[int], typer.Option(help="2 or 4; else from the voxel sizes.")] = None,  # noqa: UP045 - typer
    model: Annotated[str, typer.Option(help="base, small, hftn or FILE.")] = "base",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where the network runs.")] = "auto",
    precision: Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="bfloat16 or eager float32.")] = "auto",
    tta: Annotated[Optional[int], typer.Option(help="Averaged: 1, 2, 4, 8; else 4 for base.")] = None,  # noqa: UP045 - typer
    overwrite: Annotated[Literal["never", "stale", "always"], typer.Option(help="Redo existing outputs.")] = "never",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all inputs and say what would be done.")] = False,
    threads: Annotated[Optional[int], typer.Option(help="CPU threads; else all.", min=1)] = None,  # noqa: UP045 - typer
    reference_transform: Annotated[OptionalPath, typer.Option(help="ITK transform, target to reference point.")] = None,
    register: Annotated[Literal["auto", "none", "rigid"], typer.Option(help="auto: if out of place.")] = "auto",
    unfit_reference: Annotated[Literal["leave-out", "use"], typer.Option(help="If it does not fit.")] = "leave-out",
    reference_optional: Annotated[bool, typer.Option("--reference-optional", help="Also --cases, --bids without one.")] = False,
    pair_by: Annotated[Literal["auto", "header", "index"], typer.Option(help="Pair slices; .h5 by index.")] = "auto",
    through_plane: Axis = None,
    data_consistency: Annotated[bool, typer.Option(help="Keep the measured k-space.")] = True,
    preview: Annotated[bool, typer.Option(help="Write a picture, too.")] = True,
    page: Annotated[bool, typer.Option("--report/--no-report", help="Write a QC page, too.")] = True,
    frame: Frame = None,
    nan_to_num: NanToNum = False,
    magnitude: Magnitude = False,
    assume_affine: AssumeAffine = None,
    debug: Debug = False,
) -> None:
    """Give a low-resolution MR volume back at high resolution, with the help of another contrast."""
    with one_line_errors(debug):
        from hftn_sr.api import choose_device, use_threads
        from hftn_sr.inference.options import PairOptions, RunOptions
        from hftn_sr.networks.precision import choose_precision, choose_tta
        from hftn_sr.networks.weights import check_model

        if output is None:
            raise UsageFault("--output", "is missing", "--output FILE.nii.gz, or a folder with --cases")
        if scale not in (None, 2, 4):
            raise UsageFault("--scale", f"scale {scale} (need 2 or 4)", "--scale 2 or --scale 4")
        check_model(model)
        entities = (target_entities, reference_entities)
        if reference_optional and cases is None and bids is None:
            finding = "needs --cases or --bids"
            raise UsageFault("--reference-optional", finding, "--cases FOLDER; for one target just leave --reference out")
        if target and reference is None and not (cases or bids):
            _check_target_only(scale, reference_transform)
        found, failed = _cases(target, reference, cases, bids, entities, output, reference_transform, reference_optional)
        use_threads(threads)
        read = _read_options(frame, nan_to_num, magnitude, assume_affine)
        pair = PairOptions(
            scale=scale,
            through_plane=through_plane,
            register=register,
            unfit_reference=unfit_reference,
            reference_transform=reference_transform,
            pair_by=pair_by,
            read=read,
        )
        where = choose_device(device)
        how = choose_precision(precision, where, model)
        turns = choose_tta(tta, model)
        options = RunOptions(model, where, overwrite, dry_run, data_consistency, preview, pair, how, turns)
        if bids and not dry_run:
            from hftn_sr.pairs.bids_derivative import write_description

            write_description(bids, output)
        _run(found, failed, options, output if cases or bids else None, page, debug)


@app.command(epilog=examples("degrade --input flair.nii.gz --output flair_x2.nii.gz --scale 2"))
def degrade(
    input: Annotated[Path, typer.Option(help="High-resolution NIfTI or fastMRI .h5 file.")],  # noqa: A002 - the option's name
    output: Annotated[Path, typer.Option(help="NIfTI file to write.")],
    scale: Annotated[int, typer.Option(help="2 or 4: the loss of in-plane resolution.")],
    magnitude: Annotated[bool, typer.Option("--magnitude", help="Store absolute values, as a scanner does.")] = False,
    overwrite: Annotated[Literal["never", "always"], typer.Option(help="Replace an output that exists.")] = "never",
    through_plane: Axis = None,
    frame: Frame = None,
    nan_to_num: NanToNum = False,
    assume_affine: AssumeAffine = None,
    debug: Debug = False,
) -> None:
    """Simulate a faster scan: keep the central 1/SCALE of each in-plane k-space axis."""
    with one_line_errors(debug):
        from hftn_sr import api
        from hftn_sr.cli.waiting import waiting

        if scale not in (2, 4):
            raise UsageFault("--scale", f"scale {scale} (need 2 or 4)", "--scale 2 or --scale 4")
        read = _read_options(frame, nan_to_num, magnitude, assume_affine)
        redo = overwrite == "always"
        options = {"magnitude": magnitude, "through_plane": through_plane, "overwrite": redo, "read": read, "log": warn}
        with waiting(f"write {output}"):
            api.degrade(input, output, scale=scale, **options)  # type: ignore[arg-type]
        typer.echo(output)


@app.command(epilog=examples("evaluate --prediction sr.nii.gz --truth flair.nii.gz"))
def evaluate(
    prediction: Annotated[Path, typer.Option(help="NIfTI file on the truth's grid, or on a crop of it.")],
    truth: Annotated[Path, typer.Option(help="High-resolution NIfTI or fastMRI .h5 file.")],
    protocol: Annotated[Literal["corrected"], typer.Option(help="Conventions of the figures; they are printed.")] = "corrected",
    json_file: Annotated[OptionalPath, typer.Option("--json", help="Write the figures there, too.")] = None,
    through_plane: Axis = None,
    frame: Frame = None,
    nan_to_num: NanToNum = False,
    assume_affine: AssumeAffine = None,
    debug: Debug = False,
) -> None:
    """PSNR, SSIM and NMSE of a result against the truth, on the voxels that both have."""
    with one_line_errors(debug):
        from hftn_sr import api
        from hftn_sr.cli.waiting import waiting
        from hftn_sr.volumes.files import write_json

        if json_file and any(json_file.absolute() == path.absolute() for path in (prediction, truth)):
            raise UsageFault("--json", f"{json_file} is an input, it would be overwritten", "--json FILE.json")
        read = _read_options(frame, nan_to_num, False, assume_affine)
        with waiting(f"compare {prediction}"):
            scores = api.evaluate(prediction, truth, through_plane=through_plane, read=read)
        for warning in scores["warnings"]:
            warn(warning)
        for name, unit, digits in (("psnr", " dB", 2), ("ssim", "", 4), ("nmse", "", 5)):
            typer.echo(f"{name.upper()}  {scores[name]:.{digits}f}{unit}  ({scores['conventions'][name]})")
        typer.echo(f"protocol {protocol}, {' x '.join(map(str, scores['voxels_compared']))} voxels compared")
        if json_file:
            write_json(json_file, {key: value if value != float("inf") else "infinite" for key, value in scores.items()})


app.command(epilog=examples("convert singlecoil_val/file1000041.h5 --output nifti/"))(convert)
app.command(epilog=examples("export --model base --scale 2 --format onnx --output base_x2.onnx"))(export)
app.command(epilog=examples("doctor"))(doctor)
app.command(epilog=examples("report --results results/ --cases patients/"))(report)


def main() -> NoReturn:
    """Entry point. SIGTERM ends a run as Ctrl-C does: the case in hand is dropped whole, the summary is written."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _cases(
    target: Path | None,
    reference: Path | None,
    cases: Path | None,
    bids: Path | None,
    entities: tuple[str, str],
    output: Path,
    transform: Path | None,
    reference_optional: bool,
) -> tuple[list[Case], list[Outcome]]:
    from hftn_sr.inference.batch import find_cases
    from hftn_sr.inference.case import Case

    for name, given in (("--cases", cases), ("--reference-transform", transform)) if bids else ():
        if given:
            raise UsageFault(name, "does not go with --bids", "leave one out")
    for name, text in () if bids else zip(("--target-entities", "--reference-entities"), entities, strict=True):
        if text:
            raise UsageFault(name, "needs --bids", "--bids DIR, or leave it out")
    if cases is not None:
        single = {"--target": target, "--reference": reference, "--reference-transform": transform}
        surplus = [name for name, value in single.items() if value]
        if surplus:
            raise UsageFault(surplus[0], "does not go with --cases", "leave one out; a case folder may hold reference_transform.txt")
        if output.is_file():
            raise UsageFault(output, "is a file, a folder is needed with --cases", "give --output a folder")
        return find_cases(cases, output, reference_optional)
    if target is None:
        raise UsageFault("--target", "is missing", "--target FILE --reference FILE, or --cases FOLDER")
    if bids is not None:
        if reference is None:
            raise UsageFault("--reference", "is missing, --bids needs its suffix", "--reference T2w, or another suffix")
        return bids_cases(bids, str(target), str(reference), entities, output, reference_optional)
    return [Case(target.name, target, reference, output, transform)], []


def _check_target_only(scale: int | None, transform: Path | None) -> None:
    """Find out at once whether a target can go without a reference. Raises UsageFault."""
    if transform:
        raise UsageFault("--reference-transform", "needs a reference", "--reference FILE, or leave it out")
    if scale is None:
        finding = "is missing, and without --reference nothing tells it"
        raise UsageFault("--scale", finding, "--scale 2 or --scale 4, or --reference FILE of another contrast")


def _read_options(
    frame: int | None, nan_to_num: bool, magnitude: bool, assume_affine: Literal["sform", "qform", "spacing"] | None
) -> ReadOptions:
    from hftn_sr.volumes.nifti import ReadOptions

    return ReadOptions(frame=frame, nan_to_num=nan_to_num, magnitude=magnitude, assume_affine=assume_affine)


def _run(cases: list[Case], failed: list[Outcome], options: RunOptions, folder: Path | None, page: bool, debug: bool) -> None:
    from rich.console import Console

    from hftn_sr.cli.progress import ConsoleReporter
    from hftn_sr.inference.batch import check_summary, exit_code, run_cases, write_summary

    if folder and not options.dry_run:
        check_summary(folder)
    outcomes: list[Outcome] = []
    summarise: Callable[[bool], None] = lambda interrupted: (  # noqa: E731 - one line, used twice
        write_summary(folder, outcomes, interrupted) if folder and not options.dry_run else None
    )
    with ConsoleReporter(Console(stderr=True)) as reporter:
        try:
            for outcome in run_cases(cases, options, reporter, failed, debug):
                outcomes.append(outcome)
                _log(outcome, reporter)
                summarise(False)
        except KeyboardInterrupt:
            summarise(True)
            typer.echo(f"interrupted after {len(outcomes)} of {len(cases) + len(failed)} cases", err=True)
            raise
    if page and any(outcome.status in ("done", "skipped") for outcome in outcomes):
        _draw_report(folder or cases[0].output.parent, cases, outcomes, debug)
    raise typer.Exit(exit_code(outcomes))


def _draw_report(folder: Path, cases: list[Case], outcomes: list[Outcome], debug: bool) -> None:
    """The QC page. The results stand already, so whatever is wrong with the page is a warning."""
    from hftn_sr.report import cases_of_run

    try:
        draw_report(folder, cases_of_run(cases, outcomes))
    except Exception as error:
        if debug:
            raise
        warn(f"no report: {error}" if isinstance(error, Fault) else f"no report: internal fault: {type(error).__name__}: {error}")


def _log(outcome: Outcome, reporter: Reporter) -> None:
    for warning in outcome.warnings:
        typer.echo(f"WARNING {outcome.case} {warning}", err=True)
    if outcome.status == "failed":
        typer.echo(f"ERROR {outcome.case} {outcome.message}", err=True)
    elif outcome.status == "done":
        typer.echo(f"{outcome.output} ({outcome.seconds:.1f} s)")
    else:
        typer.echo(f"{outcome.output}: {outcome.message}", err=outcome.status == "skipped")
