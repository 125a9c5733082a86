"""Pairs in a BIDS dataset: two contrasts of one session, found by their names.

Source: Brain Imaging Data Structure 1.10, bids-specification.readthedocs.io.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hftn_sr.errors import Fault, NothingToDo, UsageFault

__all__ = ["BidsImage", "BidsPair", "BidsPairs", "find_pairs", "read_entities"]

Entities = dict[str, str]

NAME = re.compile(r"(?P<entities>(?:[a-zA-Z]+-[a-zA-Z0-9+]+_)+)(?P<suffix>[a-zA-Z0-9]+)\.nii(?:\.gz)?")
ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]*)")
NOT_MAGNITUDE = ("phase", "real", "imag")  # values of the entity part
REPEATED = "run"  # the entity in which scans may differ that are otherwise the same


@dataclass(frozen=True)
class BidsImage:
    """An image in a BIDS dataset.

    Args:
        dataset: folder of the dataset.
        path: of the image.
    """

    dataset: Path
    path: Path

    @cached_property
    def entities(self) -> Entities:
        """`sub-01_acq-fast_FLAIR.nii.gz` has sub 01 and acq fast, in this order."""
        return dict(ENTITY.findall(_parts(self.path)[0]))

    @property
    def relative(self) -> str:
        """The path within its dataset, with forward slashes."""
        return self.path.relative_to(self.dataset).as_posix()

    def fits(self, wanted: Entities) -> bool:
        """Whether it has these entities; an empty value wants the entity to be absent. Of complex images only magnitudes fit unasked."""
        if "part" not in wanted and self.entities.get("part") in NOT_MAGNITUDE:
            return False
        return all(self.entities.get(name, "") == value for name, value in wanted.items())

    def derived(self, description: str) -> str:
        """Path of what is made of it, relative to the derivative dataset: the same name with another `desc`."""
        entities = {name: value for name, value in self.entities.items() if name != "desc"} | {"desc": description}
        name = "_".join(f"{name}-{value}" for name, value in entities.items())
        return f"{self.path.parent.relative_to(self.dataset).as_posix()}/{name}_{_parts(self.path)[1]}.nii.gz"


@dataclass(frozen=True)
class BidsPair:
    """Two contrasts of one session.

    Args:
        name: the target's name without its ending.
        target: low-resolution.
        reference: of another contrast; None for a target that goes alone.
    """

    name: str
    target: BidsImage
    reference: BidsImage | None


@dataclass(frozen=True)
class BidsPairs:
    """What was found.

    Args:
        pairs: those that can be run.
        faults: by subject and session, or by target: why there is no pair.
        without_target: number of subjects' sessions with a reference but no target.
    """

    pairs: list[BidsPair]
    faults: dict[str, Fault]
    without_target: int


def find_pairs(
    dataset: Path, target: str, reference: str, of_target: Entities, of_reference: Entities, reference_optional: bool = False
) -> BidsPairs:
    """Look through `sub-*/[ses-*/]anat` for images of two suffixes.

    A target is paired with the reference of its own subject and session. Several targets that differ only in `run` are a pair each, with
    the reference of the same run or else the only one. Whatever else is ambiguous is a fault that lists the candidates: which of two
    references is the right one is not for a program to guess.

    Args:
        dataset: folder with dataset_description.json.
        target: suffix, as FLAIR.
        reference: likewise; may be the same suffix if the entities tell the two apart.
        of_target: entities that the target must have; an empty value: must not have.
        of_reference: likewise.
        reference_optional: let a target go alone where its session has no such reference.

    Raises:
        Fault: not a BIDS dataset.
        UsageFault: a suffix that cannot be one.
        NothingToDo: no image of the target's suffix with these entities.
    """
    _check_suffix("--target", target)
    _check_suffix("--reference", reference)
    if not dataset.is_dir():
        raise Fault(dataset, "no such folder", "give --bids the folder of a BIDS dataset")
    if not (dataset / "dataset_description.json").is_file():
        raise Fault(dataset, "not a BIDS dataset (no dataset_description.json in it)", "give --bids the dataset's top folder")
    pairs: list[BidsPair] = []
    faults: dict[str, Fault] = {}
    without_target = 0
    for folder in _sessions(dataset):
        targets = [image for image in _images(dataset, folder, target) if image.fits(of_target)]
        references = [image for image in _images(dataset, folder, reference) if image.fits(of_reference)]
        without_target += bool(references and not targets)
        session = "_".join(folder.relative_to(dataset).parts[:-1])
        if fault := _ambiguous(folder, "target", target, targets):
            faults[session] = fault
            continue
        for image in targets:
            name = image.path.name.removesuffix(".gz").removesuffix(".nii")
            candidates = [other for other in references if other.path != image.path]
            alone = reference_optional and not candidates
            try:
                pairs.append(BidsPair(name, image, None if alone else _reference(image, reference, candidates)))
            except Fault as fault:
                faults[name] = fault
    if not pairs and not faults:
        asked = f" with {'_'.join(f'{name}-{value}' for name, value in of_target.items())}" if of_target else ""
        there = ", ".join(sorted({_parts(path)[1] for folder in _sessions(dataset) for path in folder.glob("*.nii*")} - {""})) or "no image"
        finding = f"no target (searched sub-*/[ses-*/]anat/*_{target}.nii[.gz]{asked}, found {there})"
        raise NothingToDo(dataset, finding, "--target SUFFIX of an image that is there")
    return BidsPairs(pairs, faults, without_target)


def read_entities(option: str, text: str) -> Entities:
    """`acq-fast_run-1` as a dictionary; `acq-` gives acq an empty value.

    Raises:
        UsageFault: not of that form.
    """
    found = [ENTITY.fullmatch(part) for part in text.split("_")] if text else []
    entities = {match[1]: match[2] for match in found if match}
    if len(entities) != len(found):
        raise UsageFault(option, f"{text!r} are no BIDS entities", f"{option} acq-fast_run-1, or acq- for images without acq")
    return entities


def _check_suffix(option: str, suffix: str) -> None:
    if not re.fullmatch("[a-zA-Z0-9]+", suffix):
        finding = f"{suffix!r} is no BIDS suffix, which is needed with --bids"
        raise UsageFault(option, finding, f"{option} {'FLAIR' if option == '--target' else 'T2w'}")


def _parts(path: Path) -> tuple[str, str]:
    """Entities and suffix of a file's name; both empty if it is none of BIDS."""
    match = NAME.fullmatch(path.name)
    return (match["entities"], match["suffix"]) if match else ("", "")


def _sessions(dataset: Path) -> Iterator[Path]:
    """The folders with anatomical images, by subject and session."""
    for subject in sorted(dataset.glob("sub-*")):
        for session in [subject, *sorted(subject.glob("ses-*"))]:
            if (session / "anat").is_dir():
                yield session / "anat"


def _images(dataset: Path, folder: Path, suffix: str) -> list[BidsImage]:
    """Links that lead nowhere too, as git-annex leaves them for what is not fetched: reading them says so."""
    return [BidsImage(dataset, path) for path in sorted(folder.glob("*.nii*")) if _parts(path)[1] == suffix and not path.is_dir()]


def _ambiguous(folder: Path, role: str, suffix: str, candidates: Sequence[BidsImage]) -> Fault | None:
    """The fault of candidates among which a choice must be made; None where there is none to make."""
    apart = [name for name in dict.fromkeys(name for image in candidates for name in image.entities) if name != REPEATED]
    apart = [name for name in apart if len({image.entities.get(name, "") for image in candidates}) > 1]
    names = ", ".join(image.path.name for image in candidates)
    if apart:
        choices = " or ".join(f"{apart[0]}-{value}" for value in sorted({image.entities.get(apart[0], "") for image in candidates}))
        return Fault(folder, f"{len(candidates)} {suffix} images could be the {role} ({names})", f"--{role}-entities {choices}")
    if len({tuple(sorted(image.entities.items())) for image in candidates}) < len(candidates):
        return Fault(folder, f"several files of one image ({names})", "keep one of them")
    return None


def _reference(target: BidsImage, suffix: str, candidates: list[BidsImage]) -> BidsImage:
    folder = target.path.parent
    if not candidates:
        raise Fault(
            target.path,
            f"no reference beside it (searched *_{suffix}.nii[.gz] in its folder)",
            "check --reference and its entities, or --reference-optional",
        )
    if fault := _ambiguous(folder, "reference", suffix, candidates):
        raise fault
    same_run = [image for image in candidates if image.entities.get(REPEATED, "") == target.entities.get(REPEATED, "")]
    chosen = same_run if len(candidates) > 1 else candidates
    if len(chosen) != 1:
        names, run = ", ".join(image.path.name for image in candidates), candidates[0].entities.get(REPEATED, "")
        finding = f"{len(candidates)} runs of {suffix} could be its reference ({names})"
        raise Fault(target.path, finding, f"--reference-entities {REPEATED}-{run}, or another")
    return chosen[0]
