"""The files of a result: volume, record and picture, all three or none."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hftn_sr._version import NOTICE, __version__
from hftn_sr.errors import Fault, notes_among, warnings_among
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.case import RECORD_KEY, Case, side_files
from hftn_sr.inference.maps import maps_of, write_maps
from hftn_sr.inference.memory import measured_peak
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.pair import PreparedPair
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.through_plane import ThickSlices
from hftn_sr.networks.weights import Model
from hftn_sr.pictures import Panel, change, picture, shown, white
from hftn_sr.volumes.dicom import dicom_slices, sha256_of_all
from hftn_sr.volumes.dicom_writing import Derivation, dicom_files, series_uid
from hftn_sr.volumes.files import NewFiles, json_bytes, sha256_of
from hftn_sr.volumes.nifti import nifti_chunks
from hftn_sr.volumes.scan_matrix import beside, said_of_scan
from hftn_sr.volumes.scratch import Scratch, existing_folder
from hftn_sr.volumes.simulation import in_plane_first, in_plane_last
from hftn_sr.volumes.volume import Volume

__all__ = ["Saved", "Thinner", "fingerprint", "own_record", "pair_record", "save_result"]


@dataclass(frozen=True)
class Saved:
    """A result that stands on the disk.

    Args:
        record: content of the side file.
        volume: voxels of the result, in memory or mapped into it.
    """

    record: dict[str, Any]
    volume: Volume


def save_result(
    case: Case,
    options: RunOptions,
    pair: PreparedPair,
    preds: Iterable[torch.Tensor],
    model: Model,
    seconds: dict[str, float],
    thinner: Thinner | None = None,
) -> Saved:
    """Write the record, the picture, further volumes that were asked for and, last, the result; all of them or none.

    Args:
        case: case whose output is written.
        options: options of the run.
        pair: the network's input.
        preds: the network's output, slice by slice, each (H, W).
        model: the network's model, for the record.
        seconds: wall time of the steps before, for the record.
        thinner: what makes slices thinner, where the pair calls for it.

    Raises:
        Fault: the output of the network is not finite, or a file cannot be written.
    """
    started = time.monotonic()
    result = Scratch(pair.grid.shape, pair.through_plane, existing_folder(case.output))
    consistent = options.data_consistency
    restored = _restored(pair, preds, consistent, result)
    slices, residual_of_slices = result, None
    if pair.thick and thinner:
        result = thinner.apply(pair.thick, slices.volume, existing_folder(case.output))
        residual_of_slices = pair.thick.residual(result.volume, slices.volume)
    volume = pair.target.on(pair.final.grid, result.volume)
    side_file, preview = side_files(case.output)
    models = (model, thinner.model if thinner else None)
    with NewFiles() as files:
        written = _write_image(files, case, options, pair, *models, volume, result)
        if options.preview:
            files.write(preview, [_preview(pair, volume, model, restored.busiest)])
        before = time.monotonic()
        maps = write_maps(files, case.output, options, pair, slices, result, models)
        of_maps = time.monotonic() - before
        record = pair_record(case, options, pair, *models) | maps.record
        for kind, of in (("warnings", warnings_among(maps.findings)), ("notes", notes_among(maps.findings))):
            record[kind] += of
        record["output"] = {"file": case.output.name, "shape": list(volume.data.shape), **written}
        record["data_consistency"] = {
            "applied": consistent,
            "residual": float(f"{restored.residual:.4g}"),
            "residual_of_network": float(f"{restored.residual_of_network:.4g}"),
            **({} if residual_of_slices is None else {"residual_of_slices": float(f"{residual_of_slices:.4g}")}),
        }
        if "memory" in record and (peak := measured_peak()):
            record["memory"] = {**record["memory"], "peak_measured_gb": round(peak / 1e9, 3)}
        rest = time.monotonic() - started - restored.waited - of_maps
        taken = {**seconds, "network": seconds.get("network", 0) + restored.waited, "restore_and_save": rest}
        taken |= {"maps": of_maps} if maps.paths else {}
        record["seconds"] = {step: round(value, 2) for step, value in taken.items()}
        old = own_record(side_file)  # of the result that is replaced, with its picture and further volumes
        outdated = {*([preview] if old else []), *maps_of(old, case.output).values()}
        files.write(side_file, [json_bytes({**case.sidecar(pair.grid), RECORD_KEY: record} if case.sidecar else record)])
        # The record goes first: should this run be killed between the two, a later one sees in it whose the picture is.
        placed = [side_file, *([preview] if options.preview else []), *maps.paths, case.output]
        files.into_place(placed)
    for path in outdated - set(placed):
        path.unlink(missing_ok=True)
    return Saved(record, volume)


@dataclass(frozen=True)
class Thinner:
    """How slices are made thinner.

    Args:
        model: weights that serve any acquisition.
        network: the model's network as it is applied.
        device: of the network.
        reporter: hears of the planes.
    """

    model: Model
    network: nn.Module
    device: str
    reporter: Reporter

    def apply(self, thick: ThickSlices, slices: NDArray[np.float32], folder: Path) -> Scratch:
        """See `ThickSlices.thinner`."""
        return thick.thinner(slices, self.network, self.device, folder, self.reporter)


@dataclass(frozen=True)
class _Restored:
    """Measures of a complete result.

    Args:
        residual: relative L2 distance between the result's low band and the target.
        residual_of_network: the same distance for the network's output, before the measured band was put back.
        busiest: index of the slice with the most signal.
        waited: seconds that the network took.
    """

    residual: float
    residual_of_network: float
    busiest: int
    waited: float


def _restored(pair: PreparedPair, preds: Iterable[torch.Tensor], data_consistency: bool, result: Scratch) -> _Restored:
    """Fill `result` with the network's slices in the target's unit, with the measured band of k-space put back if asked."""
    slices = in_plane_last(torch.from_numpy(result.volume), pair.axes)
    off = off_network = norm = waited = 0.0
    signal = []
    before = time.monotonic()
    for index, pred in enumerate(preds):
        waited += time.monotonic() - before
        image, measured = pred.double(), pair.measured(index).double()
        if not torch.isfinite(image).all():
            raise Fault(pair.target.path, "the network's output is not finite", "check the intensities of both images and the model")
        off_network += _squared_distance(image, measured, pair.acquired)
        if data_consistency:
            image = pair.acquired.plane.project(image, measured)
        slices[index] = (image * pair.unit).float()
        off += _squared_distance(slices[index].double() / pair.unit, measured, pair.acquired)
        norm += float(measured.square().sum())
        signal.append(float(slices[index].clamp(min=0).mean()))
        for scratch in filter(None, (result, pair.on_grid)):
            scratch.release()
        before = time.monotonic()
    norm = max(norm, np.finfo(float).tiny)
    return _Restored((off / norm) ** 0.5, (off_network / norm) ** 0.5, int(np.argmax(signal)), waited)


def _squared_distance(image: torch.Tensor, measured: torch.Tensor, acquired: Acquired) -> float:
    """Squared L2 distance between what the scan gives of `image` (H, W) and `measured` (h, w)."""
    return float((acquired.plane.simulate(image) - measured).square().sum())


def _write_image(
    files: NewFiles,
    case: Case,
    options: RunOptions,
    pair: PreparedPair,
    model: Model,
    of_slices: Model | None,
    volume: Volume,
    result: Scratch,
) -> dict[str, Any]:
    """Write the image, and give what the record says of its files."""
    if options.output_format == "nifti":
        chunks = nifti_chunks(volume, f"hftn-sr {__version__} {model.name}; research use only", case.suffix == ".nii.gz")
        return {"sha256": files.write(case.output, _releasing(chunks, result))}
    slices = dicom_slices(case.target, options.pair.read.frame)
    voxel = " x ".join(f"{size:.3g}" for size in volume.grid.spacing)
    using = "with a reference of another contrast" if pair.on_grid else "without a reference"
    text = (
        f"Super-resolved to {voxel} mm ({pair.final.describe()}) {using} by hftn-sr {__version__}, weights {model.name} "
        f"sha256 {model.sha256}{f', of slices {of_slices.name} sha256 {of_slices.sha256}' if of_slices else ''}. {NOTICE}"
    )
    key = json.dumps(fingerprint(case, options, pair.target.sha256, pair.reference_sha256, model, of_slices), sort_keys=True)
    derivation = Derivation(text, key)
    names: list[str] = []
    digests = files.write_folder(case.output, _noting(names, dicom_files(volume, slices, derivation), result))
    return {"sha256": sha256_of_all(digests), "files": names, "format": "dicom", "series": series_uid(derivation, slices[0])}


def _noting(names: list[str], files: Iterable[tuple[str, bytes]], scratch: Scratch) -> Iterator[tuple[str, bytes]]:
    for name, content in files:
        names.append(name)
        yield name, content
        scratch.release()


def _releasing(chunks: Iterable[bytes], scratch: Scratch) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        scratch.release()


def fingerprint(
    case: Case, options: RunOptions, target: str, reference: str | None, model: Model, thinner: Model | None = None
) -> dict[str, Any]:
    """Everything that the voxels of a result depend on: hashes of the two images and the model, and the options."""
    chosen = asdict(case.pair_options(options.pair))
    del chosen["placing"]  # words
    chosen["reference_transform"] = sha256_of(case.transform) if case.transform else None
    found = {
        "version": __version__,
        "target": target,
        "scan": said_of_scan(beside(case.target) if case.scan is None else case.scan),
        "reference": reference,
        "model": model.sha256,
        **({"model_of_slices": thinner.sha256} if thinner else {}),
        "options": {
            **chosen,
            "data_consistency": options.data_consistency,
            "precision": options.precision,
            "tta": options.tta,
        },
    }
    read_back: dict[str, Any] = json.loads(json.dumps(found))  # to be compared with one that a record holds
    return read_back


def pair_record(case: Case, options: RunOptions, pair: PreparedPair, model: Model, thinner: Model | None = None) -> dict[str, Any]:
    """The part of the record that is known before the network runs."""
    return {
        "notice": NOTICE,
        "software": {name: _version(name) for name in ("hftn_sr", "torch", "monai", "itk", "nibabel", "numpy")}
        | {"python": platform.python_version()},
        "case": case.name,
        "target": {"file": case.target.name, "sha256": pair.target.sha256},
        "reference": {
            "file": case.reference.name if case.reference else None,
            "sha256": pair.reference_sha256,
            "used": pair.on_grid is not None,
        },
        "model": _of_model(model),
        **({"model_of_slices": _of_model(thinner)} if thinner else {}),
        "device": options.device,
        "precision": options.precision,
        "tta": options.tta,
        "threads": torch.get_num_threads(),
        **pair.record,
        "warnings": list(pair.warnings),
        "notes": list(pair.notes),
        "fingerprint": fingerprint(case, options, pair.target.sha256, pair.reference_sha256, model, thinner),
    }


def _of_model(model: Model) -> dict[str, Any]:
    """Name and hash, and how the weights were trained; of those that they began with the hash alone, since all of it fills 60 kB."""
    training = dict(model.record)
    if isinstance(start := training.get("start"), dict):
        training["start"] = {"sha256": start.get("sha256")}
    return {"name": model.name, "scale": model.scale, "file": model.path.name, "sha256": model.sha256, "training": training}


def _version(name: str) -> str:
    if name == "hftn_sr":
        return __version__
    if name == "torch":
        return str(torch.__version__)  # with its build, +cpu or +cu130, which the metadata of the package may lack
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _preview(pair: PreparedPair, volume: Volume, model: Model, index: int) -> bytes:
    """PNG of target, reference, result and the detail that the network added, on one slice."""
    if pair.thick:
        return _preview_of_planes(pair.thick, pair.target, volume, model)
    slices = in_plane_last(torch.from_numpy(volume.data), pair.axes)
    flat = (pair.slice(index)[0] * pair.unit, pair.reference(index), slices[index])
    low, reference, ours = (
        shown(volume.on(pair.grid, in_plane_first(view[None], pair.axes).numpy()), pair.through_plane, 0) for view in flat
    )
    limits = (0.0, white(low))
    panels = [
        Panel("target, zero-filled", low, limits),
        Panel("reference on its grid" if pair.on_grid else "no reference", reference, (0.0, white(reference))),
        Panel(f"super-resolved ({model.name})", ours, limits),
        change("what the network added", ours - low, float(pair.target.data.max())),
    ]
    heading = f"slice {index + 1} of {volume.data.shape[pair.through_plane]}, {pair.acquired.describe()}"
    return picture(panels, heading, unit="% of the target's maximum")


def _preview_of_planes(thick: ThickSlices, target: Volume, volume: Volume, model: Model) -> bytes:
    """The same on a plane that holds the slice axis, through the middle."""
    fixed = thick.acquired.axes[1]
    index = volume.data.shape[fixed] // 2
    start = (index if fixed == 0 else 0, index if fixed == 1 else 0, index if fixed == 2 else 0)
    low, other, ours = (
        shown(volume.on(volume.grid.cropped(start, data.shape), data), fixed, 0) for data in thick.views(volume.data, fixed, index)
    )
    limits = (0.0, white(low))
    panels = [
        Panel("thick slices, interpolated", low, limits),
        Panel("reference on its grid" if thick.reference else "no reference", other, (0.0, white(other))),
        Panel(f"super-resolved ({model.name})", ours, limits),
        change("what the network added", ours - low, float(target.data.max())),
    ]
    return picture(panels, f"plane across the slices, {thick.acquired.describe()}", unit="% of the target's maximum")


def own_record(side_file: Path) -> dict[str, Any]:
    """The record that this program wrote there; empty if there is none or another program wrote it."""
    try:
        record = json.loads(side_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if isinstance(record, dict) and RECORD_KEY in record:
        record = record[RECORD_KEY]
    software = record.get("software") if isinstance(record, dict) else None
    return record if isinstance(software, dict) and "hftn_sr" in software else {}
