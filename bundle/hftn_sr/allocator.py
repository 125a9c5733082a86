"""The allocator of this process: what becomes of memory that tensors no longer need."""

from __future__ import annotations

import ctypes
import platform

__all__ = ["MMAP_MAX", "MMAP_THRESHOLD", "TOP_PAD", "TRIM_THRESHOLD", "set_allocator"]

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # malloc.h


def set_allocator(*settings: tuple[int, int]) -> bool:
    """Change parameters of glibc's `mallopt`, for the life of the process.

    Args:
        settings: parameter and value, in the order in which they are set.

    Returns:
        True where that was done: with glibc (Linux).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in settings)
