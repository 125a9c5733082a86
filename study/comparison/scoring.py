"""One row scored: whole test slices, float32, one after another, as the evaluation workflow does it."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import SliceInferer
from numpy.typing import NDArray

from comparison.recording import read_table, table_bytes
from comparison.rows import Row
from comparison.settings import read_record
from hftn_sr.kspace import Decomposition
from hftn_sr.networks import build_network, channels_last
from hftn_sr.networks.weights import load_weights
from hftn_sr.scoring.metrics import SliceSums, slice_sums
from hftn_sr.training.protocols import Protocol, restore
from hftn_sr.training.transforms import LoadPaird
from hftn_sr.volumes.files import json_bytes, write_files

__all__ = ["Predict", "Scored", "View", "middle", "predictor", "score_row", "sums_columns", "sums_from"]

SLICES, VIEW, RECORD = "slices.csv", "view.npz", "scores.json"
WITHOUT = "without_data_consistency_"  # before the columns of the network's output as it is

Image = NDArray[np.float32]
Predict = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class View:
    """One slice (H, W) for a picture, in intensities.

    Args:
        case: it belongs to.
        index: of the slice, among those that were scored.
        pred: what the method made of it.
        truth: what it should be.
        reference: of the other contrast, in the network's unit.
    """

    case: str
    index: int
    pred: Image
    truth: Image
    reference: Image


@dataclass(frozen=True)
class Scored:
    """What a row's network did on the test cases.

    Args:
        cases: the slices of each case, with data consistency as the protocol has it.
        without_data_consistency: the same, of the network's output as it is.
        view: of the first case, the slice with the most signal.
    """

    cases: Mapping[str, SliceSums]
    without_data_consistency: Mapping[str, SliceSums]
    view: View


def score_row(
    folder: Path,
    row: Row,
    weights: Path | None,
    cases: Sequence[Mapping[Hashable, Any]],
    slices: int | None,
    protocol: Protocol,
    decomposition: Decomposition,
    wanted: Mapping[str, Any],
    told: Callable[[int], None] = lambda done: None,
) -> Scored:
    """Score a row, or read what an earlier command scored in the same way.

    Args:
        folder: of the run.
        row: method, scale and options.
        weights: of its network; None for interpolation.
        cases: of the datalist.
        slices: of each volume, from its middle; None for all.
        protocol: how the test is made.
        decomposition: how the network is fed, as in its training.
        wanted: what the scores depend on, JSON.
        told: called with the cases that are done.
    """
    if read_record(folder / RECORD) == wanted:
        return _read(folder)
    predict = predictor(row, weights)  # without data consistency
    load = LoadPaird(row.scale)
    sums: dict[str, SliceSums] = {}
    without: dict[str, SliceSums] = {}
    view: View | None = None
    for case in cases:
        pair = load(case)
        chosen = middle(pair["label"].shape[-1], slices)
        prepared = protocol.prepare(pair["label"][..., chosen], pair["reference"][..., chosen], row.scale, decomposition)
        given = predict(prepared.image)
        finished = protocol.finished(given, prepared.image, row.scale) if weights else given
        given, pred, truth = (restore(image, prepared.mean, prepared.std)[0] for image in (given, finished, prepared.label))
        sums[case["case"]], without[case["case"]] = slice_sums(pred, truth), slice_sums(given, truth)
        view = view or _view(case["case"], pred, truth, prepared.image[1:].sum(0))
        told(len(sums))
    if view is None:
        raise ValueError("expected at least one case, got none")
    _write(folder, Scored(sums, without, view), wanted)
    return _read(folder)


def predictor(row: Row, weights: Path | None, protocol: Protocol | None = None) -> Predict:
    """The row's network as a function from whole slices (3, H, W, D) to (1, H, W, D), one slice after another, on a GPU where there is one.

    Args:
        row: method, scale and options.
        weights: of its network; None for interpolation.
        protocol: as which the network's output is finished; None leaves it as it is. That of interpolation is left in either case.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build_network(row.method, row.scale, row.options)
    if weights is not None:
        load_weights(network, weights)
    network = channels_last(network.to(device)).eval().requires_grad_(False)
    inferer = SliceInferer(roi_size=[-1, -1], spatial_dim=2, sw_batch_size=1, device=torch.device("cpu"), sw_device=device)

    def predict(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = inferer(image[None].float(), network)
        return found[0].float()

    def finished(image: torch.Tensor) -> torch.Tensor:
        return protocol.finished(predict(image), image, row.scale) if protocol else predict(image)

    return finished if weights else predict


def middle(depth: int, count: int | None) -> slice:
    """The middle `count` of `depth` slices; all for None."""
    count = depth if count is None else min(count, depth)
    return slice((depth - count) // 2, (depth - count) // 2 + count)


def _view(case: str, pred: torch.Tensor, truth: torch.Tensor, reference: torch.Tensor) -> View:
    index = int(truth.clamp_min(0).sum((0, 1)).argmax())
    images = (image[..., index].numpy().astype(np.float32) for image in (pred, truth, reference))
    return View(case, index, *images)


def _write(folder: Path, scored: Scored, wanted: Mapping[str, Any]) -> None:
    """All three at once, what they depend on last."""
    rows = [
        {"case": case, "slice": index, **columns, **{WITHOUT + name: value for name, value in own.items()}}
        for case, sums in scored.cases.items()
        for index, (columns, own) in enumerate(zip(sums_columns(sums), sums_columns(scored.without_data_consistency[case]), strict=True))
    ]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **asdict(scored.view))
    write_files(
        {folder / SLICES: table_bytes(rows), folder / VIEW: buffer.getvalue(), folder / RECORD: json_bytes(dict(wanted))},
    )


def _read(folder: Path) -> Scored:
    """From the files, also where they were just written: a resumed comparison has the same figures to the last digit."""
    by_case: dict[str, list[dict[str, str]]] = {}
    for row in read_table(folder / SLICES):
        by_case.setdefault(row["case"], []).append(row)
    cases, without = ({case: sums_from(rows, prefix) for case, rows in by_case.items()} for prefix in ("", WITHOUT))
    with np.load(folder / VIEW) as stored:
        view = View(str(stored["case"]), int(stored["index"]), *(stored[key] for key in ("pred", "truth", "reference")))
    return Scored(cases, without, view)


def sums_columns(sums: SliceSums) -> list[dict[str, float]]:
    """The sums of a volume as one record for each slice."""
    return [
        {
            "squared_error": float(sums.squared_error[index]),
            "squared_truth": float(sums.squared_truth[index]),
            "ssim": float(sums.ssim[index]),
            "voxels": sums.voxels,
            "peak": sums.peak,
        }
        for index in range(len(sums.ssim))
    ]


def sums_from(rows: Sequence[Mapping[str, Any]], prefix: str = "") -> SliceSums:
    """The sums of a volume from the records of its slices, numbers or their text, whose names begin with `prefix`."""
    error, truth, ssim = (np.array([float(row[prefix + key]) for row in rows]) for key in ("squared_error", "squared_truth", "ssim"))
    return SliceSums(error, truth, ssim, int(rows[0][f"{prefix}voxels"]), float(rows[0][f"{prefix}peak"]))
