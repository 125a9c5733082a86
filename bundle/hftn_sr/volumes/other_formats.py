"""FreeSurfer's MGH files by nibabel, NRRD and MetaImage files by ITK, for those who keep no NIfTI."""

from __future__ import annotations

import gzip
import hashlib
import math
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from hftn_sr.errors import Fault, Note
from hftn_sr.volumes.files import check_present, sha256_of
from hftn_sr.volumes.header_affine import COPY_AGAIN, affine_fault
from hftn_sr.volumes.nifti import ReadOptions, VolumeHeader, note_surplus_frame
from hftn_sr.volumes.nifti_file import HIGHEST_GZIP_RATIO
from hftn_sr.volumes.volume import Volume

__all__ = ["is_other_format", "other_sha256", "read_other", "read_other_header"]

MGH, HEADERS = (".mgz", ".mgh"), (".mhd", ".nhdr")
ITK = (".nrrd", ".mha", *HEADERS)
NRRD = (".nrrd", ".nhdr")
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


def is_other_format(path: str | PathLike[str]) -> bool:
    """Whether the name is that of an MGH, NRRD or MetaImage file."""
    return Path(path).name.lower().endswith((*MGH, *ITK))


def read_other(path: str | PathLike[str], options: ReadOptions, blank: bool = False) -> Volume:
    """Read one scalar volume from an MGH, NRRD or MetaImage file.

    Args:
        path: .mgz, .mgh, .nrrd, .nhdr, .mha or .mhd; a header of a pair names its own file of voxels.
        options: `frame`, `nan_to_num` and `assume_affine` count, the last as `spacing` for a file without a position.
        blank: whether an image without signal is read like any other.

    Returns:
        Voxels (X, Y, Z) as float32, any unit.

    Raises:
        Fault: damaged, not a scalar volume, several volumes, voxels that are not finite, or no signal.
    """
    path = Path(path)
    sha256 = other_sha256(path)
    notes: list[str] = []
    voxels, affine = _mgh(path, options, notes) if path.suffix.lower() in MGH else _itk(path, options, notes)
    if impossible := affine_fault(path, "affine", affine, notes):
        raise Fault(path, impossible, COPY_AGAIN)
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


def _mgh(path: Path, options: ReadOptions, notes: list[str]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    try:
        with _quietly():
            image = nib.MGHImage.from_filename(path)
            _check_size(path, image.header)
            voxels, affine = np.asarray(image.dataobj), np.asarray(image.affine, dtype=float)
        placed, sizes = _says_its_place(path), [float(size) for size in image.header.get_zooms()[:3]]
    except (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, ImageFileError, HeaderDataError, MGHError) as error:
        raise Fault(path, f"truncated or damaged ({error})", COPY_AGAIN) from error
    if not placed:
        _need_spacing(path, options, notes)
        affine = np.diag([*sizes, 1.0])
    return voxels, affine


def _check_size(path: Path, header: Any) -> None:
    """Refuse a header that promises more voxels than the file can hold, before memory is asked for them."""
    needed = math.prod(int(size) for size in header["dims"]) * header.get_data_dtype().itemsize
    size = path.stat().st_size * (HIGHEST_GZIP_RATIO if path.suffix.lower() == ".mgz" else 1)
    if not 0 < needed <= size:
        raise Fault(path, f"truncated or damaged (its header promises {needed} bytes of voxels)", COPY_AGAIN)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what nibabel says on stderr of a damaged file: the fault says it."""
    before = imageglobals.logger.disabled
    imageglobals.logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        imageglobals.logger.disabled = before


def _says_its_place(path: Path) -> bool:
    """Whether goodRASFlag of an MGH file is set, which nibabel sets itself where it is not."""
    with gzip.open(path) if path.suffix.lower() == ".mgz" else path.open("rb") as stream:
        return stream.read(30)[28:] not in (b"", bytes(2))


def _itk(path: Path, options: ReadOptions, notes: list[str]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import itk  # here, because it takes a second to load, and most images are NIfTI

    _check_header(path, options, notes)
    try:
        image = itk.imread(str(path))
    except (RuntimeError, TypeError, KeyError, OSError) as error:  # whose texts name a place in ITK's source
        raise Fault(path, "truncated, damaged or of a kind of voxels that is not read", COPY_AGAIN) from error
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetImageDimension() not in (2, 3, 4):
        sizes = " x ".join(map(str, itk.size(image)))
        finding = f"not a scalar volume ({image.GetNumberOfComponentsPerPixel()} components, sizes {sizes})"
        raise Fault(path, finding, "give a file with one 3D volume")
    dimension = min(image.GetImageDimension(), 3)  # a fourth one is time, or another number of a volume
    directions = itk.array_from_matrix(image.GetDirection()) @ np.diag(list(image.GetSpacing()))
    affine = np.eye(4)
    affine[:dimension, :dimension], affine[:dimension, 3] = directions[:dimension, :dimension], list(image.GetOrigin())[:dimension]
    voxels = itk.array_from_image(image).T
    return (voxels if dimension == 3 else voxels[..., None]), LPS_TO_RAS @ affine


def _one_volume(path: Path, voxels: NDArray[Any], options: ReadOptions, notes: list[str]) -> NDArray[np.float32]:
    if voxels.dtype.kind not in "fiub" or voxels.ndim not in (3, 4):
        raise Fault(path, f"not a scalar volume (sizes {voxels.shape}, {voxels.dtype} voxels)", "give a file with one 3D volume")
    frames = voxels.shape[3] if voxels.ndim == 4 else 1
    if frames > 1:
        if options.frame is None or not 0 <= options.frame < frames:
            raise Fault(path, f"{frames} volumes in one file (found 4D, need 3D)", f"--frame N with N from 0 to {frames - 1}")
        notes.append(Note(f"{path.name}: volume {options.frame} of {frames}"))
    else:
        note_surplus_frame(path, options.frame, notes)
    chosen = voxels[..., options.frame or 0 if frames > 1 else 0] if voxels.ndim == 4 else voxels
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite and is counted
        return np.asfortranarray(chosen, dtype=np.float32)


def _header(path: Path) -> str:
    """The text that an NRRD or MetaImage file begins with; empty for MGH, whose header is binary."""
    if path.suffix.lower() in MGH:
        return ""
    with path.open("rb") as stream:
        start = stream.read(1 << 16)
    end = _end_of_header(path, start)
    return start[: end if end else None].decode("latin1")


def _end_of_header(path: Path, start: bytes) -> int:
    """Bytes of the header in front of the voxels: to the empty line of NRRD, to the end of MetaImage's last field; 0 if it has none."""
    ends = rb"\r?\n\r?\n" if path.suffix.lower() in NRRD else rb"^ElementDataFile *=[^\n]*\n"
    found = re.search(ends, start, re.MULTILINE)
    return found.end() if found else 0


def _field(header: str, name: str) -> str:
    found = re.search(rf"^{name} *[:=] *(\S[^\r\n]*?) *\r?$", header, re.MULTILINE)
    return found[1] if found else ""


def _voxel_file(path: Path) -> Path | None:
    """The file of voxels that a header names; None where they follow the header."""
    header = _header(path)
    name = _field(header, "ElementDataFile") or _field(header, "data ?file")
    if not name:
        if path.suffix.lower() in HEADERS and path.suffix.lower() not in NRRD:
            raise Fault(path, "a header that names no file of voxels", COPY_AGAIN)
        return None
    if name.split()[0] == "LIST" or "%" in name:
        raise Fault(path, f"voxels in many files ({name})", "save it as one .mha or .nrrd file")
    return None if name.upper() == "LOCAL" else path.parent / name


def _check_header(path: Path, options: ReadOptions, notes: list[str]) -> None:
    """What the header of an NRRD or MetaImage file says, and ITK passes over. Raises Fault."""
    header = _header(path)
    units = _field(header, "space units")
    if set(units.replace('"', " ").split()) - {"mm"}:
        raise Fault(path, f"its lengths are in {units}, need mm", "convert it to NIfTI or to mm")
    is_nrrd = path.suffix.lower() in NRRD
    placed = _field(header, "space directions") if is_nrrd else _field(header, "ElementSpacing") or _field(header, "ElementSize")
    if not placed:
        _need_spacing(path, options, notes)
    if not is_nrrd and _field(header, "CompressedData").lower() == "true":
        _check_deflated(path)


def _need_spacing(path: Path, options: ReadOptions, notes: list[str]) -> None:
    if options.assume_affine != "spacing":
        raise Fault(path, "no position in space", "--assume-affine spacing, if its voxel sizes are enough")
    notes.append(Note(f"{path.name}: placed by voxel sizes alone, as asked (--assume-affine spacing)"))


def _check_deflated(path: Path) -> None:
    """ITK gives whatever it got of damaged MetaImage data: their checksum is looked at here. Raises Fault."""
    voxels = _voxel_file(path)
    content = (voxels or path).read_bytes()
    inflate = zlib.decompressobj(wbits=47)  # zlib's or gzip's header
    try:
        inflate.decompress(content[0 if voxels else _end_of_header(path, content[: 1 << 16]) :])
    except zlib.error as error:
        raise Fault(path, f"damaged: the compressed data fails its check ({error})", COPY_AGAIN) from None
    if not inflate.eof:
        raise Fault(path, "truncated: the compressed data ends too early", COPY_AGAIN)
