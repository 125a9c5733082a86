"""DICOM series as a scanner writes them: one file per slice, header and voxels by pydicom, geometry worked out here."""

from __future__ import annotations

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

LPS = np.array([-1.0, -1, 1])  # of a point in RAS+
PATIENT = ("Doe^Jane", "PID4711", "19700102", "20240506", "Saint Elsewhere", "Dr^Who", "ACC0815")  # in every header


def slices_of(volume, slope=1.0, intercept=0.0, **elements):
    """The datasets of a volume (columns, rows, slices) whose voxels are whole numbers, once divided by the slope, from 0 to 65535."""
    affine, spacing = volume.affine, volume.grid.spacing
    rows_and_columns = (affine[:3, :3] / spacing).T * LPS
    series = generate_uid()
    return [
        dataset(
            np.round((volume.data[..., k] - intercept) / slope).T,
            SeriesInstanceUID=series,
            InstanceNumber=k + 1,
            ImagePositionPatient=_texts(LPS * (affine @ [0, 0, k, 1])[:3]),
            ImageOrientationPatient=_texts(rows_and_columns[:2].ravel()),
            PixelSpacing=_texts(spacing[[1, 0]]),  # between rows first
            SliceThickness=f"{spacing[2]:.8g}",
            RescaleSlope=slope,
            RescaleIntercept=intercept,
            **elements,
        )
        for k in range(volume.data.shape[2])
    ]


def dataset(pixels, **elements):
    """One MR image (rows, columns) with the header of a scanner."""
    name, number, birth, day, place, doctor, accession = PATIENT
    each = Dataset()
    each.file_meta = FileMetaDataset()
    each.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    each.SOPClassUID, each.SOPInstanceUID = MRImageStorage, generate_uid()
    each.PatientName, each.PatientID, each.PatientBirthDate, each.StudyDate = name, number, birth, day
    each.InstitutionName, each.ReferringPhysicianName, each.AccessionNumber = place, doctor, accession
    each.Modality, each.SeriesNumber, each.SeriesDescription = "MR", 5, "t2 tra"
    each.Manufacturer, each.MagneticFieldStrength, each.EchoTime, each.RepetitionTime = "SIEMENS", "3", "90", "4000"
    each.Rows, each.Columns = pixels.shape
    each.SamplesPerPixel, each.PhotometricInterpretation, each.PixelRepresentation = 1, "MONOCHROME2", 0
    each.BitsAllocated, each.BitsStored, each.HighBit = 16, 16, 15
    each.PixelData = pixels.astype("<u2").tobytes()
    for key, value in elements.items():
        setattr(each, key, value)
    return each


def enhanced(volumes, **elements):
    """One enhanced MR image of volumes (columns, rows, slices) in whole numbers; each is a stack of its own unless `echoes` are given.

    `echoes` gives each volume's echo time instead, all being one stack; `scalings` each volume's slope.
    """
    echoes, scalings = elements.pop("echoes", None), elements.pop("scalings", [1.0] * len(volumes))
    frames, pixels = [], []
    for number, (volume, slope) in enumerate(zip(volumes, scalings, strict=True)):
        for index, each in enumerate(slices_of(volume, slope=slope)):
            frame = Dataset()
            frame.PlanePositionSequence = [_item(ImagePositionPatient=each.ImagePositionPatient)]
            frame.PlaneOrientationSequence = [_item(ImageOrientationPatient=each.ImageOrientationPatient)]
            frame.PixelMeasuresSequence = [_item(PixelSpacing=each.PixelSpacing, SliceThickness=each.SliceThickness)]
            frame.PixelValueTransformationSequence = [_item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")]
            stack = "1" if echoes else str(number + 1)
            frame.FrameContentSequence = [_item(StackID=stack, InStackPositionNumber=index + 1)]
            if echoes:
                frame.MREchoSequence = [_item(EffectiveEchoTime=float(echoes[number]))]
            frames.append(frame)
            pixels.append(each.pixel_array)
    one = dataset(pixels[0], SOPClassUID=EnhancedMRImageStorage, NumberOfFrames=len(frames), **elements)
    del one.EchoTime, one.RepetitionTime
    one.SeriesInstanceUID = generate_uid()
    one.PixelData = np.stack(pixels).astype("<u2").tobytes()
    one.SharedFunctionalGroupsSequence = [_item(MRTimingAndRelatedParametersSequence=[_item(RepetitionTime=4000.0, FlipAngle=90.0)])]
    one.PerFrameFunctionalGroupsSequence = frames
    return one


def _item(**elements):
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item


def write_slices(folder, slices, name="IM{:04d}"):
    """Write datasets one by one, without a suffix; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(slices):
        write_one(folder / name.format(number), each)
    return folder


def write_one(path, each):
    each.file_meta.MediaStorageSOPClassUID, each.file_meta.MediaStorageSOPInstanceUID = each.SOPClassUID, each.SOPInstanceUID
    dcmwrite(path, each, enforce_file_format=True)
    return path


def write_series(folder, volume, **elements):
    """`slices_of`, written; in an order that is not the slices'."""
    slices = slices_of(volume, **elements)
    return write_slices(folder, [*slices[1::2], *slices[::2]])


def _texts(numbers):
    return [format_number_as_ds(float(number)) for number in numbers]
