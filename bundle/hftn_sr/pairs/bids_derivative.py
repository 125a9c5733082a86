"""The BIDS dataset of what was made of another one: its description, and what the side file of an image must say.

Source: Brain Imaging Data Structure 1.10, sections on derivatives, bids-specification.readthedocs.io.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from hftn_sr._version import __version__
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.pairs.bids import DESCRIPTION, BidsImage, read_object
from hftn_sr.pairs.bids_pairs import BidsPair
from hftn_sr.pairs.datalist import relative
from hftn_sr.volumes.files import json_bytes, write_files
from hftn_sr.volumes.volume import Grid

__all__ = [
    "BidsResult",
    "check_place",
    "check_source",
    "find_results",
    "is_derivative",
    "result_path",
    "sidecar",
    "source_dataset",
    "unknown_stripping",
    "with_resolution",
    "write_description",
]

BIDS_VERSION = "1.10.0"
SOURCE = "raw"  # how the source is called in BIDS URIs
PROGRAM = "hftn-sr"
RESOLUTION, DESC = "hi", "sr"  # labels of the entities res and desc of every result
SKULL_STRIPPED = "SkullStripped"
NOT_BIDS = (
    "*_preview.png",
    "*_uncertainty.nii.gz",
    "*_added.nii.gz",
    "summary.json",
    "summary.csv",
    "summary.*.jsonl",
    "report.html",
    "report_files",
    "report_files/",
)
README = """# Super-resolved MR images

Made by hftn-sr {version} from the dataset that `dataset_description.json` links as `raw`. Research use only. Not for clinical use.

Each image with `res-hi` and `desc-sr` has the contrast and the field of view of its target on a finer in-plane grid. Its JSON file gives
the voxel sizes (`Resolution`), names target and reference (`Sources`, the target first) and holds the record of the run under `HftnSr`:
versions, hashes, options, warnings. Detail beyond what the target measured was taken from the reference, where there was one, and
estimated by a network. `*_preview.png` are pictures for a first look. Where they were asked for, `*_uncertainty.nii.gz` hold the expected
absolute error and `*_added.nii.gz` the detail beyond what was measured.
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
            fix = f"the output folder '{dataset / 'derivatives' / PROGRAM}', or one elsewhere"
            raise UsageFault(output, "lies inside the source dataset, which is never written to", fix)
    if output.is_file():
        raise Fault(output, "is a file, a folder is needed for a BIDS dataset", "another output folder")
    if not output.is_dir() or not any(not path.name.startswith(".") for path in output.iterdir()):
        return
    known = _description(output)
    if not any(isinstance(program, dict) and program.get("Name") == PROGRAM for program in _list(known.get("GeneratedBy"))):
        raise Fault(output, f"holds files that are not a dataset of {PROGRAM}", "an empty output folder")
    link = known.get("DatasetLinks")
    if not isinstance(link, dict) or link.get(SOURCE) != _link(dataset, output):
        raise Fault(output, f"was made from another dataset ({link})", "another output folder")


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
    contents = {output / DESCRIPTION: json_bytes(description)} if description != known else {}  # first: another run sees whose folder it is
    write_files(contents | {path: content for path, content in wanted.items() if not path.exists()})


def result_path(target: BidsImage) -> str:
    """Path of a target's result, relative to the derivative dataset."""
    return target.derived(RESOLUTION, DESC)


def sidecar(pair: BidsPair) -> dict[str, Any]:
    """What the side file of the pair's result says by the rules of BIDS, apart from its resolution.

    SkullStripped is required of a derivative, but known only where the target's side files say it: raw datasets, too, are shared with the
    brain extracted. It is left out where it is not known, for a validator to miss it, rather than be made up.

    Raises:
        Fault: a side file cannot be read.
    """
    used = f"HftnSr says whether {pair.reference.path.name} was used" if pair.reference else "no reference was there"
    told = pair.target.metadata()
    return {
        "Description": f"{pair.target.path.name} at a finer in-plane resolution; {used}.",
        "Sources": [_uri(image) for image in (pair.target, pair.reference) if image],
        **{key: told[key] for key in ("SpatialReference", SKULL_STRIPPED) if key in told},
    }


def with_resolution(content: dict[str, Any], grid: Grid) -> dict[str, Any]:
    """The side file's content with the meaning of the entity res."""
    return {**content, "Resolution": f"{' x '.join(f'{size:.4g}' for size in grid.spacing)} mm, finer in plane than the source"}


def check_source(output: Path, target: BidsImage) -> None:
    """Find out whether an earlier result is of this target: images that differ only in `desc` or `res` give one name.

    Raises:
        Fault: it was made from another image.
    """
    try:
        sources = read_object(output.with_name(f"{BidsImage(output.parent, output).stem}.json")).get("Sources")
    except Fault:
        return  # the run finds out whether the result may be replaced
    first = str(_list(sources)[0]) if _list(sources) else ""
    if first and _without_ending(first) != _without_ending(_uri(target)):
        fix = f"another output folder for {target.path.name}, or remove {output.name} with its .json"
        raise Fault(output, f"was made from another image ({first})", fix)


@dataclass(frozen=True)
class BidsResult:
    """A result of a derivative dataset, by its side file.

    Args:
        name: the target's name without its ending, as the run calls the case.
        output: the result, which may be missing.
        target: in the source dataset.
        reference: in the source dataset; None where the run had none.
    """

    name: str
    output: Path
    target: Path
    reference: Path | None


def is_derivative(folder: Path) -> bool:
    """Whether a folder is a derivative dataset of this program."""
    try:
        known = _description(folder)
    except Fault:
        return False
    return any(isinstance(program, dict) and program.get("Name") == PROGRAM for program in _list(known.get("GeneratedBy")))


def source_dataset(output: Path) -> Path:
    """Folder of the dataset that a derivative dataset was made from, by its description.

    Raises:
        Fault: the description does not say it, or it is not there any more.
    """
    links = _description(output).get("DatasetLinks")
    link = links.get(SOURCE) if isinstance(links, dict) else None
    if not isinstance(link, str) or not (dataset := output / unquote(link)).is_dir():
        raise Fault(output, f"its source dataset is not where its description says ({link})", "--bids DIR, where that dataset is now")
    return dataset


def find_results(output: Path, dataset: Path) -> Iterator[BidsResult]:
    """The results in a derivative dataset, by name; side files that name no target are passed over."""
    for path in sorted(output.glob(f"sub-*/**/*_desc-{DESC}_*.json")):
        try:
            named = [_source(dataset, uri) for uri in _list(read_object(path).get("Sources"))]
        except Fault:
            continue
        sources = [source for source in named if source]
        if sources and len(sources) == len(named):
            reference = sources[1] if len(sources) > 1 else None
            yield BidsResult(_without_ending(sources[0].name), path.with_suffix(".nii.gz"), sources[0], reference)


def _source(dataset: Path, uri: Any) -> Path | None:
    """The file that a BIDS URI of the source dataset names; None where it names another one."""
    start = f"bids:{SOURCE}:"
    if not isinstance(uri, str) or not uri.startswith(start) or ".." in Path(uri.removeprefix(start)).parts:
        return None
    return dataset / uri.removeprefix(start)


def unknown_stripping(output: Path, cases: Mapping[str, dict[str, Any]], suffix: str, dry_run: bool = False) -> str:
    """Note on results whose side files cannot say SkullStripped; empty where all do, or where a side file of the output says it for them.

    Args:
        output: folder of the derivative dataset.
        cases: path of the result, relative to `output`, to the content of its side file.
        suffix: suffix of the results, as FLAIR.
        dry_run: whether nothing is written.
    """
    unknown = [name for name, content in cases.items() if SKULL_STRIPPED not in {**content, **_told(BidsImage(output, output / name))}]
    if not unknown:
        return ""
    cure = f'put {{"{SKULL_STRIPPED}": false}}, or true, into {output / f"{suffix}.json"}'
    count = f"{len(unknown)} side file{'s' if len(unknown) > 1 else ''}"
    verb = "would be" if dry_run else "is"
    return f"{SKULL_STRIPPED} {verb} left out of {count}, as the targets' side files do not say it; BIDS requires it: {cure}"


def _told(result: BidsImage) -> dict[str, Any]:
    try:
        return result.metadata()
    except Fault:
        return {}  # the run finds out whether the result may be replaced


def _uri(image: BidsImage) -> str:
    return f"bids:{SOURCE}:{image.relative}"


def _without_ending(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".nii")


def _link(dataset: Path, output: Path) -> str:
    """Where the source is, seen from the derivative: no path of this machine, so that both can be moved together."""
    return quote(relative(dataset.resolve(), output), safe="/:")


def _description(folder: Path) -> dict[str, Any]:
    return read_object(folder / DESCRIPTION)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
