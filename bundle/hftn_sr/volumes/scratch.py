"""Voxels that are needed for a while: small ones in memory, large ones in a file that no other process sees and that dies with this one."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from hftn_sr.errors import Fault
from hftn_sr.volumes.files import explained

__all__ = ["BLOCK", "IN_MEMORY", "Scratch", "blocks", "check_space", "disk_bytes", "existing_folder"]

IN_MEMORY = 256 << 20  # bytes up to which voxels stay in memory
BLOCK = 32 << 20  # bytes that are worked on at a time


class Scratch:
    """Float32 voxels of a volume, zeros at first, each slice in one piece: one that lay scattered would bring the whole file into memory.

    Pages of the file count as memory of the process only until `release`; the system can take them back at any time.

    Args:
        shape: (X, Y, Z) of the volume.
        through_plane: axis of the slices.
        folder: where the file goes if the volume is large; its space is reserved at once.

    Raises:
        Fault: no space left there, or no permission.
    """

    def __init__(self, shape: tuple[int, int, int], through_plane: int, folder: Path) -> None:
        # Of the other two axes the later one comes first, so that a part of the NIfTI file, whose last axis is outermost, is found in runs.
        self._axes = (through_plane, *(axis for axis in (2, 1, 0) if axis != through_plane))
        stored = tuple(shape[axis] for axis in self._axes)
        size = 4 * int(np.prod(shape, dtype=np.int64))
        self._map: mmap.mmap | None = None
        if size <= IN_MEMORY:
            self._array: NDArray[np.float32] = np.zeros(stored, np.float32)
            return
        try:
            with TemporaryFile(dir=folder) as file:  # has no name, so that nothing is left of it whatever happens
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)  # a full disk shows here and not as a signal later
                else:
                    file.truncate(size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise explained(folder, error, size) from error
        self._array = np.frombuffer(self._map, np.float32).reshape(stored)

    @property
    def volume(self) -> NDArray[np.float32]:
        """(X, Y, Z), a view."""
        return self._array.transpose([self._axes.index(axis) for axis in range(3)])

    def parts(self) -> Iterator[NDArray[np.float32]]:
        """The voxels, some slices at a time, each part released after use."""
        for block in blocks(len(self._array), self._array[:1].nbytes):
            yield self._array[block]
            self.release()

    def release(self) -> None:
        """Give the memory of the file's pages back to the system; their content stays."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def blocks(length: int, item: int) -> Iterator[slice]:
    """Consecutive slices of `range(length)`, each of at most BLOCK bytes where an index has `item` bytes, and at least one index."""
    step = max(1, BLOCK // max(item, 1))
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def check_space(path: Path, size: int) -> None:
    """Find out, before any work is done, whether the disk of the file `path` has room for `size` bytes.

    Raises:
        Fault: it has not.
    """
    free = shutil.disk_usage(existing_folder(path)).free
    if free < size:
        finding = f"not enough space left on its disk (needs {size / 1e6:.0f} MB, {free / 1e6:.0f} MB are free)"
        raise Fault(path, finding, "free space or choose another --output")


def disk_bytes(voxels: int) -> int:
    """Space that a case of so many voxels needs for its result and what is put aside on the way there."""
    size = 4 * voxels
    return int(1.001 * size) + (1 << 20) + (2 * size if size > IN_MEMORY else 0)  # noise grows a little when it is compressed


def existing_folder(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())
