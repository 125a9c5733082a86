"""PDFS and PD pairs of the fastMRI single-coil knee set: which file goes with which, as the authors of SANet and MINet published it.

The images are given out by their owners only (https://fastmri.med.nyu.edu); cite Zbontar et al. 2018, arXiv 1811.08839. The two lists
(227 and 45 pairs) are of https://github.com/chunmeifeng/SANet, which states no licence: they are fetched from there and not part of this
package. A row is a PD file, a PDFS file, and how alike the two are. The two volumes of a pair are not registered: slice i goes with
slice i, up to the shorter one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hftn_sr.errors import Fault, NothingToDo, check_choice
from hftn_sr.pairs.datalist import SECTIONS, Section, relative
from hftn_sr.pairs.download import FetchReport, Progress, Source, fetch, read_table
from hftn_sr.pairs.split import shuffled
from hftn_sr.volumes.fastmri import fastmri_attributes

__all__ = ["Contrast", "FastMRICases", "FastMRIPair", "fastmri_cases", "fetch_lists", "read_lists", "COMMIT", "FOLDER", "REPOSITORY"]

REPOSITORY = "chunmeifeng/SANet"
COMMIT = "fdbbac30fd73c9fcf55cd0c7ebdbbc4f738fa66c"
FOLDER = "fastmri_pairs"  # of the lists inside a mirror that holds other data too, and inside the dataset folder
VALIDATION_SHARE = 10  # one training pair in so many
ACQUISITIONS = {"PD": "CORPD_FBK", "PDFS": "CORPDFS_FBK"}

Contrast = Literal["PD", "PDFS"]
ListName = Literal["train", "val"]
LISTS: tuple[ListName, ...] = ("train", "val")


@dataclass(frozen=True)
class FastMRIPair:
    """Names of two files, without .h5.

    Args:
        pd: proton density, without fat suppression.
        pdfs: proton density, fat-suppressed.
    """

    pd: str
    pdfs: str


@dataclass(frozen=True)
class FastMRICases:
    """What became of the lists.

    Args:
        cases: entries of the datalist by section.
        missing: h5 files that the lists name and that are not there.
        warnings: files that are there and were left out, or are not what the list says.
        rule: how the sections came about, for the datalist.
    """

    cases: dict[Section, list[dict[str, Any]]]
    missing: list[Path]
    warnings: list[str]
    rule: dict[str, Any]


def fetch_lists(output: Path, mirror: Path | None = None, progress: Progress | None = None) -> FetchReport:
    """Bring the two lists (11 kB) into `output`/fastmri_pairs, see `fetch`."""
    return fetch(_source(), output / FOLDER, mirror, progress)


def read_lists(output: Path) -> dict[ListName, list[FastMRIPair]]:
    """The pairs of the two lists in `output`/fastmri_pairs, in their order.

    Raises:
        Fault: a list is missing, or a row of it has not three columns.
    """
    return {name: _read_list(output / FOLDER / f"singlecoil_{name}_split_less.csv") for name in LISTS}


def fastmri_cases(
    lists: dict[ListName, list[FastMRIPair]], images: Path, output: Path, target: Contrast = "PDFS", seed: int = 0
) -> FastMRICases:
    """Make datalist entries, `"grid": "index"`, of all pairs whose two files are there.

    The list `val` becomes `testing`, as the published figures are of it. The authors name no third section: a tenth of the usable pairs of
    the list `train`, drawn by `seed`, becomes `validation`, the others `training`. Nobody is in two sections, by the `patient_id` of the
    files: pairs of one patient are drawn together, and a pair of the list `train` whose patient is also in `val` is left out.

    Args:
        lists: result of `read_lists`.
        images: folder with singlecoil_train/*.h5 and singlecoil_val/*.h5.
        output: the dataset folder, which paths are relative to.
        target: the contrast to super-resolve; the other one is the reference.
        seed: another one gives other validation pairs.

    Raises:
        NothingToDo: no pair has both files.
        Fault: `images` is no folder.
        UsageFault: no such contrast.
    """
    check_choice("--target", target, ("PDFS", "PD"))
    if not images.is_dir():
        raise Fault(images, "no such folder", "--images FOLDER that holds singlecoil_train and singlecoil_val")
    missing: list[Path] = []
    warnings: list[str] = []
    usable = {name: list(_usable(lists[name], images / f"singlecoil_{name}", output, target, missing, warnings)) for name in LISTS}
    if not any(usable.values()):
        finding = f"no usable pair (searched {' and '.join(f'singlecoil_{name}/*.h5' for name in LISTS)}, {len(missing)} files missing)"
        raise NothingToDo(
            images, finding, "get the single-coil knee set from https://fastmri.med.nyu.edu and name its folder with --images"
        )
    tested = {patient for pair in usable["val"] for patient in pair.patients}
    kept = [pair for pair in usable["train"] if not pair.patients & tested]
    warnings += [f"left out: {pair.entry['case']}, its patient is in testing" for pair in usable["train"] if pair.patients & tested]
    validation = _validation(kept, seed)
    sections = (
        [pair for pair in kept if pair.entry["case"] not in validation],
        [pair for pair in kept if pair.entry["case"] in validation],
        usable["val"],
    )
    cases = {section: [pair.entry for pair in pairs] for section, pairs in zip(SECTIONS, sections, strict=True)}
    warnings += [f"{images}: no {section} case is left" for section in SECTIONS if not cases[section]]
    rule = {"lists": f"{REPOSITORY}@{COMMIT}", "target": target, "testing": "list val", "validation": "a tenth of list train", "seed": seed}
    return FastMRICases(cases, missing, warnings, rule)


@dataclass(frozen=True)
class _Usable:
    patients: set[str]
    entry: dict[str, Any]


def _source() -> Source:
    return read_table(Path(__file__).with_name("fastmri_pairs.sha256"), REPOSITORY, COMMIT, FOLDER)


def _read_list(path: Path) -> list[FastMRIPair]:
    try:
        return [FastMRIPair(pd, pdfs) for pd, pdfs, _ in csv.reader(path.read_text(encoding="utf-8").splitlines())]
    except (OSError, ValueError) as error:
        raise Fault(path, f"not a list of pairs ({error})", "remove it and run again: hftn-sr data fastmri fetches it") from None


def _usable(
    pairs: Sequence[FastMRIPair], folder: Path, output: Path, target: Contrast, missing: list[Path], warnings: list[str]
) -> Iterator[_Usable]:
    for pair in pairs:
        files = {"PD": folder / f"{pair.pd}.h5", "PDFS": folder / f"{pair.pdfs}.h5"}
        absent = [path for path in files.values() if not path.is_file()]
        missing += absent
        patients = set() if absent else _patients(files, warnings)
        if patients:
            yield _Usable(patients, _entry(files, output, target))


def _validation(pairs: Sequence[_Usable], seed: int) -> set[str]:
    """Cases of a tenth of the pairs, whole patients at a time; none where all pairs are of one patient."""
    groups = {str(group[0].entry["case"]): group for group in _same_patients(pairs)}
    wanted, drawn = max(1, round(len(pairs) / VALIDATION_SHARE)), set[str]()
    for first in shuffled(groups, seed)[:-1]:
        if len(drawn) < wanted:
            drawn |= {str(pair.entry["case"]) for pair in groups[first]}
    return drawn


def _same_patients(pairs: Sequence[_Usable]) -> list[list[_Usable]]:
    """Pairs in groups that have no patient in common."""
    groups: list[list[_Usable]] = []
    for pair in pairs:
        touching = [group for group in groups if any(pair.patients & other.patients for other in group)]
        groups = [*(group for group in groups if group not in touching), [*(other for group in touching for other in group), pair]]
    return groups


def _patients(files: dict[str, Path], warnings: list[str]) -> set[str]:
    """Who is on the images, by the attribute of the files; nobody for a pair with a file that cannot be used."""
    patients: set[str] = set()
    for contrast, path in files.items():
        try:
            attributes = fastmri_attributes(path)
        except Fault as fault:
            warnings.append(f"left out: {fault}")
            return set()
        told = attributes.get("acquisition", ACQUISITIONS[contrast])
        if told != ACQUISITIONS[contrast]:
            warnings.append(f"{path}: listed as {contrast}, its acquisition is {told}")
        patients.add(str(attributes.get("patient_id") or path.stem))
    return patients


def _entry(files: dict[str, Path], output: Path, target: Contrast) -> dict[str, Any]:
    reference = "PD" if target == "PDFS" else "PDFS"
    name = f"{files[target].stem}_{reference}_to_{target}"
    return {"case": name, "target": relative(files[target], output), "reference": relative(files[reference], output), "grid": "index"}
