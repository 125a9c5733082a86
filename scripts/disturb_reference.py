"""What a wrong reference costs: gain over zero-filling on the test pair whose reference is moved, exchanged or missing.

python scripts/disturb_reference.py --dataset data --output results/disturbed_reference.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from hftn_sr.degradation import stack_channels
from hftn_sr.kspace import shift, truncate
from hftn_sr.metrics import psnr
from hftn_sr.transforms import LoadPaird
from hftn_sr.volumes.files import write_bytes
from hftn_sr.weights import load_model

CASE, OTHER = "patient04/study1", "patient01/study1"  # test; a training patient whose grid has the same in-plane size
SLICES = slice(12, 36, 3)


def main(
    dataset: Annotated[Path, typer.Option(help="Folder that `hftn-sr data open-ms` filled.")],
    output: Annotated[Path, typer.Option(help="Markdown table to write.")],
    model: Annotated[str, typer.Option(help="base, hftn, or a .safetensors file.")] = "base",
) -> None:
    """Print and write one row per disturbance, one column per scale."""
    raw = dataset / "longitudinal" / "raw"
    gains: dict[str, list[float]] = {}
    for scale in (2, 4):
        target, reference = _pair(raw, CASE, scale)
        disturbed = {"as it lies, with the transform of the data": reference}
        disturbed |= {f"moved by {voxels} + {voxels} voxels": shift(reference, (voxels, voxels)) for voxels in (0.5, 1, 2, 4, 8)}
        disturbed |= {"of another slice (3 on)": reference.roll(-1, 0), "of another patient": _pair(raw, OTHER, scale)[1]}
        disturbed["without signal"] = torch.zeros_like(reference)
        network = load_model(model, scale).network
        for name, each in track(disturbed.items(), f"x{scale}", console=Console(stderr=True), transient=True):
            gains.setdefault(name, []).append(_gain(network, target, each, scale))
    rows = ["| reference | gain at x2, dB | gain at x4, dB |", "| --- | --- | --- |"]
    rows += [f"| {name} | {x2:.2f} | {x4:.2f} |" for name, (x2, x4) in gains.items()]
    text = "\n".join(rows) + "\n"
    write_bytes(output, text.encode())
    typer.echo(text, nl=False)


def _pair(raw: Path, case: str, scale: int) -> tuple[Tensor, Tensor]:
    """Eight slices (8, H, W) of FLAIR and of T2W on its grid."""
    files = {"target": f"{case}_FLAIR.nii.gz", "reference": f"{case}_T2W.nii.gz", "transform": f"{case}_T2W_intrastudy_to_FLAIR.txt"}
    loaded = LoadPaird(scale)({role: str(raw / name) for role, name in files.items()})
    target, reference = (loaded[key][0, ..., SLICES].movedim(-1, 0) for key in ("label", "reference"))
    return target, reference


def _gain(network: torch.nn.Module, target: Tensor, reference: Tensor, scale: int) -> float:
    image = stack_channels(truncate(target, scale), reference, scale).movedim(0, 1)
    with torch.inference_mode():
        result = torch.cat([network(one) for one in image.split(1)])[:, 0]
    return psnr(result, target) - psnr(image[:, 0], target)


if __name__ == "__main__":
    typer.run(main)
