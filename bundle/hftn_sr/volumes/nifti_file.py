"""A NIfTI file while it is read: from its beginning to its end, uncompressed, hashed, and checked against what its header promises."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from hftn_sr.errors import Fault, Note
from hftn_sr.volumes.files import check_present
from hftn_sr.volumes.header_affine import COPY_AGAIN
from hftn_sr.volumes.scratch import BLOCK

__all__ = ["HIGHEST_GZIP_RATIO", "OpenFile", "opened"]

GZIP_MAGIC = b"\x1f\x8b"
HIGHEST_GZIP_RATIO = 1040  # deflate cannot compress further: 1032 to 1 and a header
LARGEST_HEADER = 540  # NIfTI-2; NIfTI-1 has 348 bytes
EOL_CHECKS = (b"\r\n\x1a\n", bytes(4))  # of NIfTI-2, after its magic; nibabel takes none for right
HEADER_SIZES = {size.to_bytes(4, order): size for size in (348, 540) for order in ("little", "big")}  # how a NIfTI file begins
OTHERS = {  # how other files begin, and what they are
    b"\x89HDF": "an HDF5 file, as MINC 2 is",
    b"CDF": "a MINC 1 file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"II*\0": "a TIFF picture",
    b"PK": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"NRRD": "an NRRD file by another name",
    b"# Dataset Exported": "a Philips PAR file",
    b"%PDF": "a PDF",
}
NOT_SCALAR = {128: "RGB", 2304: "RGBA"}  # NIfTI datatype codes


class _Hashed(io.RawIOBase):
    """The bytes of a file, whose SHA-256 is known at their end."""

    def __init__(self, file: io.RawIOBase) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.file.readinto(buffer) or 0
        self.digest.update(memoryview(buffer)[:count])
        return count


class OpenFile:
    """A NIfTI file that is read from its beginning to its end, uncompressed."""

    def __init__(self, path: Path, file: io.RawIOBase, notes: list[str]) -> None:
        self.path, self._hashed = path, _Hashed(file)
        self._bytes = io.BufferedReader(self._hashed, 1 << 20)
        self.compressed = self._bytes.peek(2)[:2] == GZIP_MAGIC
        if self.compressed != (path.suffix.lower() == ".gz"):
            notes.append(Note(f"{path.name} is {'' if self.compressed else 'not '}gzip-compressed, unlike its name; read by its content"))
        self._stream = gzip.GzipFile(fileobj=self._bytes) if self.compressed else self._bytes
        self._ahead = self._read(LARGEST_HEADER)
        self.header = _header(path, self._ahead)
        self.position = 0
        self.needed = int(self.header["vox_offset"]) + _size(path, self.header)
        size = path.stat().st_size
        if self.compressed and self.needed > HIGHEST_GZIP_RATIO * size:
            raise _truncated(path, self.needed, f"{size} compressed")
        if not self.compressed and self.needed > size:
            raise _truncated(path, self.needed, f"{size}")

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        ahead, self._ahead = self._ahead[:count], self._ahead[count:]
        taken = ahead + self._read(count - len(ahead)) if count > len(ahead) else ahead
        self.position += len(taken)
        if len(taken) < count:
            raise _truncated(self.path, self.needed, f"{self.position}")
        return taken

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        while count:
            count -= len(self.take(min(count, BLOCK)))

    def sha256(self) -> str:
        """Of the whole file, whose rest is read and checked: gzip's checksum stands at the end, behind extra bytes too."""
        while self._read(1 << 20):
            pass
        return self._hashed.digest.hexdigest()

    def _read(self, count: int) -> bytes:
        return _piece(self.path, self._stream, count)


@contextmanager
def opened(path: Path, notes: list[str]) -> Iterator[OpenFile]:
    """The file at `path`, whose errors while it is open become faults; `notes` gets what was found on the way."""
    try:
        check_present(path)
        with path.open("rb", buffering=0) as file:
            if path.stat().st_size == 0:
                raise Fault(path, "empty file (0 bytes)", COPY_AGAIN)
            try:
                yield OpenFile(path, file, notes)
            except Fault:
                _check_compressed(path)  # a damaged file shows as anything: that it is damaged comes first
                raise
    except FileNotFoundError:
        raise Fault(path, "no such file", "check the path") from None
    except IsADirectoryError:
        raise Fault(path, "is a folder, a NIfTI file is needed", "name the .nii.gz file; for a folder of cases use --cases") from None
    except OSError as error:
        raise Fault(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error


def _check_compressed(path: Path) -> None:
    """Raises Fault where the compressed data of a .gz file are damaged; nothing is asked of other files."""
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            return
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file)
        while _piece(path, stream, BLOCK):
            pass


def _piece(path: Path, stream: io.BufferedIOBase, count: int) -> bytes:
    try:
        return stream.read(count)
    except EOFError:
        raise Fault(path, "truncated: the compressed data ends too early", COPY_AGAIN) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Fault(path, f"damaged: the compressed data fails its check ({error})", COPY_AGAIN) from None


def _truncated(path: Path, needed: int, found: str) -> Fault:
    return Fault(path, f"truncated (found {found} bytes, the header promises {needed})", COPY_AGAIN)


def _header(path: Path, head: bytes) -> Any:
    for kind, magic, offset in ((nib.Nifti1Header, b"n+1\0", 344), (nib.Nifti2Header, b"n+2\0", 4)):
        size = kind.template_dtype.itemsize
        if head[offset : offset + 4] == magic and len(head) >= size:
            header = kind(head[:size], check=False)
            if size == LARGEST_HEADER and head[8:12] not in EOL_CHECKS:
                raise Fault(path, "damaged by a conversion of line ends, as of a text", "copy it again as binary data")
            if int(header["sizeof_hdr"]) == size and size <= header["vox_offset"] < np.inf:
                return header
            raise Fault(path, "the NIfTI header is damaged", COPY_AGAIN)
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise Fault(path, "one half of a header/image pair, a single-file NIfTI is needed", "convert the pair to .nii.gz")
    if len(head) < HEADER_SIZES.get(head[:4], 0):
        raise _truncated(path, HEADER_SIZES[head[:4]], f"{len(head)}")
    known = next((name for magic, name in OTHERS.items() if head.startswith(magic)), "")
    kind_found = known or ("text" if head.isascii() and b"\0" not in head else "unknown binary data")
    raise Fault(path, f"not a NIfTI file (found {kind_found})", "convert the image to NIfTI, for example with dcm2niix")


def _size(path: Path, header: Any) -> int:
    """Bytes of all voxels, from a header that may hold anything."""
    dimensions = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : dimensions + 1]]
    if not 2 <= dimensions <= 7 or min(sizes, default=0) < 1:
        raise Fault(path, f"the header's sizes are impossible (dim {[int(size) for size in header['dim']]})", COPY_AGAIN)
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        raise Fault(path, f"unknown voxel type (datatype {int(header['datatype'])})", COPY_AGAIN) from None
    code = int(header["datatype"])
    if code in NOT_SCALAR or dtype.names or dtype.itemsize == 0:
        raise Fault(path, f"not a scalar MR image ({NOT_SCALAR.get(code, dtype)} voxels)", "give a grey-scale volume")
    count = 1
    for size in sizes:
        count *= size
    return count * int(dtype.itemsize)
