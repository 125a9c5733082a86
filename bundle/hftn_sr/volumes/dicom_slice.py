"""The slices of one DICOM file: what kind it is, where each slice lies, its voxels.

A classic MR image holds one slice. An enhanced one, and what was converted to one, holds many, each with its own place and scaling.
Of the header only what is needed is taken: nothing that identifies who was scanned, when or where. pydicom reads headers, ITK
decodes voxels.

Source: DICOM PS3.10 section 7.1 (the beginning of a file), PS3.3 sections C.7.6.2 (image plane), C.7.6.16 (frames of an enhanced image)
and C.7.6.16.2.11 (real-world value mapping).
"""

from __future__ import annotations

import functools
import math
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_partial
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from hftn_sr.errors import Fault, Note
from hftn_sr.volumes.header_affine import COPY_AGAIN

__all__ = [
    "MR",
    "VOLUMES_DIFFER_IN",
    "Slice",
    "begins_as_dicom",
    "forget_frames",
    "holds_mr",
    "read_attributes",
    "read_slices",
    "read_voxels",
]

MAGIC, PREAMBLE = b"DICM", 128  # after so many bytes
MR, ENHANCED_MR, LEGACY_ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.4{more}" for more in ("", ".1", ".4"))  # storage SOP classes
MULTI_FRAME = (ENHANCED_MR, LEGACY_ENHANCED_MR)
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")  # of voxels as they are
KIND_OF_VOXELS = ("SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation")
CHECKED = ("PixelData", "Rows", "Columns", "NumberOfFrames", *KIND_OF_VOXELS)
RESCALE = ("RescaleSlope", "RescaleIntercept")
UNDEFINED = 0xFFFFFFFF  # length of an element that ends with a mark
TO_NIFTI = "convert it to NIfTI, for example by dcm2niix, and give that file"
PIXELS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelData"),
)
UNIT = 1e-3  # deviation of a direction's length, and of the cosine between two of them

SCAN = {  # how it was measured, by the names and in the units of BIDS, which are those of DICOM but for milliseconds; None for text
    "Manufacturer": None,
    "MagneticFieldStrength": 1.0,
    "RepetitionTime": 1e-3,
    "EchoTime": 1e-3,
    "InversionTime": 1e-3,
    "FlipAngle": 1.0,
    "SliceThickness": 1.0,
}
MATRIX = (
    *("AcquisitionMatrix", "InPlanePhaseEncodingDirection", "PercentPhaseFieldOfView"),
    *("MRAcquisitionFrequencyEncodingSteps", "MRAcquisitionPhaseEncodingStepsInPlane"),
)
PHASE = {"ROW": "i", "COL": "j", "COLUMN": "j"}  # the array axis that BIDS names so: lines along a row follow the column index
VOLUMES_DIFFER_IN = (  # what distinguishes the volumes of one series, the likeliest first
    "EchoTime",
    "InversionTime",
    "ImageType",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "EchoNumbers",
)
PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
# Where a frame of an enhanced image has what a classic image has at its top: sequence of functional groups, and name there.
OF_A_FRAME = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "SliceThickness": ("PixelMeasuresSequence", "SliceThickness"),
    "SpacingBetweenSlices": ("PixelMeasuresSequence", "SpacingBetweenSlices"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "RealWorldValueMappingSequence": ("RealWorldValueMappingSequence", ""),
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "InPlanePhaseEncodingDirection": ("MRFOVGeometrySequence", "InPlanePhaseEncodingDirection"),
    "PercentPhaseFieldOfView": ("MRFOVGeometrySequence", "PercentPhaseFieldOfView"),
    "MRAcquisitionFrequencyEncodingSteps": ("MRFOVGeometrySequence", "MRAcquisitionFrequencyEncodingSteps"),
    "MRAcquisitionPhaseEncodingStepsInPlane": ("MRFOVGeometrySequence", "MRAcquisitionPhaseEncodingStepsInPlane"),
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "StackID": ("FrameContentSequence", "StackID"),
}
UNASSIGNED = "UnassignedPerFrameConvertedAttributesSequence"  # where a legacy converted image keeps what has no group
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
HEADER = (
    *PLACE,
    *(
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "SeriesNumber",
        "SeriesDescription",
        "InstanceNumber",
        "Modality",
        "SamplesPerPixel",
    ),
    *("PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept"),
    *("RealWorldValueMappingSequence", *GROUPS, *SCAN, *MATRIX, *VOLUMES_DIFFER_IN),
)


@dataclass(frozen=True)
class Slice:
    """The header of one slice.

    Args:
        path: its file.
        frame: its place in the file's frames, from 0; None in a file of one slice.
        stack: StackID of a frame, empty if unknown.
        series: SeriesInstanceUID.
        number: SeriesNumber, empty if unknown.
        description: SeriesDescription, empty if unknown.
        instance: InstanceNumber, of a frame its place from 1; None if unknown.
        position: (3,) centre of the first voxel, LPS+ mm.
        directions: (2, 3) where the column index and the row index grow, unit vectors in LPS+.
        spacing: voxel size along these two in mm.
        shape: columns and rows.
        thickness: in mm; from one slice to the next where the header says so.
        scaling: slope and intercept that `read_voxels` applies to what the file stores; None where ITK applies the header's own.
        differs_in: the header's text for each of VOLUMES_DIFFER_IN that it has.
        scan: scan parameters of the header, named as in SCAN.
        notes: what was found in the header and the user should know: `Note`s, other texts are warnings.
        sop: SOPClassUID and SOPInstanceUID of its file, empty if unknown.
    """

    path: Path
    frame: int | None
    stack: str
    series: str
    number: str
    description: str
    instance: int | None
    position: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: float
    scaling: tuple[float, float] | None
    differs_in: Mapping[str, str]
    scan: Mapping[str, str | float]
    notes: tuple[str, ...]
    sop: tuple[str, str]

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) across the slice, right-handed with its two directions."""
        return np.cross(*self.directions)


def begins_as_dicom(path: Path) -> bool:
    """Whether a file has DICOM's preamble or, as some scanners export them, begins with DICOM's elements; its name does not matter.

    Raises:
        Fault: it cannot be read.
    """
    start = _beginning(path, PREAMBLE + len(MAGIC))
    return start[PREAMBLE:] == MAGIC or (_begins_with_elements(start) and _is_image_without_preamble(path))


def holds_mr(path: Path) -> bool:
    """Whether a DICOM file is an MR image, or does not say what it is; not so a DICOMDIR, a report, a presentation state.

    Raises:
        Fault: it ends too soon, or is damaged.
    """
    header = _read(path, ("SOPClassUID", "Modality"))
    meta = getattr(header, "file_meta", None)
    kind = (_text(meta, "MediaStorageSOPClassUID") if meta else "") or _text(header, "SOPClassUID")
    return not kind or kind in (MR, *MULTI_FRAME)


def read_slices(path: Path) -> list[Slice]:
    """The headers of the slices of one MR image: one, or one for each frame.

    Raises:
        Fault: not a greyscale MR image, damaged, a mosaic, or without its place in space.
    """
    header = _read(path, HEADER)
    with _explained(path):
        _check_kind(path, header)
        if _text(header, "SOPClassUID") not in MULTI_FRAME:
            return [_slice(path, header, _Classic(header), None)]
        frames = header.get("PerFrameFunctionalGroupsSequence") or []
        if not frames or len(frames) != int(header.get("NumberOfFrames") or 0):
            raise Fault(path, f"{header.get('NumberOfFrames')} frames promised, {len(frames)} described", COPY_AGAIN)
        shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        return [_slice(path, header, _Frame(header, own, shared), index) for index, own in enumerate(frames)]


def read_attributes(each: Slice, names: tuple[str, ...]) -> dict[str, pydicom.DataElement]:
    """Those attributes of a slice that its file has and that can be read, by name; numbers shortened to what their kind may hold.

    Raises:
        Fault: the file cannot be read.
    """
    header = _whole_header(each.path, names)
    of: _Classic | _Frame = _Classic(header)
    if each.frame is not None:
        shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
        of = _Frame(header, header.PerFrameFunctionalGroupsSequence[each.frame], shared)
    found = {}
    for name in names:
        with suppress(Exception):  # a value that pydicom cannot read is left behind
            if (value := of.get(name)) is not None:
                kind = dictionary_VR(name)
                found[name] = pydicom.DataElement(tag_for_keyword(name) or 0, kind, _shortened(value) if kind == "DS" else value)
    return found


@functools.lru_cache(maxsize=1)
def _whole_header(path: Path, names: tuple[str, ...]) -> pydicom.Dataset:
    return _read(path, (*names, *GROUPS))


def _shortened(value: Any) -> Any:
    """One or several numbers in the 16 characters that a decimal string has."""
    if isinstance(value, (list, tuple, pydicom.multival.MultiValue)):
        return [_shortened(each) for each in value]
    return value if value == "" else format_number_as_ds(float(value))


def read_voxels(each: Slice) -> NDArray[np.float32]:
    """(columns, rows) of one slice, scaled by its header.

    Raises:
        Fault: truncated, damaged or packed in a way that ITK does not know; not finite.
    """
    voxels = _itk_voxels(each.path)[0] if each.frame is None else _frames(each.path)[each.frame]
    if voxels.shape != each.shape[::-1]:
        raise Fault(each.path, f"slices of {voxels.shape[::-1]} voxels, its header says {each.shape}", COPY_AGAIN)
    scaled: NDArray[np.float32] = voxels.T if each.scaling is None else voxels.T * np.float32(each.scaling[0]) + np.float32(each.scaling[1])
    if not np.isfinite(scaled).all():
        raise Fault(each.path, "voxels are NaN or infinite", COPY_AGAIN)
    return scaled


def forget_frames() -> None:
    """Let go of the last file of many frames, which `read_voxels` keeps."""
    _frames.cache_clear()


class _Classic:
    """What a header says of its one slice."""

    def __init__(self, header: pydicom.Dataset) -> None:
        self.header = header

    def get(self, name: str) -> Any:
        return self.header.get(name)


class _Frame:
    """What an enhanced image says of one frame: in the frame's own groups, in those of all frames, or at its top."""

    def __init__(self, header: pydicom.Dataset, own: pydicom.Dataset, shared: pydicom.Dataset) -> None:
        self.header, self.groups = header, (own, shared)

    def get(self, name: str) -> Any:
        sequence, inner = OF_A_FRAME.get(name, ("", name))
        for group in self.groups:
            items = group.get(sequence) if sequence else None
            if items and not inner:
                return items
            if items and items[0].get(inner) is not None:
                return items[0].get(inner)
            left = group.get(UNASSIGNED)
            if left and left[0].get(name) is not None:
                return left[0].get(name)
        return self.header.get(name)


def _slice(path: Path, header: pydicom.Dataset, of: _Classic | _Frame, frame: int | None) -> Slice:
    position, orientation, (between_rows, between_columns) = (_numbers(path, of.get(name), name) for name in PLACE)
    directions = orientation.reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if np.abs(lengths - 1).max() > UNIT or abs(directions[0] @ directions[1]) > UNIT or min(between_rows, between_columns) <= 0:
        found = f"directions {orientation.tolist()}, voxel sizes {[float(between_rows), float(between_columns)]}"
        raise Fault(path, f"its geometry is impossible ({found})", COPY_AGAIN)
    instance = _text(header, "InstanceNumber")
    scaling, notes = _scaling(path, of, frame)
    told = {name: _as_text(of.get(name)) for name in VOLUMES_DIFFER_IN}
    return Slice(
        path,
        frame,
        _as_text(of.get("StackID")) if frame is not None else "",
        _text(header, "SeriesInstanceUID"),
        _text(header, "SeriesNumber"),
        _text(header, "SeriesDescription"),
        frame + 1 if frame is not None else int(instance) if instance.lstrip("+-").isdecimal() else None,
        position,
        directions / lengths[:, None],
        (float(between_columns), float(between_rows)),
        (int(header.Columns), int(header.Rows)),
        next((size for name in ("SpacingBetweenSlices", "SliceThickness") if (size := _positive(of.get(name)))), 1.0),
        scaling,
        {name: text for name, text in told.items() if text},
        _scan(of),
        notes,
        (_text(header, "SOPClassUID"), _text(header, "SOPInstanceUID")),
    )


def _scaling(path: Path, of: _Classic | _Frame, frame: int | None) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """By the rescale elements, which ITK applies to a classic image, else by a linear real-world value mapping."""
    slope, intercept = (_number(of.get(name)) for name in RESCALE)
    if any(_as_text(of.get(name)).strip() and number is None for name, number in zip(RESCALE, (slope, intercept), strict=True)):
        raise Fault(path, f"its {' or '.join(RESCALE)} is no number", COPY_AGAIN)
    mapping = (of.get("RealWorldValueMappingSequence") or [None])[0]
    real_slope, real_intercept = (_number(mapping.get(f"RealWorldValue{of}")) if mapping else None for of in ("Slope", "Intercept"))
    real = None if not real_slope or real_intercept is None else (real_slope, real_intercept)
    if slope is not None and slope != 0:
        own = (slope, intercept or 0.0)
        differs = real is not None and not np.allclose(real, own)
        note = (f"{path.parent.name}: its real-world value mapping is not that of its RescaleSlope; the latter is used",) if differs else ()
        return (own if frame is not None else None), note
    if real is None:
        return ((1.0, 0.0) if frame is not None else None), ()
    return real, (Note(f"{path.parent.name}: scaled by its real-world value mapping"),)


def _beginning(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise Fault(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error


def _begins_with_elements(start: bytes) -> bool:
    """Whether bytes look like an element of group 2 or 8: its number within the group, then its type or its length."""
    if len(start) < 8 or start[:2] not in (b"\x02\x00", b"\x08\x00") or start[3:4] != b"\0":
        return False
    (length,) = struct.unpack("<I", start[4:8])
    return start[4:6] in (b"UL", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO") or length <= PREAMBLE


def _is_image_without_preamble(path: Path) -> bool:
    try:
        header = _read(path, ("SOPClassUID", "Modality", "Rows", "Columns"))
        return bool(_text(header, "SOPClassUID")) and bool(_text(header, "Modality") or header.get("Rows"))
    except Fault:
        return False


def _read(path: Path, names: tuple[str, ...]) -> pydicom.Dataset:
    with _explained(path):
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(names))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What pydicom raises or warns of for a damaged file, which may be anything, is one fault."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Fault:
        raise
    except Exception as error:
        raise _unreadable(path) from error


def _syntax(path: Path) -> str:
    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[]).file_meta.TransferSyntaxUID)
    except Exception:  # of a damaged file: it has none then
        return ""


def _unreadable(path: Path) -> Fault:
    """Why a file could not be read, which ITK does not say."""
    syntax = _syntax(path)
    if syntax and syntax not in PLAIN:
        fix = "export it without compression; if others of its kind can be read it is damaged: copy it again"
        return Fault(path, f"cannot be decoded (transfer syntax {syntax})", fix)
    return Fault(path, "truncated or damaged", COPY_AGAIN)


def _itk_voxels(path: Path) -> NDArray[np.float32]:
    """(frames, rows, columns), scaled by the header's RescaleSlope and RescaleIntercept."""
    import itk  # here, because it takes a second to load, and most images are no DICOM

    _check_elements(path)
    reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(ImageIO=itk.GDCMImageIO.New(), FileName=str(path))
    try:
        reader.Update()
    except RuntimeError as error:
        raise _unreadable(path) from error
    voxels: NDArray[np.float32] = itk.array_from_image(reader.GetOutput())
    return voxels


def _check_elements(path: Path) -> None:
    """What ITK makes the worst of, raised as a Fault.

    It fills voxels that an element of uncompressed voxels lacks with whatever was in memory, passes over those that its header has no place
    for, and takes seconds to minutes over an element that promises more bytes than the file has.
    """
    size = path.stat().st_size

    with _explained(path), path.open("rb") as stream:

        def ends_beyond(tag: object, kind: object, length: int) -> bool:
            if length != UNDEFINED and stream.tell() + length > size:
                raise Fault(path, f"truncated or damaged (an element {tag} of {length} bytes)", COPY_AGAIN)
            return False

        deflated = _syntax(path) == DeflatedExplicitVRLittleEndian
        tags = [tag_for_keyword(name) or 0 for name in CHECKED]
        header = read_partial(stream, None if deflated else ends_beyond, force=True, specific_tags=tags)
        stored, allocated = (_number(header.get(name)) or 0 for name in ("BitsStored", "BitsAllocated"))
        if not 0 < stored <= allocated:
            raise Fault(path, f"truncated or damaged ({stored:g} bits stored of {allocated:g})", COPY_AGAIN)
        if _text(header, "PixelRepresentation") not in ("0", "1"):
            raise Fault(path, f"truncated or damaged (pixel representation {_text(header, 'PixelRepresentation')})", COPY_AGAIN)
        if _syntax(path) not in ("", *PLAIN) or "PixelData" not in header:
            return
        rows, columns, frames = int(header.Rows), int(header.Columns), int(header.get("NumberOfFrames") or 1)
        each = int(header.BitsAllocated) * int(header.SamplesPerPixel) / 8
        found, needed = len(header.PixelData), int(rows * columns * frames * each)
        if not needed <= found < needed + max(min(rows, columns) * each, 2):  # by as much, where a size is too small by one
            raise Fault(path, f"truncated or damaged ({found} bytes of voxels, needs {needed})", COPY_AGAIN)


@functools.lru_cache(maxsize=1)
def _frames(path: Path) -> NDArray[np.float32]:
    """(frames, rows, columns) of an enhanced image, as stored."""
    _check_elements(path)
    with _explained(path):
        image = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in image.file_meta:  # a file without preamble; pydicom found out how its elements are written
            image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if image.original_encoding[0] else ExplicitVRLittleEndian
        if image.file_meta.TransferSyntaxUID in (*PLAIN, RLELossless):
            voxels = np.asarray(image.pixel_array, dtype=np.float32)
        else:
            voxels = _decoded(image)
    return voxels if voxels.ndim == 3 else voxels[None]


def _decoded(image: pydicom.Dataset) -> NDArray[np.float32]:
    """(frames, rows, columns) of compressed voxels, as stored, by ITK: of a copy without the headers that ITK would scale them by."""
    import itk  # here, because it takes a second to load

    plain = pydicom.Dataset()
    for name in PIXELS:
        if name in image:
            plain.add(image[name])
    plain.file_meta = FileMetaDataset()
    plain.SOPClassUID, plain.SOPInstanceUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid()
    plain.file_meta.MediaStorageSOPClassUID, plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPClassUID, plain.SOPInstanceUID
    plain.file_meta.TransferSyntaxUID = image.file_meta.TransferSyntaxUID
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frames.dcm"
        pydicom.dcmwrite(path, plain, enforce_file_format=True)
        reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(ImageIO=itk.GDCMImageIO.New(), FileName=str(path))
        reader.Update()
        voxels: NDArray[np.float32] = itk.array_from_image(reader.GetOutput())
    return voxels


def _check_kind(path: Path, header: pydicom.Dataset) -> None:
    modality, colour = _text(header, "Modality"), _text(header, "PhotometricInterpretation")
    if modality != "MR":
        raise Fault(path, f"not an MR image (found modality {modality or 'unknown'}, need MR)", "give the folder of an MR series")
    if _text(header, "SamplesPerPixel") != "1" or colour != "MONOCHROME2":
        found = colour or "no photometric interpretation"
        raise Fault(path, f"not a greyscale MR image (found {found}, need MONOCHROME2)", "give the series it was made from")
    enhanced = _text(header, "SOPClassUID") in MULTI_FRAME
    if not enhanced and (_text(header, "NumberOfFrames") not in ("", "1") or "MOSAIC" in _text(header, "ImageType").split("\\")):
        raise Fault(path, "many slices in one image (multi-frame or mosaic)", TO_NIFTI)


def _text(header: pydicom.Dataset, name: str) -> str:
    return _as_text(header.get(name))


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    values = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
    return "\\".join(str(each).strip("\0 ") for each in values)


def _numbers(path: Path, value: Any, name: str) -> NDArray[np.float64]:
    try:
        found = np.array([float(each) for each in value])
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.shape != (PLACE[name],) or not np.isfinite(found).all():
        raise Fault(path, f"no {name} of {PLACE[name]} numbers, so that it has no place in space", "export the original series again")
    return found


def _number(value: Any) -> float | None:
    """The first of one or several; None if there is none."""
    try:
        found = float(_as_text(value).split("\\")[0])
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _positive(value: Any) -> float | None:
    found = _number(value)
    return found if found is not None and found > 0 else None


def _scan(of: _Classic | _Frame) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for name, factor in SCAN.items():
        number = _positive(of.get(name)) if factor else None
        value = _as_text(of.get(name)) if factor is None else round(number * factor, 9) if number else None
        if value:
            found[name] = value
    return found | _matrix(of)


def _matrix(of: _Classic | _Frame) -> dict[str, str | float]:
    """The measured matrix by the names of dicm2niix: samples along the frequency direction, lines, and which axis the lines are along."""
    direction = PHASE.get(_as_text(of.get("InPlanePhaseEncodingDirection")).strip().upper())
    rows = [int(number) for each in _as_text(of.get("AcquisitionMatrix")).split("\\") if (number := _number(each)) is not None]
    base, lines = (max(rows[:2]), max(rows[2:])) if len(rows) == 4 else (0, 0)
    base = base or int(_positive(of.get("MRAcquisitionFrequencyEncodingSteps")) or 0)
    lines = lines or int(_positive(of.get("MRAcquisitionPhaseEncodingStepsInPlane")) or 0)
    if not direction or not base or not lines:
        return {}
    share = _positive(of.get("PercentPhaseFieldOfView"))
    known: dict[str, str | float] = {"BaseResolution": base, "AcquisitionMatrixPE": lines, "PhaseEncodingDirection": direction}
    return known | ({"PercentPhaseFOV": share} if share else {})
