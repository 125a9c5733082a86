"""A fastMRI file as a NIfTI file, with a side file that says what is known of it and what was assumed."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib

from hftn_sr import __version__
from hftn_sr.errors import Fault, NothingToDo
from hftn_sr.volumes.fastmri import FastMRIImage, fastmri_scan, read_fastmri
from hftn_sr.volumes.files import NewFiles, json_bytes
from hftn_sr.volumes.nifti import nifti_chunks

__all__ = ["convert_fastmri", "nifti_name"]

POSITION = "unknown: the centre of the field of view is put on the origin, tilt is taken as none, plane and signs of the axes are assumed"
DESCRIPTION = "hftn-sr: from fastMRI; position unknown, centred"  # at most 79 bytes, the size of the header's field


def nifti_name(path: Path) -> str:
    """The name of the NIfTI file that a fastMRI file becomes."""
    return f"{path.stem}.nii.gz"


def convert_fastmri(path: Path, folder: Path, image: FastMRIImage = "auto", overwrite: bool = False) -> tuple[Path, tuple[str, ...]]:
    """Write `folder`/<stem>.nii.gz and its side file .json, both or none.

    Voxels, their order and their sizes are those of `read_fastmri`. The side file names the source, its hash, the dataset and how the scan
    was measured, in the words of BIDS; it says that the position is not known. The patient's ID is not copied.

    Args:
        path: .h5 file.
        folder: where to; made if it is missing.
        image: which dataset of the file, see `read_fastmri`.
        overwrite: replace both files where they exist.

    Returns:
        the NIfTI file, and what was found while reading.

    Raises:
        Fault: the file cannot be used, or the output cannot be written; nothing has changed then.
        NothingToDo: the NIfTI file exists and may not be replaced.
    """
    output = folder / nifti_name(path)
    side_file = folder / f"{path.stem}.json"
    if not overwrite:
        if os.path.lexists(output):
            raise NothingToDo(output, "exists already", "--overwrite always, or another --output")
        if os.path.lexists(side_file):
            raise Fault(side_file, "stands where this run would write", "choose another --output or --overwrite always")
    volume = read_fastmri(path, image)
    content = {
        "ConversionSoftware": "hftn-sr",
        "ConversionSoftwareVersion": __version__,
        "Source": {"file": path.name, "sha256": volume.sha256},
        "Position": POSITION,
        "AxesAssumed": "".join(nib.aff2axcodes(volume.affine)),
        **fastmri_scan(path, image),
        "Notes": list(volume.notes),
    }
    with NewFiles() as files:
        files.write(output, nifti_chunks(volume, DESCRIPTION))
        files.write(side_file, [json_bytes(content)])
        files.into_place([side_file, output])  # where the image stands, its side file is complete
    return output, volume.notes
