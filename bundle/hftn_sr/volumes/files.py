"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from hftn_sr.errors import Fault

__all__ = ["check_writable", "sha256_of", "write_bytes", "write_json"]


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step: whatever happens, the path holds the old file or the complete new one.

    A symbolic link is replaced, its target is left alone. The parent folder is made where it is missing.

    Raises:
        Fault: no space left, no permission, or another error of the file system; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _explained(path, error, len(content)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Write `content` as indented UTF-8 JSON to `path`, in one step as `write_bytes`."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_writable(path: Path) -> None:
    """Find out, before any work is done, that a file can be written at `path`; makes its parent folder.

    Raises:
        Fault: the path is a folder, its parent is a file or read-only, or the name is too long.
    """
    try:
        if path.is_dir():
            raise Fault(path, "is a folder, a file name is needed", "give --output a file name ending in .nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise _explained(path, error, 0) from error


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, where the system lets a folder be opened (Windows does not)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _explained(path: Path, error: OSError, size: int) -> Fault:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault(path, f"no space left on the disk (needs {size / 1e6:.1f} MB)", "free space or choose another --output")
    if error.errno == errno.ENAMETOOLONG:
        return Fault(path, "the file name is too long", "choose a shorter --output")
    if isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)) or error.errno == errno.EROFS:
        return Fault(path, f"cannot be written ({error.strerror})", "choose an --output folder that you may write to")
    return Fault(path, f"cannot be written ({error.strerror or error})", "check the disk and try again")
