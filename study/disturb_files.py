"""What `super-resolve` makes of a reference file that lies elsewhere, is of another patient, holds noise or is missing.

Unlike `disturb_reference.py`, which disturbs the network's input, this writes files whose headers are moved, and lets the steps of the
command place them: as they lie and used in any case (`--register none --unfit-reference use`), and as by default (registered, or left out).
The network sees each slice in one orientation, a quarter of the default's time; the measured band is put back.

python study/disturb_files.py --dataset data --output results/disturbed_files.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from comparison.safety import turn_about_middle
from hftn_sr.inference.options import PairOptions
from hftn_sr.inference.pair import PreparedPair, prepare_pair
from hftn_sr.networks.precision import WithMeasuredBand, choose_precision, prepare_network
from hftn_sr.networks.weights import load_model
from hftn_sr.scoring.metrics import psnr
from hftn_sr.volumes.files import write_bytes
from hftn_sr.volumes.nifti import ReadOptions, read_nifti, save_nifti
from hftn_sr.volumes.placement import read_transform
from hftn_sr.volumes.simulation import crop_to_multiple, degrade, in_plane_last, zero_filled
from hftn_sr.volumes.volume import Grid, Volume

OTHER = "patient01/study1"  # a training patient
SCORED = 8  # slices of the middle half; registration and alignment see all
VOXELS, DEGREES = (0.0, 0.5, 1.0, 2.0, 4.0), (1.0, 3.0)
NO_REFERENCE = "none"
READ = ReadOptions(assume_affine="sform")  # the transforms of the data shear a little, which a qform cannot hold
DEFAULT = PairOptions(read=READ)
AS_IT_LIES = replace(DEFAULT, register="none", unfit_reference="use")


@dataclass(frozen=True)
class Row:
    """One disturbance at one scale, gains over zero-filling in dB.

    Args:
        name: of the disturbance.
        lies: gain with the file used as it lies; None where there is none.
        default: gain of the pipeline as it is by default.
        how: what the pipeline did.
    """

    name: str
    lies: float | None
    default: float
    how: str

    def __str__(self) -> str:
        lies = "" if self.lies is None else f"{self.lies:.2f}"
        return f"| {self.name} | {lies} | {self.default:.2f} | {self.how} |"


def main(
    dataset: Annotated[Path, typer.Option(help="Folder that `hftn-sr data open-ms` filled.")],
    output: Annotated[Path, typer.Option(help="Markdown table to write.")],
    case: Annotated[str, typer.Option(help="Patient and study, with native FLAIR and T2W.")] = "patient04/study1",
    model: Annotated[str, typer.Option(help="correspondence, base, small, hftn, or a .safetensors file.")] = "base",
) -> None:
    """Print and write one table per scale, one row per disturbance."""
    raw = dataset / "longitudinal" / "raw"
    lines: list[str] = []
    for scale in (2, 4):
        lines += [
            f"{case}, x{scale}:",
            "",
            "| reference | as it lies, dB | by default, dB | what was done by default |",
            "| --- | --- | --- | --- |",
        ]
        lines += map(str, _rows(raw, case, model, scale))
        lines.append("")
    write_bytes(output, "\n".join(lines).encode())
    typer.echo("\n".join(lines))


def _rows(raw: Path, case: str, model: str, scale: int) -> Iterator[Row]:
    truth, reference = _volumes(raw, case)
    network = WithMeasuredBand(prepare_network(load_model(model, scale).network, choose_precision("auto", "cpu", model)), scale)
    axis = truth.grid.through_plane()
    low = degrade(truth, scale, axis)
    score = _Score(crop_to_multiple(truth, scale, axis), zero_filled(low, scale, axis), network)
    with TemporaryDirectory() as folder:
        target, file = Path(folder) / "target.nii.gz", Path(folder) / "reference.nii.gz"
        save_nifti(target, low, "")
        disturbances = list(_disturbed(raw, truth, reference, low.grid.finer(scale, axis)))
        for name, volume in track(disturbances, f"{case} x{scale}", console=Console(stderr=True), transient=True):
            save_nifti(file, volume, "")
            lies, default = (prepare_pair(target, file, replace(options, scale=(scale, scale))) for options in (AS_IT_LIES, DEFAULT))
            yield Row(name, score(lies), score(default), _how(default))
        yield Row(NO_REFERENCE, None, score(prepare_pair(target, None, PairOptions(scale=(scale, scale)))), "the target alone")


def _volumes(raw: Path, case: str) -> tuple[Volume, Volume]:
    """FLAIR and T2W of a case, the latter placed by the transform of the data, so that its header alone is right."""
    transform = read_transform(raw / f"{case}_T2W_intrastudy_to_FLAIR.txt")
    return read_nifti(raw / f"{case}_FLAIR.nii.gz"), read_nifti(raw / f"{case}_T2W.nii.gz").moved(transform)


def _disturbed(raw: Path, truth: Volume, reference: Volume, grid: Grid) -> Iterator[tuple[str, Volume]]:
    """The reference as files may come; movements are in voxels of the result along both in-plane axes, turns about the slices' normal."""
    through, *in_plane = grid.slice_axes(grid.through_plane())
    for voxels in VOXELS:
        movement = np.eye(4)
        movement[:3, 3] = voxels * grid.affine[:3, in_plane].sum(axis=1)
        yield f"moved by {voxels:g} + {voxels:g} voxels" if voxels else "in place", reference.moved(movement)
    for degrees in DEGREES:
        yield f"turned by {degrees:g} degrees", reference.moved(turn_about_middle(grid, through, degrees))
    other_truth, other = _volumes(raw, OTHER)
    yield "of another patient", other.moved(_middle(other_truth) @ np.linalg.inv(_middle(truth)))
    noise = np.random.default_rng(0).uniform(0, 1, reference.data.shape).astype(np.float32)
    yield "noise", reference.on(reference.grid, noise)


def _middle(volume: Volume) -> NDArray[np.float64]:
    """(4, 4), from a frame in the middle of the volume, along its axes in mm, to RAS+ mm."""
    frame = volume.affine.copy()
    frame[:3, :3] /= volume.grid.spacing
    frame[:3, 3] += volume.affine[:3, :3] @ (np.subtract(volume.data.shape, 1) / 2)
    return frame


def _how(pair: PreparedPair) -> str:
    registration, alignment = pair.record["placement"].get("registration"), pair.record["alignment"]
    registered = f"registered, {'kept' if registration['kept'] else 'no better place found'}; " if registration else ""
    seen = f"{alignment['displacement_voxels']:.1f} voxels off, agreement {alignment['value']:.2f}"
    return f"{registered}{'used' if pair.on_grid else 'left out'} ({seen})"


@dataclass(frozen=True)
class _Score:
    """Gain of a network over zero-filling, in dB.

    Args:
        truth: measured at high resolution.
        zero_filled: the target on the same grid.
        network: takes (B, 3, H, W), gives (B, 1, H, W).
    """

    truth: Volume
    zero_filled: Volume
    network: nn.Module

    def __call__(self, pair: PreparedPair) -> float:
        """On some slices of the middle half of a pair."""
        scored = np.linspace(len(pair) // 4, 3 * len(pair) // 4, SCORED).round().astype(int).tolist()
        with torch.inference_mode():
            result = torch.cat([self.network(pair.slice(index)[None])[:, 0] for index in scored]) * pair.unit
        truth, low = (self._slices(volume, pair, scored) for volume in (self.truth, self.zero_filled))
        return float(psnr(result, truth) - psnr(low, truth))

    @staticmethod
    def _slices(volume: Volume, pair: PreparedPair, scored: list[int]) -> Tensor:
        return in_plane_last(torch.from_numpy(volume.data), pair.axes)[scored]


if __name__ == "__main__":
    typer.run(main)
