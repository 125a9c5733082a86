"""Images of a BIDS dataset: their names, and where they lie.

Source: Brain Imaging Data Structure 1.10, bids-specification.readthedocs.io.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.volumes.files import check_present

__all__ = [
    "DESCRIPTION",
    "RUN",
    "BidsImage",
    "Entities",
    "check_dataset",
    "check_labels",
    "differing",
    "entities_text",
    "read_object",
    "read_entities",
    "read_labels",
    "session_folders",
    "suffix_of",
]

Entities = dict[str, str]

DESCRIPTION = "dataset_description.json"
NAME = re.compile(r"(?P<entities>(?:[a-zA-Z]+-[a-zA-Z0-9+]+_)+)(?P<suffix>[a-zA-Z0-9]+)\.nii(?:\.gz)?")
SIDE_FILE = re.compile(r"(?P<entities>(?:[a-zA-Z]+-[a-zA-Z0-9+]+_)*)(?P<suffix>[a-zA-Z0-9]+)\.json")
ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]*)")
NOT_MAGNITUDE = ("phase", "real", "imag")  # values of the entity part
RUN = "run"  # the entity in which scans may differ that are otherwise the same
INDICES = (RUN, "echo", "flip", "inv", "split", "chunk")  # entities whose values are numbers: 01 is 1
AFTER_RES = ("den", "label")  # entities that stand between res and desc
MOST_NAMED = 20  # labels that a message lists


@dataclass(frozen=True)
class BidsImage:
    """An image in a BIDS dataset.

    Args:
        dataset: folder of the dataset.
        path: path of the image.
    """

    dataset: Path
    path: Path

    @cached_property
    def entities(self) -> Entities:
        """`sub-01_acq-fast_FLAIR.nii.gz` has sub 01 and acq fast, in this order."""
        return dict(ENTITY.findall(_parts(self.path)[0]))

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return self.path.name.removesuffix(".gz").removesuffix(".nii")

    @property
    def relative(self) -> str:
        """The path within its dataset, with forward slashes."""
        return self.path.relative_to(self.dataset).as_posix()

    def value(self, entity: str) -> str:
        """Value of an entity as it is compared, an index without leading zeros; empty where the entity is absent."""
        return _comparable(entity, self.entities.get(entity, ""))

    def chosen_by(self, names: Iterable[str]) -> Entities:
        """The values of these entities; empty for those that are absent."""
        return {name: self.entities.get(name, "") for name in names}

    def fits(self, wanted: Entities) -> bool:
        """Whether it has these entities; an empty value wants the entity to be absent. Of complex images only magnitudes fit unasked."""
        if "part" not in wanted and self.entities.get("part") in NOT_MAGNITUDE:
            return False
        return all(self.value(name) == _comparable(name, value) for name, value in wanted.items())

    def derived(self, resolution: str, description: str) -> str:
        """Path of what is made of it, relative to the derivative dataset: the same name with another `res` and `desc`."""
        kept = {name: value for name, value in self.entities.items() if name not in ("res", "desc")}
        late = {name: kept.pop(name) for name in AFTER_RES if name in kept}
        entities = kept | {"res": resolution} | late | {"desc": description}
        return f"{self.path.parent.relative_to(self.dataset).as_posix()}/{entities_text(entities)}_{suffix_of(self.path)}.nii.gz"

    def metadata(self) -> dict[str, Any]:
        """What its side files say: by the inheritance principle those of its suffix, and of none but its entities, in its folder and above.

        Raises:
            Fault: one cannot be read, or is not fetched.
        """
        found: dict[str, Any] = {}
        for folder in reversed(self.path.relative_to(self.dataset).parents):
            for path in sorted((self.dataset / folder).glob("*.json"), key=lambda path: path.name.count("_")):  # the closest one last
                name = SIDE_FILE.fullmatch(path.name)
                if name and name["suffix"] == suffix_of(self.path) and set(ENTITY.findall(name["entities"])) <= self.entities.items():
                    found |= read_object(path)
        return found

    @staticmethod
    def of(dataset: Path, folder: Path, suffix: str) -> list[BidsImage]:
        """The images of a suffix in a folder, and links that lead nowhere: git-annex leaves them for what is not fetched."""
        return [BidsImage(dataset, path) for path in sorted(folder.glob("*.nii*")) if suffix_of(path) == suffix and not path.is_dir()]


def check_dataset(dataset: Path) -> None:
    """Find out whether a folder is that of a BIDS dataset.

    Raises:
        Fault: it is not.
    """
    if not dataset.is_dir():
        raise Fault(dataset, "no such folder", "give the folder of a BIDS dataset")
    if not os.path.lexists(dataset / DESCRIPTION):
        raise Fault(dataset, f"not a BIDS dataset (no {DESCRIPTION} in it)", "give the dataset's top folder")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none.

    Raises:
        Fault: it cannot be read, or is not fetched.
    """
    if not os.path.lexists(path):
        return {}
    check_present(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise Fault(path, f"cannot be read as JSON ({error})", "correct or remove it") from None
    if not isinstance(content, dict):
        raise Fault(path, "holds no JSON object", "correct or remove it")
    return content


def session_folders(dataset: Path, participants: Sequence[str] = (), sessions: Sequence[str] = ()) -> Iterator[Path]:
    """The folders with anatomical images, by subject and session.

    Args:
        dataset: folder of the dataset.
        participants: labels of the subjects; empty for all.
        sessions: labels of the sessions; empty for all, and for subjects without sessions.
    """
    for subject in _folders(dataset, "sub-", participants):
        for session in [*([] if sessions else [subject]), *_folders(subject, "ses-", sessions)]:
            if (session / "anat").is_dir():
                yield session / "anat"


def check_labels(dataset: Path, participants: Sequence[str], sessions: Sequence[str]) -> None:
    """Refuse labels that the dataset does not have.

    Raises:
        UsageFault: it has no such participant, or none of the participants has such a session.
    """
    _check_labels("--participant-label", dataset, "sub-", participants, [dataset])
    _check_labels("--session-label", dataset, "ses-", sessions, _folders(dataset, "sub-", participants))


def read_labels(prefix: str, labels: Iterable[str]) -> tuple[str, ...]:
    """Labels without their prefix `sub-` or `ses-`, each once."""
    return tuple(dict.fromkeys(label.removeprefix(prefix) for label in labels))


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


def entities_text(entities: Entities) -> str:
    """Entities as `read_entities` reads them."""
    return "_".join(f"{name}-{value}" for name, value in entities.items())


def differing(images: Sequence[BidsImage]) -> list[str]:
    """The entities in which images differ, apart from the run."""
    names = dict.fromkeys(name for image in images for name in image.entities if name != RUN)
    return [name for name in names if len({image.value(name) for image in images}) > 1]


def suffix_of(path: Path) -> str:
    """Suffix of an image, as FLAIR; empty if the name is none of BIDS."""
    return _parts(path)[1]


def _parts(path: Path) -> tuple[str, str]:
    """Entities and suffix of a file's name; both empty if it is none of BIDS."""
    match = NAME.fullmatch(path.name)
    return (match["entities"], match["suffix"]) if match else ("", "")


def _comparable(entity: str, value: str) -> str:
    return str(int(value)) if entity in INDICES and value.isdecimal() else value


def _folders(folder: Path, prefix: str, labels: Sequence[str]) -> list[Path]:
    found = sorted(path for path in folder.glob(f"{prefix}*") if path.is_dir())
    return [path for path in found if not labels or path.name.removeprefix(prefix) in labels]


def _check_labels(option: str, dataset: Path, prefix: str, labels: Sequence[str], folders: Sequence[Path]) -> None:
    there = sorted({path.name.removeprefix(prefix) for folder in folders for path in _folders(folder, prefix, ())})
    missing = [label for label in labels if label not in there]
    if missing:
        more = f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else ""
        present = f"{', '.join(there[:MOST_NAMED])}{more}" if there else "none"
        names = ", ".join(f"{prefix}{label}" for label in missing)
        raise UsageFault(option, f"no {names} in {dataset} (present: {present})", f"{option} {there[0]}" if there else "leave it out")
