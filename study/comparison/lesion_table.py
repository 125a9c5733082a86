"""What became of lesions: Markdown and CSV."""

from __future__ import annotations

from typing import Any

from comparison.lesions import RULES, agreement
from comparison.recording import table_bytes
from comparison.robustness import CaseLesions, Robustness
from comparison.table import interval, pipes

__all__ = ["lesion_csv", "lesion_markdown"]

SETS = {
    "training": "training set: every network has seen this patient",
    "validation": "validation set: not trained on, designs were chosen on it",
    "testing": "test set",
}
TERMS = (
    "Kept: sum over the lesions, of that in the truth. Bias: mean over the lesions of result less truth, relative to each lesion's truth; "
    "error: mean of its absolute value; \u03c1: Spearman's correlation; intervals: 95 %, bootstrap over the lesions of one patient."
)


def lesion_markdown(robustness: Robustness) -> str:
    """`lesions.md`: for each case at each scale, contrast and volume of its lesions in every row against the truth."""
    without = "" if any(each.section == "testing" for each in robustness.lesions.values()) else " No case of the test set is among them."
    parts = ["# Lesions", f"**{robustness.found.protocol.description}**"]
    parts.append(f"All slices with lesions of the cases that have a mask.{without} {RULES[0].upper()}{RULES[1:]}. {TERMS}")
    for (scale, _, case), lesions in robustness.lesions.items():
        parts.append(f"## x{scale}: {case} ({SETS[lesions.section]})")
        measured = next(iter(lesions.rows.values()))
        if not measured:
            parts.append(f"None of the {lesions.left_out} parts of its mask could be measured.")
            continue
        contrast = sum(lesion["true_contrast"] for lesion in measured) / len(measured)
        volume = sum(lesion["true_volume"] for lesion in measured)
        parts.append(
            f"{len(measured)} lesions, {lesions.left_out} parts of the mask left out; in the truth: mean contrast {contrast:.3f}, "
            f"volume {volume:.0f} mm\u00b3 in all."
        )
        parts.append(_table(robustness, scale, lesions))
    return "\n\n".join(parts) + "\n"


def lesion_csv(robustness: Robustness) -> bytes:
    """`lesions.csv`: a line for each lesion in each row; volumes in cubic millimetres."""
    lines: list[dict[str, Any]] = [
        {
            "method": each.row.method,
            "scale": scale,
            "seed": "" if each.row.seed is None else each.row.seed,
            "section": lesions.section,
            "case": case,
            "lesion": number,
            **{name: f"{value:.6g}" for name, value in lesion.items()},
        }
        for (scale, _, case), lesions in robustness.lesions.items()
        for each in robustness.found.rows
        if each.row.scale == scale
        for number, lesion in enumerate(lesions.rows[each.row.name], 1)
    ]
    return table_bytes(lines) if lines else b""


def _table(robustness: Robustness, scale: int, lesions: CaseLesions) -> str:
    head = ["method", *(f"{name}: {what}" for name in ("contrast", "volume") for what in ("kept", "bias", "error", "\u03c1"))]
    lines = []
    for each in (each for each in robustness.found.rows if each.row.scale == scale):
        line = [each.row.label(robustness.found.seeds)]
        for name in ("contrast", "volume"):
            values, truths = ([lesion[key] for lesion in lesions.rows[each.row.name]] for key in (name, f"true_{name}"))
            found = agreement(values, truths)
            line += [f"{found.total:.0%}", interval(found.bias, "+.0%"), interval(found.error, ".0%"), f"{found.correlation:.3f}"]
        lines.append(line)
    return pipes(head, lines)
