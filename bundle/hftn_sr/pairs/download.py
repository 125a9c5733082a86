"""Public files of a GitHub repository, by commit and sha256: fetched over https or from a local copy, resumed where it was broken off."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hftn_sr.errors import Fault

__all__ = ["fetch", "data_folder", "read_table", "FetchReport", "Progress", "Source", "MIRROR_VARIABLE"]

MIRROR_VARIABLE = "HFTN_SR_DATA_MIRROR"
TRIES, TIMEOUT, PAUSE = 3, 30.0, 2.0  # per file; seconds without a byte; seconds before the second try, doubled for the third
CHUNK = 1 << 18  # bytes
REMOTE_FAULTS = (OSError, http.client.HTTPException)
HOPELESS = {"HTTP 401", "HTTP 403", "HTTP 404", "HTTP 410"}  # another try cannot help
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """Files of one commit.

    Args:
        base: address that the files' paths are appended to.
        folder: what a copy of these files is called inside a mirror that holds other data too.
        files: sha256 by path in the repository.
        size: bytes of all files.
    """

    base: str
    folder: str
    files: dict[str, str]
    size: int


@dataclass(frozen=True)
class FetchReport:
    """What `fetch` did: the files (relative to the output) already there, from the mirror, from the net, and notes for the user."""

    kept: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    downloaded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_table(path: Path, repository: str, commit: str, folder: str) -> Source:
    """The files of `repository` (owner/name) at `commit` listed by `path` in the format of sha256sum, their total size in a comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    size = next(int(line.split()[1]) for line in lines if " bytes in all" in line)
    files = {name: sha256 for sha256, name in (line.split("  ") for line in lines if not line.startswith("#"))}
    return Source(f"https://raw.githubusercontent.com/{repository}/{commit}/", folder, files, size)


def fetch(source: Source, output: Path, mirror: Path | None = None, progress: Progress | None = None) -> FetchReport:
    """Bring the files of `source` into `output`, each checked by sha256 before it stands under its name.

    Files already there are kept if right and replaced if wrong. After an interruption only `.part` files are left over, which the next call
    resumes. A mirror file that is missing or wrong is noted and taken from the net instead.

    Args:
        source: what to fetch.
        output: folder for the files, made if need be.
        mirror: a copy of the files, or the folder above it; by default what the environment variable HFTN_SR_DATA_MIRROR names, if set.
        progress: called with (bytes done, bytes in all); may step back where a wrong transfer is dropped.

    Raises:
        Fault: the mirror is no folder, the disk is too small or cannot be written, or a file cannot be had.
    """
    mirror, files, size = _mirror_folder(source, mirror), source.files, source.size
    report, done = FetchReport(), 0

    def tick(here: int) -> None:
        if progress:
            progress(min(done + here, size), size)

    with _local_faults(output):
        output.mkdir(parents=True, exist_ok=True)
        for name, sha256 in files.items():
            if _sha256(output / name) == sha256:
                report.kept.append(name)
            elif (output / name).exists():
                report.notes.append(f"{output / name}: wrong sha256, replaced")
        done = sum(_size(output / name) for name in report.kept)
        missing = [name for name in files if name not in report.kept]
        need = size - done - sum(_size(_part(output / name)) for name in missing)
        if (free := shutil.disk_usage(output).free) < need:
            raise Fault(output, f"found {free / 1e6:.0f} MB of free disk, need {need / 1e6:.0f} MB", "free some, or name another folder")
        for name in missing:
            tick(0)
            final = output / name
            final.parent.mkdir(parents=True, exist_ok=True)
            if mirror and _copy(mirror / name, _part(final), files[name], report.notes):
                report.copied.append(name)
            else:
                _download(source.base + name, final, files[name], mirror, tick)
                report.downloaded.append(name)
            _publish(_part(final), final)
            done += _size(final)
        tick(0)
    return report


def data_folder(folder: Path, name: str) -> Path:
    """The sub-folder `name` where `folder` has one, else `folder` itself."""
    return folder / name if (folder / name).is_dir() else folder


def _mirror_folder(source: Source, mirror: Path | None) -> Path | None:
    named = mirror or os.environ.get(MIRROR_VARIABLE)
    if named and not Path(named).is_dir():
        raise Fault(named, "the mirror is no folder", f"name one that holds {source.folder} with --mirror DIR, or unset {MIRROR_VARIABLE}")
    return data_folder(Path(named), source.folder) if named else None


def _copy(source: Path, part: Path, sha256: str, notes: list[str]) -> bool:
    """Copy a mirror's file to `part` and say whether that went well; `part` stays as it is where the mirror's file is missing or wrong."""
    if (found := _sha256(source)) != sha256:
        notes.append(f"{source}: {'wrong sha256' if found else 'missing'} in the mirror, taken from the net")
        return False
    shutil.copyfile(source, part)
    return _sha256(part) == sha256


def _download(url: str, final: Path, sha256: str, mirror: Path | None, tick: Callable[[int], None]) -> None:
    """Bring `url` to the `.part` of `final`, going on from what is there; a transfer with the wrong hash is dropped and begun anew."""
    part, finding = _part(final), ""
    for attempt in range(TRIES):
        if _sha256(part) == sha256:  # interrupted just before it was renamed
            return
        time.sleep(PAUSE * attempt)
        finding = _transfer(url, part, tick)
        if finding in HOPELESS:
            break
        if not finding and (found := _sha256(part)) != sha256:
            finding = f"sha256 {found}"
            part.unlink()
        if not finding:
            return
    beside = f" and nothing right in the mirror {mirror}" if mirror else ""
    finding = f"found {finding} at {url}{beside}, need a file with sha256 {sha256}"
    raise Fault(final, finding, "run again with network (what is there is kept), or with a copy of the data: --mirror DIR")


def _transfer(url: str, part: Path, tick: Callable[[int], None]) -> str:
    """Go on with `part` from `url`. Returns what failed on the far side or the way to it, "" for nothing; local errors are raised."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file or longer, yet wrong: begin anew
            part.unlink(missing_ok=True)
        return f"HTTP {error.code}"
    except REMOTE_FAULTS as error:
        return f"no connection ({getattr(error, 'reason', error)})"
    with response:
        resumes = response.status == 206 and str(response.headers.get("Content-Range")).startswith(f"bytes {start}-")
        end = int(response.headers.get("Content-Length", 0)) + (start if resumes else 0)
        with part.open("ab" if resumes else "wb") as file:
            while True:
                try:
                    chunk = response.read(CHUNK)
                except REMOTE_FAULTS as error:
                    return f"a transfer broken off ({error})"
                if not chunk:
                    break
                file.write(chunk)
                tick(file.tell())
    return f"a transfer cut off after {_size(part)} of {end} bytes" if _size(part) < end else ""  # a sized read ends short silently


def _part(final: Path) -> Path:
    return final.with_name(f"{final.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    """Of a file's bytes, at most some MB here; "" where there is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _publish(part: Path, final: Path) -> None:
    """Rename once the bytes are on the disk, so that a power cut cannot leave a short file under the final name."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(final)


@contextmanager
def _local_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        finding = f"cannot be read or written ({error.strerror or error})"
        raise Fault(error.filename or path, finding, "check space and permissions, or name another output folder") from error
