"""What came of wrong references, noise and lesions: Markdown, CSV and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from comparison.colours import method_colours
from comparison.disturbance import ALIGNED, Disturbance
from comparison.figures import png
from comparison.finished import FinishedRow
from comparison.recording import table_bytes
from comparison.results import slices_words
from comparison.robustness import Robustness
from comparison.rows import OUR_READING, title
from comparison.statistics import Mean, mean_score, paired_difference
from comparison.table import FOOTNOTE, MARK, interval, pipes

__all__ = ["Scores", "gain_picture", "robustness_csv", "robustness_lines", "robustness_markdown", "row_scores"]

NAMED = {"moved": "moved by", "turned": "turned by"}
PANELS = {"moved": "displacement of the reference, voxels", "turned": "rotation of the reference, degrees"}
TERMS = (
    "Gain: PSNR less that of zero-filling from the same low-resolution image. The reference alone is disturbed, except under target noise. "
    "px: Euclidean displacement by a Fourier shift along the diagonal, 1/\u221a2 of it along each in-plane axis, in voxels of the "
    "high-resolution target; \u00b0: rotation about the centre of the slice by Fourier shears. Noise: white, Gaussian (not Rician), its "
    "standard deviation in percent of the image's intensity unit, added to the reference or to the low-resolution target. Slices on: the "
    "reference is taken from so many slices further on. Zeroed: a reference of zeros. Mean gain: over 0 to 4 px by the trapezoidal rule. "
    "Share kept: of the gain with the reference as it lies, in that mean. Lowest gain: over all disturbances of the reference, "
    "of which the next column names the one; lowest of a case: over these and the cases."
)


@dataclass(frozen=True)
class Scores:
    """A row under every disturbance, by its name.

    Args:
        psnr: dB, mean over cases.
        ssim: likewise.
        gain: PSNR less that of zero-filling under the same disturbance, dB.
        mean: of the gain over 0 to 4 voxels of displacement, by the trapezoidal rule, dB.
        lowest: disturbance of the reference under which the gain is lowest.
        lowest_case: the lowest gain of a single case under any of them, dB, and the name of that case.
    """

    psnr: Mapping[str, Mean]
    ssim: Mapping[str, Mean]
    gain: Mapping[str, Mean]
    mean: float
    lowest: Disturbance
    lowest_case: tuple[float, str]

    @property
    def aligned(self) -> float:
        """Gain with the pair as it lies, dB."""
        return self.gain[ALIGNED.name].value

    @property
    def share(self) -> float | None:
        """Of the aligned gain that is left in the mean over 0 to 4 voxels; None where there is no gain to keep."""
        return self.mean / self.aligned if self.aligned > 0 else None


def row_scores(robustness: Robustness, each: FinishedRow) -> Scores:
    """The scores of one row."""
    names = [step.name for step in robustness.tried]
    own, base = robustness.sums[each.row.name], robustness.sums[f"zero_filling_x{each.row.scale}"]
    gain = {name: paired_difference(own[name], base[name], "psnr") for name in names}
    distances, gains = _curve(robustness, gain, "moved")
    area = sum(
        (after - before) * (high + low) / 2 for before, after, high, low in zip(distances, distances[1:], gains, gains[1:], strict=False)
    )
    of_reference = [step for step in robustness.tried if step.of_reference]
    by_case = [
        (sums.scores()["psnr"] - base[step.name][case].scores()["psnr"], case)
        for step in of_reference
        for case, sums in own[step.name].items()
    ]
    return Scores(
        psnr={name: mean_score(own[name], "psnr") for name in names},
        ssim={name: mean_score(own[name], "ssim") for name in names},
        gain=gain,
        mean=area / distances[-1],
        lowest=min(of_reference, key=lambda step: gain[step.name].value),
        lowest_case=min(by_case),
    )


def robustness_markdown(robustness: Robustness, scores: Mapping[str, Scores]) -> str:
    """`robustness.md`: for each scale a summary, the gain and the SSIM under every disturbance."""
    found = robustness.found
    parts = ["# Robustness", *_captions(robustness, scores)]
    steps = robustness.tried
    for scale in found.scales:
        rows = [each for each in found.rows if each.row.scale == scale]
        head = ["method", "PSNR, dB", "SSIM", "gain, dB", "mean gain 0 to 4 px, dB", "share kept", "lowest gain, dB", "with the reference"]
        head += ["lowest of a case, dB", "of case"]
        parts += [f"## x{scale}", pipes(head, [[_label(robustness, each), *_summary(scores[each.row.name])] for each in rows])]
        for heading, cells in (("gain over zero-filling, dB", _gains), ("SSIM", _ssims)):
            lines = [[_label(robustness, each), *cells(scores[each.row.name])] for each in rows]
            parts += [f"### x{scale}: {heading}", pipes(["method", *(step.name for step in steps)], lines)]
    if any(each.row.method in OUR_READING for each in found.rows):
        parts.append(FOOTNOTE)
    return "\n\n".join(parts) + "\n"


def robustness_csv(robustness: Robustness, scores: Mapping[str, Scores]) -> bytes:
    """`robustness.csv`: a line for each row and disturbance."""
    return table_bytes(robustness_lines(robustness, scores))


def robustness_lines(robustness: Robustness, scores: Mapping[str, Scores]) -> list[dict[str, str]]:
    """The lines of `robustness.csv`."""
    lines: list[dict[str, str]] = []
    for each in robustness.found.rows:
        score = scores[each.row.name]
        for step in robustness.tried:
            gain = score.gain[step.name]
            lines.append(
                {
                    "method": each.row.method,
                    "scale": str(each.row.scale),
                    "seed": "" if each.row.seed is None else str(each.row.seed),
                    "protocol": robustness.found.protocol.name,
                    "section": robustness.section,
                    "disturbance": step.kind,
                    "amount": str(step.amount),
                    "psnr": f"{score.psnr[step.name].value:.4f}",
                    "ssim": f"{score.ssim[step.name].value:.6f}",
                    "gain": f"{gain.value:.4f}",
                    "gain_low": f"{gain.low:.4f}",
                    "gain_high": f"{gain.high:.4f}",
                    "interval_over": f"{gain.count} {gain.over}",
                    "share_of_aligned_gain": f"{gain.value / score.aligned:.4f}" if score.aligned > 0 else "",
                }
            )
    return lines


def gain_picture(lines: Sequence[Mapping[str, str]], heading: str) -> bytes:
    """PNG: gain of each method against displacement and rotation of the reference, two panels for each scale.

    Args:
        lines: of `robustness.csv`; of several seeds the first is drawn.
        heading: above it.
    """
    lines = [line for line in lines if line["method"] != "zero_filling"]
    scales = list(dict.fromkeys(line["scale"] for line in lines))
    methods = list(dict.fromkeys(line["method"] for line in lines))
    colours = method_colours(methods)
    figure = Figure(figsize=(11.5, 4.6 * len(scales)), layout="constrained", dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(scales), 2, squeeze=False, sharey="row")
    for row, scale in zip(axes, scales, strict=True):
        for axis, (kind, label) in zip(row, PANELS.items(), strict=True):
            for method in methods:
                x, y = _drawn(lines, method, scale, kind)
                axis.plot(x, y, color=colours[method], marker="o", markersize=3.5, linewidth=1.6, label=title(method))
            _dress(axis, label)
        row[0].set(ylabel=f"x{scale}: gain over zero-filling, dB")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=9)
    figure.suptitle(heading, fontsize=11)
    return png(figure)


def _drawn(lines: Sequence[Mapping[str, str]], method: str, scale: str, kind: str) -> tuple[list[float], list[float]]:
    """Amounts of one kind, from 0, and the gain of a method's first seed at each."""
    own = [line for line in lines if line["method"] == method and line["scale"] == scale and line["disturbance"] in ("aligned", kind)]
    first = [line for line in own if line["seed"] == own[0]["seed"]]
    return [float(line["amount"]) for line in first], [float(line["gain"]) for line in first]


def _curve(robustness: Robustness, gain: Mapping[str, Mean], kind: str) -> tuple[list[float], list[float]]:
    """Amounts of one kind, from 0, and the gain at each."""
    steps = [ALIGNED, *(step for step in robustness.tried if step.kind == kind)]
    return [step.amount for step in steps], [gain[step.name].value for step in steps]


def _dress(axis: Axes, label: str) -> None:
    axis.set_xlabel(label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.grid(color="0.9", linewidth=0.6)


def _captions(robustness: Robustness, scores: Mapping[str, Scores]) -> list[str]:
    found, some = robustness.found, next(iter(scores.values())).psnr[ALIGNED.name]
    cases = len(next(iter(next(iter(robustness.sums.values())).values())))
    donors = sorted(set(robustness.donors.values()))
    over = f"intervals: 95 %, bootstrap over {some.count} {some.over}"
    lines = [
        f"**{found.protocol.description}**",
        f"{cases} {robustness.section} cases, {slices_words(robustness.eval_slices)}; {over}.",
        f"{TERMS} Other patient: {', '.join(donors) if donors else 'none was found, not tried'}.",
    ]
    warning = (
        [f"**WARNING: trained on {len(robustness.seen)} of these cases ({', '.join(robustness.seen[:3])}).**"] if robustness.seen else []
    )
    unfinished = [f"Not finished: {', '.join(found.unfinished)}."] if found.unfinished else []
    return [*lines, *warning, *unfinished]


def _summary(score: Scores) -> Sequence[str]:
    lowest = score.gain[score.lowest.name]
    changes = np.ptp([gain.value for gain in score.gain.values()]) > 0
    with_reference = f"{NAMED.get(score.lowest.kind, '')} {score.lowest.name}".strip()
    return [
        interval(score.psnr[ALIGNED.name], ".2f"),
        f"{score.ssim[ALIGNED.name].value:.4f}",
        interval(score.gain[ALIGNED.name], "+.2f"),
        f"{score.mean:+.2f}",
        f"{score.share:.0%}" if score.share is not None else "-",
        interval(lowest, "+.2f"),
        with_reference if changes else "-",
        f"{score.lowest_case[0]:+.2f}",
        score.lowest_case[1] if changes else "-",
    ]


def _gains(score: Scores) -> list[str]:
    return [f"{gain.value:+.2f}" for gain in score.gain.values()]


def _ssims(score: Scores) -> list[str]:
    return [f"{ssim.value:.4f}" for ssim in score.ssim.values()]


def _label(robustness: Robustness, each: FinishedRow) -> str:
    mark = f" {MARK}" if each.row.method in OUR_READING else ""
    return each.row.label(robustness.found.seeds) + mark
