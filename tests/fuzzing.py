"""Random and damaged image files, and what a reader may make of them: a fault, or the voxels that another reader finds in the same file.

`make` writes the file of a kind and a seed, `judge` reads it. `scripts/fuzz_readers.py` does so for many seeds.
"""

from __future__ import annotations

import gzip
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK

from hftn_sr.errors import Fault
from hftn_sr.volumes.dicom_slice import holds_mr
from hftn_sr.volumes.reading import read_volume, read_volume_header
from hftn_sr.volumes.volume import Volume
from knees import HEADER, knee, write_knee
from phantoms import oblique
from series import enhanced, slices_of

__all__ = ["KINDS", "judge", "make"]

AFFINE = oblique((1, 1.5, 3), shape=(7, 6, 4))
DTYPES = ("u1", "i2", "u2", "i4", "f4", "f8", "i1", "u4", "i8", "c8")
ODD = (0, 1, -1, 2, 3, 4, 5, 7, 8, 16, 64, 127, 128, 255, 256, 348, 352, 512, 540, 1024, 2304, 32767, -32768, 65535, 2**31 - 1, -(2**31))
ODD_FLOATS = (0.0, 1.0, -1.0, 2.0, 0.5, 1e-3, 1e3, 1e-30, 1e30, 3e38, float("nan"), float("inf"), -float("inf"))


def volume_of(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Voxels that a type can hold."""
    if dtype.kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    if dtype.kind == "f":
        return rng.normal(100, 30, shape).astype(dtype)
    top = min(np.iinfo(dtype).max, 4000)
    return rng.integers(0, top, shape).astype(dtype)


# NIfTI


def nifti(rng: np.random.Generator, folder: Path) -> Path:
    """A valid file, some of whose header fields or bytes are changed; about half of them compressed."""
    kind = nib.Nifti1Image if rng.random() < 0.7 else nib.Nifti2Image
    shape = tuple(int(size) for size in rng.integers(1, 8, rng.choice([2, 3, 3, 3, 3, 3, 3, 4])))
    dtype = np.dtype(rng.choice(DTYPES)).newbyteorder(rng.choice(["<", ">"]))
    image = kind(volume_of(rng, shape, dtype), AFFINE if rng.random() < 0.8 else np.diag([*rng.uniform(0.3, 4, 3), 1]), dtype=dtype)
    image.set_sform(image.affine, int(rng.choice([0, 1, 1, 2, 4])))
    image.set_qform(image.affine, int(rng.choice([0, 1, 3])))
    header = image.header.as_byteswapped(rng.choice(["<", ">"]))
    content = bytearray(header.binaryblock + bytes(4) + np.asarray(image.dataobj).astype(dtype).tobytes(order="F"))
    start = header.template_dtype.itemsize
    header["vox_offset"] = start + 4
    header["scl_slope"], header["scl_inter"] = (1, 0) if rng.random() < 0.8 else (rng.choice(ODD_FLOATS), rng.choice(ODD_FLOATS))
    for _ in range(rng.integers(0, 3)):
        _change_field(rng, header)
    content[:start] = header.binaryblock
    content = _changed_bytes(rng, content, start)
    if compressed := rng.random() < 0.5:
        content = bytearray(gzip.compress(bytes(content), 1))
        if rng.random() < 0.4:
            content = _changed_bytes(rng, content, len(content))
    name = "a.nii.gz" if compressed != (rng.random() < 0.05) else "a.nii"
    (folder / name).write_bytes(bytes(content))
    return folder / name


def _change_field(rng: np.random.Generator, header: nib.Nifti1Header) -> None:
    name = rng.choice(["dim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", "xyzt_units", "qform_code",
                       "sform_code", "quatern_b", "quatern_c", "qoffset_x", "srow_x", "srow_y", "srow_z", "magic", "dim_info",
                       "sizeof_hdr", "cal_max"])  # fmt: skip
    field = header.structarr[name]
    values = ODD_FLOATS if field.dtype.kind == "f" else ODD
    if name == "magic":
        header[name] = rng.bytes(4)
        return
    value = rng.choice(values)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        if field.ndim:
            changed = np.array(field)
            changed[rng.integers(len(changed))] = np.array(value).astype(field.dtype)
            header.structarr[name] = changed
        else:
            header.structarr[name] = np.array(value).astype(field.dtype)


def _changed_bytes(rng: np.random.Generator, content: bytearray, within: int) -> bytearray:
    """Some bytes changed at random, or the end cut off, or bytes put behind it; mostly none of it."""
    content, what = bytearray(content), rng.random()
    if what < 0.25:
        for _ in range(rng.integers(1, 6)):
            content[rng.integers(min(within, len(content)))] = rng.integers(256)
    elif what < 0.35:
        del content[rng.integers(len(content)) :]
    elif what < 0.4:
        content += rng.bytes(rng.integers(1, 600))
    elif what < 0.43:
        content[: min(within, len(content))] = rng.bytes(min(within, len(content)))
    return content


def as_nibabel_reads(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (X, Y, Z) and affine in mm of a file that holds one volume."""
    raw = path.read_bytes()
    content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    kind = nib.Nifti2Image if 540 in struct.unpack("<i", content[:4]) + struct.unpack(">i", content[:4]) else nib.Nifti1Image
    header = kind.header_class(content[: kind.header_class.template_dtype.itemsize])
    if not np.isfinite(
        [header["scl_slope"], header["scl_inter"]]
    ).all():  # nibabel refuses some of these; the standard says nothing of them
        header["scl_slope"], header["scl_inter"] = np.nan, np.nan
    image = kind.from_bytes(header.binaryblock + content[len(header.binaryblock) :])
    data = np.asarray(image.dataobj, dtype=np.float64)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    unit = {1: 1000.0, 3: 1e-3}.get(int(image.header["xyzt_units"]) & 7, 1.0)
    affine = np.diag([unit, unit, unit, 1]) @ image.affine
    return (data[..., None] if data.ndim == 2 else data), affine


# fastMRI


def fastmri(rng: np.random.Generator, folder: Path) -> Path:
    """A small file, of which a dataset, a text, an attribute or some bytes are changed."""
    path = write_knee(folder / "a.h5", knee(int(rng.integers(1, 4)), int(rng.integers(100))))
    with h5py.File(path, "r+") as file:
        for _ in range(rng.integers(0, 3)):
            _change_member(rng, file)
    content = _changed_bytes(rng, bytearray(path.read_bytes()), 1 << 30)
    path.write_bytes(bytes(content))
    return path


def _change_member(rng: np.random.Generator, file: h5py.File) -> None:
    name = str(rng.choice(["kspace", "reconstruction_esc", "ismrmrd_header", "mask"]))
    if name in file and rng.random() < 0.8:
        del file[name]
    if name in file or rng.random() < 0.4:
        return
    if name == "ismrmrd_header":
        text = bytearray(HEADER.encode())
        for _ in range(rng.integers(0, 4)):
            text[rng.integers(len(text))] = rng.integers(32, 127)
        file[name] = rng.choice([bytes(text), b"", b"<a/>", bytes(text)[: rng.integers(len(text))]])
    elif name == "mask":
        file[name] = rng.random(36) < rng.choice([0.3, 2])
    else:
        shape = tuple(int(size) for size in rng.integers(0, 40, rng.choice([0, 1, 2, 3, 3, 3, 4])))
        dtype = np.dtype(rng.choice(["f4", "f8", "c8", "c16", "i2", "u1"]))
        data = volume_of(rng, shape, dtype)
        if data.size and dtype.kind == "f" and rng.random() < 0.3:
            data.flat[rng.integers(data.size)] = rng.choice([np.nan, np.inf, 1e300])
        file[name] = data


def as_h5py_reads(path: Path) -> tuple[np.ndarray, None]:
    """Images of a file, or the same from its k-space in double precision."""
    with h5py.File(path, "r") as file:
        for name in ("reconstruction_esc", "reconstruction_rss"):
            if name in file:
                return np.moveaxis(np.asarray(file[name][()], dtype=np.float64), 0, -1), None
        kspace = file["kspace"][()].astype(np.complex128)
    whole = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho"), axes=(-2, -1))
    magnitude = np.sqrt((np.abs(whole) ** 2).sum(1)) if whole.ndim == 4 else np.abs(whole)
    return np.moveaxis(magnitude, 0, -1), None


# DICOM


def dicom(rng: np.random.Generator, folder: Path) -> Path:
    """A series of slices or an enhanced image, of which elements, bytes or whole files are changed."""
    shape = tuple(int(size) for size in rng.integers(2, 8, 3))
    volume = Volume(rng.integers(0, 4000, shape).astype(np.float32), oblique((1, 1.5, 3), shape=shape))
    if rng.random() < 0.3:
        second = Volume(rng.integers(0, 4000, shape).astype(np.float32), volume.affine)
        datasets = [enhanced([volume, second][: rng.integers(1, 3)])]
    else:
        datasets = slices_of(volume, slope=float(rng.choice([1, 1, 2])), intercept=0.0)
    (folder / "series").mkdir()
    for number, each in enumerate(datasets):
        each.SeriesInstanceUID, each.SOPInstanceUID = "1.2.3", f"1.2.3.{number}"  # the same bytes for the same seed
    for _ in range(rng.integers(0, 3)):
        _change_element(rng, datasets[rng.integers(len(datasets))])
    for number, each in enumerate(datasets):
        each.file_meta.MediaStorageSOPClassUID, each.file_meta.MediaStorageSOPInstanceUID = (
            each.get("SOPClassUID", "1.2"),
            f"1.2.3.{number}",
        )
        with suppress(AttributeError):  # without BitsAllocated pydicom cannot write voxels
            pydicom.dcmwrite(folder / "series" / f"{number:02d}", each, enforce_file_format=True)
    files = sorted((folder / "series").iterdir())
    what = rng.random()
    chosen = files[rng.integers(len(files))]
    if what < 0.35:
        chosen.write_bytes(bytes(_changed_bytes(rng, bytearray(chosen.read_bytes()), 1 << 30)))
    elif what < 0.45:
        chosen.unlink()
    elif what < 0.5:
        (folder / "series" / "notes.txt").write_bytes(rng.bytes(300))
    elif what < 0.55:
        (folder / "series" / "copy").write_bytes(chosen.read_bytes())
    return folder / "series"


def _change_element(rng: np.random.Generator, dataset: pydicom.Dataset) -> None:
    names = [each.keyword for each in dataset if each.keyword]
    name = str(rng.choice(names))
    if rng.random() < 0.4:
        delattr(dataset, name)
        return
    element = dataset[name]
    if isinstance(element.value, (bytes, bytearray)):
        element.value = bytes(_changed_bytes(rng, bytearray(element.value), len(element.value)))[: len(element.value) // 2 * 2]
    elif element.VR in ("US", "UL", "SS", "SL"):
        element.value = int(rng.choice([0, 1, 2, 7, 16, 255, 32767]))
    elif element.VR in ("DS", "IS", "FD", "FL"):
        count = element.VM
        values = [str(rng.choice(["0", "1", "-1", "1e30", "0.5", "3"])) for _ in range(max(count, 1))]
        kind = float if element.VR in ("FD", "FL") else str
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with suppress(ValueError, OverflowError):
                element.value = [kind(value) for value in values] if count > 1 else kind(values[0])
    elif element.VR in ("LO", "SH", "CS", "UI", "PN"):
        element.value = str(rng.choice(["", "1.2.3", "X", "MR", "CT", "MONOCHROME1", "MOSAIC"]))


def as_pydicom_reads(path: Path) -> tuple[np.ndarray, None]:
    """Voxels (columns, rows, slices) of a folder that holds one volume: slices by their positions along the normal."""
    slices: list[tuple[float, np.ndarray]] = []
    seen: set[bytes] = set()
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        if content in seen:
            continue
        seen.add(content)
        header = pydicom.dcmread(file, force=True)
        if "PixelData" not in header or not holds_mr(file):
            continue
        frames = header.pixel_array
        groups = header.get("PerFrameFunctionalGroupsSequence")
        for index, frame in enumerate(frames if groups else [frames]):
            slices.append((_along(header, index if groups else None), _scaled(header, index if groups else None, frame)))
    order = sorted(range(len(slices)), key=lambda index: slices[index][0])
    return np.stack([slices[index][1].T for index in order], axis=-1), None


def _item(header: pydicom.Dataset, index: int | None, sequence: str) -> pydicom.Dataset | None:
    if index is None:
        return header
    groups = (header.PerFrameFunctionalGroupsSequence[index], *(header.get("SharedFunctionalGroupsSequence") or []))
    return next((group[sequence][0] for group in groups if sequence in group and len(group[sequence].value)), None)


def _along(header: pydicom.Dataset, index: int | None) -> float:
    position = np.array([float(x) for x in _item(header, index, "PlanePositionSequence").ImagePositionPatient])
    across = np.array([float(x) for x in _item(header, index, "PlaneOrientationSequence").ImageOrientationPatient])
    return float(np.cross(across[:3], across[3:]) @ position)


def _scaled(header: pydicom.Dataset, index: int | None, frame: np.ndarray) -> np.ndarray:
    item = _item(header, index, "PixelValueTransformationSequence")
    slope, intercept = ((item.get(name) if item is not None else None) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope in (None, "") or float(slope) == 0:
        return frame.astype(np.float64)
    return frame.astype(np.float64) * float(slope) + (0.0 if intercept in (None, "") else float(intercept))


# MGH, NRRD, MetaImage


def mgh(rng: np.random.Generator, folder: Path) -> Path:
    """An MGH file, compressed or not, with some bytes changed."""
    shape = tuple(int(size) for size in rng.integers(1, 8, 3))
    image = nib.MGHImage(volume_of(rng, shape, np.dtype(rng.choice(["u1", "i2", "i4", "f4"]))), AFFINE.astype(np.float32))
    content = _changed_bytes(rng, bytearray(image.to_bytes()), 284)
    if compressed := rng.random() < 0.5:
        content = bytearray(gzip.compress(bytes(content)))
        if rng.random() < 0.3:
            content = _changed_bytes(rng, content, len(content))
    path = folder / ("a.mgz" if compressed else "a.mgh")
    path.write_bytes(bytes(content))
    return path


def as_nibabel_reads_mgh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine."""
    image = nib.MGHImage.from_filename(path)
    data = np.asarray(image.dataobj, dtype=np.float64)
    return (data[..., 0] if data.ndim == 4 else data), image.affine


def text_header(rng: np.random.Generator, folder: Path) -> Path:
    """An NRRD or MetaImage file of raw voxels, with some bytes of its header or its end changed."""
    shape = [int(size) for size in rng.integers(1, 8, 3)]
    data = volume_of(rng, tuple(shape), np.dtype("<i2"))
    sizes = " ".join(map(str, shape))
    if rng.random() < 0.5:
        header = (
            f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
            "space directions: (1,0,0) (0,1.5,0) (0,0,3)\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
            "space origin: (3,-7,11)\n\n"
        )
        path = folder / "a.nrrd"
    else:
        header = (
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
            f"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 3 -7 11\nElementSpacing = 1 1.5 3\nDimSize = {sizes}\n"
            "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        )
        path = folder / "a.mha"
    content = _changed_bytes(rng, bytearray(header.encode() + data.tobytes(order="F")), len(header))
    path.write_bytes(bytes(content))
    return path


def as_simpleitk_reads(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine in RAS+ by another build of ITK's readers."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T.astype(np.float64), np.diag([-1.0, -1, 1, 1]) @ affine


Reader = Callable[[Path], tuple[np.ndarray, "np.ndarray | None"]]
KINDS: dict[str, tuple[Callable[[np.random.Generator, Path], Path], Reader]] = {
    "nifti": (nifti, as_nibabel_reads),
    "fastmri": (fastmri, as_h5py_reads),
    "dicom": (dicom, as_pydicom_reads),
    "mgh": (mgh, as_nibabel_reads_mgh),
    "text_header": (text_header, as_simpleitk_reads),
}


def make(kind: str, seed: int, folder: Path) -> Path:
    """Write the file of a kind and a seed into an empty folder."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return KINDS[kind][0](rng, folder)


def judge(kind: str, path: Path) -> str:
    """What came of reading a file: `refused`, or `read` where it is what another reader reads.

    Raises:
        AssertionError: the two readers differ, or the header's grid is not the volume's.
        Exception: whatever else than a Fault the reading raised.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = read_volume_header(path)
        except Fault:
            header = None
        try:
            volume = read_volume(path, blank=True)
        except Fault:
            return "refused"
        assert header is not None, "the header was refused and the volume was read"
        assert header.grid.shape == volume.data.shape and np.allclose(header.grid.affine, volume.affine), "the header's grid is another one"
        assert np.isfinite(volume.data).all() and np.isfinite(volume.affine).all(), "a figure is not finite"
        data, affine = KINDS[kind][1](path)
    crop = tuple(slice((full - part) // 2, (full - part) // 2 + part) for full, part in zip(data.shape, volume.data.shape, strict=True))
    data = data[crop] if kind == "fastmri" else data
    assert data.shape == volume.data.shape, f"sizes {volume.data.shape}, another reader has {data.shape}"
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(volume.data, data.astype(np.float32), rtol=1e-5, atol=1e-5 * max(1e-30, float(np.abs(data).max())))
    if affine is not None:
        np.testing.assert_allclose(volume.affine, affine, rtol=1e-4, atol=1e-3 * max(1.0, float(np.abs(affine).max()) * 1e-3))
    return "read"
