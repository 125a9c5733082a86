"""Super-resolve the built-in SYNTHETIC pair and show what came of it: figures on the terminal, a NIfTI file and a picture.

python scripts/demo.py --output demo
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

import hftn_sr
from hftn_sr.cli.progress import ConsoleReporter
from hftn_sr.degradation import in_plane_first, in_plane_last
from hftn_sr.evaluation import evaluate_volumes
from hftn_sr.kspace import zero_fill
from hftn_sr.report import Panel, busiest_slice, picture, shown
from hftn_sr.volumes.files import write_bytes, write_json
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.volume import Volume

SAMPLE = Path(hftn_sr.__file__).parent / "sample"


def main(
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"),
    scale: Annotated[int, typer.Option(help="2 or 4.")] = 2,
) -> None:
    """Degrade the sample's target, super-resolve it with its reference, compare with the truth."""
    console = Console(width=100 if not sys.stdout.isatty() else None)
    truth_path, reference_path = SAMPLE / "synthetic_target.nii.gz", SAMPLE / "synthetic_reference.nii.gz"
    low_path, result_path = output / f"synthetic_lr_x{scale}.nii.gz", output / f"synthetic_sr_x{scale}.nii.gz"
    hftn_sr.degrade(truth_path, low_path, scale=scale, overwrite=True)  # type: ignore[arg-type]
    with ConsoleReporter(Console(stderr=True)) as reporter:
        reporter.case(result_path.name)
        outcome = hftn_sr.super_resolve(
            low_path, reference_path, result_path, scale=scale, overwrite="always", reporter=reporter  # type: ignore[arg-type]
        )
    truth, low, result = (read_nifti(path) for path in (truth_path, low_path, result_path))
    through_plane = truth.grid.through_plane()
    slices = zero_fill(in_plane_last(torch.from_numpy(low.data), through_plane), scale)
    zero_filled = result.on(result.grid, in_plane_first(slices, through_plane).numpy())
    rows = {"zero-filling": zero_filled, f"HFTN-SR ({outcome.record['model']['name']})": result}
    scores = {name: evaluate_volumes(volume, truth) for name, volume in rows.items()}
    table = Table(title=f"Built-in SYNTHETIC pair, x{scale}, protocol corrected", title_justify="left")
    for heading in ("", "PSNR, dB", "SSIM", "NMSE"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in scores.items():
        table.add_row(name, f"{row['psnr']:.2f}", f"{row['ssim']:.4f}", f"{row['nmse']:.5f}")
    console.print(table)
    write_json(output / f"scores_x{scale}.json", [{"method": name, **row} for name, row in scores.items()])
    write_bytes(output / f"comparison_x{scale}.png", _comparison(truth, zero_filled, read_nifti(reference_path), result, scale))
    for path in (result_path, output / f"comparison_x{scale}.png", output / f"scores_x{scale}.json"):
        console.print(f"wrote {path}")


def _comparison(truth: Volume, zero_filled: Volume, reference: Volume, result: Volume, scale: int) -> bytes:
    through_plane = truth.grid.through_plane()
    index = busiest_slice(truth, through_plane)
    placed = truth.on(truth.grid, resample(reference, truth.grid))
    low, ref, ours, true = (shown(volume, through_plane, index) for volume in (zero_filled, placed, result, truth))
    bright, bright_ref = float(np.percentile(true, 99.8)), float(np.percentile(ref, 99.8))
    strong = float(np.percentile(np.abs(low - true), 99))
    panels = [
        Panel("target, zero-filled", low, (0, bright)),
        Panel("reference", ref, (0, bright_ref)),
        Panel("HFTN-SR", ours, (0, bright)),
        Panel("error of zero-filling", low - true, (-strong, strong), signed=True),
        Panel("truth", true, (0, bright)),
        Panel("error of HFTN-SR", ours - true, (-strong, strong), signed=True),
    ]
    return picture(panels, f"synthetic sample pair, x{scale}; both error maps on one scale", columns=3)


if __name__ == "__main__":
    typer.run(main)
