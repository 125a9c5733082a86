"""The main job on real pairs: native series of the open MS data degraded, super-resolved with another as it lies on disk, scored.

hftn-sr data open-ms --output data
python study/evaluate_native_pairs.py --dataset data --output results

The truth is the native FLAIR, the reference the native T2W; `--pairs all` takes every ordered pair of FLAIR, T1W and T2W. References are
used by their headers alone, without the transforms that come with the data. Patients that the weights were trained on are left out.
"""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hftn_sr
from hftn_sr.networks.weights import load_model
from hftn_sr.pictures import caption, comparison
from hftn_sr.scoring.evaluation import evaluate_volumes
from hftn_sr.volumes.files import write_bytes, write_json
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import crop_to_multiple, zero_filled

CASES = (("patient03", "study1"), ("patient03", "study2"), ("patient04", "study1"))  # validation, validation, test
PAPER = (("FLAIR", "T2W"),)  # target and reference of the paper's brain images
SHOWN = ("psnr", "ssim")


def main(
    dataset: Annotated[Path, typer.Option(help="Folder that `hftn-sr data open-ms` filled.")],
    output: Annotated[Path, typer.Option(help="Folder for volumes, pictures, scores.json and scores.md.")],
    model: Annotated[str, typer.Option(help="correspondence, base, small, hftn, or a .safetensors file.")] = "base",
    tta: Annotated[Optional[int], typer.Option(help="1, 2, 4 or 8; else 4 for base, correspondence; else 1.")] = None,  # noqa: UP045 - typer
    scales: Annotated[list[int], typer.Option(help="2, 4 or both.")] = [2, 4],  # noqa: B006 - typer copies it
    pairs: Annotated[Literal["paper", "all"], typer.Option(help="FLAIR with T2W, or every ordered pair of FLAIR, T1W and T2W.")] = "paper",
) -> None:
    """Degrade, super-resolve and score each case at each scale."""
    jobs = [
        (scale, dataset / "longitudinal" / "raw" / patient / study, *pair)
        for scale in scales
        for patient, study in _unseen(model, scale)
        for pair in (PAPER if pairs == "paper" else permutations(("FLAIR", "T1W", "T2W"), 2))
    ]
    jobs = [job for job in jobs if all(_series(job[1], contrast).is_file() for contrast in job[2:])]
    rows = [_case(output, model, tta, *job) for job in track(jobs, "cases", console=Console(stderr=True), transient=True)]
    write_json(output / "scores.json", rows)
    table = ["| case | scale | zero-filling PSNR / SSIM | result PSNR / SSIM | gain, dB |", "| --- | --- | --- | --- | --- |"]
    shown = Table(title="native series from native references, protocol corrected", title_justify="left")
    for heading in ("case", "scale", "zero-filling", "result", "gain, dB"):
        shown.add_column(heading)
    for row in [*rows, *_means(rows)]:
        scores = [f"{row[key]['psnr']:.2f} / {row[key]['ssim']:.4f}" for key in ("zero_filled", "result")]
        cells = [row["case"], f"x{row['scale']}", *scores, f"{row['gain']:.2f}"]
        table.append(f"| {' | '.join(cells)} |")
        shown.add_row(*cells)
    write_bytes(output / "scores.md", ("\n".join(table) + "\n").encode())
    Console().print(shown)


def _unseen(model: str, scale: int) -> list[tuple[str, str]]:
    cases: list[str] = []
    record: dict[str, Any] | None = load_model(model, scale).record
    while record:  # also of the weights that these went on from
        cases += record.get("training", [])
        record = record.get("start")
    seen = " ".join(cases)
    unseen = []
    for patient, study in CASES:
        if f"longitudinal{patient.removeprefix('patient')}_" in seen:  # another study of the patient is enough
            typer.echo(f"{patient} {study} x{scale}: left out, {model} was trained on this patient", err=True)
        else:
            unseen.append((patient, study))
    return unseen


def _series(visit: Path, contrast: str) -> Path:
    """File of a visit, which is a folder of the data and the beginning of the name."""
    return visit.with_name(f"{visit.name}_{contrast}.nii.gz")


def _case(output: Path, model: str, tta: int | None, scale: int, visit: Path, target: str, reference_name: str) -> dict[str, Any]:
    case = f"{visit.parent.name} {visit.name}, {target} with {reference_name}"
    truth_path, reference_path = _series(visit, target), _series(visit, reference_name)
    name = f"{visit.parent.name}_{visit.name}_{reference_name}_to_{target}_x{scale}"
    low_path, result_path = output / f"{name}_lr.nii.gz", output / f"{name}_sr.nii.gz"
    hftn_sr.degrade(truth_path, low_path, scale=scale, overwrite=True)
    options = {"scale": scale, "model": model, "tta": tta, "overwrite": "always"}
    outcome = hftn_sr.super_resolve(low_path, reference_path, result_path, **options)  # type: ignore[arg-type]
    truth, low, result, reference = (read_nifti(path) for path in (truth_path, low_path, result_path, reference_path))
    through_plane = truth.grid.through_plane()
    truth = crop_to_multiple(truth, scale, through_plane)
    baseline = zero_filled(low, scale, through_plane)
    on_grid = truth.on(truth.grid, resample(reference, truth.grid))
    scores, zero = evaluate_volumes(result, truth), evaluate_volumes(baseline, truth)
    picture = comparison(truth, baseline, result, on_grid, through_plane, f"{case}, x{scale}", [caption(zero), caption(scores)])
    write_bytes(output / f"{name}_comparison.png", picture)
    return {
        "case": case,
        "scale": scale,
        "result": scores,
        "zero_filled": zero,
        "gain": scores["psnr"] - zero["psnr"],
        "affine_difference_mm": float(np.abs(result.affine - truth.affine).max()),
        "model": outcome.record["model"]["name"],
        "seconds": outcome.record["seconds"],
    }


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    means = []
    for scale in sorted({row["scale"] for row in rows}):
        some = [row for row in rows if row["scale"] == scale]
        if len(some) < 2:
            continue
        averaged = {key: {score: float(np.mean([row[key][score] for row in some])) for score in SHOWN} for key in ("zero_filled", "result")}
        means.append({"case": f"mean of {len(some)}", "scale": scale, "gain": float(np.mean([row["gain"] for row in some])), **averaged})
    return means


if __name__ == "__main__":
    typer.run(main)
