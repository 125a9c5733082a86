"""The BIDS dataset of what was made of another one: its description, and what the side file of an image must say.

Source: Brain Imaging Data Structure 1.10, sections on derivatives, bids-specification.readthedocs.io.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hftn_sr._version import __version__
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.pairs.bids import DESCRIPTION
from hftn_sr.pairs.bids_pairs import BidsPair
from hftn_sr.pairs.datalist import relative
from hftn_sr.volumes.files import json_bytes, write_files

__all__ = ["check_place", "sidecar", "write_description"]

BIDS_VERSION = "1.10.0"
SOURCE = "raw"  # how the source is called in BIDS URIs
PROGRAM = "hftn-sr"
NOT_BIDS = ("*_preview.png", "summary.json", "summary.csv", "report.html", "report_files", "report_files/")
README = """# Super-resolved MR images

Made by hftn-sr {version} from the dataset that `dataset_description.json` links as `raw`. Research use only. Not for clinical use.

Each image with `desc-sr` has the contrast and the field of view of its target and a finer in-plane grid; detail beyond what the target
measured was taken from a reference of another contrast, where there was one, and estimated by a network. Its JSON file names both
(`Sources`), the target first, and holds the record of the run under `HftnSr`: versions, hashes, options, warnings. `*_preview.png` are
pictures for a first look.
"""


def check_place(dataset: Path, output: Path) -> None:
    """Find out, before any work is done, whether the derivative of `dataset` may be written to the folder `output`.

    Raises:
        UsageFault: it is the dataset itself, or inside of it but not under derivatives/.
        Fault: it holds something else already.
    """
    source, place = dataset.resolve(), output.resolve()
    if place == source or source in place.parents:
        inside = place.relative_to(source).parts
        if len(inside) < 2 or inside[0] != "derivatives":
            fix = f"--output '{dataset / 'derivatives' / PROGRAM}', or a folder elsewhere"
            raise UsageFault(output, "lies inside the source dataset, which is never written to", fix)
    if output.is_file():
        raise Fault(output, "is a file, a folder is needed with --bids", "give --output a folder")
    if not output.is_dir() or not any(not path.name.startswith(".") for path in output.iterdir()):
        return
    known = _description(output)
    if not any(isinstance(program, dict) and program.get("Name") == PROGRAM for program in _list(known.get("GeneratedBy"))):
        raise Fault(output, f"holds files that are not a dataset of {PROGRAM}", "choose an empty folder for --output")
    link = known.get("DatasetLinks")
    if not isinstance(link, dict) or link.get(SOURCE) != _link(dataset, output):
        raise Fault(output, f"was made from another dataset ({link})", "choose another --output")


def write_description(dataset: Path, output: Path) -> None:
    """Write dataset_description.json, README.md and .bidsignore where they are missing; what a person changed in them stays.

    Raises:
        Fault: a file cannot be written.
    """
    known = _description(output)
    source = _description(dataset)
    told = {"URL": _link(dataset, output), "DOI": source.get("DatasetDOI")}
    program = {"Name": PROGRAM, "Version": __version__, "Description": "Multi-contrast super-resolution. Research use only."}
    description = {
        "Name": f"Super-resolved images of {source.get('Name') or dataset.resolve().name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "SourceDatasets": [{key: value for key, value in told.items() if value}],
        "DatasetLinks": {SOURCE: _link(dataset, output)},
        **({"License": source["License"]} if source.get("License") else {}),
        **known,
        "GeneratedBy": [*_list(known.get("GeneratedBy"))],
    }
    if program not in description["GeneratedBy"]:  # another version goes on with what an older one began
        description["GeneratedBy"].append(program)
    wanted = {
        output / "README.md": README.format(version=__version__).encode(),
        output / ".bidsignore": "".join(f"{pattern}\n" for pattern in NOT_BIDS).encode(),
    }
    contents = {path: content for path, content in wanted.items() if not path.exists()}
    if description != known:
        contents[output / DESCRIPTION] = json_bytes(description)
    write_files(contents)


def sidecar(pair: BidsPair) -> tuple[dict[str, Any], str]:
    """What the side file of the pair's result says by the rules of BIDS, and a warning where one of them cannot be kept; empty for none."""
    used = f"HftnSr says whether {pair.reference.path.name} was used" if pair.reference else "no reference was there"
    content: dict[str, Any] = {
        "Description": f"{pair.target.path.name} at a finer in-plane resolution; {used}.",
        "Sources": [f"bids:{SOURCE}:{image.relative}" for image in (pair.target, pair.reference) if image],
    }
    told = _read(pair.target.path.with_name(pair.target.path.name.removesuffix(".gz").removesuffix(".nii") + ".json"))
    if "SpatialReference" in told:
        content["SpatialReference"] = told["SpatialReference"]
    if _description(pair.target.dataset).get("DatasetType", "raw") == "raw":
        content["SkullStripped"] = bool(told.get("SkullStripped", False))  # a raw image is as the scanner gave it
    elif "SkullStripped" in told:
        content["SkullStripped"] = bool(told["SkullStripped"])
    else:
        return content, f"{pair.target.path.name}: its side file does not say SkullStripped, which BIDS wants of derivatives; add it there"
    return content, ""


def _link(dataset: Path, output: Path) -> str:
    """Where the source is, seen from the derivative: no path of this machine, so that both can be moved together."""
    return quote(relative(dataset.resolve(), output), safe="/:")


def _description(folder: Path) -> dict[str, Any]:
    return _read(folder / DESCRIPTION)


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise Fault(path, f"cannot be read as JSON ({error})", "correct or remove it") from None
    if not isinstance(content, dict):
        raise Fault(path, "holds no JSON object", "correct or remove it")
    return content


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
