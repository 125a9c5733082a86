"""Whether a pair resembles what the weights were trained on: a few robust numbers of each image, beside their ranges in training.

The ranges lie in `domain.json` beside the weights, made by `scripts/measure_domain.py` from the training data. Each has a margin: the ratio
by which a training patient lies outside the range of the others, or 1.25 where that is less. A number further outside than that is a
note, further than its square a warning.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftn_sr.errors import Fault, Note, notes_among, warnings_among
from hftn_sr.inference.pair import PreparedPair
from hftn_sr.volumes.volume import Grid

__all__ = ["FILE", "NUMBERS", "Range", "image_numbers", "ranges_of", "trained_ranges", "unlike_training", "with_domain"]

FILE = "domain.json"
SLICES = 5  # that are looked at, from the middle half of the volume
TISSUE = 0.1  # share of the intensity unit from which a voxel counts as tissue
FRAME = 0.02  # share of a side that counts as the edge of a slice
LEAST, LEAST_EDGE = 0.02, 0.1  # added to each number, so that ratios of those near 0 mean little; no training image has signal at its edge
FEW = 1.25  # the least margin: so few patients do not show how far the next one lies outside
NORMAL = 1.4826  # standard deviation of a normal distribution by its median absolute deviation
NUMBERS = {
    "voxel_mm": "voxel size in plane (mm)",
    "field_mm": "field of view (mm)",
    "filled": "share of the slices with signal",
    "edge": "share of their edge with signal",
    "median": "median of the signal",
    "spread": "quartile range of the signal",
    "noise": "noise",
}
ONE_SIDED = ("edge", "noise")  # only too much of it is unlike training
Range = tuple[float, float, float]  # lowest, highest, and the ratio by which a training patient may lie outside the range of the others


def image_numbers(slices: NDArray[np.float32], spacing: Sequence[float], unit: float) -> dict[str, float]:
    """The numbers of one image. Intensities count in its unit, so that they do not depend on the scanner's scale.

    `median` and `spread` tell the contrast. `noise` is the median absolute deviation of the mixed second difference over tissue, as a
    standard deviation; fine structure counts in it, too. Source: Immerkaer 1996, doi 10.1006/cviu.1996.0060, made robust.

    Args:
        slices: (D, H, W).
        spacing: of rows and columns in mm.
        unit: intensity that counts as 1.
    """
    depth, height, width = slices.shape
    chosen = np.unique(np.linspace(depth * 0.25, (depth - 1) * 0.75, min(SLICES, depth)).round().astype(int))
    images = slices[chosen] / np.float32(unit)
    tissue = images > TISSUE
    signal = images[tissue]
    low, median, high = np.percentile(signal, (25, 50, 75)) if signal.size else (0.0, 0.0, 0.0)
    mixed = images[:, 1:, 1:] - images[:, 1:, :-1] - images[:, :-1, 1:] + images[:, :-1, :-1]
    inside = mixed[tissue[:, 1:, 1:]]
    rows, columns = (max(1, round(FRAME * size)) for size in (height, width))
    edge = np.ones((height, width), bool)
    edge[rows : height - rows, columns : width - columns] = False
    found = {
        "voxel_mm": math.sqrt(spacing[0] * spacing[1]),
        "field_mm": math.sqrt(height * width * spacing[0] * spacing[1]),
        "filled": tissue.mean(),
        "edge": tissue[:, edge].mean(),
        "median": median,
        "spread": (high - low) / max(median, TISSUE),
        "noise": NORMAL * np.median(np.abs(inside)) / 2 if inside.size else 0.0,
    }
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def ranges_of(numbers: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Range]:
    """The range of each number over training, and the most that a patient lies outside the range of the others, as a ratio, at least 1.25.

    Args:
        numbers: of each patient's images.

    Raises:
        ValueError: fewer than two patients.
    """
    if len(numbers) < 2:
        raise ValueError(f"expected at least two patients, got {len(numbers)}")
    found = {}
    for name in NUMBERS:
        values = {patient: [each[name] for each in of] for patient, of in numbers.items()}
        outside = FEW
        for patient, own in values.items():
            others = [value for other, of in values.items() if other != patient for value in of]
            outside = max(outside, *(_ratio(name, value, min(others), max(others)) for value in own))
        whole = [value for of in values.values() for value in of]
        found[name] = (min(whole), max(whole), float(f"{outside:.4g}"))
    return found


def _ratio(name: str, value: float, low: float, high: float) -> float:
    """How far a value lies outside a range, as a ratio of at least 1."""
    least = LEAST_EDGE if name == "edge" else LEAST
    return max(1.0, (low + least) / (value + least), (value + least) / (high + least))


def trained_ranges(weights: Path) -> dict[str, dict[str, Range]]:
    """The ranges beside a file of weights, by `target` and `reference`; empty where there are none.

    Raises:
        Fault: the file is damaged.
    """
    path = weights.parent / FILE
    try:
        found = json.loads(path.read_bytes())["ranges"]
        return {role: {name: _range(found[role][name]) for name in NUMBERS} for role in ("target", "reference")}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Fault(path, f"is no file of trained ranges ({type(error).__name__})", "make it again by scripts/measure_domain.py") from None


def _range(given: Sequence[float]) -> Range:
    low, high, outside = map(float, given)
    return low, high, outside


def with_domain(pair: PreparedPair, weights: Path) -> PreparedPair:
    """The pair with `domain` in its record, and what is unlike training among its notes and warnings."""
    trained = trained_ranges(weights)
    if not trained:
        return pair
    record: dict[str, Any] = {}
    findings: list[str] = []
    for role, numbers in _numbers(pair).items():
        record[role] = {name: {"value": value, "trained": list(trained[role][name][:2])} for name, value in numbers.items()}
        findings += unlike_training(role, numbers, trained[role])
    record["unlike_training"] = [str(each) for each in findings]
    return replace(
        pair,
        record={**pair.record, "domain": record},
        warnings=(*pair.warnings, *warnings_among(findings)),
        notes=(*pair.notes, *notes_among(findings)),
    )


def _numbers(pair: PreparedPair) -> dict[str, dict[str, float]]:
    _, first, second = pair.axes
    target = image_numbers(pair.target.data.transpose(pair.axes), _spacing(pair.final.grid, first, second), pair.unit)
    low = pair.target.data.shape
    target["field_mm"] = float(f"{math.sqrt(low[first] * low[second] * np.prod(_spacing(pair.target.grid, first, second))):.4g}")
    if pair.on_grid is None:
        return {"target": target}
    reference = image_numbers(pair.on_grid.volume.transpose(pair.axes), _spacing(pair.grid, first, second), pair.reference_unit)
    return {"target": target, "reference": {name: value for name, value in reference.items() if name not in ("voxel_mm", "field_mm")}}


def _spacing(grid: Grid, *axes: int) -> list[float]:
    return [float(grid.spacing[axis]) for axis in axes]


def _outside(name: str, value: float, trained: Range) -> float:
    low, high, margin = trained
    return _ratio(name, value, value if name in ONE_SIDED else low, high) / margin


def unlike_training(role: str, numbers: Mapping[str, float], trained: Mapping[str, Range]) -> list[str]:
    """One warning for what is far outside the ranges, one note for what is outside.

    Args:
        role: `target` or `reference`.
        numbers: of the image, see `image_numbers`.
        trained: their ranges.
    """
    ratios = {name: _outside(name, value, trained[name]) for name, value in numbers.items()}
    found = []
    for far in (True, False):
        names = [name for name, ratio in ratios.items() if ratio > 1 and (ratio > trained[name][2]) == far]
        if names:
            told = ", ".join(f"{NUMBERS[name]} {numbers[name]:.3g}, trained on {_words(trained[name])}" for name in names)
            text = f"the {role} is {'far ' if far else ''}outside what the network was trained on: {told}"
            found.append(f"{text}; do not trust fine detail" if far else Note(text))
    return found


def _words(trained: Range) -> str:
    return f"{trained[0]:.3g} to {trained[1]:.3g}"
