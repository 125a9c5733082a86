"""Copy what a comparison needs to be scored again into the repository: weights, settings and the published table, but no image.

python study/ship_study.py --comparison study_x4 --output study/x4
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from comparison.recording import VALIDATION, read_table
from comparison.rows import Row
from comparison.run import PUBLISHED
from comparison.settings import SETTINGS, read_record
from comparison.terminal import folder_option
from comparison.training import RECORD, WEIGHTS, finished_training
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.volumes.files import explained

OF_A_RUN, OF_A_TABLE = (SETTINGS, RECORD, WEIGHTS, VALIDATION), (PUBLISHED, "table.csv", "cases.csv")


def main() -> int:
    """Copy, say how much it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--comparison", type=folder_option, required=True, help="output folder of compare.py; its last table is taken")
    parser.add_argument("--output", type=folder_option, required=True, help="folder for runs/ and, named after its section, the table")
    options = parser.parse_args()
    try:
        section, runs = _finished(options.comparison)
        if options.output.resolve() == options.comparison.resolve():
            raise UsageFault(options.output, "is the comparison itself", "name another --output")
        wanted = {options.output / "runs" / run.name / name: run / name for run in runs for name in OF_A_RUN}
        wanted |= {options.output / section / name: options.comparison / name for name in OF_A_TABLE}
        for place, source in wanted.items():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place)
            except OSError as error:
                raise explained(place, error, source.stat().st_size) from error
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        return fault.exit_code
    size = sum(place.stat().st_size for place in wanted)
    sys.stdout.write(f"{options.output}: {len(runs)} runs and the {section} table, {size / 1e6:.1f} MB\n")
    return 0


def _finished(comparison: Path) -> tuple[str, list[Path]]:
    """The section of the last table, and the folders of its networks, whose weights are the recorded ones."""
    section = read_record(comparison / PUBLISHED).get("section")
    if section is None:
        raise Fault(comparison, f"no finished comparison (no {PUBLISHED})", "run compare.py with it as --output")
    rows = [Row(line["method"], int(line["scale"]), int(line["seed"])) for line in read_table(comparison / "table.csv") if line["seed"]]
    runs = [comparison / "runs" / row.name for row in rows]
    for run in runs:
        if finished_training(run) is None:
            raise Fault(run, "its weights are missing, or are not the recorded ones", "run compare.py again")
    return section, runs


if __name__ == "__main__":
    raise SystemExit(main())
