"""A fastMRI file or a DICOM series as a NIfTI file, with a side file that says what is known of it and what was assumed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib

from hftn_sr._version import __version__
from hftn_sr.errors import Fault, NothingToDo
from hftn_sr.volumes.dicom import dicom_scan, read_dicom, read_dicom_header
from hftn_sr.volumes.fastmri import FastMRIImage, fastmri_scan, read_fastmri
from hftn_sr.volumes.files import NewFiles, json_bytes
from hftn_sr.volumes.nifti import nifti_chunks
from hftn_sr.volumes.volume import Volume

__all__ = ["convert_dicom", "convert_fastmri", "nifti_name"]

POSITION = "unknown: the centre of the field of view is put on the origin, tilt is taken as none, plane and signs of the axes are assumed"
FROM_FASTMRI = "hftn-sr: from fastMRI; position unknown, centred"  # at most 79 bytes, the size of the header's field
FROM_DICOM = "hftn-sr: from DICOM"


def nifti_name(path: Path, series: int | None = None, frame: int | None = None) -> str:
    """The name of the NIfTI file that a fastMRI file or a folder with a DICOM series becomes."""
    chosen = "".join(f"_{what}-{number}" for what, number in (("series", series), ("frame", frame)) if number is not None)
    return f"{path.absolute().name}{chosen}.nii.gz" if path.is_dir() else f"{path.stem}.nii.gz"


def convert_fastmri(path: Path, folder: Path, image: FastMRIImage = "auto", overwrite: bool = False) -> tuple[Path, tuple[str, ...]]:
    """Write `folder`/<stem>.nii.gz and its side file .json, both or none.

    Voxels, their order and their sizes are those of `read_fastmri`. The side file names the source, its hash, the dataset and how the scan
    was measured, in the words of BIDS; it says that the position is not known. The patient's ID is not copied.

    Args:
        path: .h5 file.
        folder: where to; made if it is missing.
        image: dataset of the file, see `read_fastmri`.
        overwrite: replace both files where they exist.

    Returns:
        the NIfTI file, and what was found while reading.

    Raises:
        Fault: the file cannot be used, or the output cannot be written; nothing has changed then.
        NothingToDo: the NIfTI file exists and may not be replaced.
    """
    output = folder / nifti_name(path)
    _check_free(output, overwrite)
    volume = read_fastmri(path, image)
    assumed = {"Position": POSITION, "AxesAssumed": "".join(nib.aff2axcodes(volume.affine))}
    return _saved(output, volume, FROM_FASTMRI, {**assumed, **fastmri_scan(path, image)})


def convert_dicom(
    path: Path, folder: Path, series: int | None = None, frame: int | None = None, overwrite: bool = False
) -> tuple[Path, tuple[str, ...]]:
    """Write `folder`/<name of the series' folder>.nii.gz and its side file .json, both or none.

    The side file names the source, its hash, and how the scan was measured, in the words of BIDS; nothing of the patient is copied.

    Args:
        path: folder of one series.
        folder: where to; made if it is missing.
        series: SeriesNumber, where there are several; part of the names then.
        frame: index of one of several volumes of the series, see `read_dicom`. It becomes part of the file names.
        overwrite: replace both files where they exist.

    Returns:
        the NIfTI file, and what was found while reading.

    Raises:
        Fault: the series cannot be used, or the output cannot be written; nothing has changed then.
        NothingToDo: the NIfTI file exists and may not be replaced.
    """
    output = folder / nifti_name(path, series, frame)
    _check_free(output, overwrite)
    if frame and _is_one_volume(path, series):  # elsewhere `frame` is for both images of a pair, and one of them may have a single volume
        raise Fault(path, f"1 volume in the series, no number {frame}", "leave --frame out")
    return _saved(output, read_dicom(path, frame, series), FROM_DICOM, dict(dicom_scan(path, frame, series)))


def _is_one_volume(path: Path, series: int | None) -> bool:
    try:
        read_dicom_header(path, None, series)
    except Fault:
        return False
    return True


def _side_file(output: Path) -> Path:
    return output.with_name(f"{output.name.removesuffix('.nii.gz')}.json")


def _check_free(output: Path, overwrite: bool) -> None:
    if not overwrite:
        if os.path.lexists(output):
            raise NothingToDo(output, "exists already", "--overwrite always, or another --output")
        if os.path.lexists(side_file := _side_file(output)):
            raise Fault(side_file, "stands where this run would write", "choose another --output or --overwrite always")


def _saved(output: Path, volume: Volume, description: str, known: dict[str, Any]) -> tuple[Path, tuple[str, ...]]:
    content = {
        "ConversionSoftware": "hftn-sr",
        "ConversionSoftwareVersion": __version__,
        "Source": {"file": volume.path.absolute().name, "sha256": volume.sha256},
        **known,
        "Notes": list(volume.notes),
    }
    side_file = _side_file(output)
    with NewFiles() as files:
        files.write(output, nifti_chunks(volume, description))
        files.write(side_file, [json_bytes(content)])
        files.into_place([side_file, output])  # where the image stands, its side file is complete
    return output, volume.notes
