"""Super-resolve the built-in SYNTHETIC pair and show what came of it: figures on the terminal, a NIfTI file and a picture.

python scripts/demo.py --output demo
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import hftn_sr
from hftn_sr.cli.progress import ConsoleReporter
from hftn_sr.pictures import caption, comparison
from hftn_sr.scoring.evaluation import evaluate_volumes
from hftn_sr.volumes.files import write_bytes, write_json
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import zero_filled

SAMPLE = Path(hftn_sr.__file__).parent / "sample"


def main(
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    scale: Annotated[int, typer.Option(help="2 or 4.")] = 2,
) -> None:
    """Degrade the sample's target, super-resolve it with its reference, compare with the truth."""
    console = Console(width=100 if not sys.stdout.isatty() else None)
    truth_path, reference_path = SAMPLE / "synthetic_target.nii.gz", SAMPLE / "synthetic_reference.nii.gz"
    low_path, result_path = output / f"synthetic_lr_x{scale}.nii.gz", output / f"synthetic_sr_x{scale}.nii.gz"
    hftn_sr.degrade(truth_path, low_path, scale=scale, overwrite=True)
    with ConsoleReporter(Console(stderr=True)) as reporter:
        options = {"scale": scale, "overwrite": "always", "reporter": reporter}
        outcome = hftn_sr.super_resolve(low_path, reference_path, result_path, **options)  # type: ignore[arg-type]
    truth, low, result, reference = (read_nifti(path) for path in (truth_path, low_path, result_path, reference_path))
    through_plane = truth.grid.through_plane()
    rows = {"zero-filling": zero_filled(low, scale, through_plane), f"super-resolved ({outcome.record['model']['name']})": result}
    scores = {name: evaluate_volumes(volume, truth) for name, volume in rows.items()}
    table = Table(title=f"Built-in SYNTHETIC pair, x{scale}, protocol corrected", title_justify="left")
    for heading in ("", "PSNR, dB", "SSIM", "NMSE"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in scores.items():
        table.add_row(name, f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", f"{row['nmse']:.5f}")
    console.print(table)
    on_grid = truth.on(truth.grid, resample(reference, truth.grid))
    heading, captions = f"SYNTHETIC sample pair, x{scale}", [caption(row) for row in scores.values()]
    image = comparison(truth, rows["zero-filling"], result, on_grid, through_plane, heading, captions)
    write_bytes(output / f"comparison_x{scale}.png", image)
    write_json(output / f"scores_x{scale}.json", [{"method": name, **row} for name, row in scores.items()])
    for path in (result_path, output / f"comparison_x{scale}.png", output / f"scores_x{scale}.json"):
        console.print(f"wrote {path}")


if __name__ == "__main__":
    typer.run(main)
