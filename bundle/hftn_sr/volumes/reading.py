"""One reader for every kind of volume that a datalist may name."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from hftn_sr.volumes.fastmri import read_fastmri
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.volume import Volume

__all__ = ["read_volume"]

HDF5_SUFFIXES = (".h5", ".hdf5")


def read_volume(path: str | PathLike[str]) -> Volume:
    """Read a fastMRI file where the name ends in .h5 or .hdf5, see `read_fastmri`, else a NIfTI file, see `read_nifti`.

    Raises:
        Fault: with file, finding and cure, whenever there is no right reading.
    """
    return read_fastmri(path) if Path(path).suffix.lower() in HDF5_SUFFIXES else read_nifti(path)
