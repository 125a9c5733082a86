"""One case, from its input files to its output files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.case import SUFFIXES, Case, Outcome, map_files, side_files
from hftn_sr.inference.domain import with_domain
from hftn_sr.inference.maps import maps_of, maps_stand, wanted_maps
from hftn_sr.inference.memory import check_memory, reset_peak
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.pair import PreparedPair, apply_network, prepare_pair
from hftn_sr.inference.plan import plan_pair
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.result import Thinner, fingerprint, own_record, pair_record, save_result
from hftn_sr.inference.uncertainty import load_head
from hftn_sr.networks.precision import prepare_network
from hftn_sr.networks.weights import Model
from hftn_sr.volumes.dicom import is_dicom
from hftn_sr.volumes.files import alone, check_writable
from hftn_sr.volumes.reading import volume_sha256
from hftn_sr.volumes.scratch import check_space, disk_bytes, existing_folder

__all__ = ["remove_leftovers", "run_case"]

PARTING = 5.0  # seconds in which the system frees the lock of a process that was just killed


def run_case(
    case: Case, options: RunOptions, model: Callable[[int | None], Model], reporter: Reporter | None = None, patience: float = 0
) -> Outcome:
    """Super-resolve one case.

    The result's image is written last: where it stands, its record and picture are complete.

    Args:
        case: case to run.
        options: options of the run.
        model: function from a scale, or None for another loss of resolution, to its model.
        reporter: listener to the run's progress.
        patience: seconds to wait for another run that writes the same output.

    Raises:
        Fault: an input cannot be used or the output cannot be written; nothing was changed then.
    """
    started, reporter = time.monotonic(), reporter or Reporter()
    _check_names(case)
    if options.overwrite != "always" and (done := _in_other_format(case)):
        return _left_alone(replace(case, output=done), f"the result stands as {done.name}; another --output takes one in the other format")
    _check_output(case, options)
    if options.dry_run:
        return _planned(case, options, model, started, reporter)
    check_writable(case.output, folder=options.output_format == "dicom")
    with alone(case.output, *side_files(case.output), *map_files(case.output).values(), patience=patience):
        reason = _reason_to_skip(case, options, model)
        if reason:
            return _left_alone(case, reason)
        return _run(case, options, model, started, reporter)


def remove_leftovers(output: Path) -> None:
    """Remove the parts and the lock that a killed process left at an output, unless another one writes it."""
    with suppress(Fault, OSError), alone(output, *side_files(output), *map_files(output).values(), patience=PARTING):
        pass


@dataclass(frozen=True)
class _Prepared:
    """A case on the brink of its computation.

    Args:
        pair: the network's input.
        network: network as it is applied, with precision and test-time augmentation.
        model: model that the network is of.
        thinner: what makes slices thinner; None where they stay.
    """

    pair: PreparedPair
    network: nn.Module
    model: Model
    thinner: Thinner | None


def _run(case: Case, options: RunOptions, model: Callable[[int | None], Model], started: float, reporter: Reporter) -> Outcome:
    ready = _prepared(case, options, model, reporter)
    prepared = time.monotonic()
    preds = apply_network(ready.network, ready.pair, options.device, reporter)
    saved = save_result(case, options, ready.pair, preds, ready.model, {"read_and_place": prepared - started}, ready.thinner)
    warnings, notes = (tuple(saved.record[kind]) for kind in ("warnings", "notes"))
    outcome = Outcome(case.name, "done", case.output, "", warnings, saved.record, time.monotonic() - started, notes)
    reporter.saved(case, ready.pair.images(saved.volume))
    return outcome


def _prepared(case: Case, options: RunOptions, model: Callable[[int | None], Model], reporter: Reporter) -> _Prepared:
    chosen = case.pair_options(options.pair)
    plan = plan_pair(case.target, case.reference, chosen, case.scan)
    used, warnings = _serving(plan.acquired, model)
    trained_with = used.record.get("decomposition", "band")
    if trained_with != chosen.decomposition:
        finding = f"was trained with the decomposition {trained_with!r}, the pair is split by {chosen.decomposition!r}"
        raise Fault(used.path, finding, f"use a model trained with {chosen.decomposition!r}")
    reset_peak()
    network = prepare_network(used.network, options.precision, options.tta)
    thinner = None
    if plan.acquired.thick:
        of_slices = model(None)
        thinner = Thinner(of_slices, prepare_network(of_slices.network, options.precision, 1), options.device, reporter)
    maps = wanted_maps(options)
    if options.uncertainty:
        load_head(used.path)  # found out before any work is done
    plain, registering = plan.demand(network, options.device, bool(maps))
    check_memory(case.target, registering if chosen.register == "rigid" else plain)
    check_space(case.output, disk_bytes(plan.voxels) * (1 + len(maps)))
    may_register = None if options.dry_run and registering.fits else registering.fits
    pair = prepare_pair(case.target, case.reference, chosen, existing_folder(case.output), reporter, may_register, plan, used.scale is None)
    needed = registering if "registration" in (pair.record["placement"] or {}) else plain
    memory = {"peak_predicted_gb": round(needed.peak / 1e9, 3)}
    pair = replace(pair, record={**pair.record, "memory": memory}, warnings=(*pair.warnings, *warnings, *needed.warnings))
    return _Prepared(with_domain(pair, used.path), network, used, thinner)


def _serving(acquired: Acquired, model: Callable[[int | None], Model]) -> tuple[Model, list[str]]:
    """The model for what the target's scan kept, and what is to be said of it."""
    if acquired.scale and acquired.mostly_measured:
        return model(acquired.scale), []
    try:
        return model(None), []
    except UsageFault:
        if not acquired.scale:
            raise
        told = f"was trained for scale {acquired.scale} alone: that the scanner interpolated the target, it does not know"
        return model(acquired.scale), [f"the model {told}; weights for any acquisition are better here"]


def _planned(case: Case, options: RunOptions, model: Callable[[int | None], Model], started: float, reporter: Reporter) -> Outcome:
    reason = _reason_to_skip(case, options, model)
    if reason:
        return _left_alone(case, reason)
    ready = _prepared(case, options, model, reporter)
    record = pair_record(case, options, ready.pair, ready.model, ready.thinner.model if ready.thinner else None)
    size = " x ".join(str(size) for size in ready.pair.final.grid.shape)
    voxel = " x ".join(f"{size:.3g}" for size in ready.pair.final.grid.spacing)
    message = f"would write {size} voxels of {voxel} mm: {ready.pair.final.describe()}"
    return Outcome(case.name, "planned", case.output, message, ready.pair.warnings, record, time.monotonic() - started, ready.pair.notes)


def _check_names(case: Case) -> None:
    """Refuse names that a record cannot hold and other programs cannot open."""
    for path in (case.target, case.reference, case.transform, case.output):
        try:
            str(path or "").encode()
        except UnicodeEncodeError:
            raise Fault(str(path), "the name of this file or of a folder above it is not UTF-8", "rename it") from None


def _check_output(case: Case, options: RunOptions) -> None:
    if options.output_format == "dicom":
        _check_output_folder(case)
    elif not case.output.name.endswith(SUFFIXES) or case.output.name in SUFFIXES:
        fix = "give --output a name ending in .nii.gz or .nii, or add --output-format dicom"
        raise UsageFault(case.output, "not a NIfTI file name", fix)
    elif case.output.is_dir():
        raise UsageFault(case.output, "is a folder, a file name is needed", "give --output a file name ending in .nii.gz")
    inputs = [path for path in (case.target, case.reference, case.transform) if path is not None]
    maps = {kind: path for kind, path in map_files(case.output).items() if kind in wanted_maps(options)}
    written = [case.output, *side_files(case.output), *maps.values()]
    for path in written:
        if any(_same(path, source) for source in inputs):
            raise UsageFault(path, "is an input, it would be overwritten", "choose another --output")
    side_file, preview = side_files(case.output)
    record = own_record(side_file)
    sibling = _of_record(side_file)
    if sibling and sibling != case.output:
        raise Fault(side_file, f"is the record of {sibling.name}, which would lose it", "choose another --output")
    if options.overwrite == "always":
        return
    foreign = [path for kind, path in maps.items() if path.exists() and kind not in maps_of(record, case.output)]
    if (side_file.exists() and not record) or (preview.exists() and not side_file.exists()) or foreign:
        other = foreign[0] if foreign else side_file if side_file.exists() else preview
        raise Fault(other, "stands where this run would write, and is not of this program", "choose another --output or --overwrite always")


def _of_record(side_file: Path) -> Path | None:
    """The result that a record tells of, where that stands."""
    of = own_record(side_file).get("output")
    name = of.get("file") if isinstance(of, dict) else None
    result = side_file.with_name(name) if isinstance(name, str) and name == Path(name).name else None
    return result if result and result.exists() else None


def _in_other_format(case: Case) -> Path | None:
    """A finished result of this target whose record stands where this case's would; None where there is none."""
    side_file, _ = side_files(case.output)
    result, of = _of_record(side_file), own_record(side_file).get("target")
    same_target = isinstance(of, dict) and of.get("file") == case.target.name
    return result if result and result != case.output and same_target else None


def _check_output_folder(case: Case) -> None:
    """A folder that is replaced goes with all that it holds: it must be empty, or hold a result and nothing else."""
    if not is_dicom(case.target):
        raise UsageFault(case.target, "not DICOM, and the result of a DICOM target alone can be DICOM", "--output-format nifti")
    if case.output.name.endswith(SUFFIXES) or not case.output.name:
        fix = "give --output a name without .nii, or --output-format nifti"
        raise UsageFault(case.output, "a folder is needed for a DICOM series", fix)
    if case.target.resolve() in case.output.resolve().parents:
        raise UsageFault(case.output, "lies in the folder of the target", "choose another --output")
    if not os.path.lexists(case.output):
        return
    if not case.output.is_dir():
        raise UsageFault(case.output, "is a file, a DICOM series needs a folder", "choose another --output")
    found = {each.name for each in case.output.iterdir()}
    of = own_record(side_files(case.output)[0]).get("output")
    own = isinstance(of, dict) and of.get("file") == case.output.name and found <= set(of.get("files") or ())
    if found and not own:
        raise Fault(case.output, f"holds {len(found)} files or folders that are not of this program", "choose another --output")


def _same(path: Path, other: Path) -> bool:
    return path.absolute() == other.absolute() or (path.exists() and other.exists() and path.samefile(other))


def _left_alone(case: Case, reason: str) -> Outcome:
    """The outcome of a case whose output stands, as its record tells of it."""
    record = own_record(side_files(case.output)[0])
    if not record:
        return Outcome(case.name, "skipped", case.output, reason)
    warnings, notes = (tuple(map(str, found)) if isinstance(found := record.get(kind), list) else () for kind in ("warnings", "notes"))
    steps = record.get("seconds")
    seconds = sum(each for each in steps.values() if isinstance(each, (int, float))) if isinstance(steps, dict) else 0.0
    return Outcome(case.name, "done before", case.output, reason, warnings, record, seconds, notes)


def _is_of_its_record(series: Path) -> bool:
    of = own_record(side_files(series)[0]).get("output")
    try:
        return isinstance(of, dict) and of.get("sha256") == volume_sha256(series)
    except Fault:
        return False


def _reason_to_skip(case: Case, options: RunOptions, model: Callable[[int | None], Model]) -> str:
    if not os.path.lexists(case.output) or options.overwrite == "always":
        return ""
    if case.output.is_dir() and not _is_of_its_record(case.output):  # empty, or its run was killed while it was replaced
        return ""
    if options.overwrite == "never":
        return "the output exists (--overwrite stale or always redoes it)"
    record = own_record(side_files(case.output)[0])
    if not record or "registration_skipped" in (record.get("placement") or {}):  # today's memory may do
        return ""
    try:
        used = model(record["model"]["scale"])
        of_reference = volume_sha256(case.reference) if case.reference else None
        of_slices = model(None) if "model_of_slices" in record else None
        wanted = fingerprint(case, options, volume_sha256(case.target), of_reference, used, of_slices)
        up_to_date = record["output"]["sha256"] == volume_sha256(case.output) and record["fingerprint"] == wanted
        up_to_date = up_to_date and maps_stand(record, case.output, options, used.path)
    except (OSError, KeyError, TypeError, Fault):  # whatever is wrong shows when the case is redone
        return ""
    return "the output is up to date" if up_to_date else ""
