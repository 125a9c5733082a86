"""FreeSurfer's MGH files by nibabel, NRRD and MetaImage files by ITK, for those who keep no NIfTI."""

from __future__ import annotations

import hashlib
import re
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from hftn_sr.errors import Fault
from hftn_sr.volumes.files import check_present, sha256_of
from hftn_sr.volumes.header_affine import COPY_AGAIN
from hftn_sr.volumes.nifti import ReadOptions, VolumeHeader
from hftn_sr.volumes.volume import Volume

__all__ = ["is_other_format", "other_sha256", "read_other", "read_other_header"]

MGH, HEADERS = (".mgz", ".mgh"), (".mhd", ".nhdr")
ITK = (".nrrd", ".mha", *HEADERS)
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


def is_other_format(path: str | PathLike[str]) -> bool:
    """Whether the name is that of an MGH, NRRD or MetaImage file."""
    return Path(path).name.lower().endswith((*MGH, *ITK))


def read_other(path: str | PathLike[str], options: ReadOptions, blank: bool = False) -> Volume:
    """Read one scalar volume from an MGH, NRRD or MetaImage file.

    Args:
        path: .mgz, .mgh, .nrrd, .nhdr, .mha or .mhd; a header of a pair names its own file of voxels.
        options: `frame`, `nan_to_num` count.
        blank: whether an image without signal is read like any other.

    Returns:
        Voxels (X, Y, Z) as float32, any unit.

    Raises:
        Fault: damaged, not a scalar volume, several volumes, voxels that are not finite, or no signal.
    """
    path = Path(path)
    sha256 = other_sha256(path)
    voxels, affine = _mgh(path) if path.suffix.lower() in MGH else _itk(path)
    notes: list[str] = []
    data = _one_volume(path, voxels, options, notes)
    bad = int(data.size - np.isfinite(data).sum())
    if bad and not options.nan_to_num:
        raise Fault(path, f"{bad} of {data.size} voxels are NaN or infinite", "--nan-to-num to take 0 for them")
    if bad:
        data[~np.isfinite(data)] = 0
        notes.append(f"{path.name}: {bad} voxels that are not finite taken as 0")
    if not blank and data.min() == data.max():
        raise Fault(path, f"no signal: every voxel is {data.flat[0]:g}", "check the export of this image")
    return Volume(data, affine, path, sha256, notes=tuple(notes))


def read_other_header(path: str | PathLike[str], options: ReadOptions) -> VolumeHeader:
    """The grid of what `read_other` reads; the whole file is read for it.

    Raises:
        Fault: as `read_other`.
    """
    volume = read_other(path, options, blank=True)
    return VolumeHeader(volume.path, volume.grid)


def other_sha256(path: Path) -> str:
    """SHA-256 of the file, or of the SHA-256 of a header and its file of voxels, in hexadecimal.

    Raises:
        Fault: one of them is not there.
    """
    check_present(path)
    voxels = _voxel_file(path)
    if voxels is None:
        return sha256_of(path)
    check_present(voxels)
    return hashlib.sha256(f"{sha256_of(path)}\n{sha256_of(voxels)}\n".encode()).hexdigest()


def _mgh(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    try:
        image = nib.MGHImage.from_filename(path)
        return np.asarray(image.dataobj), np.asarray(image.affine, dtype=float)
    except (OSError, EOFError, ValueError, KeyError, zlib.error, ImageFileError) as error:
        raise Fault(path, f"truncated or damaged ({error})", COPY_AGAIN) from error


def _itk(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import itk  # here, because it takes a second to load, and most images are NIfTI

    try:
        image = itk.imread(str(path))
    except (RuntimeError, TypeError, KeyError, OSError) as error:  # whose texts name a place in ITK's source
        raise Fault(path, "truncated, damaged or of a kind of voxels that is not read", COPY_AGAIN) from error
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetImageDimension() not in (2, 3):
        sizes = " x ".join(map(str, itk.size(image)))
        finding = f"not a scalar volume ({image.GetNumberOfComponentsPerPixel()} components, sizes {sizes})"
        raise Fault(path, finding, "give a file with one 3D volume")
    dimension = image.GetImageDimension()
    directions = itk.array_from_matrix(image.GetDirection()) @ np.diag(list(image.GetSpacing()))
    affine = np.eye(4)
    affine[:dimension, :dimension], affine[:dimension, 3] = directions, list(image.GetOrigin())
    voxels = itk.array_from_image(image).T
    return (voxels if dimension == 3 else voxels[..., None]), LPS_TO_RAS @ affine


def _one_volume(path: Path, voxels: NDArray[Any], options: ReadOptions, notes: list[str]) -> NDArray[np.float32]:
    if voxels.dtype.kind not in "fiub" or voxels.ndim not in (3, 4):
        raise Fault(path, f"not a scalar volume (sizes {voxels.shape}, {voxels.dtype} voxels)", "give a file with one 3D volume")
    frames = voxels.shape[3] if voxels.ndim == 4 else 1
    if frames > 1:
        if options.frame is None or not 0 <= options.frame < frames:
            raise Fault(path, f"{frames} volumes in one file (found 4D, need 3D)", f"--frame N with N from 0 to {frames - 1}")
        notes.append(f"{path.name}: volume {options.frame} of {frames}")
    chosen = voxels[..., options.frame or 0 if frames > 1 else 0] if voxels.ndim == 4 else voxels
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite and is counted
        return np.asfortranarray(chosen, dtype=np.float32)


def _voxel_file(path: Path) -> Path | None:
    """The file of voxels that a header names; None where they follow the header."""
    if path.suffix.lower() not in HEADERS:
        return None
    with path.open("rb") as stream:
        named = re.search(rb"^(?:ElementDataFile *=|data file:) *(\S[^\r\n]*?) *\r?$", stream.read(1 << 16), re.MULTILINE)
    name = named[1].decode("utf-8", "replace") if named else ""
    if not name:
        raise Fault(path, "a header that names no file of voxels", COPY_AGAIN)
    if name.split()[0] == "LIST" or "%" in name:
        raise Fault(path, f"voxels in many files ({name})", "save it as one .mha or .nrrd file")
    return None if name == "LOCAL" else path.parent / name
