"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hftn_sr.errors import Fault

__all__ = [
    "NewFiles",
    "alone",
    "check_present",
    "check_writable",
    "explained",
    "json_bytes",
    "make_folder",
    "remove_parts",
    "sha256_of",
    "write_bytes",
    "write_files",
    "write_json",
]

PART, OLD = ".part", ".old"
RESULT_FILE = re.compile(r"slice_\d+\.dcm")  # of a folder that this package wrote
LARGEST_POINTER = 1024  # bytes of a file that only stands for another
LFS_POINTER, ANNEX_POINTERS = b"version https://git-lfs.github.com/", (b"annex/objects/", b"git/annex/objects/")


class NewFiles:
    """Several files that belong together: all are complete on the disk before the first one takes its place.

    Whatever happens, each path holds its old file or its complete new one. A symbolic link is replaced; its target stays as it is. Parent
    folders are made where they are missing. To be used as a context, at whose end nothing is left behind of what was not put into place.
    """

    def __init__(self) -> None:
        self._parts: dict[Path, Path] = {}

    def __enter__(self) -> NewFiles:
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts.values():
            with contextlib.suppress(OSError):
                _remove(part)

    def write(self, path: Path, chunks: Iterable[bytes]) -> str:
        """Write what will stand at `path`, as it comes, and give its SHA-256 in hexadecimal.

        Raises:
            Fault: no space left, no permission, or another error of the file system.
        """
        digest, size = hashlib.sha256(), 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._parts[path] = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{PART}")
            with self._parts[path].open("xb") as stream:
                for chunk in chunks:
                    size += len(chunk)
                    digest.update(chunk)
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise explained(path, error, size) from error
        return digest.hexdigest()

    def write_folder(self, path: Path, files: Iterable[tuple[str, bytes]]) -> list[str]:
        """Write what will be the folder `path`, file by file by name and content, and give their SHA-256.

        Raises:
            Fault: see `write`.
        """
        digests, size = [], 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._parts[path] = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{PART}")
            self._parts[path].mkdir()
            for name, content in files:
                with (self._parts[path] / name).open("xb") as stream:
                    size += len(content)
                    digests.append(hashlib.sha256(content).hexdigest())
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            _sync_folder(self._parts[path])
        except OSError as error:
            raise explained(path, error, size) from error
        return digests

    def into_place(self, order: Iterable[Path]) -> None:
        """Let the files take their places in this order.

        Raises:
            Fault: the file system refuses; no path has changed then.
        """
        parts = {path: self._parts[path] for path in order}
        try:
            _into_place(parts)
        except OSError as error:
            raise explained(next(reversed(parts)), error, 0) from error


def write_files(contents: Mapping[Path, bytes]) -> None:
    """Write several files that belong together by `NewFiles`, in the order given.

    Raises:
        Fault: see there; no path has changed then, and nothing is left behind.
    """
    with NewFiles() as files:
        for path, content in contents.items():
            files.write(path, [content])
        files.into_place(contents)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` in one step, as `write_files`."""
    write_files({path: content})


def json_bytes(content: dict[str, Any] | list[Any]) -> bytes:
    """`content` as indented UTF-8 JSON; bytes that are not UTF-8 as escapes; NaN and infinity, which JSON does not know, are refused."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")  # of surrogates


def write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Write `content` as JSON to `path` in one step, as `write_files`."""
    write_bytes(path, json_bytes(content))


@contextlib.contextmanager
def alone(*paths: Path, patience: float = 0.0) -> Iterator[None]:
    """Keep other runs off files that are written together, and remove what a killed run left of writing them.

    The lock is a hidden file beside the first one. It dies with its process, and goes at the end.

    Args:
        paths: files that are written inside the context. The folder of the first one exists.
        patience: seconds that another run may take.

    Raises:
        Fault: another run still writes them, or the lock cannot be made.
    """
    path = paths[0].with_name(f".{paths[0].name[:100]}.lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(path, timeout=patience))
        except Timeout:
            raise Fault(paths[0], "another run is writing this file", "wait for it to end") from None
        except OSError as error:
            raise explained(paths[0], error, 0) from error
        try:
            for written in paths:
                remove_parts(written)
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows does not remove a file that is open; it stays, unlocked
                path.unlink()


def remove_parts(path: Path) -> None:
    """Remove what a killed process left of writing `path`. Only where no other process writes it."""
    left = f".{glob.escape(path.name[:100])}.{'[0-9a-f]' * 8}"
    for old in path.parent.glob(f"{left}{OLD}"):
        if not path.exists():  # it was killed between the two steps in which a folder is replaced
            old.replace(path)
        _remove(old)
    for part in path.parent.glob(f"{left}{PART}"):
        _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_present(path: Path) -> None:
    """Find out, before `path` is opened, that it is a file with its content, or a folder.

    Raises:
        Fault: it is not there; it stands for a file that git-annex, DataLad or Git LFS has not fetched; it is a pipe, a socket or a device.
    """
    link = str(path.readlink()) if path.is_symlink() else ""
    annex = f"datalad get {path.name}, or git annex get {path.name}"
    if not path.exists():
        if "annex/objects" in link.replace("\\", "/"):
            raise Fault(path, "its content is not fetched (a link into git-annex)", annex)
        if link:
            raise Fault(path, f"a link to nothing ({link})", "fetch the file that it names")
        raise Fault(path, "no such file", "check the path")
    if path.is_dir():
        return
    if not path.is_file():
        raise Fault(path, "not a file but a pipe, a socket or a device", "give a file on the disk")
    if path.stat().st_size > LARGEST_POINTER:
        return
    with path.open("rb") as stream:
        start = stream.read(LARGEST_POINTER)
    if start.startswith(LFS_POINTER):
        raise Fault(path, "its content is not fetched (a Git LFS pointer)", f"git lfs pull --include {path.name}")
    if start.lstrip(b"./").startswith(ANNEX_POINTERS):
        raise Fault(path, "its content is not fetched (a git-annex pointer)", annex)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        Fault: the file system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(path, error, 0) from error


def check_writable(path: Path, folder: bool = False) -> None:
    """Find out, before any work is done, that a file, or a folder, can be written at `path`; makes its parent folder.

    Raises:
        Fault: the path is a folder where a file is to be written, its parent is a file or read-only, or the name is too long.
    """
    try:
        if path.is_dir() and not folder:
            raise Fault(path, "is a folder, a file name is needed", "give --output a file name ending in .nii.gz")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        probe.touch(exist_ok=False)
        probe.unlink(missing_ok=True)  # a run that writes this file takes it for a leftover
    except OSError as error:
        raise explained(path, error, 0) from error


def _into_place(temporary: Mapping[Path, Path]) -> None:
    """Rename each part to its path; should that fail or be interrupted half-way, paths that were free are free again."""
    placed, moved = [], {}
    try:
        for path, part in temporary.items():
            placed += [] if os.path.lexists(path) else [path]
            if part.is_dir() and path.is_dir() and not path.is_symlink():  # a folder with content cannot be replaced in one step
                moved[path] = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{OLD}")
                path.replace(moved[path])
            elif part.is_dir() and os.path.lexists(path):
                path.unlink()
            part.replace(path)
            _sync_folder(path.parent)
    except BaseException:
        for path in placed:
            _remove(path)
        for path, old in moved.items():
            if not path.exists():
                old.replace(path)
        raise
    for path, old in moved.items():
        with contextlib.suppress(OSError):
            for each in old.iterdir():  # what others put there since this run began
                if not RESULT_FILE.fullmatch(each.name):
                    each.replace(path / each.name)
            _remove(old)


def _sync_folder(folder: Path) -> None:
    """Make the rename survive a power cut, where the system lets a folder be opened (Windows does not)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def explained(path: Path, error: OSError, size: int) -> Fault:
    """The fault for an error of the file system while so many bytes were written to `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault(path, f"no space left on the disk (needs {size / 1e6:.1f} MB)", "free space or choose another --output")
    if error.errno == errno.ENAMETOOLONG:
        return Fault(path, "the file name is too long", "choose a shorter --output")
    if isinstance(error, (PermissionError, NotADirectoryError, FileExistsError)) or error.errno == errno.EROFS:
        return Fault(path, f"cannot be written ({error.strerror})", "choose an --output folder that you may write to")
    return Fault(path, f"cannot be written ({error.strerror or error})", "check the disk and try again")
