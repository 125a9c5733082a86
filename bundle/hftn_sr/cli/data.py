"""The commands `hftn-sr data`: open data fetched, own pairs listed for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from hftn_sr.cli.examples import examples
from hftn_sr.cli.faults import Debug, OptionalPath, one_line_errors, warn
from hftn_sr.errors import SOME_FAILED
from hftn_sr.pairs.open_ms import LeftOut, Targets

__all__ = ["data"]

data = typer.Typer(
    name="data",
    help="Fetch open data, or list your own pairs for training.",
    epilog=examples("data open-ms --output data/"),
    no_args_is_help=True,
    rich_markup_mode=None,
)


@data.command("open-ms", epilog=examples("data open-ms --output data/"))
def open_ms(
    output: Annotated[Path, typer.Option(help="Folder for the images and datalist.json.")],
    mirror: Annotated[OptionalPath, typer.Option(help="Local copy to read first [env: HFTN_SR_DATA_MIRROR].")] = None,
    targets: Annotated[Targets, typer.Option(help="Native target series: FLAIR, or also T1W and T2W.")] = "FLAIR",
    leave_out: Annotated[Optional[LeftOut], typer.Option(help="Fold: patient to leave out for testing.")] = None,  # noqa: UP045 - typer
    debug: Debug = False,
) -> None:
    """Fetch 72 MB of open multiple-sclerosis MR images (CC-BY).

    They are checked by sha256. An interrupted download is resumed.
    """
    with one_line_errors(debug):
        from rich.console import Console

        from hftn_sr.cli.progress import ByteBar
        from hftn_sr.pairs.open_ms import fetch_open_ms, write_datalist

        with ByteBar(Console(stderr=True)) as bar:
            report = fetch_open_ms(output, mirror, bar)
        for note in report.notes:
            typer.echo(note, err=True)
        write_datalist(output, output / "datalist.json", leave_out, targets)
        counts = f"{len(report.kept)} files kept, {len(report.copied)} copied, {len(report.downloaded)} downloaded"
        typer.echo(f"{output}: {counts}; datalist.json")


@data.command("split", epilog=examples("data split --cases patients/ --fractions 70 10 20 --seed 0"))
def split(
    cases: Annotated[Path, typer.Option(help="Folder of cases: */target.nii.gz with */reference.nii.gz, full resolution.")],
    output: Annotated[OptionalPath, typer.Option(help="Folder for datalist.json; default: the folder of cases.")] = None,
    fractions: Annotated[tuple[float, float, float], typer.Option(help="Shares of training, validation, testing.")] = (70, 10, 20),
    seed: Annotated[int, typer.Option(help="Seed of the division.")] = 0,
    patient: Annotated[str, typer.Option(help="Regular expression for the patient: its first group, or the whole match.")] = r"^[^_]+",
    overwrite: Annotated[Literal["never", "always"], typer.Option(help="Replace an existing datalist.")] = "never",
    debug: Debug = False,
) -> None:
    """Divide your pairs into training, validation and testing.

    All visits of a patient go to one section.
    """
    with one_line_errors(debug):
        from hftn_sr.pairs.datalist import check_new, write_cases
        from hftn_sr.pairs.split import missing_sections, split_cases

        folder = output or cases
        check_new(folder, overwrite == "always")
        divided = split_cases(cases, folder, fractions, seed, patient)
        write_cases(folder, divided.cases, divided.rule)
        for fault in divided.faults:
            typer.echo(f"ERROR {fault}", err=True)
        for section, names in divided.patients.items():
            typer.echo(f"{section}: patients {len(names)}, cases {len(divided.cases[section])}: {' '.join(names)}")
        if lacking := missing_sections(divided.patients):
            warn(lacking)
        typer.echo(f"{folder / 'datalist.json'}")
        if divided.faults:
            raise typer.Exit(SOME_FAILED)


@data.command("fastmri", epilog=examples("data fastmri --images fastmri/ --output data/"))
def fastmri(
    images: Annotated[Path, typer.Option(help="Folder with singlecoil_train/*.h5 and singlecoil_val/*.h5, from its owners.")],
    output: Annotated[Path, typer.Option(help="Folder for datalist.json and the two lists of pairs.")],
    mirror: Annotated[OptionalPath, typer.Option(help="Local copy of the lists to read first [env: HFTN_SR_DATA_MIRROR].")] = None,
    target: Annotated[Literal["PDFS", "PD"], typer.Option(help="Contrast to super-resolve; the other is the reference.")] = "PDFS",
    seed: Annotated[int, typer.Option(help="Seed that draws a tenth of the training pairs for validation.")] = 0,
    overwrite: Annotated[Literal["never", "always"], typer.Option(help="Replace an existing datalist.")] = "never",
    debug: Debug = False,
) -> None:
    """List the published pairs of the fastMRI single-coil knees.

    They are PD and PDFS scans of your copy of the set. The lists are fetched (11 kB).
    """
    with one_line_errors(debug):
        from hftn_sr.cli.waiting import waiting
        from hftn_sr.pairs.datalist import check_new, write_cases
        from hftn_sr.pairs.fastmri import fastmri_cases, fetch_lists, read_lists

        check_new(output, overwrite == "always")
        for note in fetch_lists(output, mirror).notes:
            typer.echo(note, err=True)
        with waiting(f"read the headers of {images}"):
            listed = fastmri_cases(read_lists(output), images, output, target, seed)
        for warning in listed.warnings:
            warn(warning)
        if listed.missing:
            first = ", ".join(str(path) for path in listed.missing[:3])
            warn(f"{len(listed.missing)} files missing, their pairs left out: {first}{', ...' if len(listed.missing) > 3 else ''}")
        write_cases(output, listed.cases, listed.rule)
        counts = ", ".join(f"{section} {len(entries)}" for section, entries in listed.cases.items())
        typer.echo(f"{output / 'datalist.json'}: {counts} pairs")
