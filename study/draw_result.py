"""Draw a result for a document: zero-filled, super-resolved and true, with scores and an inset, as a small PNG.

hftn-sr degrade --input $RAW/study1_FLAIR.nii.gz --output lr.nii.gz --scale 4
hftn-sr super-resolve --target lr.nii.gz --reference $RAW/study1_T2W.nii.gz --output sr.nii.gz --scale 4
python study/draw_result.py --target lr.nii.gz --result sr.nii.gz --truth $RAW/study1_FLAIR.nii.gz --output bundle/docs/hero_x4.png
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer
from PIL import Image

from hftn_sr.pictures import CHANGE, MARK, caption, comparison, headline
from hftn_sr.scoring.evaluation import evaluate_volumes
from hftn_sr.volumes.files import write_bytes
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import crop_to_multiple, zero_filled

GREYS, COLOURS = 96, 60  # of the palette


def main(
    target: Annotated[Path, typer.Option(help="Low-resolution NIfTI file.")],
    result: Annotated[Path, typer.Option(help="Super-resolved NIfTI file.")],
    truth: Annotated[Path, typer.Option(help="High-resolution NIfTI file of the target's contrast.")],
    output: Annotated[Path, typer.Option(help="PNG to write.")],
    reference: Annotated[Optional[Path], typer.Option(help="Other contrast; with it, errors are drawn, too.")] = None,  # noqa: UP045 - typer
    scale: Annotated[int, typer.Option(help="2 or 4.")] = 4,
    heading: Annotated[str, typer.Option(help="Above the picture.")] = "FLAIR at a quarter of its in-plane resolution (x4), with its T2",
) -> None:
    """Write the picture."""
    low, ours, true = (read_nifti(path) for path in (target, result, truth))
    through_plane = true.grid.through_plane()
    true = crop_to_multiple(true, scale, through_plane)
    baseline = zero_filled(low, scale, through_plane)
    captions = [caption(evaluate_volumes(volume, true)) for volume in (baseline, ours)]
    if reference:
        other = true.on(true.grid, resample(read_nifti(reference), true.grid))
        png = comparison(true, baseline, ours, other, through_plane, heading, captions)
    else:
        png = headline(true, baseline, ours, through_plane, heading, captions)
    write_bytes(output, compact(png))


def compact(png: bytes) -> bytes:
    """The same picture as a PNG with a palette: greys, colours of change, and that of outlines."""
    greys = np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1)
    mark = [[int(MARK[start : start + 2], 16) for start in (1, 3, 5)]]
    colours = np.concatenate([greys, 255 * CHANGE(np.linspace(0, 1, COLOURS))[:, :3], mark])
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.round().astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    typer.run(main)
