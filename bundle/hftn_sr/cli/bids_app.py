"""The command `hftn-sr-bids`: `hftn-sr super-resolve --bids` with the arguments that BIDS Apps share.

Source: Gorgolewski et al., BIDS Apps, PLoS Computational Biology 13 (2017), https://doi.org/10.1371/journal.pcbi.1005209.

Where the package is not installed, it is `python -m hftn_sr.cli.bids_app`.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional, get_type_hints

import typer

from hftn_sr._version import __version__
from hftn_sr.cli.bids import BidsCommand
from hftn_sr.cli.commands import FILES, NETWORK, run, super_resolve
from hftn_sr.cli.examples import examples
from hftn_sr.cli.faults import OptionalPath, one_line_errors
from hftn_sr.errors import UsageFault

__all__ = ["app", "main"]

PROGRAM = "hftn-sr-bids"
ARGUMENTS = "Arguments"
# Declared anew here, or of no use.
OTHERWISE = ("bids", "output", "output_format", "target", "reference", "threads", "cases", "reference_transform")

app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def bids_app(
    bids_dir: Annotated[Path, typer.Argument(metavar="BIDS_DIR", help="BIDS dataset; it is only read.", rich_help_panel=ARGUMENTS)],
    output_dir: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Derivative dataset to write.", rich_help_panel=ARGUMENTS)],
    analysis_level: Annotated[str, typer.Argument(metavar="participant", help="The only level.", rich_help_panel=ARGUMENTS)],
    *,
    target: Annotated[OptionalPath, typer.Option(metavar="<suffix>", help="Low-resolution contrast: FLAIR.", rich_help_panel=FILES)] = None,
    reference: Annotated[OptionalPath, typer.Option(metavar="<suffix>", help="High-resolution one: T2w.", rich_help_panel=FILES)] = None,
    threads: Annotated[
        Optional[int],  # noqa: UP045 - typer
        typer.Option("--nthreads", "--n-cpus", "--threads", help="CPU threads; default: all.", min=1, rich_help_panel=NETWORK),
    ] = None,
    skip_bids_validation: Annotated[
        bool, typer.Option("--skip-bids-validation", help="Accepted: nothing is validated.", rich_help_panel=FILES)
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)] = False,
    **options: Any,
) -> None:
    """Super-resolve a BIDS dataset. Research use only. Not for clinical use."""
    with one_line_errors(options["debug"]):
        _check_level(analysis_level)
    super_resolve(bids=bids_dir, output=output_dir, target=target, reference=reference, threads=threads, **options)


def _check_level(level: str) -> None:
    if level == "group":
        raise UsageFault("group", "there is no such level: each participant is super-resolved alone", "participant")
    if level != "participant":
        raise UsageFault("analysis level", f"{level!r} is not known (need participant)", "BIDS_DIR OUTPUT_DIR participant")


def _signature() -> inspect.Signature:
    """The parameters of `bids_app`, with those of `super_resolve` in the place of **options."""
    own = list(inspect.signature(bids_app, eval_str=True).parameters.values())[:-1]
    hints = get_type_hints(super_resolve, include_extras=True)
    shared = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(super_resolve).parameters.items()
        if name not in OTHERWISE
    ]
    arguments = [parameter for parameter in own if parameter.kind is not inspect.Parameter.KEYWORD_ONLY]
    first, last = own[len(arguments) : -3], own[-3:]
    return inspect.Signature([*arguments, *first, *shared, *last])


bids_app.__signature__ = _signature()  # type: ignore[attr-defined]
app.command(
    PROGRAM, cls=BidsCommand, epilog=examples("ds/ out/ participant --target FLAIR --reference T2w", program=PROGRAM), no_args_is_help=True
)(bids_app)


def main() -> NoReturn:
    """Entry point of the command."""
    run(app)


if __name__ == "__main__":
    main()
