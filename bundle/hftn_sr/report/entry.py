"""What the page shows of one case, kept in a folder of its own so that a later run need not make it again."""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from hftn_sr._version import __version__
from hftn_sr.errors import Fault, printable
from hftn_sr.inference.case import side_files
from hftn_sr.inference.findings import LOW_SIMILARITY
from hftn_sr.inference.maps import maps_of
from hftn_sr.inference.result import own_record
from hftn_sr.pictures import STRONG
from hftn_sr.report.case import Images, QcCase, open_images, was_used
from hftn_sr.report.pictures import draw_strips, find_extent
from hftn_sr.report.viewer import embed
from hftn_sr.scoring.evaluation import evaluate_volumes
from hftn_sr.scoring.metrics import CONVENTIONS
from hftn_sr.volumes.files import alone, json_bytes, make_folder, write_files
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.reading import read_volume, volume_sha256
from hftn_sr.volumes.volume import Volume

__all__ = ["ENTRY", "HIGH_RESIDUAL", "key_of", "make_entry", "place_of", "read_entry"]

ENTRY = "entry.json"
PATIENCE = 10.0  # seconds that another run may take to write the same entry
FORMAT = 4  # of the entry; one of another format is made anew
VOLUMES = "volumes.js"
# Of the network's output, by the shipped weights on patient04 and one MNI volume: 0.012 to 0.015 at x2 and 0.017 to 0.023 at x4 with
# references that fit, 0.016 and 0.033 with one of pure noise, 0.029 and 0.047 with noise of 5 % of the intensity unit on the target.
HIGH_RESIDUAL = 0.03


def place_of(output: Path, folder: Path) -> str:
    """Where an output lies as seen from the page's folder, with forward slashes."""
    return Path(os.path.relpath(output, folder)).as_posix()


def key_of(output: Path, folder: Path) -> str:
    """Name of the folder of a case: the same for the same output, whatever the case is called, and safe in an address."""
    place = place_of(output, folder).encode(errors="surrogateescape")
    return f"case_{hashlib.sha256(place).hexdigest()[:12]}"


def read_entry(folder: Path) -> dict[str, Any]:
    """The entry in a case's folder; empty where there is none that this version made, or a file of it is missing."""
    try:
        entry: dict[str, Any] = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
        complete = entry["format"] == FORMAT and all((folder / name).is_file() for name in entry["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return entry if complete else {}


def make_entry(case: QcCase, page: Path, files: Path, images: Images | None = None) -> dict[str, Any]:
    """The entry of a case whose result stands, made anew unless the one that is there tells of the same files.

    Args:
        case: what to show.
        page: folder of the page.
        files: folder of the page's files, in which the case gets its own.
        images: images of the case, if they are in memory; None reads them from its files.

    Raises:
        Fault: the result has no whole record, or a file cannot be written. What only keeps pictures or figures away is a finding of the
            entry.
    """
    side_file = side_files(case.output)[0]
    record = own_record(side_file)
    if not record:
        raise Fault(side_file, f"is missing or not of this program, nothing is known of {case.output.name}", "run the case again")
    try:
        texts = {kind: [str(text) for text in of] for kind, of in (("warnings", record["warnings"]), ("notes", record.get("notes", [])))}
        told = {**texts, "summary": _summary(record), "facts": _facts(record)}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Fault(side_file, f"is not a complete record ({error!r})", "run the case again") from error
    key = key_of(case.output, page)
    made_of = _made_of(case, record)
    old = read_entry(files / key)
    if old.get("made_of") == made_of:
        with suppress(Fault, OSError), alone(files / key / ENTRY):  # a process killed right after writing it left its lock
            pass
        return old
    content, extra = _shown(case, record, key, images)
    entry = {
        "format": FORMAT,
        "made_of": made_of,
        "key": key,
        "output": place_of(case.output, page),
        "name": printable(case.name),
        **told,
        "warnings": [*told["warnings"], *content.pop("findings")],
        **content,
        "files": sorted(extra),
    }
    contents = {**{files / key / name: data for name, data in extra.items()}, files / key / ENTRY: json_bytes(entry)}
    make_folder(files / key)
    with alone(files / key / ENTRY, *contents, patience=PATIENCE):
        write_files(contents)
        for outdated in set(old.get("files", ())) - set(extra):
            (files / key / outdated).unlink(missing_ok=True)
    return entry


def _made_of(case: QcCase, record: dict[str, Any]) -> dict[str, Any]:
    paths = {"output": case.output, "target": case.target, "reference": case.reference, "transform": case.transform, "truth": case.truth}
    found = {role: _sha256(path) for role, path in paths.items()}
    return {**found, "version": __version__, "name": case.name, "record": hashlib.sha256(json_bytes(record)).hexdigest()}


def _sha256(path: Path | None) -> str:
    """Empty where there is no file, or a folder that holds no MR image any more."""
    try:
        return volume_sha256(path) if path and path.exists() else ""
    except Fault:
        return ""


def _shown(case: QcCase, record: dict[str, Any], key: str, images: Images | None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Pictures, viewer and figures with the files that they need; what cannot be had becomes a finding."""
    content: dict[str, Any] = {"findings": [], "pictures": None, "viewer": None, "figures": None}
    extra: dict[str, bytes] = {}
    try:
        images = images or open_images(case, record)
        extent = find_extent(images.result, images.through_plane)
    except Fault as fault:
        content["findings"].append(str(fault))
        return content, extra
    except ValueError:
        content["findings"].append(str(Fault(case.output, "no pictures, it has no positive voxel", "look at the target")))
        return content, extra
    if images.reference is None and was_used(record):
        content["findings"].append("the reference's file is not known, its pictures stay black")
    try:
        uncertainty = _uncertainty(case, record)
    except Fault as fault:
        content["findings"].append(str(fault))
        uncertainty = None
    strips = draw_strips(images, extent, uncertainty)
    embedded = embed(images, extent, key)
    names = [f"slice_{number}.png" for number in range(len(strips.files))]
    extra = dict(zip(names, strips.files, strict=True)) | {VOLUMES: embedded.script}
    depth = images.result.data.shape[images.through_plane]
    content["pictures"] = {
        "reference": "Reference" if was_used(record) else "No reference",
        "slices": [{"file": f"{key}/{name}", "number": index + 1} for name, index in zip(names, extent.slices, strict=True)],
        "start": extent.slices.index(extent.middle),
        "depth": depth,
        "count": strips.count,
        "size": list(strips.size),
        "white": f"{strips.white:.4g}",
        "strong": f"{STRONG:g}",
    }
    content["viewer"] = {
        "file": f"{key}/{VOLUMES}",
        "slices": f"slices {embedded.first + 1} to {embedded.first + embedded.count} of {depth}",
        "shape": " x ".join(map(str, embedded.shape)),
        "megabytes": f"{len(embedded.script) / 1e6:.1f}",
    }
    if case.truth:
        try:
            content["figures"] = _figures(images, case.truth)
        except Fault as fault:
            content["findings"].append(str(fault))
    return content, extra


def _uncertainty(case: QcCase, record: dict[str, Any]) -> Volume | None:
    """The expected error of the result; None where the run did not write it.

    Raises:
        Fault: its file is not there any more, or another one.
    """
    path = maps_of(record, case.output).get("uncertainty")
    if path is None:
        return None
    found = read_volume(path, blank=True)
    if found.sha256 != record["uncertainty"]["sha256"]:
        raise Fault(path, "not shown, this is not the file that the record tells of (another sha256)", "run the case again")
    return found


def _figures(images: Images, truth_path: Path) -> dict[str, Any]:
    truth = read_nifti(truth_path)
    low = images.baseline
    found = {"zero-filled": evaluate_volumes(low, truth), "super-resolved": evaluate_volumes(images.result, truth)}
    rows = [
        {"name": name, "psnr": _decibel(each["psnr"]), "ssim": f"{each['ssim']:.4f}", "nmse": f"{each['nmse']:.5f}"}
        for name, each in found.items()
    ]
    protocol = found["super-resolved"]["protocol"]
    return {"rows": rows, "protocol": protocol, "conventions": CONVENTIONS, "truth": truth_path.name, "sha256": truth.sha256}


def _decibel(value: float) -> str:
    return "infinite" if math.isinf(value) else f"{value:.2f}"


def _summary(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "acquired": record["acquired"]["words"],
        "similarity": f"{record['similarity']['value']:.3f}" if record["similarity"] else "–",
        "low": bool(record["similarity"]) and record["similarity"]["value"] < LOW_SIMILARITY,
        "residual": f"{_residual_of_network(record):.2g}",
        "high": _residual_of_network(record) > HIGH_RESIDUAL,
        "seconds": f"{sum(record['seconds'].values()):.1f}",
    }


def _residual_of_network(record: dict[str, Any]) -> float:
    """Relative L2 distance of the network's output from the measured k-space; older records have only that of the result."""
    found = record["data_consistency"]
    return float(found.get("residual_of_network", found["residual"]))


def _facts(record: dict[str, Any]) -> list[list[str]]:
    consistency, model = record["data_consistency"], record["model"]
    residual = f"{_residual_of_network(record):.4g} in the network's output"
    if consistency["applied"]:
        residual += f", {consistency['residual']:.4g} after the measured k-space was put back"
    if "residual_of_slices" in consistency:
        residual += f", {consistency['residual_of_slices']:.4g} from the measured slices"
    steps = ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in record["seconds"].items())
    return [
        ["Acquired", f"{record['acquired']['words']}; {record['acquired']['source']}"],
        ["Residual", f"{residual}; relative L2 distance from what was measured"],
        *(_facts_of_reference(record) if record["reference"]["file"] else []),
        *([["Expected error", _expected_error(record["uncertainty"])]] if "uncertainty" in record else []),
        ["Time", f"{sum(record['seconds'].values()):.1f} s on {record['device']}, {record['precision']}: {steps}"],
        ["Model", f"{model['name']} ({model['file']})"],
        ["Model sha256", str(model["sha256"])],
        ["Target", f"{record['target']['file']}, sha256 {record['target']['sha256']}"],
        ["Reference", f"{record['reference']['file']}, sha256 {record['reference']['sha256']}" if record["reference"]["file"] else "none"],
        ["Result", f"{record['output']['file']}, sha256 {record['output']['sha256']}"],
        ["Software", ", ".join(f"{name} {version}" for name, version in record["software"].items())],
    ]


def _expected_error(told: dict[str, Any]) -> str:
    low, high = told["usual_share"]
    usual = f"mean over the tissue {told['mean']:.4g}, {told['mean_share']:.2%} of the intensity unit (usual {low:.2%} to {high:.2%})"
    return f"{usual}; {told['interval_90']:.3g} times the map held 90 % of the errors of the patients that it was calibrated by"


def _facts_of_reference(record: dict[str, Any]) -> list[list[str]]:
    placement, registration = record["placement"], record["placement"].get("registration")
    if registration:
        verb = "kept" if registration["kept"] else "tried, not kept"
        how = f"{verb} (similarity {registration['similarity_before']} before, {registration['similarity_after']} after)"
    return [
        *([] if was_used(record) else [["Reference used", "no, the network got none"]]),
        ["Similarity of the pair", f"{record['similarity']['value']}, {record['similarity']['measure']}"],
        ["Reference covers", f"{record['coverage']:.1%} of the target"],
        *([["Transform given", str(placement["transform"])]] if placement["transform"] else []),
        *([["Rigid registration", how]] if registration else []),
    ]
