"""One reader for every kind of volume that a datalist may name."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from hftn_sr.volumes.fastmri import read_fastmri, read_fastmri_header
from hftn_sr.volumes.nifti import ReadOptions, VolumeHeader, read_header, read_nifti
from hftn_sr.volumes.volume import Volume

__all__ = ["HDF5_SUFFIXES", "is_fastmri", "read_volume", "read_volume_header"]

HDF5_SUFFIXES = (".h5", ".hdf5")


def is_fastmri(path: str | PathLike[str]) -> bool:
    """Whether the name is that of a fastMRI file: it ends in .h5 or .hdf5."""
    return Path(path).suffix.lower() in HDF5_SUFFIXES


def read_volume(path: str | PathLike[str], options: ReadOptions | None = None) -> Volume:
    """Read a fastMRI file, see `read_fastmri`, or else a NIfTI file, see `read_nifti`, for which the options are.

    Raises:
        Fault: with file, finding and cure, whenever there is no right reading.
    """
    return read_fastmri(path) if is_fastmri(path) else read_nifti(path, options or ReadOptions())


def read_volume_header(path: str | PathLike[str], options: ReadOptions | None = None) -> VolumeHeader:
    """Read only the header of what `read_volume` reads.

    Raises:
        Fault: for what the header alone shows.
    """
    return read_fastmri_header(path) if is_fastmri(path) else read_header(path, options or ReadOptions())
