"""The command `hftn-sr convert`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from hftn_sr.cli.faults import Debug, one_line_errors

__all__ = ["convert"]

HDF5_SUFFIXES = (".h5", ".hdf5")


def convert(
    files: Annotated[list[Path], typer.Argument(help="fastMRI .h5 files, or folders of such.", metavar="FILE...")],
    output: Annotated[Path, typer.Option(help="Folder for the .nii.gz files and their .json side files.")],
    image: Annotated[
        Literal["auto", "reconstruction_esc", "reconstruction_rss", "kspace"],
        typer.Option(help="Dataset; auto takes the first there is. Coils of k-space are combined by root sum of squares."),
    ] = "auto",
    overwrite: Annotated[Literal["never", "always"], typer.Option(help="Replace outputs that exist.")] = "never",
    debug: Debug = False,
) -> None:
    """Turn fastMRI .h5 files into NIfTI with the voxel sizes of their ISMRMRD headers, which do not say where a scan lies."""
    with one_line_errors(debug):
        from rich.console import Console
        from rich.progress import track

        from hftn_sr.errors import ALL_FAILED, NOTHING, SOME_FAILED, Fault, NothingToDo
        from hftn_sr.volumes.conversion import convert_fastmri

        sources = _sources(files)
        console = Console(stderr=True)
        skipped = failed = 0
        for path in track(sources, "convert", console=console, transient=True, disable=not console.is_terminal or len(sources) < 2):
            try:
                written, notes = convert_fastmri(path, output, image, overwrite == "always")
            except NothingToDo as nothing:
                skipped += 1
                typer.echo(f"SKIPPED {nothing}", err=True)
            except Fault as fault:
                if debug:
                    raise
                failed += 1
                typer.echo(f"ERROR {fault}", err=True)
            else:
                for note in notes:
                    typer.echo(f"WARNING {note}", err=True)
                typer.echo(written)
        if failed:
            raise typer.Exit(ALL_FAILED if failed == len(sources) else SOME_FAILED)
        if skipped == len(sources):
            raise typer.Exit(NOTHING)


def _sources(named: Sequence[Path]) -> list[Path]:
    """Each file once; those of a folder by name."""
    from hftn_sr.errors import NothingToDo, UsageFault
    from hftn_sr.volumes.conversion import nifti_name

    found: dict[Path, None] = {}
    for path in named:
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in HDF5_SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise NothingToDo(path, "no fastMRI file in it (searched *.h5 and *.hdf5)", "name the folder that holds them")
        found |= dict.fromkeys(inside)
    names = Counter(map(nifti_name, found))
    if twice := [path for path in found if names[nifti_name(path)] > 1]:
        listed = ", ".join(map(str, twice[:4]))
        raise UsageFault(twice[0], f"would be written over by another file of its name ({listed})", "convert them into two folders")
    return list(found)
