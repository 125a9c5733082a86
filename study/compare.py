"""Every method of the paper on your own data: trained under one budget on identical patches, scored on the same slices, in one table.

hftn-sr data open-ms --output data
python study/compare.py --data data --methods all --scales 2 4 --iterations 1000 --output comparison

Killed, it goes on where it was when the same command is given again. The published study is scored again from its shipped weights, without
training, and compared with its tables by

python study/compare.py --resume
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from comparison.choices import Choices
from comparison.dataset import dataset_folder
from comparison.reproduction import COMPARED, published_tables, reproduce
from comparison.rows import chosen_methods
from comparison.run import compare
from comparison.sizes import GMAC
from comparison.terminal import TerminalProgress, folder_option, summary
from hftn_sr.errors import INTERRUPTED, OK, SOME_FAILED, Fault
from hftn_sr.networks import METHODS
from hftn_sr.pairs.datalist import Section
from hftn_sr.pairs.open_ms import fetch_open_ms
from hftn_sr.training.protocols import PROTOCOLS

STUDY = Path(__file__).absolute().parent


def main() -> int:
    """Parse, compare or reproduce, show."""
    again = any(argument.split("=")[0] == "--resume" for argument in sys.argv[1:])
    options = (_resume_parser() if again else _parser()).parse_args()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
    output = Console(width=None if sys.stdout.isatty() else 200)
    try:
        return _reproduced(options, console, output) if again else _compared(options, console, output)
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        return fault.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return INTERRUPTED


def _compared(options: argparse.Namespace, console: Console, output: Console) -> int:
    values = {**vars(options), "methods": chosen_methods(options.methods)}
    values.pop("resume")
    with TerminalProgress(console) as progress:
        comparison = compare(Choices(**values), progress)
    output.print(summary(comparison))
    output.print(
        f"wrote {options.output}/table.md, table.csv, cases.csv, figure.png, curves.png", markup=False, highlight=False, soft_wrap=True
    )
    return SOME_FAILED if comparison.failures else OK


def _reproduced(options: argparse.Namespace, console: Console, output: Console) -> int:
    tables = [table.only(options.methods) for table in published_tables(options.resume)]
    if options.data is None:
        console.print("fetching the open data, 72 MB", highlight=False)
        fetch_open_ms(options.output / "data")
    dataset = dataset_folder(options.data or options.output / "data", options.output)
    differing = False
    for table in tables:
        name = str(table.folder.relative_to(options.resume))
        with TerminalProgress(console) as progress:
            found = reproduce(table, dataset, options.output / name, progress)
        shown = Table("method", *COMPARED, title=Text(f"{name}: published, and found again"))
        for row, figures in found.rows:
            pairs = [figures.get(figure) for figure in COMPARED]
            shown.add_row(row, *(f"{pair[0]:.5g}, {pair[1]:.5g}" if pair else "-" for pair in pairs))
        output.print(shown)
        told = f"{name}: largest difference in PSNR {found.largest:.4f} dB; wrote {found.output}/table.md"
        output.print(told, markup=False, highlight=False, soft_wrap=True)
        for each in found.differing:
            differing = True
            sys.stderr.write(f"ERROR {name}: {each}\n")
    return SOME_FAILED if differing else OK


def _resume_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A shipped study scored again, without training.", allow_abbrev=False)
    add = parser.add_argument
    add("--resume", nargs="?", type=folder_option, const=STUDY, metavar="STUDY", help="folder of a shipped study (that of the repository)")
    add("--data", type=folder_option, help="folder with datalist.json, as of hftn-sr data open-ms (fetched into --output)")
    add("--output", type=folder_option, default=Path("study_again"), help="folder for tables and pictures (study_again)")
    add("--methods", default="all", help="all, or names with commas between")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=folder_option, required=True, help="folder with datalist.json, or a copy of the open MS data")
    add("--output", type=folder_option, required=True, help="folder for tables, pictures and runs")
    add("--methods", default="all", help=f"all, or names with commas between: {', '.join(METHODS)}")
    add("--scales", type=int, nargs="+", default=[2, 4], help="2, 4 or both")
    add("--seeds", type=int, nargs="+", default=[0], help="of weights and patches; a row for each")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--iterations", type=int, help="of every network")
    budget.add_argument("--minutes", type=float, help="of training of every network; measured once, then a fixed number of iterations")
    bounds = ", ".join(f"{gmac:g} at x{scale}" for scale, gmac in GMAC.items())
    add("--sizes", choices=("matched", "paper"), default="matched", help="equal MACs for all, or the published sizes")
    add("--gmac", type=float, help=f"bound of matched sizes for a slice of 320 x 320 ({bounds})")
    add("--eval-slices", type=int, help="score so many slices from the middle of each volume (all)")
    add("--protocol", choices=tuple(PROTOCOLS), default="corrected", help="how pairs are made and scored; one for a table")
    add("--protocol-crop", type=int, help="for sanet, side of its central square in voxels (320)")
    add("--section", choices=get_args(Section), default="testing", help="cases that are scored")
    add("--baseline", choices=tuple(METHODS), help="method that differences refer to (early_fusion)")
    add("--jobs", type=int, default=1, help="rows at a time, each on one thread")
    add("--crop-size", type=int, default=64, help="side of the training patches in voxels")
    add("--learning-rate", type=float, help="at the start (that of train.yaml)")
    add("--resume", nargs="?", metavar="STUDY", help="score a shipped study again instead; see --resume --help")
    add("--overwrite", action="store_true", help="begin rows anew that were made with other settings")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
