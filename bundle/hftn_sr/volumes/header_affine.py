"""Where a NIfTI header says that the voxels lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from hftn_sr.errors import Fault, Note

__all__ = ["COPY_AGAIN", "AssumedAffine", "affine_fault", "header_affine"]

AssumedAffine = Literal["sform", "qform", "spacing"]

COPY_AGAIN = "copy or export it again from its source"
FORM_TOLERANCE = 0.5  # of the smallest voxel size, that sform and qform may place a corner apart
UNITS = {1: ("metres", 1e3), 2: ("mm", 1.0), 3: ("micrometres", 1e-3)}  # NIfTI's codes of lengths
SPACE_BITS = 0x07
SMALLEST_VOXEL, LARGEST_VOXEL = 8e-3, 100.0  # mm, of the largest side of a voxel of an MR image
FORM_CODES = nib.nifti1.xform_codes.value_set("code")
SHEAR_TOLERANCE = 1e-3  # cosine between two axes that counts as sheared


def header_affine(path: Path, header: Any, assumed: AssumedAffine | None, notes: list[str]) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Voxel index to RAS+ mm (4, 4), by sform before qform, and the codes of both.

    Args:
        path: the file, for messages.
        header: nibabel's NIfTI header.
        assumed: see `nifti.ReadOptions`.
        notes: gets what was found on the way.

    Raises:
        Fault: no form, two that contradict each other, or one that is no affine map.
    """
    affine, codes = _as_stored(path, header, assumed, notes)
    return _in_mm(path, header, affine, notes), codes


def _as_stored(path: Path, header: Any, assumed: AssumedAffine | None, notes: list[str]) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """The affine in the header's own unit of length."""
    codes = (_code(path, header, "sform", notes), _code(path, header, "qform", notes))
    known = {name for name, code in zip(("sform", "qform"), codes, strict=True) if code > 0}
    if len(known) == 2 and assumed in known:
        known = {assumed}
        notes.append(Note(f"{path.name}: placed by its {assumed}, as asked"))
    forms = {}
    if "sform" in known:
        forms["sform"] = np.asarray(header.get_sform(), dtype=float)
    if "qform" in known:
        forms["qform"] = _qform(path, header)
    if not forms and assumed == "spacing":
        forms["spacing"] = np.diag([*_spacing(header), 1.0])
        notes.append(Note(f"{path.name}: placed by voxel sizes alone, as asked (--assume-affine spacing)"))
    if not forms:
        raise Fault(path, "no position in space (sform and qform codes are 0)", "--assume-affine spacing, if voxel sizes are enough")
    faults = {name: fault for name, form in forms.items() if (fault := affine_fault(path, name, form, notes))}
    if faults:
        fault = next(iter(faults.values()))
        good = [other for other in forms if other not in faults]
        raise Fault(path, fault, f"--assume-affine {good[0]}, which is sound" if good else COPY_AGAIN)
    if len(forms) == 2:
        _compare_forms(path, header, forms["sform"], forms["qform"], notes)
    if list(forms) == ["sform"] and len([code for code in codes if code > 0]) == 1:
        return _with_sizes(path, header, forms["sform"], assumed, notes), codes
    return next(iter(forms.values())), codes


def _with_sizes(
    path: Path, header: Any, sform: NDArray[np.float64], assumed: AssumedAffine | None, notes: list[str]
) -> NDArray[np.float64]:
    """An sform that no qform confirms, held against the header's voxel sizes.

    Some programs write only directions into the sform (columns of length 1), and the voxel sizes only into pixdim.
    """
    if not (np.isfinite(header["pixdim"][1:4]).all() and np.all(header["pixdim"][1:4] != 0)):  # it names no sizes
        return sform
    sizes, stored = np.linalg.norm(sform[:3, :3], axis=0), np.array(_spacing(header))
    if np.abs((sizes - stored) * (np.array(_counts(header)) - 1)).max() <= FORM_TOLERANCE * sizes.min():
        return sform
    told = " and ".join(" x ".join(f"{size:.4g}" for size in each) for each in (sizes, stored))
    if assumed == "sform":
        notes.append(Note(f"{path.name}: voxel sizes {told} mm by sform and pixdim; those of the sform used, as asked"))
        return sform
    if assumed != "spacing":
        raise Fault(
            path,
            f"its sform and its pixdim name different voxel sizes ({told} mm)",
            "--assume-affine sform or --assume-affine spacing, whichever sizes are the scan's",
        )
    notes.append(Note(f"{path.name}: voxel sizes {told} mm by sform and pixdim; those of pixdim used, as asked"))
    affine = sform.copy()
    affine[:3, :3] *= stored / sizes
    return affine


def _in_mm(path: Path, header: Any, affine: NDArray[np.float64], notes: list[str]) -> NDArray[np.float64]:
    unit, millimetres = UNITS.get(int(header["xyzt_units"]) & SPACE_BITS, ("mm", 1.0))
    if millimetres == 1:
        return affine
    converted = affine.copy()
    converted[:3] *= millimetres
    sizes = np.linalg.norm(converted[:3, :3], axis=0)
    if sizes.max() > LARGEST_VOXEL or sizes.max() < SMALLEST_VOXEL:
        told = " x ".join(f"{size:.4g}" for size in sizes)
        raise Fault(path, f"its header counts in {unit}, which makes voxels of {told} mm", "correct xyzt_units in its header")
    notes.append(Note(f"{path.name}: its header counts in {unit}; converted to mm"))
    return converted


def _code(path: Path, header: Any, name: str, notes: list[str]) -> int:
    """The code of a form; 0, as in nibabel, for one that the standard does not know."""
    code = int(header[f"{name}_code"])
    if code in FORM_CODES:
        return code
    notes.append(f"{path.name}: its {name}_code {code} is not known and counts as 0, its {name} as missing")
    return 0


def _qform(path: Path, header: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(header.get_qform(), dtype=float)
    except (ValueError, HeaderDataError) as error:
        raise Fault(path, f"its qform is impossible ({error})", "--assume-affine sform, if that one is right") from None


def _spacing(header: Any) -> list[float]:
    return [abs(float(size)) if np.isfinite(size) and size != 0 else 1.0 for size in header["pixdim"][1:4]]


def affine_fault(path: Path, name: str, affine: NDArray[np.float64], notes: list[str]) -> str:
    """Why a form is no affine map of space; empty where it is one."""
    matrix = affine[:3, :3]
    if not np.isfinite(affine).all():
        return f"its {name} holds numbers that are not finite"
    lengths = np.linalg.norm(matrix, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        axes = matrix / lengths
    if lengths.min() == 0 or abs(np.linalg.det(axes)) < 1e-3:
        return f"its {name} is singular (voxel sizes {lengths.round(4).tolist()})"
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine > SHEAR_TOLERANCE:
        notes.append(f"{path.name}: sheared axes (cosine {cosine:.3f}), kept as they are; ITK and 3D Slicer refuse such an image")
    return ""


def _counts(header: Any) -> list[int]:
    return [int(size) if index < header["dim"][0] else 1 for index, size in enumerate(header["dim"][1:4])]


def _compare_forms(path: Path, header: Any, sform: NDArray[np.float64], qform: NDArray[np.float64], notes: list[str]) -> None:
    sizes = _counts(header)
    corners = np.array([[x, y, z, 1] for x in (0, sizes[0] - 1) for y in (0, sizes[1] - 1) for z in (0, sizes[2] - 1)], dtype=float)
    apart = float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())
    allowed = FORM_TOLERANCE * float(np.linalg.norm(sform[:3, :3], axis=0).min())
    if apart > allowed:
        raise Fault(
            path,
            f"sform and qform place a corner {apart:.2f} mm apart (at most {allowed:.2f} mm is accepted)",
            "--assume-affine sform or --assume-affine qform, whichever a viewer shows right",
        )
    if apart > 0.01:
        notes.append(Note(f"{path.name}: sform and qform differ by {apart:.3f} mm; sform used"))
