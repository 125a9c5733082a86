"""What a case is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hftn_sr.inference.options import PairOptions

__all__ = ["RECORD_KEY", "Case", "Outcome", "side_files"]

Status = Literal["done", "skipped", "planned", "failed"]

SUFFIXES = (".nii.gz", ".nii")
RECORD_KEY = "HftnSr"  # of the record, in a side file that holds more than that


@dataclass(frozen=True)
class Case:
    """A target, its reference and where the result goes.

    Args:
        name: for messages and the summary.
        target: low-resolution NIfTI or fastMRI .h5 file, or folder of a DICOM series.
        reference: high-resolution one of another contrast; None for none, and the target's detail comes from itself alone.
        output: NIfTI file to write.
        transform: ITK file that maps target points to reference points; None for none.
        sidecar: what the side file says besides the record, which then stands under RECORD_KEY; for BIDS.
    """

    name: str
    target: Path
    reference: Path | None
    output: Path
    transform: Path | None = None
    sidecar: dict[str, Any] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """`.nii.gz` or `.nii`, whichever the output ends in; empty for neither."""
        return next((suffix for suffix in SUFFIXES if self.output.name.endswith(suffix)), "")

    def pair_options(self, options: PairOptions) -> PairOptions:
        """`options` with this case's own transform."""
        return replace(options, reference_transform=self.transform)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Args:
        case: its name.
        status: `done`, `skipped` (the output exists), `planned` (dry run) or `failed`.
        output: the NIfTI file.
        message: why it was skipped or failed; what a dry run would do.
        warnings: what the user must know.
        record: content of the side file; empty unless done or planned.
        seconds: wall time.
    """

    case: str
    status: Status
    output: Path
    message: str = ""
    warnings: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def side_files(output: Path) -> tuple[Path, Path]:
    """The record (.json) and the picture (_preview.png) that belong to an output."""
    stem = output.name.removesuffix(".gz").removesuffix(".nii")
    return output.with_name(f"{stem}.json"), output.with_name(f"{stem}_preview.png")
