"""One case from its files to its files: the volume, its record and its picture, or nothing at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout

from hftn_sr import __version__
from hftn_sr.errors import Fault
from hftn_sr.inference.pair import PairOptions, PreparedPair, apply_network, prepare_pair, restore_volume
from hftn_sr.report import NOTICE, Panel, busiest_slice, picture, shown
from hftn_sr.volumes.files import check_writable, json_bytes, remove_parts, sha256_of, write_files
from hftn_sr.volumes.nifti import nifti_bytes
from hftn_sr.volumes.volume import Volume
from hftn_sr.weights import Model

__all__ = ["Case", "Outcome", "Overwrite", "RunOptions", "run_case", "save_result", "side_files"]

Overwrite = Literal["never", "stale", "always"]
Status = Literal["done", "skipped", "planned", "failed"]

SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Case:
    """A target, its reference and where the result goes.

    Args:
        name: for messages and the summary.
        target: low-resolution NIfTI file.
        reference: high-resolution NIfTI file of another contrast.
        output: NIfTI file to write.
        transform: ITK file that maps target points to reference points; None for none.
    """

    name: str
    target: Path
    reference: Path
    output: Path
    transform: Path | None = None


@dataclass(frozen=True)
class RunOptions:
    """How cases are run.

    Args:
        model: `base`, `small` or a weights file.
        device: a torch device name.
        overwrite: what happens to an output that exists: `never` touch it; redo it if `stale`, that is if inputs, model or options are no
            longer those of its record; `always` redo it.
        dry_run: check and report, write nothing.
        data_consistency: put the measured band of k-space back into the result.
        preview: write a picture beside the result.
        pair: how files become a pair.
    """

    model: str = "base"
    device: str = "cpu"
    overwrite: Overwrite = "never"
    dry_run: bool = False
    data_consistency: bool = False
    preview: bool = True
    pair: PairOptions = field(default_factory=PairOptions)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        case: its name.
        status: `done`, `skipped` (the output exists), `planned` (dry run) or `failed`.
        output: the NIfTI file.
        message: why it was skipped or failed; what a dry run would do.
        warnings: what the user must know.
        record: content of the side file; empty unless done or planned.
        seconds: wall time.
    """

    case: str
    status: Status
    output: Path
    message: str = ""
    warnings: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def side_files(output: Path) -> tuple[Path, Path]:
    """The record (.json) and the picture (_preview.png) that belong to an output."""
    stem = output.name[: -len(_suffix(output))]
    return output.with_name(f"{stem}.json"), output.with_name(f"{stem}_preview.png")


def run_case(
    case: Case,
    options: RunOptions,
    model: Callable[[int], Model],
    slices: Callable[[int], None] | None = None,
    each: Callable[[int], None] | None = None,
) -> Outcome:
    """Super-resolve one case.

    The result's NIfTI file is written last: where it stands, its record and picture are complete.

    Args:
        case: what to do.
        options: how.
        model: gives the model for a scale.
        slices: called with the number of slices before the network starts.
        each: called with the number of slices just finished.

    Raises:
        Fault: an input cannot be used or the output cannot be written; nothing was changed then.
    """
    started = time.monotonic()
    _check_output(case, options)
    if options.dry_run:
        return _planned(case, options, model, started)
    check_writable(case.output)
    with _alone(case.output):
        reason = _reason_to_skip(case, options, model)
        if reason:
            return Outcome(case.name, "skipped", case.output, reason, seconds=time.monotonic() - started)
        return _run(case, options, model, started, slices, each)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep other runs off this output, and clear away what a killed one left. The lock dies with its process."""
    path = output.with_name(f".{output.name[:100]}.lock")
    try:
        with FileLock(path, timeout=0):
            for written in (output, *side_files(output)):
                remove_parts(written)
            try:
                yield
            finally:
                with suppress(OSError):  # Windows does not remove a file that is open; it stays, unlocked
                    path.unlink()
    except Timeout:
        raise Fault(output, "another run is writing this file", "wait for it to end") from None


def _run(
    case: Case,
    options: RunOptions,
    model: Callable[[int], Model],
    started: float,
    slices: Callable[[int], None] | None,
    each: Callable[[int], None] | None,
) -> Outcome:
    pair = prepare_pair(case.target, case.reference, _pair_options(case, options))
    used = model(pair.scale)
    prepared = time.monotonic()
    if slices:
        slices(pair.image.shape[-1])
    pred = apply_network(used.network, pair, options.device, each)
    seconds = {"read_and_place": prepared - started, "network": time.monotonic() - prepared}
    record = save_result(case, options, pair, pred, used, seconds)
    return Outcome(case.name, "done", case.output, "", pair.warnings, record, time.monotonic() - started)


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
    content = nifti_bytes(volume, f"hftn-sr {__version__} {model.name}; research use only", _suffix(case.output) == ".nii.gz")
    record = _record(case, options, pair, model)
    record["output"] = {"file": case.output.name, "sha256": hashlib.sha256(content).hexdigest(), "shape": list(volume.data.shape)}
    record["data_consistency"] = {"applied": options.data_consistency, "residual": float(f"{residual:.4g}")}
    side_file, preview = side_files(case.output)
    picture_of_it = _preview(pair, volume, model) if options.preview else b""
    taken = {**seconds, "restore_and_save": time.monotonic() - started}
    record["seconds"] = {step: round(value, 2) for step, value in taken.items()}
    # The record goes first: it tells a later run whose the picture is, should this one be killed between the two.
    files = {side_file: json_bytes(record)} | ({preview: picture_of_it} if options.preview else {}) | {case.output: content}
    write_files(files)
    return record


def _planned(case: Case, options: RunOptions, model: Callable[[int], Model], started: float) -> Outcome:
    reason = _reason_to_skip(case, options, model)
    if reason:
        return Outcome(case.name, "skipped", case.output, reason, seconds=time.monotonic() - started)
    pair = prepare_pair(case.target, case.reference, _pair_options(case, options))
    record = _record(case, options, pair, model(pair.scale))
    size = " x ".join(str(size) for size in pair.grid.shape)
    voxel = " x ".join(f"{size:.3g}" for size in pair.grid.spacing)
    message = f"would write {size} voxels of {voxel} mm at scale {pair.scale}"
    return Outcome(case.name, "planned", case.output, message, pair.warnings, record, time.monotonic() - started)


def _check_output(case: Case, options: RunOptions) -> None:
    if not case.output.name.endswith(SUFFIXES) or case.output.name in SUFFIXES:
        raise Fault(case.output, "not a NIfTI file name", "give --output a name ending in .nii.gz or .nii")
    if case.output.is_dir():
        raise Fault(case.output, "is a folder, a file name is needed", "give --output a file name ending in .nii.gz")
    inputs = [path for path in (case.target, case.reference, case.transform) if path is not None]
    written = [case.output, *side_files(case.output)]
    for path in written:
        if any(_same(path, source) for source in inputs):
            raise Fault(path, "is an input, it would be overwritten", "choose another --output")
    if options.overwrite == "always":
        return
    side_file, preview = side_files(case.output)
    if (side_file.exists() and not _own_record(side_file)) or (preview.exists() and not side_file.exists()):
        other = side_file if side_file.exists() else preview
        raise Fault(other, "stands where this run would write, and is not of this program", "choose another --output or --overwrite always")


def _same(path: Path, other: Path) -> bool:
    return path.absolute() == other.absolute() or (path.exists() and other.exists() and path.samefile(other))


def _reason_to_skip(case: Case, options: RunOptions, model: Callable[[int], Model]) -> str:
    if not os.path.lexists(case.output) or options.overwrite == "always":
        return ""
    if options.overwrite == "never":
        return "the output exists (--overwrite stale or always redoes it)"
    record = _own_record(side_files(case.output)[0])
    if not record:
        return ""
    try:
        used = model(record["scale"])
        wanted = _fingerprint(case, options, sha256_of(case.target), sha256_of(case.reference), used)
        up_to_date = record["output"]["sha256"] == sha256_of(case.output) and record["fingerprint"] == wanted
    except (OSError, KeyError, TypeError, Fault):  # whatever is wrong shows when the case is redone
        return ""
    return "the output is up to date" if up_to_date else ""


def _own_record(side_file: Path) -> dict[str, Any]:
    try:
        record = json.loads(side_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    software = record.get("software") if isinstance(record, dict) else None
    return record if isinstance(software, dict) and "hftn_sr" in software else {}


def _pair_options(case: Case, options: RunOptions) -> PairOptions:
    return PairOptions(**{**vars(options.pair), "reference_transform": case.transform})


def _fingerprint(case: Case, options: RunOptions, target: str, reference: str, model: Model) -> dict[str, Any]:
    """All that the voxels depend on."""
    chosen = asdict(_pair_options(case, options))
    chosen["reference_transform"] = sha256_of(case.transform) if case.transform else None
    return {
        "version": __version__,
        "target": target,
        "reference": reference,
        "model": model.sha256,
        "options": {**chosen, "data_consistency": options.data_consistency},
    }


def _record(case: Case, options: RunOptions, pair: PreparedPair, model: Model) -> dict[str, Any]:
    reference_sha256 = sha256_of(case.reference)
    return {
        "notice": NOTICE,
        "software": {name: _version(name) for name in ("hftn_sr", "torch", "monai", "itk", "nibabel", "numpy")}
        | {"python": platform.python_version()},
        "case": case.name,
        "target": {"file": case.target.name, "sha256": pair.target.sha256},
        "reference": {"file": case.reference.name, "sha256": reference_sha256},
        "model": {"name": model.name, "file": model.path.name, "sha256": model.sha256, "training": model.record},
        "device": options.device,
        "threads": torch.get_num_threads(),
        **pair.record,
        "warnings": list(pair.warnings),
        "fingerprint": _fingerprint(case, options, pair.target.sha256, reference_sha256, model),
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
        return volume.on(pair.grid, slices.movedim(0, pair.through_plane).numpy())

    index = busiest_slice(volume, pair.through_plane)
    zero_filled = on_grid(pair.image[0].movedim(-1, 0) * pair.unit)
    views = [shown(each, pair.through_plane, index) for each in (zero_filled, on_grid(pair.reference), volume)]
    added = views[2] - views[0]
    bright, bright_reference = (float(np.percentile(view, 99.5)) for view in views[:2])
    strong = max(float(np.percentile(np.abs(added), 99.5)), 1e-6 * pair.unit)
    panels = [
        Panel("target, zero-filled", views[0], (0, bright)),
        Panel("reference on its grid", views[1], (0, max(bright_reference, 1e-6))),
        Panel(f"HFTN-SR ({model.name})", views[2], (0, bright)),
        Panel("what the network added", added, (-strong, strong), signed=True),
    ]
    return picture(panels, f"slice {index} of {volume.data.shape[pair.through_plane]}, scale {pair.scale}")


def _suffix(path: Path) -> str:
    return next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")
