"""The command `hftn-sr convert`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from hftn_sr.cli.faults import Debug, one_line_errors, say, tell

__all__ = ["convert"]

HDF5_SUFFIXES = (".h5", ".hdf5")


def convert(
    files: Annotated[list[Path], typer.Argument(help="DICOM folders, fastMRI .h5 files, or folders of these.", metavar="FILE...")],
    output: Annotated[Path, typer.Option(help="Folder for the .nii.gz files and their .json side files.")],
    image: Annotated[
        Literal["auto", "reconstruction_esc", "reconstruction_rss", "kspace"],
        typer.Option(help="Dataset of an .h5 file; auto: the first there is."),
    ] = "auto",
    series: Annotated[Optional[int], typer.Option(help="DICOM: number of the series.")] = None,  # noqa: UP045 - typer
    frame: Annotated[Optional[int], typer.Option(help="DICOM: number of the volume, from 0.", min=0)] = None,  # noqa: UP045 - typer
    overwrite: Annotated[Literal["never", "always"], typer.Option(help="Replace existing outputs.")] = "never",
    debug: Debug = False,
) -> None:
    """Convert DICOM series and fastMRI .h5 files to NIfTI. An .h5 file does not say where its scan lies."""
    with one_line_errors(debug):
        from rich.console import Console
        from rich.progress import track

        from hftn_sr.errors import ALL_FAILED, NOTHING, SOME_FAILED, Fault, NothingToDo, UsageFault, interrupted
        from hftn_sr.volumes.conversion import convert_dicom, convert_fastmri

        sources = _sources(files)
        for option, value in (("--series", series), ("--frame", frame)):
            if value is not None and not all(path.is_dir() for path in sources):
                raise UsageFault(option, "is for DICOM series only", "leave it out for .h5 files")
        console = Console(stderr=True)
        skipped = failed = 0
        for path in track(sources, "convert", console=console, transient=True, disable=not console.is_terminal or len(sources) < 2):
            try:
                if path.is_dir():
                    written, notes = convert_dicom(path, output, series, frame, overwrite == "always")
                else:
                    written, notes = convert_fastmri(path, output, image, overwrite == "always")
            except NothingToDo as nothing:
                skipped += 1
                say(f"SKIPPED {nothing}", err=True)
            except Fault as fault:
                if debug or interrupted(fault):
                    raise
                failed += 1
                say(f"ERROR {fault}", err=True)
            else:
                for note in notes:
                    tell(note)
                say(written)
        if failed:
            raise typer.Exit(ALL_FAILED if failed == len(sources) else SOME_FAILED)
        if skipped == len(sources):
            raise typer.Exit(NOTHING)


def _sources(named: Sequence[Path]) -> list[Path]:
    """Each file or series folder once; those in a folder by name."""
    from hftn_sr.errors import NothingToDo, UsageFault
    from hftn_sr.volumes.conversion import nifti_name

    found: dict[Path, None] = {}
    for path in named:
        inside = _inside(path) if path.is_dir() else [path]
        if not inside:
            finding = "no fastMRI file in it (searched *.h5 and *.hdf5) and no DICOM series (searched it and its sub-folders)"
            raise NothingToDo(path, finding, "name the folder that holds them")
        found |= dict.fromkeys(inside)
    names = Counter(map(nifti_name, found))
    if twice := [path for path in found if names[nifti_name(path)] > 1]:
        listed = ", ".join(map(str, twice[:4]))
        raise UsageFault(twice[0], f"would be written over by another file of its name ({listed})", "convert them into two folders")
    return list(found)


def _inside(folder: Path) -> list[Path]:
    """Sources in a folder: itself if it holds DICOM slices, otherwise its files and series."""
    from hftn_sr.volumes.dicom import holds_dicom, holds_mr_images

    if holds_mr_images(folder):
        return [folder]
    inside = sorted(each for each in folder.iterdir() if (holds_dicom(each) if each.is_dir() else each.suffix.lower() in HDF5_SUFFIXES))
    passed = sorted(each.name for each in folder.iterdir() if each.is_dir() and each not in inside and not each.name.startswith("."))
    if inside and passed:
        shown = ", ".join(passed[:4]) + (f" and {len(passed) - 4} more" if len(passed) > 4 else "")
        say(f"{folder}: passed over sub-folders without images of their own: {shown}; name them to look into them", err=True)
    return inside or ([folder] if holds_dicom(folder) else [])
