"""The images of one case, by the names that they have in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hftn_sr.errors import Fault
from hftn_sr.volumes.dicom import holds_dicom

__all__ = ["CaseFiles", "case_files", "case_folders", "lone_target"]

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".h5", ".hdf5")
TRANSFORM_SUFFIXES = (".txt", ".tfm", ".mat", ".h5")


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Args:
        target: image file or folder of a DICOM series.
        reference: one of another contrast.
        transform: ITK file that maps target points to reference points, if there is one.
    """

    target: Path
    reference: Path
    transform: Path | None


def case_folders(folder: Path) -> list[Path]:
    """Sub-folders of `folder` that may be cases, by name; hidden ones are none.

    Raises:
        Fault: the folder is missing.
    """
    if not folder.is_dir():
        raise Fault(folder, "no such folder", "give --cases the folder whose sub-folders are the cases")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def case_files(folder: Path) -> CaseFiles | None:
    """`target` and `reference` of a case, and its `reference_transform`.

    An image is a file of IMAGE_SUFFIXES or a folder of a DICOM series; the transform is a .txt, .tfm, .mat or .h5 file.

    Returns:
        None where the folder has neither image.

    Raises:
        Fault: one image without the other, or two files for one role.
    """
    images = {role: _image(folder, role) for role in ("target", "reference")}
    if not any(images.values()):
        return None
    for role, path in images.items():
        if path is None:
            raise Fault(folder, f"no {role} (searched {role}.nii.gz and the like, and {role}/ for DICOM)", f"put the {role} there")
    target, reference = (path for path in images.values() if path is not None)
    return CaseFiles(target, reference, _one(folder, "reference_transform", TRANSFORM_SUFFIXES))


def lone_target(folder: Path) -> Path | None:
    """`target`, a file or a folder of a DICOM series, of a case without a reference; None where it has one, or has no target.

    Raises:
        Fault: two files for one role, or the transform of a reference that is not there.
    """
    target, reference = (_image(folder, role) for role in ("target", "reference"))
    if reference or not target:
        return None
    if transform := _one(folder, "reference_transform", TRANSFORM_SUFFIXES):
        raise Fault(folder, f"no reference, though {transform.name} is there", "put the reference there, or take its transform away")
    return target


def _image(folder: Path, role: str) -> Path | None:
    found, series = _one(folder, role, IMAGE_SUFFIXES), folder / role
    if not series.is_dir():
        return found
    if not found:
        return series  # also without DICOM files: reading it says so, where a case left out would not
    if holds_dicom(series):
        raise Fault(folder, f"ambiguous: {found.name} and the DICOM series {role}/", "keep one of them")
    return found


def _one(folder: Path, stem: str, suffixes: Sequence[str]) -> Path | None:
    named = [folder / f"{stem}{suffix}" for suffix in suffixes]
    found = [path for path in named if path.is_file() or path.is_symlink()]  # a link to nothing is no absent image; reading it says so
    if len(found) > 1:
        raise Fault(folder, f"ambiguous: {' and '.join(path.name for path in found)}", "keep one of them")
    return found[0] if found else None
