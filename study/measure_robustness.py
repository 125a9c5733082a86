"""What every method of a finished comparison does with a wrong reference, with noise, and with lesions.

python study/measure_robustness.py --data data --comparison comparison

Rows that are not trained yet are left out; killed, or given again when more are, it goes on with what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from rich.console import Console
from rich.progress import track

from comparison.lesion_table import lesion_csv, lesion_markdown
from comparison.results import slices_words
from comparison.robustness import Trial, measure_robustness
from comparison.robustness_table import gain_picture, robustness_csv, robustness_lines, robustness_markdown, row_scores
from comparison.rows import chosen_methods
from comparison.terminal import folder_option
from hftn_sr.errors import INTERRUPTED, OK, Fault
from hftn_sr.networks import METHODS
from hftn_sr.pairs.datalist import Section
from hftn_sr.volumes.files import write_files


def main() -> int:
    """Parse, measure, write."""
    options = _parser().parse_args()
    output = options.output or options.comparison / f"robustness_{options.section}"
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)

    def shown(steps: Sequence[Any], text: str) -> Iterable[Any]:
        if not console.is_terminal:
            console.print(text, markup=False, highlight=False)
        return track(steps, text, console=console, transient=True, disable=not console.is_terminal)

    try:
        methods = chosen_methods(options.methods)
        trial = Trial(options.data, options.comparison, output, methods, options.section, options.eval_slices, options.overwrite)
        robustness = measure_robustness(trial, shown)
        scores = {each.row.name: row_scores(robustness, each) for each in robustness.found.rows}
        text = robustness_markdown(robustness, scores)
        cases = len(next(iter(next(iter(robustness.sums.values())).values())))
        heading = f"PSNR by volume, {cases} {robustness.section} cases, {slices_words(robustness.eval_slices)}"
        files = {
            output / "robustness.md": text.encode(),
            output / "robustness.csv": robustness_csv(robustness, scores),
            output / "robustness.png": gain_picture(robustness_lines(robustness, scores), heading),
        }
        if robustness.lesions:
            files |= {output / "lesions.md": lesion_markdown(robustness).encode(), output / "lesions.csv": lesion_csv(robustness)}
        write_files(files)
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        return fault.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return INTERRUPTED
    sys.stdout.write(text)
    if not robustness.lesions:
        whole = robustness.found.protocol.name == "corrected"
        why = "no case of the datalist has a mask under `lesions`" if whole else "the protocol crops slices"
        console.print(f"no lesions were measured: {why}", markup=False, highlight=False)
    console.print(f"wrote {', '.join(str(path) for path in files)}", markup=False, highlight=False, soft_wrap=True)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=folder_option, required=True, help="folder with datalist.json, or a copy of the open MS data")
    add("--comparison", type=folder_option, required=True, help="the --output of compare.py, which is only read and may still be going on")
    add("--output", type=folder_option, help="folder for tables, picture and results (robustness_SECTION in the comparison)")
    add("--methods", default="all", help=f"all, or names with commas between: {', '.join(METHODS)}")
    add("--section", choices=get_args(Section), default="testing", help="cases whose references are disturbed")
    add("--eval-slices", type=int, help="score so many slices from the middle of each volume (all); lesions are looked at in all")
    add("--overwrite", action="store_true", help="measure anew what the output holds of other choices, weights or data")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
