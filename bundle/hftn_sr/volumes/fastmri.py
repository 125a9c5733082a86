r"""fastMRI single-coil knee files (HDF5), images or fully sampled k-space, as the data set's owners hand them out.

A file holds `kspace` (slices, H, W) complex, `reconstruction_esc` (slices, h, w) real, which is the magnitude of its inverse Fourier
transform cropped to the centre, `ismrmrd_header` (XML), and the attributes `acquisition`, `max`, `norm` and `patient_id`.

Source: Zbontar et al. 2018, arXiv 1811.08839, sections 4 and 5; ISMRMRD header, doi 10.1002/mrm.26089.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from hftn_sr.errors import Fault, check_choice
from hftn_sr.volumes.files import sha256_of
from hftn_sr.volumes.header_affine import COPY_AGAIN
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["FastMRIImage", "fastmri_attributes", "read_fastmri"]

FastMRIImage = Literal["reconstruction_esc", "kspace"]

MAGIC = b"\x89HDF\r\n\x1a\n"
HIGHEST_RATIO = 1040  # gzip, the strongest of HDF5's own filters, cannot compress further
LARGEST_HEADER = 1 << 20  # bytes; the header of a knee scan has some ten thousand
AXIAL = np.eye(3)
CORONAL = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=float)  # rows along head-foot, columns along right-left, slices front-back
EQUAL_MAXIMUM = 1e-3  # relative difference from the attribute `max`, beyond which it is noted
ATTRIBUTES = ("acquisition", "max", "norm", "patient_id")
Header = dict[str, NDArray[np.float64]]


def read_fastmri(path: str | PathLike[str], image: FastMRIImage = "reconstruction_esc") -> Volume:
    r"""Read a fully sampled single-coil volume; the images in the file, or the same from its k-space,

    .. math:: |\text{crop}(F^{-1} k)|, \qquad F^{-1} \text{ centred, orthonormal, per slice.}

    Args:
        path: .h5 file.
        image: which dataset to read.

    Returns:
        Voxels (h, w, slices), float32, in the file's unit, rows and columns as stored. Voxel sizes in mm are field of view by matrix of the
        header's reconSpace, the slice distance being its z: a gap between slices is not in the file. Neither are position, tilt and the
        signs of the axes: the volume is centred on the origin, coronal where `acquisition` begins with COR, else axial.
        `notes` says so, and when sizes are missing.

    Raises:
        Fault: not an HDF5 file, a truncated one, the dataset missing (multi-coil and test files), undersampled, wrong sizes, voxels that
            are not finite, or none above 0.
        UsageFault: no such image.
    """
    check_choice("image", image, ("reconstruction_esc", "kspace"))
    path = Path(path)
    notes: list[str] = []
    with _opened(path) as file:
        stored = _dataset(path, file, image)
        header = _header(path, file, notes)
        if image == "kspace":
            _check_sampled(path, file, notes)
            slices = _reconstructed(stored, _image_size(path, file, header, stored.shape))
        else:
            slices = stored
        attributes = _attributes(file)
    data = np.ascontiguousarray(slices.transpose(1, 2, 0), dtype=np.float32)
    _check_signal(path, data)
    acquisition = attributes.get("acquisition", "")
    if acquisition:
        notes.append(f"{path.name}: acquisition {acquisition}")
    _compare_maximum(path, data, attributes, notes)
    return Volume(data, _affine(path, data.shape, header, str(acquisition), notes), path, sha256_of(path), codes=(1, 0), notes=tuple(notes))


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


def _dataset(path: Path, file: Any, name: str) -> NDArray[Any]:
    """(slices, H, W), float or complex, and within the file."""
    if name not in file:
        raise _missing(path, file, name)
    stored = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external:
        raise Fault(path, f"{name} is no dataset within this file", "copy the voxels into one file")
    if stored.ndim == 4:
        raise Fault(
            path, f"{name} has {stored.shape[1]} coils (sizes {stored.shape})", "take the file of the same name of the single-coil track"
        )
    kind, wanted = ("c", "complex") if name == "kspace" else ("f", "real")
    if stored.ndim != 3 or 0 in stored.shape or stored.dtype.kind != kind:
        found = f"{name} of sizes {stored.shape} and type {stored.dtype}"
        raise Fault(path, f"found {found}, need (slices, H, W), {wanted}", COPY_AGAIN)
    if stored.nbytes > HIGHEST_RATIO * path.stat().st_size:
        raise Fault(path, f"{name} promises {stored.nbytes} bytes, the file has {path.stat().st_size}", COPY_AGAIN)
    voxels: NDArray[Any] = stored[()]
    if bad := int(voxels.size - np.isfinite(voxels).sum()):
        raise Fault(path, f"{bad} of {voxels.size} voxels of {name} are NaN or infinite", COPY_AGAIN)
    return voxels


def _missing(path: Path, file: Any, name: str) -> Fault:
    there = ", ".join(sorted(map(str, file))) or "nothing"
    fix = "give a fastMRI file"
    if "kspace" in file:
        multicoil = getattr(file["kspace"], "ndim", 3) == 4
        fix = "take the file of the same name of the single-coil track" if multicoil else 'read it with image="kspace" if fully sampled'
    if "mask" in file:
        fix = "take a file of the training or validation set: those of the test set are undersampled"
    return Fault(path, f"no {name} in it (found {there})", fix)


def _check_sampled(path: Path, file: Any, notes: list[str]) -> None:
    """The files of the test and challenge sets hold a mask of the columns of k-space that were kept."""
    if "mask" in file:
        mask = np.asarray(file["mask"][()]).astype(bool)
        if not mask.all():
            finding = f"undersampled k-space ({int(mask.sum())} of {mask.size} columns)"
            raise Fault(path, finding, "take a file of the training or validation set")
        notes.append(f"{path.name}: its mask keeps every column")


def _reconstructed(kspace: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """Magnitude images (slices, h, w), cropped to the centre, slice by slice."""
    images = np.empty((kspace.shape[0], *size), dtype=np.float32)
    start = [(full - part) // 2 for full, part in zip(kspace.shape[1:], size, strict=True)]
    for image, plane in zip(images, kspace, strict=True):
        spectrum = torch.fft.ifftshift(torch.from_numpy(np.asarray(plane, dtype=np.complex64)))
        whole = torch.fft.fftshift(torch.fft.ifft2(spectrum, norm="ortho")).abs().numpy()
        image[:] = whole[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    return images


def _image_size(path: Path, file: Any, header: Header | None, kspace: tuple[int, ...]) -> tuple[int, int]:
    if header is not None:
        height, width = (int(size) for size in header["matrixSize"][:2])
    elif "reconstruction_esc" in file:
        height, width = file["reconstruction_esc"].shape[-2:]
    else:
        raise Fault(path, "no size of its images (neither ismrmrd_header nor reconstruction_esc)", "keep the header when copying k-space")
    if height > kspace[1] or width > kspace[2]:
        raise Fault(path, f"images of {height} x {width} from k-space of {kspace[1]} x {kspace[2]}", COPY_AGAIN)
    return height, width


def _header(path: Path, file: Any, notes: list[str]) -> Header | None:
    """matrixSize and fieldOfView_mm (x, y, z) of reconSpace, x being the rows; None, and a note, where they are not there."""
    try:
        stored = file["ismrmrd_header"]  # checked before it is read: HDF5 itself ends the process on some damaged ones
        if not isinstance(stored, h5py.Dataset) or stored.size != 1 or h5py.check_string_dtype(stored.dtype) is None:
            raise ValueError("not one string")
        content = bytes(np.asarray(stored[()], dtype=object).item())
        if len(content) > LARGEST_HEADER or b"<!DOCTYPE" in content:
            raise ValueError("too long, or with a document type, whose entities could be made to fill the memory")
        root = ElementTree.fromstring(content)
        header = {name: np.array([_number(root, name, axis) for axis in "xyz"]) for name in ("matrixSize", "fieldOfView_mm")}
        if not all(np.isfinite(sizes).all() and sizes.min() > 0 for sizes in header.values()):
            raise ValueError(f"sizes {', '.join(str(sizes.tolist()) for sizes in header.values())}")
        return header
    except (KeyError, ValueError, IndexError, ElementTree.ParseError) as error:
        reason = "no ismrmrd_header" if "ismrmrd_header" not in file else f"its ismrmrd_header cannot be used ({error})"
        notes.append(f"{path.name}: {reason}; voxel sizes taken as 1 mm")
        return None


def _number(root: ElementTree.Element, name: str, axis: str) -> float:
    """Of the first encoding; fastMRI has no other."""
    text = root.findtext(f".//{{*}}reconSpace/{{*}}{name}/{{*}}{axis}")
    if text is None:
        raise ValueError(f"no reconSpace/{name}/{axis}")
    return float(text)


def _attributes(file: Any) -> dict[str, str | float]:
    """Those that are one text or one number; others are left alone, as the header is."""
    found: dict[str, str | float] = {}
    for name in ATTRIBUTES:
        kind = file.attrs.get_id(name) if name in file.attrs else None
        if kind is not None and kind.shape == () and (h5py.check_string_dtype(kind.dtype) or kind.dtype.kind in "fiu"):
            value = file.attrs[name]
            found[name] = value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else float(value)
    return found


def _check_signal(path: Path, data: NDArray[np.float32]) -> None:
    if data.max() <= 0:
        raise Fault(path, "no signal: no voxel is above 0", COPY_AGAIN)


def _compare_maximum(path: Path, data: NDArray[np.float32], attributes: dict[str, str | float], notes: list[str]) -> None:
    """The attribute is of `reconstruction_esc`, to which the images from k-space are equal but for rounding."""
    told, found = attributes.get("max"), float(data.max())
    if isinstance(told, float) and abs(found - told) > EQUAL_MAXIMUM * abs(told):
        notes.append(f"{path.name}: its largest voxel is {found:.6g}, its attribute max says {told:.6g}")


def _affine(path: Path, shape: tuple[int, ...], header: Header | None, acquisition: str, notes: list[str]) -> NDArray[np.float64]:
    spacing = header["fieldOfView_mm"] / header["matrixSize"] if header is not None else np.ones(3)
    coronal = _centred(CORONAL, spacing, shape)
    # Where voxel sizes leave the slice axis open, `Grid` takes the one along head-foot, which the rows of a coronal volume would be.
    if acquisition.startswith("COR") and Grid((shape[0], shape[1], shape[2]), coronal).through_plane() == 2:
        notes.append(f"{path.name}: taken as coronal and centred; position and signs of the axes are not in the file")
        return coronal
    notes.append(f"{path.name}: taken as axial and centred; its orientation is not in the file")
    return _centred(AXIAL, spacing, shape)


def _centred(directions: NDArray[np.float64], spacing: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(4, 4) affine with the middle of the volume at the origin; a column of `directions` (3, 3) is where an axis points in RAS+."""
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine
