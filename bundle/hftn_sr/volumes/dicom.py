r"""A folder with one DICOM series of an MR image as scanners and archives hand it out: a file for each slice, or one for all.

Voxel (i, j, k) is column i and row j of slice k, and lies, in LPS+ mm, at

.. math:: S_0 + i\,\Delta_i X + j\,\Delta_j Y + k\,\frac{S_{n-1} - S_0}{n - 1}

with the slices' ImagePositionPatient S in order along X x Y, the directions X and Y of ImageOrientationPatient, and both sizes of
PixelSpacing. RAS+, as everywhere here, turns the signs of the first two axes. Names, numbers and order of the files do not matter.

Source: DICOM PS3.3 section C.7.6.2.1.1, equation C.7.6.2.1-1; its last column for a stack of slices as in dcm2niix and nibabel.nicom.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hftn_sr.errors import Fault, Note
from hftn_sr.volumes.dicom_slice import VOLUMES_DIFFER_IN, Slice, begins_as_dicom, forget_frames, holds_mr, read_slices, read_voxels
from hftn_sr.volumes.files import sha256_of
from hftn_sr.volumes.header_affine import COPY_AGAIN, SHEAR_TOLERANCE
from hftn_sr.volumes.nifti import VolumeHeader, note_surplus_frame
from hftn_sr.volumes.volume import Grid, Volume

__all__ = [
    "dicom_scan",
    "dicom_sha256",
    "dicom_slices",
    "holds_dicom",
    "holds_mr_images",
    "is_dicom",
    "read_dicom",
    "read_dicom_header",
    "sha256_of_all",
]

SUFFIXES = (".dcm", ".ima")  # a file of such a name must be DICOM; most have none
SAME_POSITION = 0.01  # mm up to which two slices lie at one position
EVEN = 0.05  # share of the distance between slices by which one may lie off the even grid
SAME_PLANE = 1e-3  # difference of directions and of voxel sizes (mm) that rounding explains
SKIPPED = 1.9  # distance between slices, in that of their headers, from which on others seem to be lost between them
FEW = 0.25  # share of missing instance numbers up to which they look like lost files, not like another way of numbering
LISTED = 8  # series that a message names
SLICES = 2  # array axis
ONE_SERIES = "put the files of one series into a folder of its own"
BY_NUMBER = f"{ONE_SERIES}, or hftn-sr convert FOLDER --series NUMBER"
ONE_VOLUME = "put the slices of one volume into a folder of their own"
ALIKE = {
    "EchoTime": 0.01,
    "InversionTime": 0.01,
    "DiffusionBValue": 0.01,
    "ImageType": 0.0,
    "EchoNumbers": 0.0,
    "TemporalPositionIdentifier": 0.0,
}  # in all slices of a volume, but for so much


@dataclass(frozen=True)
class _Stack:
    """Slices in order along their normal, and where their voxels lie."""

    slices: Sequence[Slice]
    grid: Grid
    sha256: str
    notes: tuple[str, ...]


def is_dicom(path: str | PathLike[str]) -> bool:
    """Whether a path can only be read as DICOM: a folder, or a file with DICOM's preamble."""
    path = Path(path)
    return path.is_dir() or (path.is_file() and begins_as_dicom(path))


def holds_dicom(folder: Path) -> bool:
    """Whether a file in a folder, not below it, has DICOM's preamble.

    Raises:
        Fault: a file cannot be read.
    """
    return any(each.is_file() and begins_as_dicom(each) for each in folder.iterdir())


def holds_mr_images(folder: Path) -> bool:
    """Whether a folder holds MR images, which a DICOMDIR is not. A file that cannot be read to the end counts, so that reading it says so.

    Raises:
        Fault: a file cannot be read.
    """
    return any(each.is_file() and begins_as_dicom(each) and _may_hold_mr(each) for each in folder.iterdir())


def _may_hold_mr(path: Path) -> bool:
    try:
        return holds_mr(path)
    except Fault:
        return True


def read_dicom(path: str | PathLike[str], frame: int | None = None, series: int | None = None, blank: bool = False) -> Volume:
    """Read the MR series in a folder, every slice of which is decoded to its end.

    Files that are no MR images are skipped; so are sub-folders.

    Args:
        path: the folder.
        frame: index of one of several volumes of the series, from 0: stack by stack, then by what else differs, such as echo times.
        series: SeriesNumber, where the folder holds more than one series.
        blank: whether an image without signal is read like any other.

    Returns:
        Voxels (columns, rows, slices), any unit, RescaleSlope and RescaleIntercept applied. `sha256` is that of `dicom_sha256`. `notes`
        says what was found on the way, and nothing of the patient.

    Raises:
        Fault: no MR series or several, slices missing, several images at one position, slices of several orientations or sizes, and
            whatever `dicom_slice` finds in a file.
    """
    path = Path(path)
    stack = _stack(path, frame, series)
    data = np.empty(stack.grid.shape, np.float32, order="F")
    for index, each in enumerate(stack.slices):
        data[..., index] = read_voxels(each)
    forget_frames()
    if not blank and data.min() == data.max():
        raise Fault(path, f"no signal: every voxel is {data.flat[0]:g}", "check the export of this image")
    return Volume(data, stack.grid.affine, path, stack.sha256, notes=stack.notes, slice_axis=SLICES)


def read_dicom_header(path: str | PathLike[str], frame: int | None = None, series: int | None = None) -> VolumeHeader:
    """The grid of what `read_dicom` reads, without its voxels.

    Raises:
        Fault: as `read_dicom`, for what can be seen without them.
    """
    stack = _stack(Path(path), frame, series)
    return VolumeHeader(Path(path), stack.grid, dict(stack.slices[0].scan))


def dicom_scan(path: str | PathLike[str], frame: int | None = None, series: int | None = None) -> dict[str, str | float]:
    """How the series was measured as far as its first slice says, by the names and in the units of BIDS, and nothing of the patient.

    Raises:
        Fault: as `read_dicom_header`.
    """
    return dict(_stack(Path(path), frame, series).slices[0].scan)


def dicom_slices(path: str | PathLike[str], frame: int | None = None, series: int | None = None) -> list[Slice]:
    """The slices of what `read_dicom` reads, in order.

    Raises:
        Fault: as `read_dicom_header`.
    """
    return list(_stack(Path(path), frame, series).slices)


def dicom_sha256(path: str | PathLike[str]) -> str:
    """SHA-256, in hexadecimal, of the sorted SHA-256 of a folder's MR images: it depends on their content, not on their names.

    Raises:
        Fault: no MR image, or a damaged one.
    """
    return sha256_of_all(sha256_of(each) for each in _mr_files(Path(path), []))


def sha256_of_all(digests: Iterable[str]) -> str:
    """SHA-256, in hexadecimal, of the sorted SHA-256 of files."""
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(set(digests))).encode()).hexdigest()


def _mr_files(folder: Path, notes: list[str]) -> list[Path]:
    if not folder.is_dir():
        raise Fault(folder, "one DICOM file, a series has a file for each slice", "give the folder that holds the series")
    try:
        named = [each for each in folder.iterdir() if not each.name.startswith(".")]
        files = sorted(each for each in named if each.is_file())
    except OSError as error:
        raise Fault(folder, f"cannot be read ({error.strerror})", "check its permissions and the disk") from error
    for each in named:
        if each.is_symlink() and not each.exists():
            raise Fault(each, "a link to nothing", "fetch the file that it names, or take the link out of the folder")
    dicom = {each for each in files if begins_as_dicom(each)}
    for each in files:
        if each not in dicom and (each.suffix.lower() in SUFFIXES or each.stat().st_size == 0):
            raise Fault(each, "empty, truncated or not a DICOM file", f"{COPY_AGAIN}, or take it out of the folder")
    found = [each for each in files if each in dicom and holds_mr(each)]
    if not dicom:
        below = sum(each.is_dir() for each in folder.iterdir())
        finding = f"a folder without a DICOM file (found {len(files)} other files, {below} sub-folders)"
        raise Fault(folder, finding, "name a .nii.gz file or the folder that holds a DICOM series; for a folder of cases use --cases")
    if not found:
        raise Fault(folder, f"no MR image among {len(dicom)} DICOM files", "give the folder of an MR series")
    if others := len(files) - len(found):
        notes.append(Note(f"{folder.name}: {others} files in it that are no MR images were left alone"))
    return found


def _stack(folder: Path, frame: int | None, series: int | None) -> _Stack:
    notes: list[str] = []
    digests: dict[str, Path] = {}
    files = _mr_files(folder, notes)
    for each in files:
        digests.setdefault(sha256_of(each), each)
    if copies := len(files) - len(digests):
        notes.append(Note(f"{folder.name}: {copies} files in it are copies of others and were left out"))
    slices = {digest: read_slices(path) for digest, path in digests.items()}
    chosen = _one_series(folder, [each for of in slices.values() for each in of], series, notes)
    files_chosen = {each.path for each in chosen}
    sha256 = sha256_of_all(digest for digest, of in slices.items() if of[0].path in files_chosen)
    volume, name = _one_volume(folder, chosen, frame, notes)
    _note_instances(folder, volume if name else chosen, notes)
    notes += dict.fromkeys(note for each in volume for note in each.notes)
    return _Stack(volume, _grid(folder, volume, notes), sha256, tuple(notes))


def _one_series(folder: Path, slices: list[Slice], wanted: int | None, notes: list[str]) -> list[Slice]:
    series: dict[str, list[Slice]] = {}
    for each in slices:
        series.setdefault(each.series, []).append(each)
    listed = [f"{of[0].number or '?'} {of[0].description or '(no description)'}, {len(of)} slices" for of in series.values()]
    told = "; ".join(sorted(listed)[:LISTED]) + ("; ..." if len(listed) > LISTED else "")
    joined = _joined([each for each in slices if wanted is None or each.number == str(wanted)])
    if joined and len({each.series for each in joined}) > 1:
        notes.append(Note(f"{folder.name}: slices of one number and one even stack have different series UIDs; taken as one series"))
        return joined
    if wanted is None and len(series) > 1:
        numbers = {of[0].number for of in series.values()}
        fix = BY_NUMBER if len(numbers) == len(series) and "" not in numbers else ONE_SERIES
        raise Fault(folder, f"{len(series)} series in one folder ({told})", fix)
    fitting = [of for of in series.values() if wanted is None or of[0].number == str(wanted)]
    if len(fitting) != 1:
        fix = BY_NUMBER if not fitting else ONE_SERIES
        raise Fault(folder, f"{len(fitting)} series of number {wanted} (found {told})", fix)
    return fitting[0]


def _joined(slices: list[Slice]) -> list[Slice]:
    """Slices with one series number whose UIDs an anonymiser drew anew for each: one evenly spaced stack. Empty where they are not."""
    if len({each.series for each in slices}) != len(slices):  # a few UIDs are a few series
        return []
    if len({(each.number, each.description, each.shape) for each in slices}) != 1 or not slices[0].number:
        return []
    if len(_by_orientation(slices)) > 1 or not all(np.allclose(each.spacing, slices[0].spacing, atol=SAME_PLANE) for each in slices):
        return []
    return slices if len(slices) == 1 or _is_even(_in_order(slices)) else []


def _by_orientation(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices that are parallel together, the larger stacks of a localizer apart; in the order of their first ones."""
    stacks: list[list[Slice]] = []
    for each in slices:
        for stack in stacks:
            if np.allclose(each.directions, stack[0].directions, atol=SAME_PLANE, rtol=0):
                stack.append(each)
                break
        else:
            stacks.append([each])
    return stacks


def _check_one_size(folder: Path, slices: Sequence[Slice]) -> None:
    first = slices[0]
    alike = [each.shape == first.shape and np.allclose(each.spacing, first.spacing, atol=SAME_PLANE, rtol=0) for each in slices]
    if not all(alike):
        other = slices[alike.index(False)]
        sizes = " and ".join(f"{each.shape} voxels of {each.spacing} mm" for each in (first, other))
        raise Fault(folder, f"slices of different sizes ({sizes})", ONE_VOLUME)


def _note_instances(folder: Path, slices: list[Slice], notes: list[str]) -> None:
    """An outer slice that was lost leaves no gap between the others, but perhaps one in their numbers."""
    numbers = {each.instance for each in slices if each.instance is not None and each.instance > 0}
    absent = sorted(set(range(1, max(numbers, default=0))) - numbers)
    if absent and len(absent) <= FEW * len(numbers):
        listed = ", ".join(map(str, absent[:LISTED])) + (", ..." if len(absent) > LISTED else "")
        notes.append(f"{folder.name}: no image of number {listed} in it; was the series copied whole?")


def _in_order(slices: list[Slice]) -> list[Slice]:
    normal = slices[0].normal
    return sorted(slices, key=lambda each: (float(normal @ each.position), each.instance or 0, each.path.name))


def _places(slices: Sequence[Slice]) -> list[int]:
    """For each slice, given in order, which position it is at, from 0."""
    along = np.array([slices[0].normal @ each.position for each in slices])
    return [0, *(int(index) for index in np.cumsum(np.diff(along) > SAME_POSITION))]


def _one_volume(folder: Path, slices: list[Slice], frame: int | None, notes: list[str]) -> tuple[list[Slice], str]:
    """The slices of one volume in order, and by what it was told from others; empty where there is just one."""
    named = {each.stack for each in slices}
    stacks = [[each for each in slices if each.stack == name] for name in sorted(named, key=_number_first)]
    stacks = [part for stack in stacks for part in _by_orientation(stack)]
    volumes, kinds = [], []
    for number, stack in enumerate(stacks, 1):
        _check_one_size(folder, stack)
        for kind, volume in _volumes(folder, _in_order(stack), notes):
            volumes.append(volume)
            kinds.append(", ".join(filter(None, (f"orientation {number}" if len(stacks) > 1 else "", kind))))
    if len(volumes) == 1:
        note_surplus_frame(folder, frame, notes)
        return volumes[0], ""
    listed = "; ".join(kinds[:LISTED]) + ("; ..." if len(kinds) > LISTED else "")
    told = f"{len(volumes)} volumes in one series ({listed})"
    if frame is None or not 0 <= frame < len(volumes):
        raise Fault(folder, told, f"--frame N with N from 0 to {len(volumes) - 1}")
    notes.append(Note(f"{folder.name}: volume {frame} of {told}"))
    return volumes[frame], kinds[frame]


def _volumes(folder: Path, slices: list[Slice], notes: list[str]) -> list[tuple[str, list[Slice]]]:
    """The volumes of a stack of slices, each with what tells it from the others."""
    at = Counter(_places(slices))
    if max(at.values()) == 1:
        _check_one_contrast(folder, slices)
        return [("", slices)]
    by = [(name,) for name in VOLUMES_DIFFER_IN]
    for whole in (True, False):  # volumes of all positions are likelier than those of some
        for names in (*by, *combinations(VOLUMES_DIFFER_IN, 2)):
            if volumes := _volumes_by(names, slices, len(at) if whole else 0):
                for _, of in volumes:
                    _check_one_contrast(folder, of)
                return volumes
    once = _without_copies(slices)
    if len(once) == len(at):
        notes.append(
            Note(f"{folder.name}: {len(slices) - len(once)} images in it have the place and the voxels of others and were left out")
        )
        _check_one_contrast(folder, once)
        return [("", once)]
    several = sum(count > 1 for count in at.values())
    raise Fault(folder, f"{several} of {len(at)} positions hold several images, and no echo time or the like sorts them", ONE_VOLUME)


def _volumes_by(names: tuple[str, ...], slices: Sequence[Slice], positions: int) -> list[tuple[str, list[Slice]]]:
    """Slices sorted into volumes by these attributes: of so many positions each; of 0, any number, where they are evenly spaced stacks.

    Empty where they do not sort so.
    """
    volumes: dict[tuple[str, ...], list[Slice]] = {}
    for each in slices:
        volumes.setdefault(tuple(each.differs_in.get(name, "") for name in names), []).append(each)
    if len(volumes) < 2 or any(max(Counter(_places(of)).values()) > 1 for of in volumes.values()):
        return []
    if not all(len(of) == positions if positions else len(of) > 1 and _is_even(of) for of in volumes.values()):
        return []
    ordered = sorted(volumes, key=lambda values: [_number_first(value) for value in values])
    return [(", ".join(f"{name} {value or 'none'}" for name, value in zip(names, key, strict=True)), volumes[key]) for key in ordered]


def _is_even(ordered: Sequence[Slice]) -> bool:
    steps = np.diff([ordered[0].normal @ each.position for each in ordered])
    return bool(steps.min() > SAME_POSITION and np.ptp(steps) <= EVEN * steps.min())


def _without_copies(slices: Sequence[Slice]) -> list[Slice]:
    """Slices in order without those that an archive sent twice under another UID: same place, same voxels."""
    kept: list[Slice] = []
    for place, each in zip(_places(slices), slices, strict=True):
        before = [other for at, other in zip(_places(kept), kept, strict=True) if at == place] if kept else []
        alike = [other for other in before if all(each.differs_in.get(name) == other.differs_in.get(name) for name in ALIKE)]
        if not any(np.array_equal(read_voxels(each), read_voxels(other)) for other in alike):
            kept.append(each)
    return kept


def _check_one_contrast(folder: Path, slices: Sequence[Slice]) -> None:
    """Slices of another echo or kind of image among those of a volume would pass unseen: each is at a place of its own."""
    for name, allowed in ALIKE.items():
        counts = Counter(each.differs_in.get(name, "") for each in slices)
        if len(counts) < 2:
            continue
        numbers = [_number_first(value)[0] for value in counts]
        if allowed and np.isfinite(numbers).all() and max(numbers) - min(numbers) <= allowed * max(map(abs, numbers)):
            continue
        listed = ", ".join(f"{value or 'none'} in {count}" for value, count in counts.most_common(LISTED))
        raise Fault(folder, f"its slices differ in {name} ({listed})", ONE_VOLUME)


def _number_first(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return np.inf, text


def _grid(folder: Path, slices: list[Slice], notes: list[str]) -> Grid:
    first, count = slices[0], len(slices)
    positions = np.array([each.position for each in slices])
    if count == 1:
        step = first.normal * first.thickness
        notes.append(Note(f"{folder.name}: a single slice, {first.thickness:g} mm thick by its header"))
    else:
        step = (positions[-1] - positions[0]) / (count - 1)
        _check_even(folder, slices, positions, step)
        if 0 < SKIPPED * first.thickness < np.linalg.norm(step):
            apart = f"its slices lie {np.linalg.norm(step):.4g} mm apart, {first.thickness:.4g} mm by their header"
            notes.append(f"{folder.name}: {apart}; was the series copied whole?")
        cosine = float(np.abs(first.directions @ step).max() / np.linalg.norm(step))
        if cosine > SHEAR_TOLERANCE:
            notes.append(f"{folder.name}: sheared axes (cosine {cosine:.3f}), kept as they are")
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([first.directions[0] * first.spacing[0], first.directions[1] * first.spacing[1], step])
    affine[:3, 3] = positions[0]
    return Grid((*first.shape, count), np.diag([-1.0, -1, 1, 1]) @ affine, SLICES)  # LPS to RAS


def _check_even(folder: Path, slices: list[Slice], positions: NDArray[np.float64], step: NDArray[np.float64]) -> None:
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = float(np.median(gaps))
    off = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    if off.max() <= EVEN * usual:
        return
    widest = int(gaps.argmax())
    missing = int(np.sum(np.round(gaps / usual) - 1))
    seem = f"; {missing} seem to be missing" if missing > 0 else ""
    where = f"{gaps[widest]:.4g} mm between {slices[widest].path.name} and {slices[widest + 1].path.name}, {usual:.4g} mm elsewhere"
    raise Fault(folder, f"its slices are not evenly spaced ({where}{seem})", "copy the series whole; uneven ones cannot be used")
