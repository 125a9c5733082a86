"""A case and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hftn_sr.inference.acquired import Acquired
from hftn_sr.inference.options import PLACING, OutputFormat, PairOptions
from hftn_sr.volumes.volume import Grid, Volume

__all__ = ["LEFT_ALONE", "RECORD_KEY", "RESULTS", "STANDING", "Case", "CaseImages", "Outcome", "Status", "map_files", "side_files"]

Status = Literal["done", "done before", "skipped", "planned", "failed"]
STANDING: tuple[Status, ...] = ("done", "done before", "skipped")  # an output is there
LEFT_ALONE: tuple[Status, ...] = ("done before", "skipped")

SUFFIXES = (".nii.gz", ".nii")
RESULTS: dict[OutputFormat, str] = {"nifti": "target_sr.nii.gz", "dicom": "target_sr"}  # name of a result in the folder of its case
MAPS = ("uncertainty", "added")  # further volumes, as the options of `RunOptions` are called
RECORD_KEY = "HftnSr"  # key of the record in a side file that holds more


@dataclass(frozen=True)
class Case:
    """A target, its reference and the output.

    Args:
        name: name in messages and in the summary.
        target: low-resolution NIfTI or fastMRI .h5 file, or folder of a DICOM series.
        reference: high-resolution one of another contrast; None for none.
        output: NIfTI file to write; folder of a derived DICOM series where its name does not end in .nii or .nii.gz.
        transform: ITK file that maps target points to reference points; None for none.
        scan: how the target was measured, by the names of BIDS; None takes its header or the JSON file beside it.
        sidecar: function from the result's grid to further content of the side file, in which the record then stands under RECORD_KEY; for
            BIDS. None for the record alone.
        placing: how a transform is given in this kind of run, in the words of a cure.
    """

    name: str
    target: Path
    reference: Path | None
    output: Path
    transform: Path | None = None
    scan: Mapping[str, Any] | None = None
    sidecar: Callable[[Grid], dict[str, Any]] | None = None
    placing: str = PLACING

    @property
    def suffix(self) -> str:
        """`.nii.gz` or `.nii`, whichever the output ends in; empty for neither."""
        return next((suffix for suffix in SUFFIXES if self.output.name.endswith(suffix)), "")

    def pair_options(self, options: PairOptions) -> PairOptions:
        """`options` with this case's own transform."""
        return replace(options, reference_transform=self.transform, placing=self.placing)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a case.

    Args:
        case: name of the case.
        status: `done`; `done before` (by an earlier run, whose record is given); `skipped` (a file without a record stands there);
            `planned` (dry run); or `failed`.
        output: NIfTI file, or folder of a DICOM series, of the result.
        message: reason for a skip or a failure, or plan of a dry run.
        warnings: what may be wrong.
        record: content of the side file; empty where skipped or failed.
        seconds: wall time; where done before, of the run that made it.
        notes: what else the user should know.
        usage: whether it failed by an option that cannot be meant.
    """

    case: str
    status: Status
    output: Path
    message: str = ""
    warnings: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    usage: bool = False


@dataclass(frozen=True)
class CaseImages:
    """The images of a case that is done, in memory.

    Args:
        target: low-resolution image, as read.
        reference: reference on the result's grid; None where the network was given none.
        result: super-resolved image.
        acquired: what the target's scan kept.
    """

    target: Volume
    reference: Volume | None
    result: Volume
    acquired: Acquired

    @property
    def through_plane(self) -> int:
        """Array axis along which slices lie."""
        return self.acquired.through_plane


def side_files(output: Path) -> tuple[Path, Path]:
    """Paths of the record (.json) and of the picture (_preview.png) beside an output."""
    stem = output.name.removesuffix(".gz").removesuffix(".nii")
    return output.with_name(f"{stem}.json"), output.with_name(f"{stem}_preview.png")


def map_files(output: Path) -> dict[str, Path]:
    """Paths of the further volumes that may be written beside an output, by what they show: `uncertainty` and `added`."""
    stem, suffix = output.name.removesuffix(".gz").removesuffix(".nii"), ".nii" if output.name.endswith(".nii") else ".nii.gz"
    return {kind: output.with_name(f"{stem}_{kind}{suffix}") for kind in MAPS}
