"""NIfTI files: read whole and checked to their end, saved in one step."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from hftn_sr.errors import Fault, Note
from hftn_sr.volumes.files import NewFiles
from hftn_sr.volumes.header_affine import FORM_CODES, AssumedAffine, header_affine
from hftn_sr.volumes.nifti_file import OpenFile, opened
from hftn_sr.volumes.scratch import blocks
from hftn_sr.volumes.volume import Grid, Volume

__all__ = [
    "AssumedAffine",
    "ReadOptions",
    "VolumeHeader",
    "nifti_bytes",
    "nifti_chunks",
    "note_surplus_frame",
    "read_header",
    "read_nifti",
    "save_nifti",
]

TIME_BITS, MILLIMETRES = 0x38, 2  # of xyzt_units


@dataclass(frozen=True)
class ReadOptions:
    """What to do with a file that has no single right reading.

    Args:
        frame: index of one of the volumes of a 4D file, from 0.
        nan_to_num: take 0 for voxels that are not finite.
        magnitude: take the absolute value of complex voxels.
        assume_affine: where the voxels lie if sform and qform contradict each other (`sform`, `qform`), if the sform's voxel sizes are not
            those of pixdim (`sform`; `spacing` takes pixdim's), or if both forms are missing (`spacing`: axes as in RAS+, voxel sizes of
            pixdim, origin at voxel 0).
    """

    frame: int | None = None
    nan_to_num: bool = False
    magnitude: bool = False
    assume_affine: AssumedAffine | None = None


@dataclass(frozen=True)
class VolumeHeader:
    """What a file says of its volume before any voxel is read.

    Args:
        path: the file.
        grid: where its voxels lie.
        scan: how it was measured, by the names and in the units of BIDS, as far as its header says.
    """

    path: Path
    grid: Grid
    scan: Mapping[str, Any] = field(default_factory=dict)


def read_header(path: str | PathLike[str], options: ReadOptions = ReadOptions()) -> VolumeHeader:
    """Read only the header of what `read_nifti` reads.

    Raises:
        Fault: see `read_nifti`, for what the header shows.
    """
    path = Path(path)
    with opened(path, []) as file:
        affine, _ = header_affine(path, file.header, options.assume_affine, [])
        return VolumeHeader(path, Grid(_shape_and_frame(path, file.header, options, [])[0], affine, slice_axis(file.header)))


def read_nifti(path: str | PathLike[str], options: ReadOptions = ReadOptions(), blank: bool = False) -> Volume:
    """Read one scalar 3D volume; scl_slope and scl_inter are applied.

    The file is read to its end, so that a truncated or damaged one never gives voxels: gzip's checksum is there, and the size that the
    header promises is compared with what came. No more than the volume and a block of the file are in memory at a time.

    Args:
        path: .nii or .nii.gz, NIfTI-1 or NIfTI-2, either byte order; its content decides which, not its name.
        options: how to read what is ambiguous.
        blank: whether an image without signal, whose voxels are all the same, is read like any other.

    Returns:
        Voxels (X, Y, Z) as float32, any unit, first axis fastest in memory as in the file; a 2D image has Z = 1. `notes` says what was
        found on the way.

    Raises:
        Fault: with file, finding and cure, whenever there is no right reading.
    """
    path = Path(path)
    notes: list[str] = []
    with opened(path, notes) as file:
        affine, codes = header_affine(path, file.header, options.assume_affine, notes)
        data = _voxels(path, file, options, notes, blank)
        units = int(file.header["xyzt_units"]) & TIME_BITS | MILLIMETRES
        return Volume(data, affine, path, file.sha256(), units, codes, tuple(notes), slice_axis(file.header))


def slice_axis(header: Any) -> int | None:
    """The array axis that `dim_info` of a NIfTI header names as the slices'; None where it names none."""
    named = int(header["dim_info"]) >> 4 & 3
    return named - 1 if named else None


def nifti_chunks(volume: Volume, description: str, compressed: bool = True) -> Iterator[bytes]:
    """`volume` as a float32 NIfTI-1 file, piece by piece; the same volume always gives the same bytes.

    Affine, unit of time, slice axis and the codes of sform and qform are kept; `description` (at most 79 bytes) goes to descrip.
    """
    # Level 1: float voxels are mostly noise, higher levels take five times longer and save a few percent. Of repetitions only runs are
    # looked for: those of zeros count, others of noise there are none, and a third of the time is enough.
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    for chunk in _plain_chunks(volume, description):
        if packed := deflate.compress(chunk) if compressed else chunk:
            yield packed
    if compressed:
        yield deflate.flush()


def nifti_bytes(volume: Volume, description: str, compressed: bool = True) -> bytes:
    """`nifti_chunks` in one."""
    return b"".join(nifti_chunks(volume, description, compressed))


def save_nifti(path: Path, volume: Volume, description: str) -> None:
    """Save `volume` by `nifti_chunks` in one step: `path` then holds the complete file or what it held before.

    Raises:
        Fault: no space, no permission; nothing is left behind.
    """
    with NewFiles() as files:
        files.write(path, nifti_chunks(volume, description, path.suffix == ".gz"))
        files.into_place([path])


def _plain_chunks(volume: Volume, description: str) -> Iterator[bytes]:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header["descrip"] = description.encode("ascii", "replace")[:79]
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), volume.affine, header)
    sform, qform = (code if code in FORM_CODES else 0 for code in volume.codes)
    image.set_sform(volume.affine, sform or 1)
    image.set_qform(volume.affine, qform, strip_shears=True)  # a sheared affine has no exact qform; the sform comes first and keeps it
    image.header["xyzt_units"] = volume.units or MILLIMETRES
    if volume.slice_axis is not None:
        image.header["dim_info"] = volume.slice_axis + 1 << 4
    start = image.to_bytes()[: int(header.single_vox_offset)]
    size = header.template_dtype.itemsize
    complete = nib.Nifti1Header(start[:size])
    complete.set_data_shape(volume.data.shape)
    yield complete.binaryblock + start[size:]
    for part in blocks(volume.data.shape[-1], 4 * int(np.prod(volume.data.shape[:-1]))):
        yield np.asarray(volume.data[..., part], dtype=np.float32).tobytes(order="F")


def _voxels(path: Path, file: OpenFile, options: ReadOptions, notes: list[str], blank: bool) -> NDArray[np.float32]:
    shape, frame = _shape_and_frame(path, file.header, options, notes)
    dtype = file.header.get_data_dtype()
    if dtype.kind == "c":
        if not options.magnitude:
            raise Fault(path, "complex voxels, real ones are needed", "--magnitude to take their absolute value")
        notes.append(Note(f"{path.name}: absolute value of complex voxels"))
    slope, intercept = _scaling(path, file.header, notes)
    data = np.empty(int(np.prod(shape, dtype=np.int64)), np.float32)
    file.skip(int(file.header["vox_offset"]) + frame * data.size * dtype.itemsize)
    bad = 0
    for part in blocks(data.size, 8 * dtype.itemsize):  # an eighth: what is done to a block stays near the processor
        stored = np.frombuffer(file.take((part.stop - part.start) * dtype.itemsize), dtype)
        values = np.abs(stored) if dtype.kind == "c" else stored
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit float32 becomes infinite and is counted
            data[part] = values * slope + intercept if (slope, intercept) != (1, 0) else values
        finite = np.isfinite(data[part])
        if not finite.all():
            bad += int(finite.size - finite.sum())
            data[part][~finite] = 0
    _check_voxels(path, data, bad, options, notes, blank)
    return data.reshape(shape, order="F")


def _check_voxels(path: Path, data: NDArray[np.float32], bad: int, options: ReadOptions, notes: list[str], blank: bool) -> None:
    if bad and not options.nan_to_num:
        raise Fault(path, f"{bad} of {data.size} voxels are NaN or infinite", "--nan-to-num to take 0 for them")
    if bad:
        notes.append(f"{path.name}: {bad} voxels that are not finite taken as 0")
    if not blank and data.min() == data.max():
        raise Fault(path, f"no signal: every voxel is {data[0]:g}", "check the export of this image")


def _shape_and_frame(path: Path, header: Any, options: ReadOptions, notes: list[str]) -> tuple[tuple[int, int, int], int]:
    """Sizes of the volume to read, and which one of the file's it is."""
    sizes = tuple(int(size) for size in header["dim"][1 : int(header["dim"][0]) + 1])
    if len(sizes) == 2:
        note_surplus_frame(path, options.frame, notes)
        return (*sizes, 1), 0
    further = sizes[3:]
    if any(size > 1 for size in further[1:]):
        raise Fault(path, f"not a scalar volume (sizes {sizes})", "give a file with one 3D volume")
    frames = further[0] if further else 1
    if frames > 1 and options.frame is None:
        raise Fault(path, f"{frames} volumes in one file (found 4D, need 3D)", f"--frame N with N from 0 to {frames - 1}")
    frame = options.frame or 0 if frames > 1 else 0  # the other file of a pair may hold a single volume
    if frames == 1:
        note_surplus_frame(path, options.frame, notes)
    if not 0 <= frame < frames:
        raise Fault(path, f"no frame {frame} (found {frames} volumes)", f"--frame N with N from 0 to {frames - 1}")
    if further:
        notes.append(Note(f"{path.name}: volume {frame} of {frames} taken from sizes {sizes}"))
    return (sizes[0], sizes[1], sizes[2]), frame


def note_surplus_frame(path: Path, frame: int | None, notes: list[str]) -> None:
    """What to say where a volume was named in a file that has one: the number may have been meant for the other file of a pair."""
    if frame:
        notes.append(Note(f"{path.name}: holds one volume, which was taken; --frame {frame} does not apply to it"))


def _scaling(path: Path, header: Any, notes: list[str]) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0:  # the standard's "not scaled"
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        if np.isfinite(slope) != np.isfinite(intercept) or np.isinf([slope, intercept]).any():
            notes.append(f"{path.name}: intensity scaling {slope:g}, {intercept:g} is not finite; voxels taken as stored")
        return 1.0, 0.0
    return slope, intercept
