"""The files of a request: the target that it names, and the reference that belongs to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.pairs.cases import case_files

__all__ = ["NAMES", "Forbidden", "Images", "NameRule", "NotFound", "Pair", "find_pair", "name_rules", "paired_images"]

NAMES = "*_FLAIR=*_T2W, *_FLAIR=*_T2w, *_PDFS=*_PD, *_target=*_reference"  # the open MS data, BIDS, fastMRI, case folders
SUFFIXES = (".nii.gz", ".nii")


class NotFound(Fault):
    """A target or a reference that is not there."""


class Forbidden(Fault):
    """A path that the server does not open for a client."""


class Images(Protocol):
    """The part of a MONAI Label datastore that is used."""

    def list_images(self) -> list[str]:
        """All IDs."""

    def get_image_uri(self, image_id: str) -> str:
        """Path of an image; empty where there is no such ID."""


@dataclass(frozen=True)
class NameRule:
    """How the ID of a reference follows from that of its target.

    Args:
        target: pattern with one `*`.
        reference: pattern with one `*`, which stands for the same text.
    """

    target: str
    reference: str

    def reference_of(self, image_id: str) -> str | None:
        """ID of the reference of a target; None where the rule is not for it."""
        head, tail = self.target.split("*")
        if not image_id.startswith(head) or not image_id.endswith(tail) or len(image_id) <= len(head) + len(tail):
            return None
        return self.reference.replace("*", image_id[len(head) : len(image_id) - len(tail)])


@dataclass(frozen=True)
class Pair:
    """The two images of a request.

    Args:
        name: of the target, for messages and the result's file name.
        target: its file.
        reference: the other contrast's file.
        how: how the reference was found, in words.
    """

    name: str
    target: Path
    reference: Path
    how: str


def name_rules(text: str) -> tuple[NameRule, ...]:
    """Rules from `TARGET=REFERENCE, ...`, each side with one `*`, for example `*_FLAIR=*_T2W`.

    Raises:
        UsageFault: the text is not of that form.
    """
    rules = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        target, equals, reference = (side.strip() for side in part.partition("="))
        if not equals or target.count("*") != 1 or reference.count("*") != 1 or target == reference:
            raise UsageFault("names", f"{part!r} is no rule (need TARGET=REFERENCE, two patterns, each with one *)", "names *_FLAIR=*_T2W")
        rules.append(NameRule(target, reference))
    if not rules:
        raise UsageFault("names", "no rule in it", "names *_FLAIR=*_T2W")
    return tuple(rules)


def paired_images(images: Images, rules: Iterable[NameRule]) -> dict[str, str]:
    """ID of each target whose reference is there, by the rules, to the reference's ID; of several references, the first rule's."""
    ids = set(images.list_images())
    pairs: dict[str, str] = {}
    for rule in rules:
        for image_id in sorted(ids):
            reference = rule.reference_of(image_id)
            if reference in ids and reference is not None:
                pairs.setdefault(image_id, reference)
    return pairs


def find_pair(images: Images, image: str, reference: str, rules: Sequence[NameRule], roots: Sequence[Path]) -> Pair:
    """The pair of a request.

    Args:
        images: the datastore.
        image: ID of the target, or a path in one of the roots; a folder must hold `target` and `reference` as a case does.
        reference: ID or path of the reference; empty for the one that the rules name.
        rules: how references are named.
        roots: folders that may be read; relative paths start from the first.

    Raises:
        NotFound: no such ID or file, or no reference by the rules.
        Forbidden: a path outside of the roots.
        Fault: several references by the rules.
    """
    target = _file(images, image, "image", roots)
    if target.is_dir():
        if reference:
            raise UsageFault("reference", "does not go with a folder, which holds its own", "leave it out")
        files = case_files(target)
        if files is None:
            raise NotFound(target, "no target.nii.gz with reference.nii.gz in it", "name the two uploaded files so")
        return Pair(target.name, files.target, files.reference, "of one upload")
    name = image if images.get_image_uri(image) else _stem(target)
    if reference:
        known = bool(images.get_image_uri(reference))
        return Pair(name, target, _file(images, reference, "reference", roots), "by ID" if known else "by path")
    wanted = list(dict.fromkeys(filter(None, (rule.reference_of(name) for rule in rules))))
    found = [other for other in wanted if images.get_image_uri(other)]
    if not found:
        searched = f"searched {', '.join(wanted)}" if wanted else f"{name!r} fits none of the patterns {_targets(rules)}"
        raise NotFound(name, f"no reference by its name ({searched})", "give its ID or path as the parameter reference, or other names")
    if len(found) > 1:
        raise Fault(name, f"several references by its name ({', '.join(found)})", "give one of them as the parameter reference")
    return Pair(name, target, Path(images.get_image_uri(found[0])), f"by name rule, {found[0]}")


def _file(images: Images, asked: str, option: str, roots: Sequence[Path]) -> Path:
    if uri := images.get_image_uri(asked):
        return Path(uri)
    if "\0" in asked:
        raise UsageFault(option, "is no ID and no path", f"give the ID of an image as {option}")
    allowed = [root.resolve() for root in roots]
    path = Path(*allowed[:1], asked).resolve()  # an absolute path stays as it is; links are followed before the check
    inside = any(path.is_relative_to(root) and path != root for root in allowed)
    if not inside and ("/" in asked or "\\" in asked):
        raise Forbidden(asked, "outside of the datastore", f"give the ID of an image as {option}, or upload both images in a session")
    if not inside or not path.exists():
        raise NotFound(asked, f"is no ID and no file of the datastore ({option})", "GET /datastore/?output=all lists the IDs")
    return path


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith(suffix)), path.name)


def _targets(rules: Iterable[NameRule]) -> str:
    return ", ".join(dict.fromkeys(rule.target for rule in rules))
