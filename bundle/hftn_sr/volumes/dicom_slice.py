"""One file of a DICOM series: what kind it is, where its slice lies, its voxels.

Of the header only what is needed is taken: nothing that tells who was scanned, when or where. ITK reads and decodes; the group of
elements that every file begins with is read here, because it tells why ITK cannot read a file.

Source: DICOM PS3.10 section 7.1 (the beginning of a file), PS3.3 section C.7.6.2 (image plane).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftn_sr.errors import Fault
from hftn_sr.volumes.header_affine import COPY_AGAIN

__all__ = ["SCAN", "VOLUMES_DIFFER_IN", "Slice", "begins_as_dicom", "holds_mr", "read_slice", "read_voxels"]

MAGIC, PREAMBLE = b"DICM", 128  # after so many bytes
BEGINNING = 1 << 16  # bytes within which the first group of elements ends
LONG = (b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV", b"SV", b"UV")  # their length has four bytes
KIND, SYNTAX = 0x0002, 0x0010  # elements of group 2: media storage SOP class, transfer syntax
MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")  # of voxels as they are
TO_NIFTI = "convert it to NIfTI, for example by dcm2niix, and give that file"
UNIT = 1e-3  # deviation of a direction's length, and of the cosine between two of them

SCAN = {  # how it was measured, by the names and in the units of BIDS: tag, factor; None for text
    "Manufacturer": ("0008|0070", None),
    "MagneticFieldStrength": ("0018|0087", 1.0),
    "RepetitionTime": ("0018|0080", 1e-3),
    "EchoTime": ("0018|0081", 1e-3),
    "InversionTime": ("0018|0082", 1e-3),
    "FlipAngle": ("0018|1314", 1.0),
    "SliceThickness": ("0018|0050", 1.0),
}
VOLUMES_DIFFER_IN = {  # what tells the volumes of one series apart, the likeliest first
    "EchoTime": "0018|0081",
    "InversionTime": "0018|0082",
    "ImageType": "0008|0008",
    "TemporalPositionIdentifier": "0020|0100",
    "DiffusionBValue": "0018|9087",
    "TriggerTime": "0018|1060",
    "AcquisitionNumber": "0020|0012",
    "EchoNumbers": "0018|0086",
}
PLACE = {"0020|0032": "ImagePositionPatient", "0020|0037": "ImageOrientationPatient", "0028|0030": "PixelSpacing"}
SERIES, NUMBER, DESCRIPTION, INSTANCE = "0020|000e", "0020|0011", "0008|103e", "0020|0013"
MODALITY, SAMPLES, COLOUR, FRAMES, ROWS, COLUMNS = "0008|0060", "0028|0002", "0028|0004", "0028|0008", "0028|0010", "0028|0011"
DISTANCE, THICKNESS = "0018|0088", "0018|0050"
NEEDED = (
    *PLACE,
    *(SERIES, NUMBER, DESCRIPTION, INSTANCE, MODALITY, SAMPLES, COLOUR, FRAMES, ROWS, COLUMNS, DISTANCE, THICKNESS),
    *(tag for tag, _ in SCAN.values()),
    *VOLUMES_DIFFER_IN.values(),
)


@dataclass(frozen=True)
class Slice:
    """The header of one slice.

    Args:
        path: its file.
        series: SeriesInstanceUID.
        number: SeriesNumber, empty if unknown.
        description: SeriesDescription, likewise.
        instance: InstanceNumber; None if unknown.
        position: (3,) centre of the first voxel, LPS+ mm.
        directions: (2, 3) where the column index and the row index grow, unit vectors in LPS+.
        spacing: voxel size along these two in mm.
        shape: columns and rows.
        thickness: in mm; from one slice to the next where the header says so.
        differs_in: the header's text for each of VOLUMES_DIFFER_IN that it has.
        scan: as SCAN, what the header has of it.
    """

    path: Path
    series: str
    number: str
    description: str
    instance: int | None
    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: float
    differs_in: Mapping[str, str]
    scan: Mapping[str, str | float]

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) across the slice, right-handed with its two directions."""
        return np.cross(*self.directions)


def begins_as_dicom(path: Path) -> bool:
    """Whether a file has the preamble of DICOM; its name does not matter.

    Raises:
        Fault: it cannot be read.
    """
    return _beginning(path, PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC


def holds_mr(path: Path) -> bool:
    """Whether a DICOM file is an MR image, or does not say what it is; not so a DICOMDIR, a report, a presentation state.

    Raises:
        Fault: it holds all slices of an enhanced MR image, or ends too soon.
    """
    kind = _first_group(path).get(KIND, MR)
    if kind == ENHANCED_MR:
        raise Fault(path, "an enhanced MR image, all slices in one file", TO_NIFTI)
    return kind == MR


def read_slice(path: Path) -> Slice:
    """The header of one MR image.

    Raises:
        Fault: not a single greyscale slice of an MR image, damaged, packed in a way that ITK does not know, or without its place in space.
    """
    header = _header(path)
    _check_kind(path, header)
    position, orientation, (between_rows, between_columns) = (
        _numbers(path, header, tag, count) for tag, count in zip(PLACE, (3, 6, 2), strict=True)
    )
    directions = orientation.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if np.abs(lengths - 1).max() > UNIT or abs(directions[0] @ directions[1]) > UNIT or min(between_rows, between_columns) <= 0:
        found = f"directions {orientation.tolist()}, voxel sizes {[between_rows, between_columns]}"
        raise Fault(path, f"its geometry is impossible ({found})", COPY_AGAIN)
    instance = header.get(INSTANCE, "")
    told = {name: header.get(tag, "") for name, tag in VOLUMES_DIFFER_IN.items()}
    return Slice(
        path,
        header.get(SERIES, ""),
        header.get(NUMBER, ""),
        header.get(DESCRIPTION, ""),
        int(instance) if instance.lstrip("+-").isdecimal() else None,
        position,
        directions / lengths[:, None],
        (float(between_columns), float(between_rows)),
        (int(header.get(COLUMNS, "")), int(header.get(ROWS, ""))),
        next((size for tag in (DISTANCE, THICKNESS) if (size := _number(header, tag))), 1.0),
        {name: text for name, text in told.items() if text},
        _scan(header),
    )


def read_voxels(path: Path) -> NDArray[np.float32]:
    """(columns, rows) of one slice; RescaleSlope and RescaleIntercept are applied.

    Raises:
        Fault: truncated, damaged or packed in a way that ITK does not know; not finite.
    """
    import itk  # here, because it takes a second to load, and most images are no DICOM

    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(ImageIO=itk.GDCMImageIO.New(), FileName=str(path))
    try:
        reader.Update()
    except RuntimeError as error:
        raise _unreadable(path) from error
    voxels: NDArray[np.float32] = itk.array_from_image(reader.GetOutput())[0].T
    if not np.isfinite(voxels).all():
        raise Fault(path, "voxels are NaN or infinite", COPY_AGAIN)
    return voxels


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise Fault(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error


def _first_group(path: Path) -> dict[int, str]:
    """The elements of group 2, always little endian with explicit types, as text by their number within the group."""
    data, at, found = _beginning(path, BEGINNING), PREAMBLE + len(MAGIC), {}
    while data[at : at + 2] == b"\x02\x00":
        try:
            element, kind = struct.unpack_from("<H2s", data, at + 2)
            long = kind in LONG
            (size,) = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))
        except struct.error:
            raise Fault(path, "truncated within its header", COPY_AGAIN) from None
        at += 12 if long else 8
        found[element] = data[at : at + size].rstrip(b"\0 ").decode("ascii", "replace")
        at += size
    return found


def _header(path: Path) -> dict[str, str]:
    """The elements that are needed, those of them that the file has."""
    import itk

    image = itk.GDCMImageIO.New(FileName=str(path))  # ITK frees the dictionary with it
    try:
        image.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path) from error
    dictionary = image.GetMetaDataDictionary()
    return {tag: str(dictionary[tag]).strip("\0 ") for tag in NEEDED if dictionary.HasKey(tag)}


def _unreadable(path: Path) -> Fault:
    """Why ITK, which does not tell, could not read a file."""
    syntax = _first_group(path).get(SYNTAX, "")
    if syntax and syntax not in PLAIN:
        fix = "export it without compression; if others of its kind can be read it is damaged: copy it again"
        return Fault(path, f"cannot be decoded (transfer syntax {syntax})", fix)
    return Fault(path, "truncated or damaged", COPY_AGAIN)


def _check_kind(path: Path, header: Mapping[str, str]) -> None:
    modality, colour = header.get(MODALITY, ""), header.get(COLOUR, "")
    if modality != "MR":
        raise Fault(path, f"not an MR image (found modality {modality or 'unknown'}, need MR)", "give the folder of an MR series")
    if header.get(SAMPLES, "") != "1" or colour != "MONOCHROME2":
        found = colour or "no photometric interpretation"
        raise Fault(path, f"not a greyscale MR image (found {found}, need MONOCHROME2)", "give the series it was made from")
    if header.get(FRAMES, "") not in ("", "1") or "MOSAIC" in header.get(VOLUMES_DIFFER_IN["ImageType"], "").split("\\"):
        raise Fault(path, "many slices in one image (multi-frame or mosaic)", TO_NIFTI)


def _numbers(path: Path, header: Mapping[str, str], tag: str, count: int) -> NDArray[np.float64]:
    try:
        found = np.array(header.get(tag, "").split("\\"), dtype=float)
    except ValueError:
        found = np.empty(0)
    if found.shape != (count,) or not np.isfinite(found).all():
        raise Fault(path, f"no {PLACE[tag]} of {count} numbers, so that it has no place in space", "export the original series again")
    return found


def _number(header: Mapping[str, str], tag: str) -> float | None:
    """None if there is none above 0."""
    try:
        found = float(header.get(tag, "").split("\\")[0])
    except ValueError:
        return None
    return found if 0 < found < np.inf else None


def _scan(header: Mapping[str, str]) -> dict[str, str | float]:
    found = {}
    for name, (tag, factor) in SCAN.items():
        number = _number(header, tag) if factor else None
        value = header.get(tag, "") if factor is None else round(number * factor, 9) if number else None
        if value:
            found[name] = value
    return found
