"""What a wrong reference costs: gain over zero-filling on the test pair whose reference is moved, exchanged or missing.

python study/disturb_reference.py --dataset data --output results/disturbed_reference.md --picture bundle/docs/failures_x4.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from draw_result import compact
from hftn_sr.kspace import shift, truncate
from hftn_sr.networks.weights import load_model
from hftn_sr.pictures import Panel, change, picture, shown, white
from hftn_sr.scoring.metrics import psnr
from hftn_sr.training.transforms import LoadPaird
from hftn_sr.volumes.files import write_bytes
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.simulation import crop_to_multiple, stack_channels

CASE, OTHER = "patient04/study1", "patient01/study1"  # test; a training patient whose grid has the same in-plane size
SLICES = slice(12, 36, 3)
DRAWN = 4  # of these slices
AS_IT_LIES, ANOTHER = "as it lies, with the transform of the data", "of another patient"
MOVED = "moved by {0} + {0} voxels"


def main(
    dataset: Annotated[Path, typer.Option(help="Folder that `hftn-sr data open-ms` filled.")],
    output: Annotated[Path, typer.Option(help="Markdown table to write.")],
    model: Annotated[str, typer.Option(help="correspondence, base, small, hftn, or a .safetensors file.")] = "base",
    picture_file: Annotated[Path | None, typer.Option("--picture", help="PNG to write: results and errors of some rows at x4.")] = None,
) -> None:
    """Print and write one row per disturbance, one column per scale."""
    raw = dataset / "longitudinal" / "raw"
    gains: dict[str, list[float]] = {}
    results: dict[str, Tensor] = {}
    for scale in (2, 4):
        target, reference = _pair(raw, CASE, scale)
        disturbed = {AS_IT_LIES: reference}
        disturbed |= {MOVED.format(voxels): shift(reference, (voxels, voxels)) for voxels in (0.5, 1, 2, 4, 8)}
        disturbed |= {"of another slice (3 on)": reference.roll(-1, 0), ANOTHER: _pair(raw, OTHER, scale)[1]}
        disturbed["without signal"] = torch.zeros_like(reference)
        network = load_model(model, scale).network
        for name, each in track(disturbed.items(), f"x{scale}", console=Console(stderr=True), transient=True):
            results["zero-filled"], results[name] = _results(network, target, each, scale)
            gains.setdefault(name, []).append(psnr(results[name], target) - psnr(results["zero-filled"], target))
    rows = ["| reference | gain at x2, dB | gain at x4, dB |", "| --- | --- | --- |"]
    rows += [f"| {name} | {x2:.2f} | {x4:.2f} |" for name, (x2, x4) in gains.items()]
    text = "\n".join(rows) + "\n"
    write_bytes(output, text.encode())
    if picture_file:
        write_bytes(picture_file, compact(_picture(raw, target, reference, results)))
    typer.echo(text, nl=False)


def _pair(raw: Path, case: str, scale: int) -> tuple[Tensor, Tensor]:
    """Eight slices (8, H, W) of FLAIR and of T2W on its grid."""
    files = {"target": f"{case}_FLAIR.nii.gz", "reference": f"{case}_T2W.nii.gz", "transform": f"{case}_T2W_intrastudy_to_FLAIR.txt"}
    loaded = LoadPaird(scale)({role: str(raw / name) for role, name in files.items()})
    target, reference = (loaded[key][0, ..., SLICES].movedim(-1, 0) for key in ("label", "reference"))
    return target, reference


def _results(network: torch.nn.Module, target: Tensor, reference: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Zero-filled and super-resolved slices."""
    image = stack_channels(truncate(target, scale), reference, scale).movedim(0, 1)
    with torch.inference_mode():
        result = torch.cat([network(one) for one in image.split(1)])[:, 0]
    return image[:, 0], result


def _picture(raw: Path, target: Tensor, reference: Tensor, results: dict[str, Tensor]) -> bytes:
    """One slice at x4: the truth and results above, the reference and the errors, on one scale, below."""
    truth = crop_to_multiple(read_nifti(raw / f"{CASE}_FLAIR.nii.gz"), 4, 2)

    def upright(slices: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        data = np.zeros_like(truth.data)
        data[..., 0] = slices[DRAWN].numpy()
        return shown(truth.on(truth.grid, data), 2, 0)

    true, chosen = upright(target), ["zero-filled", AS_IT_LIES, MOVED.format(2), ANOTHER]
    views = {name: upright(results[name]) for name in chosen}
    limits = (0.0, white(true))
    peak = float(target.max())
    titles = ["zero-filled", "reference as it lies", "reference moved by 2 + 2 voxels", "reference of another patient"]
    panels = [Panel("truth", true, limits), *(Panel(title, view, limits) for title, view in zip(titles, views.values(), strict=True))]
    other = upright(reference)
    panels += [Panel("reference", other, (0.0, white(other)))]
    panels += [change("error", view - true, peak) for view in views.values()]
    heading = "patient04 study1, FLAIR x4 with T2W: what a wrong reference does"
    return picture(panels, heading, columns=5, unit="% of the truth's maximum in eight slices")


if __name__ == "__main__":
    typer.run(main)
