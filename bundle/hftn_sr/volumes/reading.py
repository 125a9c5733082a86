"""One reader for every kind of volume that a datalist may name."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from hftn_sr.volumes.dicom import dicom_sha256, is_dicom, read_dicom, read_dicom_header
from hftn_sr.volumes.fastmri import read_fastmri, read_fastmri_header
from hftn_sr.volumes.files import check_present, sha256_of
from hftn_sr.volumes.nifti import ReadOptions, VolumeHeader, read_header, read_nifti
from hftn_sr.volumes.other_formats import is_other_format, other_sha256, read_other, read_other_header
from hftn_sr.volumes.volume import Volume

__all__ = ["HDF5_SUFFIXES", "is_fastmri", "read_volume", "read_volume_header", "volume_sha256"]

HDF5_SUFFIXES = (".h5", ".hdf5")


def is_fastmri(path: str | PathLike[str]) -> bool:
    """Whether the name is that of a fastMRI file: it ends in .h5 or .hdf5."""
    return Path(path).suffix.lower() in HDF5_SUFFIXES


def read_volume(path: str | PathLike[str], options: ReadOptions | None = None, blank: bool = False) -> Volume:
    """Read a folder with a DICOM series, a fastMRI, MGH, NRRD or MetaImage file, or else a NIfTI file.

    `ReadOptions` are for NIfTI; `frame` is for DICOM and MGH, too. See `read_dicom`, `read_fastmri`, `read_other` and `read_nifti`.

    An image without signal is refused unless `blank`.

    Raises:
        Fault: with file, finding and cure, whenever there is no right reading.
    """
    chosen = options or ReadOptions()
    check_present(Path(path))
    if is_dicom(path):
        return read_dicom(path, chosen.frame, blank=blank)
    if is_other_format(path):
        return read_other(path, chosen, blank)
    return read_fastmri(path, blank=blank) if is_fastmri(path) else read_nifti(path, chosen, blank)


def read_volume_header(path: str | PathLike[str], options: ReadOptions | None = None) -> VolumeHeader:
    """Read only the header of what `read_volume` reads.

    Raises:
        Fault: the header shows that the file cannot be used.
    """
    chosen = options or ReadOptions()
    check_present(Path(path))
    if is_dicom(path):
        return read_dicom_header(path, chosen.frame)
    if is_other_format(path):
        return read_other_header(path, chosen)
    return read_fastmri_header(path) if is_fastmri(path) else read_header(path, chosen)


def volume_sha256(path: str | PathLike[str]) -> str:
    """What `read_volume` gives as sha256, without reading voxels.

    Raises:
        Fault: a folder without an MR image.
        OSError: a file that is not there.
    """
    if Path(path).is_dir():
        return dicom_sha256(path)
    return other_sha256(Path(path)) if is_other_format(path) else sha256_of(Path(path))
