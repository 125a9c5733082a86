"""The figures of a comparison as CSV and as Markdown in the layout of the paper's tables 1 to 3."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from comparison.lesions import Interval
from comparison.recording import table_bytes
from comparison.results import Comparison, Result
from comparison.rows import ABLATIONS, OUR_READING, title
from comparison.statistics import CaseScores, Mean, case_scores

__all__ = ["FOOTNOTE", "MARK", "case_rows", "interval", "markdown", "pipes", "table_csv", "table_rows"]

MARK = "\u2020"
FOOTNOTE = f"{MARK} our reading: no code and at most an abstract of the publication was found; see bundle/docs/baselines.md."

Cells = Sequence[str]


def table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row of `table.csv` for each finished row; units in `markdown`."""
    return [_csv_row(comparison, result) for result in comparison.results]


def table_csv(comparison: Comparison) -> bytes:
    """`table.csv`."""
    return table_bytes(table_rows(comparison))


def case_rows(comparison: Comparison) -> list[CaseScores]:
    """Lines of `cases.csv`."""
    return [
        line
        for result in comparison.results
        for line in case_scores(_method(comparison, result), result.row.scale, comparison.protocol.name, result.scored.cases)
    ]


def markdown(comparison: Comparison) -> str:
    """`table.md`: methods, ablations, sizes and cost; the protocol stands over each table of scores."""
    methods = [result.row.method for result in comparison.results if result.row.method not in list(ABLATIONS)[:-1]]
    ablations = [name for name in ABLATIONS if any(result.row.method == name for result in comparison.results)]
    parts = ["# Comparison"]
    parts += ["## Methods", *_captions(comparison), _methods_table(comparison, list(dict.fromkeys(methods)))]
    if any(method in OUR_READING for method in methods):
        parts.append(FOOTNOTE)
    if ablations and ablations != ["hftn"]:
        parts += ["## Ablations of HFTN-SR", *_captions(comparison), _ablations_table(comparison, ablations)]
    parts += ["## Networks and budget", _networks_table(comparison)]
    if comparison.failures:
        parts += ["## Failed", "\n".join(f"- {failure.row.name}: {failure.finding}" for failure in comparison.failures)]
    return "\n\n".join(parts) + "\n"


def _csv_row(comparison: Comparison, result: Result) -> dict[str, Any]:
    row, means = result.row, result.means()
    gain, lead = comparison.lead(result, "zero_filling"), comparison.lead(result, comparison.baseline)
    return {
        "method": row.method,
        "scale": row.scale,
        "protocol": comparison.protocol.name,
        "psnr": _fixed(means["psnr"].value, 4),
        "psnr_low": _fixed(means["psnr"].low, 4),
        "psnr_high": _fixed(means["psnr"].high, 4),
        "ssim": _fixed(means["ssim"].value, 6),
        "nmse": _fixed(means["nmse"].value, 8),
        "gain": _fixed(gain.value, 4) if gain else "",
        "params": row.cost.parameters,
        "gmac": _fixed(row.cost.gmac, 4),
        "iterations": result.iterations,
        "minutes": _fixed(result.minutes, 2),
        "seed": "" if row.seed is None else row.seed,
        "channels": "" if row.channels is None else row.channels,
        "options": json.dumps(dict(row.options)) if row.options else "",
        "interval_over": f"{means['psnr'].count} {means['psnr'].over}",
        "baseline": comparison.baseline,
        "difference": _fixed(lead.value, 4) if lead else "",
        "difference_low": _fixed(lead.low, 4) if lead else "",
        "difference_high": _fixed(lead.high, 4) if lead else "",
        "psnr_without_data_consistency": _fixed(result.without_data_consistency().value, 4),
        "note": "our reading" if row.method in OUR_READING else "",
    }


def _methods_table(comparison: Comparison, methods: Sequence[str]) -> str:
    head = [
        "method",
        *_score_heads(comparison, "PSNR \u2191, dB", "SSIM \u2191", "NMSE \u2193", "difference, dB", "without data consistency, dB"),
    ]

    def cells(result: Result) -> Cells:
        return [
            *_scores(result),
            interval(comparison.lead(result, comparison.baseline), "+.2f"),
            f"{result.without_data_consistency().value:.2f}",
        ]

    return pipes(head, [[_name(method, seed, comparison), *line] for method, seed, line in _side_by_side(comparison, methods, cells, 5)])


def _ablations_table(comparison: Comparison, methods: Sequence[str]) -> str:
    head = ["model", "HLD", "FTB", "SCRFM", *_score_heads(comparison, "PSNR \u2191, dB", "SSIM \u2191", "NMSE \u2193")]
    rows = []
    for method, seed, line in _side_by_side(comparison, methods, _scores, 3):
        ticks = ["\u221a" if has else "\u00d7" for has in ABLATIONS[method]]
        rows.append([_name(method, seed, comparison), *ticks, *line])
    return pipes(head, rows)


def _networks_table(comparison: Comparison) -> str:
    head = ["method", "scale", "channels", "other options", "parameters, M", "GMAC at 320 x 320", "iterations", "minutes"]
    rows = []
    for result in comparison.results:
        row = result.row
        other = ", ".join(f"{key} {value}" for key, value in row.options.items() if key != "channels")
        cost = [f"{row.cost.parameters / 1e6:.3f}", f"{row.cost.gmac:.2f}"]
        budget = [str(result.iterations), f"{result.minutes:.1f}"]
        name = _name(row.method, row.seed, comparison)
        rows.append([name, f"x{row.scale}", str(row.channels or "-"), other or "-", *cost, *budget])
    return pipes(head, rows)


def _side_by_side(
    comparison: Comparison, methods: Sequence[str], cells: Callable[[Result], Cells], count: int
) -> Iterable[tuple[str, int | None, list[str]]]:
    """Method, seed and the `count` cells of each scale in one line."""
    for method in methods:
        seeds = sorted({result.row.seed for result in comparison.results if result.row.method == method}, key=lambda seed: seed or 0)
        for seed in seeds:
            found = [comparison.find(method, scale, seed) for scale in comparison.scales]
            yield method, seed, [cell for result in found for cell in (cells(result) if result else ["failed", *["-"] * (count - 1)])]


def _scores(result: Result) -> Cells:
    means = result.means()
    return [interval(means["psnr"], ".2f"), f"{means['ssim'].value:.4f}", f"{means['nmse'].value:.5f}"]


def _score_heads(comparison: Comparison, *names: str) -> list[str]:
    return [f"x{scale} {name}" for scale in comparison.scales for name in names]


def _captions(comparison: Comparison) -> list[str]:
    protocol, *others = comparison.captions()
    return [f"**{protocol}**", "; ".join(others) + "."]


def _name(method: str, seed: int | None, comparison: Comparison) -> str:
    mark = f" {MARK}" if method in OUR_READING else ""
    return title(method) + mark + (f", seed {seed}" if seed is not None and len(comparison.seeds) > 1 else "")


def _method(comparison: Comparison, result: Result) -> str:
    several = result.row.seed is not None and len(comparison.seeds) > 1
    return f"{result.row.method} seed {result.row.seed}" if several else result.row.method


def interval(mean: Mean | Interval | None, form: str) -> str:
    """As in `31.42 [30.90, 31.97]`, each number in the format `form`; a dash for none."""
    return f"{mean.value:{form}} [{mean.low:{form}}, {mean.high:{form}}]" if mean else "-"


def pipes(head: Cells, rows: Iterable[Cells]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rows])


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"
