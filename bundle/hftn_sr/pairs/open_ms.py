"""T1, T2 and FLAIR pairs of multiple-sclerosis patients: fetch the files, list the pairs, write a MONAI datalist.

Data: https://github.com/muschellij2/open_ms_data, CC-BY, 3T clinical protocol. Cite Lesjak et al. 2016, "Validation of white-matter lesion
change detection methods on a novel publicly available MRI image database", Neuroinformatics (longitudinal), and Lesjak et al. 2017,
doi:10.1007/s12021-017-9348-7 (cross-sectional). The licence files are fetched with the images.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

from hftn_sr.errors import Fault
from hftn_sr.volumes.files import write_json

__all__ = ["fetch_open_ms", "open_ms_pairs", "write_datalist", "FetchReport", "OpenMSPair", "REPOSITORY", "COMMIT", "MIRROR_VARIABLE"]

REPOSITORY = "muschellij2/open_ms_data"
COMMIT = "65704901f60650824565aa5a4818611aa89716f4"
MIRROR_VARIABLE = "HFTN_SR_DATA_MIRROR"
FOLDER = "open_ms_data"  # of the data inside a mirror that holds other data too
TRIES, TIMEOUT, PAUSE = 3, 30.0, 2.0  # per file; seconds without a byte; seconds before the second try, doubled for the third
CHUNK = 1 << 18  # bytes
REMOTE_FAULTS = (OSError, http.client.HTTPException)
HOPELESS = {"HTTP 401", "HTTP 403", "HTTP 404", "HTTP 410"}  # another try cannot help
Split = Literal["train", "validation", "test"]
Progress = Callable[[int, int], None]

# Both studies of a patient belong to one split. The two databases number their patients independently.
PATIENTS: dict[Split, tuple[str, ...]] = {
    "train": ("longitudinal/raw/patient01", "longitudinal/raw/patient19", "longitudinal/raw/patient20", "cross_sectional/MNI/patient07"),
    "validation": ("longitudinal/raw/patient03", "cross_sectional/MNI/patient19"),
    "test": ("longitudinal/raw/patient04",),
}
SPLITS = {patient: split for split, patients in PATIENTS.items() for patient in patients}
SECTIONS: dict[Split, str] = {"train": "training", "validation": "validation", "test": "testing"}  # of a MONAI datalist
# The transform of this image leaves it about one voxel off in y (peak of the mutual information), which would teach the network a shift.
# It is the only pair of patient 20, who is thus fetched but not listed.
MISALIGNED = {"longitudinal/raw/patient20/study2_T1W_intrastudy_to_FLAIR.txt"}
TRANSFORM = re.compile(r"longitudinal/raw/patient(?P<patient>\d+)/(?P<study>study\d)_(?P<contrast>T[12])W_intrastudy_to_FLAIR\.txt")
MNI_NAME = "{}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz"


@dataclass(frozen=True)
class OpenMSPair:
    """A target to super-resolve and the reference of the same patient and visit.

    Args:
        case: unique name, database and patient first, then reference_to_target: "longitudinal04_study1_T2_to_FLAIR".
        split: the patient's split.
        target: NIfTI image at full resolution; its low-resolution input is simulated.
        reference: NIfTI image of the other contrast, on its own grid for longitudinal cases, on the target's 1 mm grid for MNI cases.
        transform: ITK transform file (LPS, mm) from a target point to a reference point, as ITK resampling wants it; None for identity.
        target_contrast: "T1", "T2" or "FLAIR".
        reference_contrast: likewise.
    """

    case: str
    split: Split
    target: Path
    reference: Path
    transform: Path | None
    target_contrast: str
    reference_contrast: str


@dataclass(frozen=True)
class FetchReport:
    """What `fetch_open_ms` did: the files (relative to the output) already there, from the mirror, from the net, and notes for the user."""

    kept: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    downloaded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def fetch_open_ms(output: Path, mirror: Path | None = None, progress: Progress | None = None) -> FetchReport:
    """Bring the 41 files (72 MB) into `output`, each checked by sha256 before it stands under its name.

    Files already there are kept if right and replaced if wrong. After an interruption only `.part` files are left over, which the next call
    resumes. A mirror file that is missing or wrong is noted and taken from the net instead.

    Args:
        output: folder for the data, made if need be.
        mirror: a copy of the data, or the folder above it; by default what the environment variable HFTN_SR_DATA_MIRROR names, if set.
        progress: called with (bytes done, bytes in all); may step back where a wrong transfer is dropped.

    Raises:
        Fault: the mirror is no folder, the disk is too small or cannot be written, or a file cannot be had.
    """
    files, size = _table()
    base = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/"
    return _fetch(base, files, size, Path(output), _mirror_folder(mirror), progress or (lambda done, total: None))


def open_ms_pairs(root: Path) -> list[OpenMSPair]:
    """List all pairs under `root` (the fetched data, or the folder above it), sorted by case.

    Longitudinal: FLAIR as target, T1 or T2 as reference, native grids. Cross-sectional (MNI): every ordered pair of T1, T2 and FLAIR; there
    T1 and T2 were thick-slice, so only axial slices are of use.

    Raises:
        Fault: a file of a pair is missing.
    """
    folder = _data_folder(Path(root))
    pairs = sorted([*_native_pairs(folder), *_mni_pairs(folder)], key=lambda pair: pair.case)
    for path in (path for pair in pairs for path in (pair.target, pair.reference, pair.transform)):
        if path is not None and not path.is_file():
            raise Fault(path, f"found no such file, need the data of {REPOSITORY}", "fetch the data into this folder first")
    return pairs


def write_datalist(root: Path, output_json: Path) -> None:
    """Write the pairs as a MONAI datalist: "training", "validation" and "testing", paths relative to `root`, "" for no transform.

    Native series are drawn three times as often in training as the MNI pairs: they are what users have, and those are of one patient.

    Raises:
        Fault: a file of a pair is missing, or `output_json` cannot be written.
    """
    datalist: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "testing": []}
    for pair in open_ms_pairs(root):
        paths = {"target": pair.target, "reference": pair.reference, "transform": pair.transform}
        entry = {name: path.relative_to(root).as_posix() if path else "" for name, path in paths.items()}
        datalist[SECTIONS[pair.split]].append({"case": pair.case, **entry, "weight": 3.0 if pair.transform else 1.0})
    write_json(output_json, datalist)


def _native_pairs(folder: Path) -> Iterator[OpenMSPair]:
    for match in filter(None, map(TRANSFORM.fullmatch, _table()[0].keys() - MISALIGNED)):
        transform, study, contrast = folder / match[0], match["study"], match["contrast"]
        case = f"longitudinal{match['patient']}_{study}_{contrast}_to_FLAIR"
        target, reference = transform.with_name(f"{study}_FLAIR.nii.gz"), transform.with_name(f"{study}_{contrast}W.nii.gz")
        yield OpenMSPair(case, SPLITS[Path(match[0]).parent.as_posix()], target, reference, transform, "FLAIR", contrast)


def _mni_pairs(folder: Path) -> Iterator[OpenMSPair]:
    for patient in (patient for patient in SPLITS if patient.startswith("cross_sectional/")):
        images = {contrast: folder / patient / MNI_NAME.format(contrast) for contrast in ("T1", "T2", "FLAIR")}
        for target, reference in permutations(images, 2):
            case = f"mni{patient[-2:]}_{reference}_to_{target}"
            yield OpenMSPair(case, SPLITS[patient], images[target], images[reference], None, target, reference)


def _table() -> tuple[dict[str, str], int]:
    """Sha256 by path in the repository, and the bytes of all files."""
    lines = Path(__file__).with_name("open_ms.sha256").read_text(encoding="utf-8").splitlines()
    size = next(int(line.split()[1]) for line in lines if " bytes in all" in line)
    return {path: sha256 for sha256, path in (line.split("  ") for line in lines if not line.startswith("#"))}, size


def _data_folder(folder: Path) -> Path:
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def _mirror_folder(mirror: Path | None) -> Path | None:
    named = mirror or os.environ.get(MIRROR_VARIABLE)
    if named and not Path(named).is_dir():
        raise Fault(named, "the mirror is no folder", f"name one that holds {FOLDER} with --mirror DIR, or unset {MIRROR_VARIABLE}")
    return _data_folder(Path(named)) if named else None


def _fetch(base: str, files: dict[str, str], size: int, output: Path, mirror: Path | None, progress: Progress) -> FetchReport:
    """`fetch_open_ms` with the address `base`, the table `files` (sha256 by path) and their `size` in bytes all told as parameters."""
    report, done = FetchReport(), 0

    def tick(here: int) -> None:
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
                _download(base + name, final, files[name], mirror, tick)
                report.downloaded.append(name)
            _publish(_part(final), final)
            done += _size(final)
        tick(0)
    return report


def _copy(source: Path, part: Path, sha256: str, notes: list[str]) -> bool:
    """Copy a mirror's file to `part` and say whether that went well; `part` is left alone where the mirror's file is missing or wrong."""
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
