"""NIfTI files: read whole and checked to their end, saved in one step."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from hftn_sr.errors import Fault
from hftn_sr.volumes.files import write_bytes
from hftn_sr.volumes.header_affine import COPY_AGAIN, AssumedAffine, header_affine
from hftn_sr.volumes.volume import Volume

__all__ = ["AssumedAffine", "ReadOptions", "nifti_bytes", "read_nifti", "save_nifti"]

GZIP_MAGIC = b"\x1f\x8b"
HIGHEST_GZIP_RATIO = 1040  # deflate cannot compress further: 1032 to 1 and a header
LARGEST_HEADER = 540  # NIfTI-2; NIfTI-1 has 348 bytes
HEADER_SIZES = {size.to_bytes(4, order): size for size in (348, 540) for order in ("little", "big")}  # how a NIfTI file begins
FORM_CODES = nib.nifti1.xform_codes.value_set("code")
UNIT_BITS = 0x3F  # what NIfTI defines of xyzt_units
NOT_SCALAR = {128: "RGB", 2304: "RGBA"}  # NIfTI datatype codes


@dataclass(frozen=True)
class ReadOptions:
    """What to do with a file that has no single right reading.

    Args:
        frame: which of several volumes of a 4D file, from 0.
        nan_to_num: take 0 for voxels that are not finite.
        magnitude: take the absolute value of complex voxels.
        assume_affine: where the voxels lie if sform and qform contradict each other (`sform`, `qform`) or both are missing (`spacing`:
            axes as in RAS+, voxel sizes of the header, origin at voxel 0).
    """

    frame: int | None = None
    nan_to_num: bool = False
    magnitude: bool = False
    assume_affine: AssumedAffine | None = None


def read_nifti(path: str | PathLike[str], options: ReadOptions = ReadOptions()) -> Volume:
    """Read one scalar 3D volume; scl_slope and scl_inter are applied.

    The file is read to its end, so that a truncated or damaged one never gives voxels: gzip's checksum is there, and the size that the
    header promises is compared with what came.

    Args:
        path: .nii or .nii.gz, NIfTI-1 or NIfTI-2, either byte order; its content decides which, not its name.
        options: how to read what is ambiguous.

    Returns:
        Voxels (X, Y, Z) as float32, any unit; a 2D image has Z = 1. `notes` says what was found on the way.

    Raises:
        Fault: with file, finding and cure, whenever there is no right reading.
    """
    path = Path(path)
    content = _content(path)
    notes: list[str] = []
    raw, header = _voxel_bytes(path, content, notes)
    affine, codes = header_affine(path, header, options.assume_affine, notes)
    data = _scalars(path, header, raw, options, notes)
    return Volume(data, affine, path, hashlib.sha256(content).hexdigest(), int(header["xyzt_units"]) & UNIT_BITS, codes, tuple(notes))


def nifti_bytes(volume: Volume, description: str, compressed: bool = True) -> bytes:
    """`volume` as a float32 NIfTI-1 file; the same volume always gives the same bytes.

    Affine, units and the codes of sform and qform are kept; `description` (at most 79 bytes) goes to the header's descrip.
    """
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header["descrip"] = description.encode("ascii", "replace")[:79]
    image = nib.Nifti1Image(np.asarray(volume.data, dtype=np.float32), volume.affine, header)
    sform, qform = (code if code in FORM_CODES else 0 for code in volume.codes)
    image.set_sform(volume.affine, sform or 1)
    image.set_qform(volume.affine, qform, strip_shears=True)  # a sheared affine has no exact qform; the sform comes first and keeps it
    image.header["xyzt_units"] = volume.units or 2
    content: bytes = image.to_bytes()
    # Level 1: float voxels are mostly noise, higher levels take five times longer and save a few percent.
    return gzip.compress(content, compresslevel=1, mtime=0) if compressed else content


def save_nifti(path: Path, volume: Volume, description: str) -> None:
    """Save `volume` by `nifti_bytes` in one step: `path` then holds the complete file or what it held before.

    Raises:
        Fault: no space, no permission; nothing is left behind.
    """
    write_bytes(path, nifti_bytes(volume, description, path.suffix == ".gz"))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Fault(path, "no such file", "check the path") from None
    except IsADirectoryError:
        raise Fault(path, "is a folder, a NIfTI file is needed", "name the .nii.gz file; for a folder of cases use --cases") from None
    except OSError as error:
        raise Fault(path, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
    if not content:
        raise Fault(path, "empty file (0 bytes)", COPY_AGAIN)
    return content


def _voxel_bytes(path: Path, content: bytes, notes: list[str]) -> tuple[bytes, Any]:
    """The file's uncompressed bytes from the first voxel on, and its header."""
    compressed = content.startswith(GZIP_MAGIC)
    if compressed != (path.suffix.lower() == ".gz"):
        notes.append(f"{path.name} is {'' if compressed else 'not '}gzip-compressed, unlike its name; read by its content")
    with gzip.GzipFile(fileobj=io.BytesIO(content)) if compressed else io.BytesIO(content) as stream:
        try:
            head = stream.read(LARGEST_HEADER)
            header = _header(path, head)
            needed = int(header["vox_offset"]) + _size(path, header)
            if compressed and needed > HIGHEST_GZIP_RATIO * len(content):
                raise _truncated(path, needed, f"{len(content)} compressed")
            if not compressed and needed > len(content):
                raise _truncated(path, needed, f"{len(content)}")
            body = head + stream.read(max(needed - len(head), 0))
            while compressed and stream.read(1 << 20):  # the checksum stands at the end, behind extra bytes too
                pass
        except EOFError:
            raise Fault(path, "truncated: the compressed data ends too early", COPY_AGAIN) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Fault(path, f"damaged: the compressed data fails its check ({error})", COPY_AGAIN) from None
    if len(body) < needed:
        raise _truncated(path, needed, f"{len(body)}")
    return body[int(header["vox_offset"]) : needed], header


def _truncated(path: Path, needed: int, found: str) -> Fault:
    return Fault(path, f"truncated (found {found} bytes, the header promises {needed})", COPY_AGAIN)


def _header(path: Path, head: bytes) -> Any:
    for kind, magic, offset in ((nib.Nifti1Header, b"n+1\0", 344), (nib.Nifti2Header, b"n+2\0", 4)):
        size = kind.template_dtype.itemsize
        if head[offset : offset + 4] == magic and len(head) >= size:
            header = kind(head[:size], check=False)
            if int(header["sizeof_hdr"]) == size and size <= header["vox_offset"] < np.inf:
                return header
            raise Fault(path, "the NIfTI header is damaged", COPY_AGAIN)
    if head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0":
        raise Fault(path, "one half of a header/image pair, a single-file NIfTI is needed", "convert the pair to .nii.gz")
    if len(head) < HEADER_SIZES.get(head[:4], 0):
        raise _truncated(path, HEADER_SIZES[head[:4]], f"{len(head)}")
    kind_found = "text" if head.isascii() and b"\0" not in head else "unknown binary data"
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


def _scalars(path: Path, header: Any, raw: bytes, options: ReadOptions, notes: list[str]) -> NDArray[np.float32]:
    sizes = [int(size) for size in header["dim"][1 : int(header["dim"][0]) + 1]]
    stored = np.frombuffer(raw, dtype=header.get_data_dtype()).reshape(sizes, order="F")
    volume = _three_dimensional(path, stored, options, notes)
    if np.iscomplexobj(volume):
        if not options.magnitude:
            raise Fault(path, "complex voxels, real ones are needed", "--magnitude to take their absolute value")
        notes.append(f"{path.name}: absolute value of complex voxels")
        volume = np.abs(volume)
    slope, intercept = _scaling(path, header, notes)
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 becomes infinite and is counted
        scaled = volume * slope + intercept if (slope, intercept) != (1, 0) else volume
        data: NDArray[np.float32] = scaled.astype(np.float32)
    data = _finite(path, data, options, notes)
    if data.min() == data.max():
        raise Fault(path, f"no signal: every voxel is {data.flat[0]:g}", "check the export of this image")
    return np.ascontiguousarray(data)


def _three_dimensional(path: Path, stored: NDArray[Any], options: ReadOptions, notes: list[str]) -> NDArray[Any]:
    if stored.ndim == 2:
        return stored[:, :, np.newaxis]
    further = stored.shape[3:]
    if any(size > 1 for size in further[1:]):
        raise Fault(path, f"not a scalar volume (sizes {stored.shape})", "give a file with one 3D volume")
    frames = further[0] if further else 1
    if frames > 1 and options.frame is None:
        raise Fault(path, f"{frames} volumes in one file (found 4D, need 3D)", f"--frame N with N from 0 to {frames - 1}")
    frame = options.frame or 0 if frames > 1 else 0  # the other file of a pair may hold a single volume
    if not 0 <= frame < frames:
        raise Fault(path, f"no frame {frame} (found {frames} volumes)", f"--frame N with N from 0 to {frames - 1}")
    if further:
        notes.append(f"{path.name}: volume {frame} of {frames} taken from sizes {stored.shape}")
    return stored.reshape(*stored.shape[:3], -1)[..., frame]


def _scaling(path: Path, header: Any, notes: list[str]) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:  # the standard's "not scaled"
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        if np.isfinite(slope) != np.isfinite(intercept) or np.isinf([slope, intercept]).any():
            notes.append(f"{path.name}: intensity scaling {slope:g}, {intercept:g} is not finite; voxels taken as stored")
        return 1.0, 0.0
    return slope, intercept


def _finite(path: Path, data: NDArray[np.float32], options: ReadOptions, notes: list[str]) -> NDArray[np.float32]:
    bad = int(data.size - np.isfinite(data).sum())
    if not bad:
        return data
    if not options.nan_to_num:
        raise Fault(path, f"{bad} of {data.size} voxels are NaN or infinite", "--nan-to-num to take 0 for them")
    notes.append(f"{path.name}: {bad} voxels that are not finite taken as 0")
    return np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0)
