"""A result as a derived DICOM series: one classic MR image for each slice, beside the series that it was made from.

What identifies patient, study and scanner is copied from the source's slices by a list of attributes, so that private ones, and any
that nobody thought of, stay behind; what was removed from the source stays removed. The rest says what this image is: derived, secondary,
for research only, by which program and weights, from which images.

Source: DICOM PS3.3 section A.4 (MR image), C.7.6.1.1.3 to C.7.6.1.1.4 (derivation), C.7.5.2 (contributing equipment), C.12.1 (SOP common),
PS3.16 CID 7202, 7203 and 7005 (codes), PS3.5 section B.2 (UIDs from a UUID).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from hftn_sr._version import NOTICE, __version__
from hftn_sr.volumes.dicom_slice import MR, Slice, read_attributes
from hftn_sr.volumes.volume import Volume

__all__ = ["Derivation", "dicom_files", "series_uid"]

LEVELS = 2**16 - 1  # steps of a stored voxel
TINY = 1e-30  # a slope of an image of one value
LONGEST = 64  # characters of a LO
ADDED = " SR research only"
SERIES_OFFSET = 9000  # to the source's series number: behind all that a scanner counts
RM = "RM"  # research mode, for a ScanningSequence that the source does not have
ROOT = "2.25"  # of UIDs that are UUIDs, PS3.5 section B.2
IMPLEMENTATION = "2.25.205391464953446216583946926133017366862"  # this program
WINDOW = (0.5, 99.8)  # percentiles of the voxels that a viewer shows as black and white

PATIENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName"),
    *(
        "ClinicalTrialSubjectID",
        "ClinicalTrialSubjectReadingID",
        "ClinicalTrialTimePointID",
        "PatientPosition",
        "PatientSpeciesDescription",
    ),
)
STUDY = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "StudyDescription", "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "ContentDate"),
    *("ContentTime", "BodyPartExamined", "Laterality", "ProtocolName", "FrameOfReferenceUID", "PositionReferenceIndicator"),
)
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "InstitutionName", "StationName", "DeviceSerialNumber", "SoftwareVersions")
SCAN = (
    *("ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength"),
    *("InversionTime", "TriggerTime", "SequenceName", "AngioFlag", "NumberOfAverages", "ImagingFrequency", "ImagedNucleus", "EchoNumbers"),
    *("MagneticFieldStrength", "NumberOfPhaseEncodingSteps", "PercentSampling", "PercentPhaseFieldOfView", "PixelBandwidth"),
    *("AcquisitionMatrix", "InPlanePhaseEncodingDirection", "FlipAngle", "VariableFlipAngleFlag", "SAR", "dBdt", "DiffusionBValue"),
    *("ReceiveCoilName", "TransmitCoilName", "TemporalPositionIdentifier", "NumberOfTemporalPositions", "TemporalResolution"),
    *("AcquisitionNumber", "SliceThickness", "ContrastBolusAgent", "ContrastBolusRoute", "ContrastBolusVolume"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "BurnedInAnnotation"),
)
EMPTY = (  # may be empty, must be there
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
    *("ReferringPhysicianName", "PositionReferenceIndicator", "Manufacturer", "ScanOptions", "MRAcquisitionType", "RepetitionTime"),
    *("EchoTime", "EchoTrainLength", "PatientPosition"),
)


@dataclass(frozen=True)
class Derivation:
    """How a series was derived.

    Args:
        text: what was done, by what, from what; in ASCII.
        key: all that the voxels depend on: the same key gives the same UIDs.
    """

    text: str
    key: str


def series_uid(derivation: Derivation, source: Slice) -> str:
    """SeriesInstanceUID of the series derived from that of `source`."""
    return _uid(derivation.key, source.series, "series")


def dicom_files(volume: Volume, slices: list[Slice], derivation: Derivation) -> Iterator[tuple[str, bytes]]:
    """The files of a derived series, slice by slice along the array axis 2.

    Voxels are stored as 16-bit integers with one slope and one intercept for the series, from its least voxel to its greatest: read back,
    they differ by half a step at most, (greatest - least) / 65535 / 2.

    Args:
        volume: voxels in columns, rows, slices, and where they lie.
        slices: those of the source; a slice takes the attributes of the one next to it.
        derivation: for the description and the UIDs.

    Yields:
        name and content of each file.

    Raises:
        Fault: a file of the source cannot be read.
    """
    least, greatest = float(volume.data.min()), float(volume.data.max())
    intercept = float(_ds(least))
    slope = float(_ds(max((greatest - intercept) / LEVELS, TINY)))
    black, white = np.percentile(volume.data[..., volume.data.shape[2] // 2], WINDOW)
    series, count = series_uid(derivation, slices[0]), volume.data.shape[2]
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine  # RAS to LPS
    for index in range(count):
        position = affine[:3] @ [0, 0, index, 1]
        source = min(slices, key=lambda each: abs(float(each.normal @ (each.position - position))))
        out = _copied(read_attributes(source, (*PATIENT, *STUDY, *EQUIPMENT, *SCAN)))
        _describe(out, source, derivation)
        _place(out, affine, position)
        if count != len(slices):
            out.SliceThickness = out.SpacingBetweenSlices
        out.SeriesInstanceUID = series
        out.SOPInstanceUID = _uid(derivation.key, source.series, f"slice {index}")
        out.InstanceNumber = index + 1
        stored = np.clip(np.round((volume.data[..., index].T.astype(np.float64) - intercept) / slope), 0, LEVELS).astype("<u2")
        _store(out, stored, slope, intercept, (float(black), max(float(white), float(black) + slope)))
        yield f"slice_{index + 1:0{max(4, len(str(count)))}}.dcm", _file(out)


def _copied(found: Mapping[str, pydicom.DataElement]) -> pydicom.Dataset:
    out = pydicom.Dataset()
    for element in found.values():
        out.add(element)
    out.remove_private_tags()  # of items of sequences, too
    for name in EMPTY:
        if name not in out:
            setattr(out, name, None)
    if not out.get("BodyPartExamined") and "Laterality" not in out:
        out.Laterality = None
    for name, instead in (("ScanningSequence", RM), ("SequenceVariant", "NONE")):
        if not out.get(name):
            setattr(out, name, instead)
    return out


def _describe(out: pydicom.Dataset, source: Slice, derivation: Derivation) -> None:
    out.SOPClassUID, out.Modality = MR, "MR"
    kind = source.differs_in.get("ImageType", "").split("\\")[2:]
    out.ImageType = ["DERIVED", "SECONDARY", *[each or "OTHER" for each in kind or ["OTHER"]]]
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):  # of a source that lacks it
        if not out.get(name):
            setattr(out, name, _uid(source.series, name))
    out.SeriesNumber = SERIES_OFFSET + int(source.number) if source.number.isdecimal() and int(source.number) < 2**30 else SERIES_OFFSET
    kept = source.description.replace("\\", " ")[: LONGEST - len(ADDED)].rstrip()
    out.SeriesDescription = (kept if out.get("SpecificCharacterSet") else kept.encode("ascii", "replace").decode()) + ADDED
    out.ImageComments = NOTICE
    out.DerivationDescription = derivation.text[:1024]
    out.DerivationCodeSequence = [_code("113085", "Spatial resampling")]
    original = pydicom.Dataset()
    original.ReferencedSOPClassUID, original.ReferencedSOPInstanceUID = source.sop
    if source.frame is not None:
        original.ReferencedFrameNumber = source.frame + 1
    original.PurposeOfReferenceCodeSequence = [_code("121322", "Source image for image processing operation")]
    if source.sop[1]:
        out.SourceImageSequence = [original]
    program = pydicom.Dataset()
    program.PurposeOfReferenceCodeSequence = [_code("109103", "Modifying Equipment")]
    program.Manufacturer, program.ManufacturerModelName, program.SoftwareVersions = "hftn-sr", "hftn-sr", __version__
    program.ContributionDescription = derivation.text[:1024]
    out.ContributingEquipmentSequence = [program]


def _place(out: pydicom.Dataset, affine: NDArray[np.float64], position: NDArray[np.float64]) -> None:
    columns, rows, step = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    sizes = np.linalg.norm(columns), np.linalg.norm(rows)
    normal = np.cross(columns / sizes[0], rows / sizes[1])
    out.ImageOrientationPatient = [_ds(each) for each in (*columns / sizes[0], *rows / sizes[1])]
    out.ImagePositionPatient = [_ds(each) for each in position]
    out.PixelSpacing = [_ds(sizes[1]), _ds(sizes[0])]  # from row to row first
    out.SpacingBetweenSlices = _ds(abs(float(normal @ step)))
    out.SliceLocation = _ds(float(normal @ position))
    if not out.get("SliceThickness"):
        out.SliceThickness = out.SpacingBetweenSlices


def _store(out: pydicom.Dataset, voxels: NDArray[np.uint16], slope: float, intercept: float, shown: tuple[float, float]) -> None:
    out.Rows, out.Columns = voxels.shape
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 16, 15, 0
    out.RescaleSlope, out.RescaleIntercept, out.RescaleType = _ds(slope), _ds(intercept), "US"
    if shown[1] - shown[0] >= 1:  # a window may not be narrower, PS3.3 section C.11.2.1.2
        out.WindowCenter, out.WindowWidth = _ds(sum(shown) / 2), _ds(shown[1] - shown[0])
    out.PixelData = voxels.tobytes()
    out["PixelData"].VR = "OW"


def _file(out: pydicom.Dataset) -> bytes:
    out.file_meta = FileMetaDataset()
    out.file_meta.MediaStorageSOPClassUID, out.file_meta.MediaStorageSOPInstanceUID = out.SOPClassUID, out.SOPInstanceUID
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.file_meta.ImplementationClassUID = UID(IMPLEMENTATION)
    out.file_meta.ImplementationVersionName = f"HFTN_SR_{__version__}"[:16]
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, out, enforce_file_format=True)
    return stream.getvalue()


def _code(value: str, meaning: str) -> pydicom.Dataset:
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code


def _ds(number: float | np.floating[Any]) -> str:
    """A number in the 16 characters of a decimal string."""
    return str(format_number_as_ds(float(number)))


def _uid(*of: Any) -> str:
    """The same UID for the same parts."""
    digest = bytearray(hashlib.sha256("\0".join(map(str, of)).encode()).digest()[:16])
    digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80  # a UUID of version 8, whose content is free
    return f"{ROOT}.{int.from_bytes(digest, 'big')}"
