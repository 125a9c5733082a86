"""The files of a result: the volume, its record and its picture, all three or none."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hftn_sr import __version__
from hftn_sr.degradation import in_plane_first
from hftn_sr.inference.case import Case, RunOptions, side_files
from hftn_sr.inference.pair import PreparedPair, restore_volume
from hftn_sr.report import NOTICE, Panel, busiest_slice, picture, shown
from hftn_sr.volumes.files import json_bytes, sha256_of, write_files
from hftn_sr.volumes.nifti import nifti_bytes
from hftn_sr.volumes.volume import Volume
from hftn_sr.weights import Model

__all__ = ["fingerprint", "own_record", "pair_record", "save_result"]


def save_result(
    case: Case, options: RunOptions, pair: PreparedPair, pred: torch.Tensor, model: Model, seconds: dict[str, float]
) -> dict[str, Any]:
    """Write the record, the picture and, last, the volume; all three or none.

    Args:
        case: where to.
        options: what was asked for.
        pair: what the network was given.
        pred: (H, W, D), what it gave.
        model: whose network it was.
        seconds: wall time of the steps before, for the record.

    Returns:
        the record.

    Raises:
        Fault: the output of the network is not finite, or a file cannot be written.
    """
    started = time.monotonic()
    volume, residual = restore_volume(pair, pred, options.data_consistency)
    content = nifti_bytes(volume, f"hftn-sr {__version__} {model.name}; research use only", case.suffix == ".nii.gz")
    record = pair_record(case, options, pair, model)
    record["output"] = {"file": case.output.name, "sha256": hashlib.sha256(content).hexdigest(), "shape": list(volume.data.shape)}
    record["data_consistency"] = {"applied": options.data_consistency, "residual": float(f"{residual:.4g}")}
    side_file, preview = side_files(case.output)
    picture_of_it = _preview(pair, volume, model) if options.preview else b""
    taken = {**seconds, "restore_and_save": time.monotonic() - started}
    record["seconds"] = {step: round(value, 2) for step, value in taken.items()}
    # The record goes first: it tells a later run whose the picture is, should this one be killed between the two.
    files = {side_file: json_bytes(record)} | ({preview: picture_of_it} if options.preview else {}) | {case.output: content}
    outdated = not options.preview and bool(own_record(side_file))  # a picture of the result that is replaced
    write_files(files)
    if outdated:
        preview.unlink(missing_ok=True)
    return record


def fingerprint(case: Case, options: RunOptions, target: str, reference: str, model: Model) -> dict[str, Any]:
    """All that the voxels of a result depend on: hashes of the two images and the model, and the options."""
    chosen = asdict(case.pair_options(options.pair))
    chosen["reference_transform"] = sha256_of(case.transform) if case.transform else None
    return {
        "version": __version__,
        "target": target,
        "reference": reference,
        "model": model.sha256,
        "options": {**chosen, "data_consistency": options.data_consistency, "runtime": options.runtime},
    }


def pair_record(case: Case, options: RunOptions, pair: PreparedPair, model: Model) -> dict[str, Any]:
    """The part of the record that stands before the network has run."""
    return {
        "notice": NOTICE,
        "software": {name: _version(name) for name in ("hftn_sr", "torch", "monai", "itk", "nibabel", "numpy")}
        | {"python": platform.python_version()},
        "case": case.name,
        "target": {"file": case.target.name, "sha256": pair.target.sha256},
        "reference": {"file": case.reference.name, "sha256": pair.reference_sha256},
        "model": {"name": model.name, "file": model.path.name, "sha256": model.sha256, "training": model.record},
        "device": options.device,
        "runtime": options.runtime,
        "threads": torch.get_num_threads(),
        **pair.record,
        "warnings": list(pair.warnings),
        "fingerprint": fingerprint(case, options, pair.target.sha256, pair.reference_sha256, model),
    }


def _version(name: str) -> str:
    if name == "hftn_sr":
        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _preview(pair: PreparedPair, volume: Volume, model: Model) -> bytes:
    """Target, reference, result, and what the network added, on the slice with the most signal."""

    def on_grid(slices: torch.Tensor) -> Volume:
        return volume.on(pair.grid, in_plane_first(slices, pair.grid.slice_axes(pair.through_plane)).numpy())

    index = busiest_slice(volume, pair.through_plane)
    zero_filled = on_grid(pair.image[0].movedim(-1, 0) * pair.unit)
    views = [shown(each, pair.through_plane, index) for each in (zero_filled, on_grid(pair.reference), volume)]
    added = views[2] - views[0]
    bright, bright_reference = (float(np.percentile(view, 99.5)) for view in views[:2])
    strong = max(float(np.percentile(np.abs(added), 99.5)), 1e-6 * pair.unit)
    panels = [
        Panel("target, zero-filled", views[0], (0, bright)),
        Panel("reference on its grid", views[1], (0, max(bright_reference, 1e-6))),
        Panel(f"super-resolved ({model.name})", views[2], (0, bright)),
        Panel("what the network added", added, (-strong, strong), signed=True),
    ]
    return picture(panels, f"slice {index} of {volume.data.shape[pair.through_plane]}, scale {pair.scale}")


def own_record(side_file: Path) -> dict[str, Any]:
    """The record that this program wrote there; empty if there is none or it is of another program."""
    try:
        record = json.loads(side_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    software = record.get("software") if isinstance(record, dict) else None
    return record if isinstance(software, dict) and "hftn_sr" in software else {}
