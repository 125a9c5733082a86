"""What a model gains for targets of any acquisition: less k-space by axis and factor, thick slices, both, noise, a reference of a part.

python study/measure_acquisitions.py --data data --model small --output acquisitions

Targets are simulated from the middle slices of the datalist's pairs and stored as magnitudes, as scanners do. Each is scored interpolated
(zeros around its k-space, a windowed sinc between its slices), that made consistent with what was measured (`Acquisition.project`), by
cubic splines, and super-resolved: by the model's weights for any acquisition and, at x2 and x4, by those of that scale. Consistency is
part of both. Slices lie along an in-plane axis, of which the truth is known.

The tables are written anew after each pair, and say of how many they are. Killed, it goes on with the pairs that are missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from comparison.dataset import dataset_folder
from comparison.recording import read_table, table_bytes
from comparison.scoring import middle
from comparison.settings import read_record
from comparison.terminal import folder_option
from hftn_sr.acquisition import Acquisition, Full, KSpace
from hftn_sr.errors import INTERRUPTED, OK, SCALES, Fault, UsageFault
from hftn_sr.inference.through_plane import applied, share_of
from hftn_sr.kspace import replace_band
from hftn_sr.networks.precision import choose_tta, prepare_network
from hftn_sr.networks.weights import load_model
from hftn_sr.pairs.datalist import Section, load_datalist
from hftn_sr.scoring.metrics import slice_sums
from hftn_sr.training.acquisitions import VALIDATED, thick_slices
from hftn_sr.training.transforms import LoadPaird
from hftn_sr.volumes.files import json_bytes, write_files
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import stack_channels
from hftn_sr.volumes.volume import Grid, Volume

WAYS = ("interpolated", "consistent", "cubic", "one scale", "any acquisition")
COVERED = 0.57  # share of the field of view that a partial reference covers, from its first row on
SEED = 0  # of the noise
PAGE, TABLE, RECORD = "acquisitions.md", "acquisitions.csv", "acquisitions.json"


@dataclass(frozen=True)
class Trial:
    """A kind of target.

    Args:
        name: in the table.
        acquisition: what it keeps, from the sizes of a slice.
        interpolated: whether the scanner interpolated it to the whole matrix before its magnitude was taken.
        noise: standard deviation of its Rician noise, as a share of the intensity unit.
        coverage: share of the field of view that the reference covers.
    """

    name: str
    acquisition: Callable[[Sequence[int]], Acquisition]
    interpolated: bool = False
    noise: float = 0.0
    coverage: float = 1.0

    def measured(self, slices: Tensor) -> Tensor:
        """(D, h, w), what was measured of the slices (D, H, W)."""
        acquisition = self.acquisition(slices.shape[-2:])
        measured = acquisition.simulate(slices)
        real, imaginary = self.noise * torch.randn((2, *measured.shape), generator=torch.Generator().manual_seed(SEED))
        if not self.interpolated:
            return torch.hypot(measured + real, imaginary)
        stored = acquisition.interpolate(measured + real, slices.shape[-2:])
        return acquisition.simulate(stored.abs())


def matrix_of_512(shape: Sequence[int]) -> Acquisition:
    """256 x 205 of 512 x 512, as a share of the matrix."""
    return Acquisition.from_matrix([round(size * kept / 512) for size, kept in zip(shape, (256, 205), strict=True)], shape)


def thick_and_in_plane(shape: Sequence[int]) -> Acquisition:
    """Slices of 4 rows with half the k-space of the columns."""
    return thick_slices(0, 4, shape, across=KSpace(shape[1] // 2))


TRIALS = (
    *(Trial(name, acquisition) for name, acquisition in VALIDATED.items()),
    Trial("interpolated 512 of 256 x 205", matrix_of_512, interpolated=True),
    Trial("slices_4x1 and 1x2 at once", thick_and_in_plane),
    *(Trial(f"{name}, noise {noise} %", VALIDATED[name], noise=noise / 100) for name in ("x2", "slices_4x1") for noise in (1, 3, 5)),
    *(Trial(f"{name}, reference of {COVERED:.0%}", VALIDATED[name], coverage=COVERED) for name in ("x2", "slices_4x1")),
)


@dataclass(frozen=True)
class Networks:
    """A model's networks.

    Args:
        name: as the user named it.
        of_scale: by scale, as far as it has weights of that scale.
        of_any: that for any acquisition; None for none.
        files: name and hash of the weights, by scale or `any`.
    """

    name: str
    of_scale: Mapping[int, nn.Module]
    of_any: nn.Module | None
    files: Mapping[str, Mapping[str, str]]

    @classmethod
    def load(cls, name: str, tta: int | None) -> Networks:
        """All weights that the model has.

        Raises:
            Fault: there are none, or they cannot be read.
        """
        of_scale: dict[int, nn.Module] = {}
        of_any, files = None, {}
        fault: Fault | None = None
        for scale in (*SCALES, None):
            try:
                model = load_model(name, scale)
            except UsageFault as missing:
                fault = missing
                continue
            if model.scale != scale:
                continue
            network = prepare_network(model.network, "float32", choose_tta(tta, name))
            files[str(scale or "any")] = {"file": Path(model.path).name, "sha256": model.sha256}
            if scale:
                of_scale[scale] = network
            else:
                of_any = network
        if fault and not files:
            raise fault
        return cls(name, of_scale, of_any, files)


def ways(trial: Trial, slices: Tensor, references: Tensor, networks: Networks) -> dict[str, Tensor]:
    """The slices (D, H, W) as each of `WAYS` makes them of a target, without those that this model or target does not have."""
    shape = slices.shape[-2:]
    acquisition, measured = trial.acquisition(shape), trial.measured(slices)
    reference_grid = _grid(shape).cropped((0, 0, 0), (round(trial.coverage * shape[0]), shape[1], 1))
    references = references.clone()
    references[:, reference_grid.shape[0] :] = 0
    share = share_of(reference_grid, _grid(shape), 2, 0)
    interpolated = acquisition.interpolate(measured, shape)
    found = {"interpolated": interpolated, "consistent": acquisition.project(interpolated, measured)}
    if not trial.interpolated:
        found["cubic"] = _cubic(measured, acquisition, shape)
    scale = next((scale for scale in SCALES if acquisition == VALIDATED[f"x{scale}"](shape)), None)
    if scale and scale in networks.of_scale:
        network = networks.of_scale[scale]
        preds = _preds(network, stack_channels(measured, references, scale), share)
        found["one scale"] = replace_band(preds, measured, scale)
    if networks.of_any:
        preds = _preds(networks.of_any, stack_channels(measured, references, acquisition), share)
        found["any acquisition"] = acquisition.project(preds, measured)
    return found


def _preds(network: nn.Module, image: Tensor, share: Tensor | None) -> Tensor:
    return torch.stack([applied(network, image[None, :, index].clone(), share) for index in range(image.shape[1])])


def _grid(shape: Sequence[int]) -> Grid:
    return Grid((shape[0], shape[1], 1), np.eye(4), 2)


def _cubic(measured: Tensor, acquisition: Acquisition, shape: Sequence[int]) -> Tensor:
    """By cubic B-splines through the samples."""
    volume = (*shape, len(measured))
    affine = Acquisition((*acquisition.axes, Full())).measured_affine(np.eye(4), volume)
    grid = Grid((shape[0], shape[1], len(measured)), np.eye(4), 2)
    return torch.from_numpy(resample(Volume(measured.movedim(0, -1).contiguous().numpy(), affine), grid)).movedim(-1, 0)


def rows_of(case: Mapping[Any, Any], networks: Networks, slices: int) -> list[dict[str, Any]]:
    """PSNR and SSIM of a case, for each trial and way."""
    pair = LoadPaird(None)(case)
    chosen = middle(pair["label"].shape[-1], slices)
    truth, references = (torch.as_tensor(pair[key])[0, ..., chosen].movedim(-1, 0).contiguous() for key in ("label", "reference"))
    rows = []
    for trial in TRIALS:
        for way, made in ways(trial, truth, references, networks).items():
            scores = slice_sums(made.movedim(0, -1), truth.movedim(0, -1)).scores()
            rows.append({"case": case["case"], "acquisition": trial.name, "way": way, "psnr": scores["psnr"], "ssim": scores["ssim"]})
    return rows


def kept_rows(output: Path, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows that an earlier command measured in the same way."""
    if not (output / TABLE).is_file() or read_record(output / RECORD) != wanted:
        return []
    return [{**row, "psnr": float(row["psnr"]), "ssim": float(row["ssim"])} for row in read_table(output / TABLE)]


def table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """The means over the cases as a table in Markdown."""
    headings = [*WAYS, "gain"]
    lines = [caption, "", f"| acquisition | {' | '.join(headings)} |", f"|{' --- |' * (len(headings) + 1)}"]
    for trial in TRIALS:
        psnr = {way: np.mean(found) for way in WAYS if (found := _psnr(rows, trial.name, way))}
        best = psnr.get("any acquisition", psnr.get("one scale"))
        cells = [f"{psnr[way]:.2f}" if way in psnr else "-" for way in WAYS]
        gain = "-" if best is None else f"{best - psnr['interpolated']:+.2f}"
        lines.append(f"| {trial.name} | {' | '.join(cells)} | {gain} |")
    return "\n".join(lines) + "\n"


def _psnr(rows: Sequence[Mapping[str, Any]], name: str, way: str) -> list[float]:
    return [row["psnr"] for row in rows if (row["acquisition"], row["way"]) == (name, way)]


def main() -> int:
    """Parse, measure, write."""
    options = _parser().parse_args()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
    try:
        networks = Networks.load(options.model, options.tta)
        cases = load_datalist(dataset_folder(options.data, options.output), options.section)
        wanted = {"model": options.model, "weights": networks.files, "section": options.section, "slices": options.slices, "seed": SEED}
        wanted["trials"] = [trial.name for trial in TRIALS]
        rows = kept_rows(options.output, wanted)
        text = (options.output / PAGE).read_text(encoding="utf-8") if rows else ""
        for case in track(cases, "pairs", console=console, transient=True, disable=not console.is_terminal):
            if any(row["case"] == case["case"] for row in rows):
                continue
            rows += rows_of(case, networks, options.slices)
            found = len({row["case"] for row in rows})
            text = table(
                rows,
                f"PSNR in dB, mean of {found} pairs of {len(cases)} ({options.section}), {options.slices} middle slices each; gain of "
                f"`{options.model}` over the interpolated target; rows x columns.",
            )
            write_files(
                {
                    options.output / PAGE: text.encode(),
                    options.output / TABLE: table_bytes(rows),
                    options.output / RECORD: json_bytes(wanted),
                }
            )
            if not console.is_terminal:
                console.print(f"[{found}/{len(cases)}] {case['case']}", markup=False, highlight=False)
    except Fault as fault:
        sys.stderr.write(f"ERROR {fault}\n")
        return fault.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return INTERRUPTED
    sys.stdout.write(text)
    console.print(f"wrote {options.output}/{PAGE}, {TABLE} and {RECORD}", markup=False, highlight=False, soft_wrap=True)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=folder_option, required=True, help="folder with datalist.json, or a copy of the open MS data")
    add("--output", type=folder_option, required=True, help="folder for acquisitions.md, .csv and .json")
    add("--model", default="small", help="correspondence, small, hftn, or a .safetensors file (small)")
    add("--section", choices=get_args(Section), default="validation", help="cases that are scored (validation)")
    add("--slices", type=int, default=1, help="slices from the middle of each volume (1)")
    add("--tta", type=int, help="test-time augmentation: 1, 2, 4 or 8 (4 for correspondence, else 1)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
