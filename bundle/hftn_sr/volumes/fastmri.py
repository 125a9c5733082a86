r"""fastMRI files (HDF5), images or fully sampled k-space, single- or multi-coil, as the data set's owners hand them out.

A single-coil file holds `kspace` (slices, H, W) complex and `reconstruction_esc` (slices, h, w) real, which is the magnitude of its inverse
Fourier transform cropped to the centre; a multi-coil file `kspace` (slices, coils, H, W) and `reconstruction_rss`, the root of the sum of
squares over the coils. Both hold `ismrmrd_header` (XML) and the attributes `acquisition`, `max`, `norm` and `patient_id`.

Where a scan lies is in none of them. What is taken instead is the usual plane of its `acquisition`, centred on the origin, and axes
upright as fastMRI+ found to be right for most scans: it turns rows upside down to have DICOM's order of rows and columns.

Source: Zbontar et al. 2018, arXiv 1811.08839, sections 4 and 5; Zhao et al. 2022, doi 10.1038/s41597-022-01255-z (fastMRI+).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from hftn_sr.errors import Fault, Note, check_choice
from hftn_sr.volumes.files import check_present, sha256_of
from hftn_sr.volumes.header_affine import COPY_AGAIN
from hftn_sr.volumes.ismrmrd import ScanHeader, scan_header
from hftn_sr.volumes.nifti import VolumeHeader
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["FastMRIImage", "fastmri_attributes", "fastmri_scan", "read_fastmri", "read_fastmri_header"]

FastMRIImage = Literal["auto", "reconstruction_esc", "reconstruction_rss", "kspace"]

MAGIC = b"\x89HDF\r\n\x1a\n"
HIGHEST_RATIO = 1040  # gzip, the strongest of HDF5's own filters, cannot compress further
RIGHT, FRONT, HEAD = np.eye(3)
AXIAL = np.column_stack([FRONT, -RIGHT, HEAD])  # where rows, columns and slices point, a right-handed system
CORONAL = np.column_stack([HEAD, -RIGHT, -FRONT])
EQUAL_MAXIMUM = 1e-3  # relative difference from the attribute `max`, beyond which it is noted
ATTRIBUTES = ("acquisition", "max", "norm", "patient_id")


def read_fastmri(path: str | PathLike[str], image: FastMRIImage = "auto", blank: bool = False) -> Volume:
    r"""Read a fully sampled volume; the images in the file, or the same from its k-space,

    .. math:: \sqrt{\sum_{coils} |\text{crop}(F^{-1} k)|^2}, \qquad F^{-1} \text{ centred, orthonormal, per slice.}

    Args:
        path: .h5 file.
        image: dataset to read; `auto` takes the first one present of reconstruction_esc, reconstruction_rss and kspace.
        blank: whether an image without signal, none of whose voxels is above 0, is read like any other.

    Returns:
        Voxels (h, w, slices), float32, in the file's unit, rows and columns as stored. Voxel sizes in mm are field of view by matrix of the
        header's reconSpace, the slice distance being its z: a gap between slices is not in the file. Neither are position, tilt and the
        signs of the axes: the centre of the field of view is put on the origin, coronal where `acquisition` begins with COR, else axial.
        `notes` says so, and when sizes are missing.

    Raises:
        Fault: not an HDF5 file, a truncated one, the dataset missing, undersampled, wrong sizes, voxels that are not finite, or none
            above 0.
        UsageFault: no such image.
    """
    path = Path(path)
    notes: list[str] = []
    with _opened(path) as file:
        stored = _dataset(path, file, image)
        name = stored.name.removeprefix("/")
        header = _header(path, file, notes)
        shape = _shape(path, file, header, stored, notes)
        if name == "kspace":
            coils = f", root sum of squares of {stored.shape[1]} coils" if stored.ndim == 4 else ""
            notes.append(Note(f"{path.name}: images computed from its k-space{coils}"))
        data = _voxels(path, stored, shape)
        attributes = _attributes(file)
        measured = name == "reconstruction_esc" or "reconstruction_esc" not in file  # what the attribute `max` is of
    if not blank and data.max() <= 0:
        raise Fault(path, "no signal: no voxel is above 0", COPY_AGAIN)
    acquisition = str(attributes.get("acquisition", ""))
    if acquisition:
        notes.append(Note(f"{path.name}: acquisition {acquisition}"))
    if measured:
        _compare_maximum(path, data, attributes, notes)
    affine = _affine(path, shape, header, acquisition, notes)
    return Volume(data, affine, path, sha256_of(path), codes=(2, 0), notes=tuple(notes))


def read_fastmri_header(path: str | PathLike[str], image: FastMRIImage = "auto") -> VolumeHeader:
    """The grid of what `read_fastmri` reads, without its voxels.

    Raises:
        Fault: as `read_fastmri`, for what can be seen without them.
    """
    path = Path(path)
    notes: list[str] = []
    with _opened(path) as file:
        header = _header(path, file, notes)
        shape = _shape(path, file, header, _dataset(path, file, image), notes)
        acquisition = str(_attributes(file).get("acquisition", ""))
    return VolumeHeader(path, Grid(shape, _affine(path, shape, header, acquisition, notes)))


def fastmri_scan(path: str | PathLike[str], image: FastMRIImage = "auto") -> dict[str, str | float]:
    """Which dataset `read_fastmri` takes, and how it was measured as far as the file says, by the names and in the units of BIDS.

    Nothing of the patient is in it.

    Raises:
        Fault: as `read_fastmri_header`.
    """
    path = Path(path)
    with _opened(path) as file:
        found: dict[str, str | float] = {"Dataset": _dataset(path, file, image).name.removeprefix("/")}
        if acquisition := _attributes(file).get("acquisition"):
            found["Acquisition"] = acquisition
        header = _header(path, file, [])
        return found | (header.scan if header else {})


def fastmri_attributes(path: str | PathLike[str]) -> dict[str, str | float]:
    """`acquisition`, `max`, `norm`, `patient_id` of a file, those that it has; the voxels are not read.

    Raises:
        Fault: not an HDF5 file, or a truncated one.
    """
    with _opened(Path(path)) as file:
        return _attributes(file)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        check_present(path)
        with path.open("rb") as stream:
            start = stream.read(len(MAGIC))
    except FileNotFoundError:
        raise Fault(path, "no such file", "check the path") from None
    except OSError as error:
        raise Fault(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
    if not start:
        raise Fault(path, "empty file (0 bytes)", COPY_AGAIN)
    if start != MAGIC:
        raise Fault(path, "not an HDF5 file", "give a fastMRI .h5 file; other images as NIfTI (.nii.gz)")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:  # what h5py raises for a file whose inside is damaged
        raise Fault(path, f"truncated or damaged ({error})", COPY_AGAIN) from error


def _dataset(path: Path, file: Any, image: FastMRIImage) -> Any:
    """The HDF5 dataset (slices, [coils,] H, W), float or complex, and within the file."""
    check_choice("image", image, get_args(FastMRIImage))
    choices = get_args(FastMRIImage)[1:] if image == "auto" else (image,)
    name = next((choice for choice in choices if choice in file), "")
    if not name:
        raise _missing(path, file, choices)
    stored = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external:
        raise Fault(path, f"{name} is no dataset within this file", "copy the voxels into one file")
    kinds, axes, wanted = ("c", (3, 4), "(slices, [coils,] H, W), complex") if name == "kspace" else ("f", (3,), "(slices, H, W), real")
    if stored.ndim not in axes or 0 in stored.shape or stored.dtype.kind != kinds:
        raise Fault(path, f"found {name} of sizes {stored.shape} and type {stored.dtype}, need {wanted}", COPY_AGAIN)
    if stored.nbytes > HIGHEST_RATIO * path.stat().st_size:
        raise Fault(path, f"{name} promises {stored.nbytes} bytes, the file has {path.stat().st_size}", COPY_AGAIN)
    return stored


def _missing(path: Path, file: Any, names: tuple[str, ...]) -> Fault:
    there = ", ".join(sorted(map(str, file))) or "nothing"
    fix = "name a dataset that it holds" if set(file) & set(get_args(FastMRIImage)) else "give a fastMRI file"
    if "mask" in file:
        fix = "take a file of the training or validation set: those of the test set are undersampled"
    return Fault(path, f"no {' and no '.join(names)} in it (found {there})", fix)


def _check_sampled(path: Path, file: Any, notes: list[str]) -> None:
    """The files of the test and challenge sets hold a mask of the columns of k-space that were kept."""
    if "mask" in file:
        mask = np.asarray(file["mask"][()]).astype(bool)
        if not mask.all():
            finding = f"undersampled k-space ({int(mask.sum())} of {mask.size} columns)"
            raise Fault(path, finding, "take a file of the training or validation set")
        notes.append(Note(f"{path.name}: its mask keeps every column"))


def _shape(path: Path, file: Any, header: ScanHeader | None, stored: Any, notes: list[str]) -> tuple[int, int, int]:
    """(h, w, slices) of the images."""
    height, width = stored.shape[-2:]
    if stored.dtype.kind == "c":
        _check_sampled(path, file, notes)
        images = [file[name] for name in ("reconstruction_esc", "reconstruction_rss") if name in file]
        if header is not None:
            height, width = (int(size) for size in header.matrix[:2])
        elif images:
            height, width = images[0].shape[-2:]
        else:
            finding = "no size of its images (neither ismrmrd_header nor images)"
            raise Fault(path, finding, "keep the header when copying k-space")
        if height > stored.shape[-2] or width > stored.shape[-1]:
            raise Fault(path, f"images of {height} x {width} from k-space of {stored.shape[-2]} x {stored.shape[-1]}", COPY_AGAIN)
    return height, width, stored.shape[0]


def _voxels(path: Path, stored: Any, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Magnitude images (h, w, slices), read slice by slice: the k-space of many coils is larger than the memory it becomes."""
    data = np.empty(shape, dtype=np.float32)
    bad = 0
    for index in range(shape[2]):
        plane: NDArray[Any] = stored[index]
        unsound = int(plane.size - np.isfinite(plane).sum())
        with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite and is counted
            data[..., index] = _reconstructed(plane, shape[:2]) if plane.dtype.kind == "c" else plane
        bad += unsound or int(data[..., index].size - np.isfinite(data[..., index]).sum())
    if bad:
        raise Fault(path, f"{bad} of {stored.size} voxels of {stored.name.removeprefix('/')} are NaN or infinite", COPY_AGAIN)
    return data


def _reconstructed(kspace: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """The magnitude (h, w) of one slice ([coils,] H, W), cropped to the centre."""
    top, left = ((full - part) // 2 for full, part in zip(kspace.shape[-2:], size, strict=True))
    spectrum = torch.fft.ifftshift(torch.from_numpy(np.asarray(kspace, dtype=np.complex64)), (-2, -1))
    whole = torch.fft.fftshift(torch.fft.ifft2(spectrum, norm="ortho"), (-2, -1))
    coils = whole[..., top : top + size[0], left : left + size[1]].abs().reshape(-1, *size)
    magnitude: NDArray[np.float32] = torch.linalg.vector_norm(coils, dim=0).numpy()
    return magnitude


def _header(path: Path, file: Any, notes: list[str]) -> ScanHeader | None:
    """None, and a note, where it is missing or of no use."""
    try:
        stored = file["ismrmrd_header"]  # checked before it is read: HDF5 itself ends the process on some damaged ones
        if not isinstance(stored, h5py.Dataset) or stored.size != 1 or h5py.check_string_dtype(stored.dtype) is None:
            raise ValueError("not one string")
        return scan_header(bytes(np.asarray(stored[()], dtype=object).item()))
    except (KeyError, ValueError, IndexError) as error:
        reason = "no ismrmrd_header" if "ismrmrd_header" not in file else f"its ismrmrd_header cannot be used ({error})"
        notes.append(f"{path.name}: {reason}; voxel sizes taken as 1 mm")
        return None


def _attributes(file: Any) -> dict[str, str | float]:
    """Attributes that are one text or one number; others, and the header, are left out."""
    found: dict[str, str | float] = {}
    for name in ATTRIBUTES:
        kind = file.attrs.get_id(name) if name in file.attrs else None
        if kind is not None and kind.shape == () and (h5py.check_string_dtype(kind.dtype) or kind.dtype.kind in "fiu"):
            value = file.attrs[name]
            found[name] = value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else float(value)
    return found


def _compare_maximum(path: Path, data: NDArray[np.float32], attributes: dict[str, str | float], notes: list[str]) -> None:
    """The attribute is of the images in the file, to which those from k-space are equal but for rounding."""
    told, found = attributes.get("max"), float(data.max())
    if isinstance(told, float) and abs(found - told) > EQUAL_MAXIMUM * abs(told):
        notes.append(f"{path.name}: its largest voxel is {found:.6g}, its attribute max says {told:.6g}")


def _affine(path: Path, shape: tuple[int, int, int], header: ScanHeader | None, acquisition: str, notes: list[str]) -> NDArray[np.float64]:
    spacing = header.spacing if header is not None else np.ones(3)
    coronal = _centred(CORONAL, spacing, shape)
    # Where voxel sizes leave the slice axis open, `Grid` takes the one along head-foot, which the rows of a coronal volume would be.
    if acquisition.startswith("COR") and Grid(shape, coronal).through_plane() == 2:
        notes.append(Note(f"{path.name}: taken as coronal and centred; position and signs of the axes are not in the file"))
        return coronal
    plane = "position and signs of the axes are" if acquisition.startswith("AX") else "its orientation is"
    notes.append(Note(f"{path.name}: taken as axial and centred; {plane} not in the file"))
    return _centred(AXIAL, spacing, shape)


def _centred(directions: NDArray[np.float64], spacing: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """(4, 4) affine with the centre of the field of view, sample n // 2 of a Fourier transform, and the middle slice at the origin.

    So two scans of one field of view lie on each other whatever their matrices; a column of `directions` (3, 3) is where an axis points.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = -affine[:3, :3] @ (shape[0] // 2, shape[1] // 2, (shape[2] - 1) / 2)
    return affine
