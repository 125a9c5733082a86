"""A shipped comparison scored again: from its weights, without training, against its published tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

import hftn_sr
from comparison.cost import Cost
from comparison.recording import read_table
from comparison.results import Comparison, Result
from comparison.rows import Row, chosen_methods
from comparison.run import PUBLISHED, Progress, write_tables
from comparison.scoring import RECORD as SCORES
from comparison.scoring import score_row
from comparison.settings import SETTINGS, data_digest, network_options, read_record
from comparison.training import Trained, finished_training
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.kspace import Decomposition
from hftn_sr.networks import METHODS
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.training.protocols import Protocol, choose_protocol

__all__ = ["COMPARED", "Published", "Reproduced", "published_tables", "reproduce"]

TABLE = "table.csv"
COMPARED = {
    "psnr": 0.01,
    "psnr_without_data_consistency": 0.01,
    "gain": 0.01,
    "difference": 0.01,
    "ssim": 1e-4,
    "nmse": 2e-5,
}  # and what each may be off by
RESTORE = "restore the folder from the repository"


@dataclass(frozen=True)
class Published:
    """A table of a study, with all that its figures need.

    Args:
        folder: of the table; `runs` of its comparison lies beside it.
        of: what the figures are of, as `compare` wrote it.
        lines: of the table, as they stand in the file.
        rows: the same, in its order.
        trained: their networks by name of the row; none for interpolation.
        protocol: of all.
    """

    folder: Path
    of: Mapping[str, Any]
    lines: Sequence[Mapping[str, str]]
    rows: Sequence[Row]
    trained: Mapping[str, Trained]
    protocol: Protocol

    def only(self, methods: str) -> Published:
        """The rows of some methods, with zero-filling, which gains refer to.

        Raises:
            UsageFault: a method that the table lacks.
        """
        if methods == "all":
            return self
        names = chosen_methods(methods)
        if lacking := set(names) - {row.method for row in self.rows}:
            raise UsageFault("--methods", f"{', '.join(sorted(lacking))} is not in {self.folder / TABLE}", "--methods all")
        chosen = [(row, line) for row, line in zip(self.rows, self.lines, strict=True) if row.method in names]
        return replace(self, rows=[row for row, _ in chosen], lines=[line for _, line in chosen])


@dataclass(frozen=True)
class Reproduced:
    """One published table, made again.

    Args:
        output: where the new one was written.
        rows: for each row its method, scale and seed, and for each figure what was published and what was found.
    """

    output: Path
    rows: Sequence[tuple[str, Mapping[str, tuple[float, float]]]]

    @property
    def differing(self) -> list[str]:
        """What is further off than `COMPARED` allows, in words."""
        return [
            f"{name}: {figure} {found:.4f}, published {published:.4f}"
            for name, figures in self.rows
            for figure, (published, found) in figures.items()
            if not abs(found - published) <= COMPARED[figure]
        ]

    @property
    def largest(self) -> float:
        """Largest difference in PSNR, in dB."""
        return max(abs(found - published) for _, figures in self.rows for published, found in [figures["psnr"]])


def published_tables(study: Path) -> list[Published]:
    """The tables that a study has published, read and checked.

    Raises:
        UsageFault: there is none, or one without the runs of its comparison.
        Fault: a file is missing or damaged, weights are not the recorded ones, or a row is of a method that this version does not have.
    """
    found = sorted(path.parent for path in study.glob(f"**/{PUBLISHED}"))
    if not found:
        raise UsageFault(study, f"no published table (searched **/{PUBLISHED})", "name the study folder of the repository")
    return [_published(folder) for folder in found]


def reproduce(published: Published, dataset: Path, output: Path, progress: Progress | None = None) -> Reproduced:
    """Score the rows of a published table again from their weights, write `table.csv`, `table.md` and pictures, and compare the figures.

    Args:
        published: the table.
        dataset: folder with datalist.json, with the same images.
        output: folder for what is made; where it was broken off, a later command goes on.
        progress: told what goes on.

    Raises:
        UsageFault: `output` holds a published table or the output of a comparison.
        Fault: other images than were scored, or a file that cannot be written.
    """
    if (output / PUBLISHED).exists():
        raise UsageFault(output, "holds the table of a comparison, which would be replaced", "name another --output")
    progress, of = progress or Progress(), published.of
    torch.set_num_threads(1)  # a second one would change sums, and thus figures, in their last digits
    section, slices = of["section"], of["slices"]
    digest = data_digest(dataset, (section,))
    if digest != of["data"]:
        finding = f"its {section} images or datalist are not those that were scored (digest {digest}, published {of['data']})"
        raise Fault(dataset, finding, "fetch them with: hftn-sr data open-ms")
    cases: list[Any] = load_datalist(dataset, section)
    results = []
    progress.begin(published.rows)
    for row in published.rows:
        progress.stage(row, "scoring", len(cases))
        folder, trained = output / "runs" / row.name, published.trained.get(row.name)
        weights, told = trained.weights if trained else None, partial(progress.advance, row)
        whole, decomposition = _as_trained(row, weights)
        depends = {
            **of,
            "version": hftn_sr.__version__,
            "torch": torch.__version__,
            "decomposition": decomposition,
            "options": dict(whole.options),
            "weights": trained.sha256 if trained else None,
        }
        scored = score_row(folder, whole, weights, cases, slices, published.protocol, decomposition, depends, told)
        results.append(Result(row, folder, scored, trained.iterations, trained.minutes) if trained else Result(row, folder, scored))
        progress.end(row, None)
    comparison = Comparison(
        results=results,
        failures=[],
        protocol=published.protocol,
        baseline=of["baseline"],
        scales=list(dict.fromkeys(row.scale for row in published.rows)),
        seeds=list(dict.fromkeys(row.seed for row in published.rows if row.seed is not None)),
        section=section,
        eval_slices=slices,
        seen=of["seen"],
        budget=of["budget"],
        sizes=of["sizes"],
    )
    write_tables(output, comparison)
    for row in published.rows:
        (output / "runs" / row.name / SCORES).unlink()  # the same command scores anew: figures are found, not remembered
    return Reproduced(output, _compared(published.lines, read_table(output / TABLE)))


def _published(folder: Path) -> Published:
    runs = folder.parent / "runs"
    if not runs.is_dir():
        raise UsageFault(folder, "no runs/ beside it, as a study has", "make a study of a comparison with study/ship_study.py")
    try:
        of, lines = json.loads((folder / PUBLISHED).read_text(encoding="utf-8")), read_table(folder / TABLE)
        lacking = {"section", "slices", "data", "baseline", "seen", "budget", "sizes"} - of.keys()
        if lacking or not lines:
            raise KeyError(*lacking or [TABLE])
        figures = [float(line[figure]) for line in lines for figure in COMPARED if line[figure]]
        if not all(map(math.isfinite, figures)):
            raise ValueError("a figure is not finite")
        rows = [_row(line) for line in lines]
        trained = {row.name: _trained(runs / row.name) for row in rows if row.trained}
        protocol = choose_protocol(of["protocol"], of["protocol_crop"])
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise Fault(folder, f"its {PUBLISHED}, its {TABLE} or a record in {runs} is damaged ({error!r})", RESTORE) from None
    if more := {path.name for path in runs.iterdir() if (path / SETTINGS).is_file()} - trained.keys():
        raise Fault(folder / TABLE, f"lacks rows whose networks are there ({', '.join(sorted(more))})", RESTORE)
    if unknown := {row.method for row in rows} - METHODS.keys():
        finding = f"has methods that this version does not have ({', '.join(sorted(unknown))})"
        raise Fault(folder / TABLE, finding, "use the version that wrote it")
    return Published(folder, of, lines, rows, trained, protocol)


def _row(line: Mapping[str, str]) -> Row:
    return Row(
        method=line["method"],
        scale=int(line["scale"]),
        seed=int(line["seed"]) if line["seed"] else None,
        options=json.loads(line["options"]) if line["options"] else {},
        channels=int(line["channels"]) if line["channels"] else None,
        cost=Cost(int(line["params"]), round(1e9 * float(line["gmac"]))),
    )


def _trained(folder: Path) -> Trained:
    try:
        found, settings = finished_training(folder), read_record(folder / SETTINGS)
    except Fault as fault:
        raise Fault(fault.path, fault.finding, RESTORE) from None
    fed_as = settings.get("decomposition")
    if found is None or not isinstance(settings.get("options"), dict) or fed_as not in get_args(Decomposition):
        raise Fault(folder, "its weights or settings are missing, or are not the recorded ones", RESTORE)
    return found


def _as_trained(row: Row, weights: Path | None) -> tuple[Row, Decomposition]:
    """The row with every option of its network, and how it was fed, whatever this version's defaults are."""
    if weights is None:
        return row, METHODS[row.method].decomposition
    settings = read_record(weights.with_name(SETTINGS))
    return replace(row, options=network_options(settings)), settings["decomposition"]


def _compared(
    published: Sequence[Mapping[str, str]], found: Sequence[Mapping[str, str]]
) -> list[tuple[str, dict[str, tuple[float, float]]]]:
    """Line by line; what one of them lacks, as the difference to a row left out, does not count."""
    return [
        (
            f"{new['method']} x{new['scale']}" + (f" seed {new['seed']}" if new["seed"] else ""),
            {figure: (float(old[figure]), float(new[figure])) for figure in COMPARED if old[figure] and new[figure]},
        )
        for old, new in zip(published, found, strict=True)
    ]
