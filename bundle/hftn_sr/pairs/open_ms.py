"""T1, T2 and FLAIR pairs of multiple-sclerosis patients: fetch the files, list the pairs, write a MONAI datalist.

Data: https://github.com/muschellij2/open_ms_data, CC-BY, 3T clinical protocol. Cite Lesjak et al. 2016, "Validation of white-matter lesion
change detection methods on a novel publicly available MRI image database", Neuroinformatics (longitudinal), and Lesjak et al. 2017,
doi:10.1007/s12021-017-9348-7 (cross-sectional). The licence files are fetched with the images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

from hftn_sr.errors import Fault
from hftn_sr.pairs.download import FetchReport, Progress, Source, data_folder, fetch, read_table
from hftn_sr.volumes.files import write_json

__all__ = ["fetch_open_ms", "open_ms_pairs", "write_datalist", "OpenMSPair", "LeftOut", "Targets", "REPOSITORY", "COMMIT"]

REPOSITORY = "muschellij2/open_ms_data"
COMMIT = "65704901f60650824565aa5a4818611aa89716f4"
FOLDER = "open_ms_data"  # of the data inside a mirror that holds other data too
Split = Literal["train", "validation", "test"]
LeftOut = Literal["patient01", "patient03", "patient04"]  # those with a native T2W
Targets = Literal["FLAIR", "all"]

# Both studies of a patient belong to one split. The two databases number their patients independently.
PATIENTS: dict[Split, tuple[str, ...]] = {
    "train": ("longitudinal/raw/patient01", "longitudinal/raw/patient19", "longitudinal/raw/patient20", "cross_sectional/MNI/patient07"),
    "validation": ("longitudinal/raw/patient03", "cross_sectional/MNI/patient19"),
    "test": ("longitudinal/raw/patient04",),
}
SPLITS = {patient: split for split, patients in PATIENTS.items() for patient in patients}
SECTIONS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "testing"}  # of a MONAI datalist
# The transform of this image leaves it about one voxel off in y (peak of the mutual information), which would teach the network a shift.
# It is the only pair of patient 20, who is thus fetched but not listed.
MISALIGNED = {"longitudinal/raw/patient20/study2_T1W_intrastudy_to_FLAIR.txt"}
TRANSFORM = re.compile(r"longitudinal/raw/patient(?P<patient>\d+)/(?P<study>study\d)_(?P<contrast>T[12])W_intrastudy_to_FLAIR\.txt")
MNI_NAME = "{}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz"
MNI_LESIONS = "GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI.nii.gz"


@dataclass(frozen=True)
class OpenMSPair:
    """A target to super-resolve and the reference of the same patient and visit.

    Args:
        case: unique name, database and patient first, then reference_to_target: "longitudinal04_study1_T2_to_FLAIR".
        split: the patient's split.
        target: NIfTI image at full resolution; its low-resolution input is simulated.
        reference: NIfTI image of the other contrast, on its own grid for longitudinal cases, on the target's 1 mm grid for MNI cases.
        transform: ITK transform file (LPS, mm) from a target point to a reference point, as ITK resampling wants it; None for identity.
        inverse_transform: ITK transform file whose inverse comes before `transform`; None for identity.
        target_contrast: "T1", "T2" or "FLAIR".
        reference_contrast: "T1", "T2" or "FLAIR".
        lesions: NIfTI mask on the target's grid, the consensus of the data's raters; None where there is none.
    """

    case: str
    split: Split
    target: Path
    reference: Path
    transform: Path | None
    target_contrast: str
    reference_contrast: str
    lesions: Path | None = None
    inverse_transform: Path | None = None

    @property
    def native(self) -> bool:
        """Whether both are series as scanned, not volumes on one template."""
        return self.transform is not None or self.inverse_transform is not None


def fetch_open_ms(output: Path, mirror: Path | None = None, progress: Progress | None = None) -> FetchReport:
    """Bring the 41 files (72 MB) into `output`, see `fetch`."""
    return fetch(_source(), Path(output), mirror, progress)


def open_ms_pairs(root: Path, targets: Targets = "FLAIR") -> list[OpenMSPair]:
    """List all pairs under `root` (the fetched data, or the folder above it), sorted by case.

    Longitudinal, native grids: FLAIR as target, T1 or T2 as reference; or every ordered pair of the three. Cross-sectional (MNI): every
    ordered pair of T1, T2 and FLAIR; there T1 and T2 were thick-slice, so only axial slices are of use.

    Args:
        root: the fetched data, or the folder above it.
        targets: contrasts of the native series that are targets.

    Raises:
        Fault: a file of a pair is missing.
    """
    folder = data_folder(Path(root), FOLDER)
    native = (pair for pair in _native_pairs(folder) if targets == "all" or pair.target_contrast == "FLAIR")
    pairs = sorted([*native, *_mni_pairs(folder)], key=lambda pair: pair.case)
    files = (path for pair in pairs for path in (pair.target, pair.reference, pair.transform, pair.inverse_transform, pair.lesions))
    for path in files:
        if path is not None and not path.is_file():
            raise Fault(path, f"found no such file, need the data of {REPOSITORY}", "fetch the data into this folder first")
    return pairs


def write_datalist(root: Path, output_json: Path, left_out: LeftOut | None = None, targets: Targets = "FLAIR") -> None:
    """Write the pairs as a MONAI datalist: "training", "validation" and "testing", paths relative to `root`, "" for no transform.

    Native FLAIR series are drawn three times as often in training as the MNI pairs: they are what users have, and those are of one patient.
    Other native targets are drawn half as often as FLAIR.

    Args:
        root: the fetched data, or the folder above it.
        output_json: to write.
        left_out: longitudinal patient kept for testing; MNI patient 19 is for validation then, all others for training.
        targets: see `open_ms_pairs`.

    Raises:
        Fault: a file of a pair is missing, or `output_json` cannot be written.
    """
    datalist: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "testing": []}
    for pair in open_ms_pairs(root, targets):
        paths = {"target": pair.target, "reference": pair.reference, "transform": pair.transform}
        paths |= {name: path for name in ("inverse_transform", "lesions") if (path := getattr(pair, name))}
        entry = {name: path.relative_to(root).as_posix() if path else "" for name, path in paths.items()}
        split = _fold(pair, left_out) if left_out else pair.split
        datalist[SECTIONS[split]].append({"case": pair.case, **entry, "weight": _weight(pair)})
    write_json(output_json, datalist)


def _weight(pair: OpenMSPair) -> float:
    """How often a pair is drawn in training."""
    if not pair.native:
        return 1.0
    return 3.0 if pair.target_contrast == "FLAIR" else 1.5


def _fold(pair: OpenMSPair, left_out: LeftOut) -> Split:
    if not pair.native:
        return pair.split
    return "test" if pair.target.parent.name == left_out else "train"


def _native_pairs(folder: Path) -> Iterator[OpenMSPair]:
    """Every ordered pair of a visit's series. The transforms begin at a point of its FLAIR; inverted, they lead there from the others."""
    visits: dict[tuple[str, str], dict[str, Path]] = {}
    for match in filter(None, map(TRANSFORM.fullmatch, sorted(_source().files.keys() - MISALIGNED))):
        visits.setdefault((match["patient"], match["study"]), {})[match["contrast"]] = folder / match[0]
    for (patient, study), transforms in visits.items():
        split = SPLITS[f"longitudinal/raw/patient{patient}"]
        images = {contrast: path.with_name(f"{study}_{contrast}W.nii.gz") for contrast, path in transforms.items()}
        images["FLAIR"] = next(iter(images.values())).with_name(f"{study}_FLAIR.nii.gz")
        for target, reference in permutations(images, 2):
            case = f"longitudinal{patient}_{study}_{reference}_to_{target}"
            between = transforms.get(reference), transforms.get(target)
            yield OpenMSPair(case, split, images[target], images[reference], between[0], target, reference, inverse_transform=between[1])


def _mni_pairs(folder: Path) -> Iterator[OpenMSPair]:
    for patient in (patient for patient in SPLITS if patient.startswith("cross_sectional/")):
        images = {contrast: folder / patient / MNI_NAME.format(contrast) for contrast in ("T1", "T2", "FLAIR")}
        for target, reference in permutations(images, 2):
            case = f"mni{patient[-2:]}_{reference}_to_{target}"
            lesions = folder / patient / MNI_LESIONS if target == "FLAIR" else None
            yield OpenMSPair(case, SPLITS[patient], images[target], images[reference], None, target, reference, lesions)


def _source() -> Source:
    return read_table(Path(__file__).with_name("open_ms.sha256"), REPOSITORY, COMMIT, FOLDER)
