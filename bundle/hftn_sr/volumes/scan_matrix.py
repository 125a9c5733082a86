"""The matrix that a scan measured, by what its header or its BIDS side file says.

Source: DICOM PS3.3 section C.8.3.1 (AcquisitionMatrix, InPlanePhaseEncodingDirection, PercentPhaseFieldOfView), C.8.13.3 (the same of an
enhanced image); BIDS 1.10, "Magnetic Resonance Imaging" (PhaseEncodingDirection, SliceThickness), and dcm2niix for AcquisitionMatrixPE,
BaseResolution and ReconMatrixPE.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hftn_sr.volumes.volume import Grid

__all__ = ["ScanMatrix", "beside", "said_of_scan", "scan_matrix"]

READ = ("AcquisitionMatrixPE", "BaseResolution", "ReconMatrixPE", "PhaseEncodingDirection", "PercentPhaseFOV", "SliceThickness")

AXES = {"i": 0, "j": 1, "k": 2}  # of PhaseEncodingDirection, whose sign does not matter here
SQUARE = 0.02  # relative difference of two fields of view that count as one


@dataclass(frozen=True)
class ScanMatrix:
    """What is said of a scan.

    Args:
        samples: measured samples by array axis, where that is known.
        thickness: slice thickness in mm; None if unknown.
        source: names of the attributes that say so.
    """

    samples: Mapping[int, int] = field(default_factory=dict)
    thickness: float | None = None
    source: str = ""


def scan_matrix(scan: Mapping[str, Any], grid: Grid, through_plane: int, source: str) -> ScanMatrix:
    """The measured matrix, from a scan's attributes by their names in BIDS.

    A matrix that does not belong to the image, because it was resampled since, or to its slices, is left out.

    Args:
        scan: `AcquisitionMatrixPE`, `BaseResolution`, `ReconMatrixPE`, `PhaseEncodingDirection`, `PercentPhaseFOV`, `SliceThickness`, as
            far as they are known.
        grid: grid of the image.
        through_plane: its array axis across the slices.
        source: what says so, in words.
    """
    thickness = _number(scan.get("SliceThickness"))
    phase = AXES.get(str(scan.get("PhaseEncodingDirection", "")).strip("+-"))
    in_plane = [axis for axis in range(3) if axis != through_plane]
    lines, base, recon = (_count(scan.get(name)) for name in ("AcquisitionMatrixPE", "BaseResolution", "ReconMatrixPE"))
    if phase not in in_plane or (recon and recon != grid.shape[phase]):
        return ScanMatrix({}, thickness)
    frequency = next(axis for axis in in_plane if axis != phase)
    samples = {}
    if base and base <= grid.shape[frequency]:
        samples[frequency] = base
    if lines:
        # A rectangular field of view that was filled up to a square one: the lines were measured over a part of it.
        share = (_number(scan.get("PercentPhaseFOV")) or 100.0) / 100
        views = [grid.shape[axis] * float(grid.spacing[axis]) for axis in (phase, frequency)]
        whole = math.ceil(lines / share) if share < 1 and abs(views[0] / views[1] - 1) < SQUARE else lines
        if whole <= grid.shape[phase]:
            samples[phase] = whole
    return ScanMatrix(samples, thickness, source)


def said_of_scan(scan: Mapping[str, Any]) -> dict[str, str]:
    """What of a scan's attributes `scan_matrix` goes by, as text."""
    return {name: str(scan[name]) for name in READ if name in scan}


def beside(path: Path) -> dict[str, Any]:
    """The content of the JSON file beside an image, as BIDS and dcm2niix write it; empty where there is none that can be read."""
    side_file = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    try:
        content = json.loads(side_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _count(value: Any) -> int:
    number = _number(value)
    return int(number) if number and number == int(number) else 0
