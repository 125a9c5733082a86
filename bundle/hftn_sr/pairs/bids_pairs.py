"""Pairs in a BIDS dataset: two contrasts of one session, found by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.pairs.bids import (
    RUN,
    BidsImage,
    Entities,
    check_dataset,
    check_labels,
    differing,
    entities_text,
    session_folders,
    suffix_of,
)

__all__ = ["BidsPair", "BidsPairs", "BidsRequest", "find_pairs"]


@dataclass(frozen=True)
class BidsPair:
    """Two contrasts of one session.

    Args:
        name: the target's name without its ending.
        target: low-resolution.
        reference: image of another contrast; None for a target without one.
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


@dataclass(frozen=True)
class BidsRequest:
    """Which pairs are wanted.

    Args:
        target: suffix of the target, as FLAIR.
        reference: suffix of the reference; may be the target's if the entities tell the two apart.
        of_target: entities that the target must have; an empty value: must not have.
        of_reference: entities that the reference must have, or not.
        reference_optional: take a target without a reference where its session has none.
        participants: labels of the subjects, without `sub-`; empty for all.
        sessions: labels of the sessions, without `ses-`; empty for all.
    """

    target: str
    reference: str
    of_target: Entities = field(default_factory=dict)
    of_reference: Entities = field(default_factory=dict)
    reference_optional: bool = False
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()

    def images(self, dataset: Path, folder: Path) -> tuple[list[BidsImage], list[BidsImage]]:
        """Possible targets and references in a folder."""
        wanted = ((self.target, self.of_target), (self.reference, self.of_reference))
        targets, references = ([image for image in BidsImage.of(dataset, folder, suffix) if image.fits(of)] for suffix, of in wanted)
        return targets, references

    def settled(self, target: BidsImage, candidates: Sequence[BidsImage]) -> BidsImage | None:
        """The reference of the target's run, or the only one unless its run is another and was not asked for; None if there is not one."""
        if differing(candidates):
            return None
        run = target.value(RUN)
        if len(candidates) == 1 and (RUN in self.of_reference or not run or not candidates[0].value(RUN)):
            return candidates[0]
        same = [image for image in candidates if image.value(RUN) == run]
        return same[0] if len(same) == 1 else None

    def choices(self, target: BidsImage, candidates: Sequence[BidsImage]) -> list[Entities]:
        """Entities that choose each of the candidates; the run only where the target's own run does not decide."""
        apart, found = differing(candidates), []
        for image in sorted(candidates, key=lambda image: (entities_text(image.chosen_by(apart)), image.path.name)):
            alike = [other for other in candidates if other.chosen_by(apart) == image.chosen_by(apart)]
            found.append(image.chosen_by(apart if self.settled(target, alike) else [*apart, RUN]))
        return found

    def cure(self, targets: Sequence[Entities] = (), references: Sequence[Entities] = ()) -> str:
        """Both options as they must be given: what was asked for already and the first of these choices, the others in brackets."""
        chosen = (("--target-entities", self.of_target, targets), ("--reference-entities", self.of_reference, references))
        return " ".join(filter(None, (_option(name, given, choices) for name, given, choices in chosen)))


def find_pairs(dataset: Path, request: BidsRequest) -> BidsPairs:
    """Look through `sub-*/[ses-*/]anat` for images of two suffixes.

    A target is paired with the reference of its own subject and session. Several targets that differ only in `run` are a pair each, with
    the reference of the same run, or with the only one unless its run is another. Whatever else is ambiguous is a fault that lists the
    candidates and the options that choose: which of two references is the right one is not for a program to guess.

    Args:
        dataset: folder with dataset_description.json.
        request: choice of pairs.

    Raises:
        Fault: not a BIDS dataset.
        UsageFault: a suffix that cannot be one, or a participant or session that is not there.
        NothingToDo: no image of the target's suffix with these entities.
    """
    _check_suffix("--target", request.target)
    _check_suffix("--reference", request.reference)
    check_dataset(dataset)
    check_labels(dataset, request.participants, request.sessions)
    pairs: list[BidsPair] = []
    faults: dict[str, Fault] = {}
    without_target, idle = 0, {f"sub-{label}" for label in request.participants}
    for folder in session_folders(dataset, request.participants, request.sessions):
        targets, references = request.images(dataset, folder)
        without_target += bool(references and not targets)
        session = folder.relative_to(dataset).parts[:-1]
        if targets:
            idle.discard(session[0])
        if fault := _ambiguous_target(folder, request, targets, references):
            faults["_".join(session)] = fault
            continue
        for image in targets:
            try:
                pairs.append(BidsPair(image.stem, image, _reference(image, request, _others(references, image))))
            except Fault as fault:
                faults[image.stem] = fault
    if not pairs and not faults:
        raise NothingToDo(dataset, _no_target(dataset, request), "--target SUFFIX of an image that is there")
    for subject in sorted(idle):  # asked for by name, so that its absence among the results is no matter of course
        one = BidsRequest(request.target, "", request.of_target, participants=(subject.removeprefix("sub-"),), sessions=request.sessions)
        faults[subject] = Fault(dataset / subject, _no_target(dataset, one), "leave it out of --participant-label, or check --target")
    return BidsPairs(pairs, faults, without_target)


def _check_suffix(option: str, suffix: str) -> None:
    if not re.fullmatch("[a-zA-Z0-9]+", suffix):
        finding = f"{suffix!r} is no BIDS suffix, which is needed with a BIDS dataset"
        raise UsageFault(option, finding, f"{option} {'FLAIR' if option == '--target' else 'T2w'}")


def _no_target(dataset: Path, request: BidsRequest) -> str:
    folders = session_folders(dataset, request.participants, request.sessions)
    there = sorted({suffix_of(path) for folder in folders for path in folder.glob("*.nii*")} - {""})
    subjects, sessions = (",".join(labels) or "*" for labels in (request.participants, request.sessions))
    wanted = f" with {entities_text(request.of_target)}" if request.of_target else ""
    searched = f"sub-{subjects}/[ses-{sessions}/]anat/*_{request.target}.nii[.gz]{wanted}"
    return f"no target (searched {searched}, found {', '.join(there) or 'no image'})"


def _option(name: str, given: Entities, choices: Sequence[Entities]) -> str:
    texts = list(dict.fromkeys(entities_text({**given, **choice}) for choice in choices or [{}]))
    others = f" (or {', '.join(texts[1:])})" if texts[1:] else ""
    return f"{name} {texts[0]}{others}" if texts[0] else ""


def _others(images: Sequence[BidsImage], image: BidsImage) -> list[BidsImage]:
    return [other for other in images if other.path != image.path]


def _names(images: Sequence[BidsImage]) -> str:
    return ", ".join(image.path.name for image in images)


def _twice(folder: Path, images: Sequence[BidsImage]) -> Fault | None:
    """The fault of two files that are one image by their entities; None where there are none."""
    if len({tuple(sorted((name, image.value(name)) for name in image.entities)) for image in images}) < len(images):
        return Fault(folder, f"several files of one image ({_names(images)})", "keep one of them")
    return None


def _ambiguous_target(folder: Path, request: BidsRequest, targets: list[BidsImage], references: list[BidsImage]) -> Fault | None:
    """The fault of targets among which a choice must be made, with the choice of a reference that would follow; None for no choice."""
    apart = differing(targets)
    if not apart:
        return _twice(folder, targets)
    first = min(targets, key=lambda image: entities_text(image.chosen_by(apart)))
    candidates = _others(references, first)
    of_reference = [] if request.settled(first, candidates) else request.choices(first, candidates)
    choices = sorted((image.chosen_by([*apart, *_own_run(first, of_reference)]) for image in targets), key=entities_text)
    finding = f"{len(targets)} {request.target} images could be the target ({_names(targets)})"
    return Fault(folder, finding, request.cure(choices, of_reference))


def _own_run(target: BidsImage, choices: Sequence[Entities]) -> list[str]:
    """The run, where the choice of another run's reference is to hold for this target only."""
    return [RUN] if target.value(RUN) and any(RUN in choice for choice in choices) else []


def _reference(target: BidsImage, request: BidsRequest, candidates: list[BidsImage]) -> BidsImage | None:
    """The target's reference, or None for a target without one.

    Raises:
        Fault: there is none, or not one.
    """
    if not candidates:
        if request.reference_optional:
            return None
        raise _without_reference(target, request)
    if settled := request.settled(target, candidates):
        return settled
    if fault := _twice(target.path.parent, candidates):
        raise fault
    choices = request.choices(target, candidates)
    kind = "images" if differing(candidates) else "runs"
    finding = f"{len(candidates)} {request.reference} {kind} could be its reference ({_names(candidates)})"
    if len(candidates) == 1:
        finding = f"the only {request.reference} is of another run ({_names(candidates)})"
    own = [target.chosen_by(names)] if (names := _own_run(target, choices)) else []
    raise Fault(target.path, finding, request.cure(own, choices))


def _without_reference(target: BidsImage, request: BidsRequest) -> Fault:
    """The fault of a target without a reference; one of another session is named, not taken: the head may have changed in between."""
    with_entities = f" with {entities_text(request.of_reference)}" if request.of_reference else ""
    searched = f"searched *_{request.reference}.nii[.gz]{with_entities} in its folder"
    folders = session_folders(target.dataset, [target.path.relative_to(target.dataset).parts[0].removeprefix("sub-")])
    elsewhere = [image for folder in folders if folder != target.path.parent for image in request.images(target.dataset, folder)[1]]
    if elsewhere:
        finding = f"no reference of its session ({searched}; another session has {_names(elsewhere)})"
        cure = "--reference-optional, or super-resolve --target FILE --reference FILE where two visits may be mixed"
        return Fault(target.path, finding, cure)
    return Fault(target.path, f"no reference beside it ({searched})", "check --reference and its entities, or --reference-optional")
