"""A shipped comparison scored again: from its weights, without training, against its published tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import hftn_sr
from hftn_sr.comparison.recording import read_table
from hftn_sr.comparison.results import Comparison, Result
from hftn_sr.comparison.rows import Row, chosen_methods
from hftn_sr.comparison.run import PUBLISHED, Progress, write_tables
from hftn_sr.comparison.scoring import score_row
from hftn_sr.comparison.settings import SETTINGS, data_digest, read_record
from hftn_sr.comparison.training import Trained, finished_training
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.networks.cost import Cost
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.protocols import choose_protocol

__all__ = ["COMPARED", "Reproduced", "published_tables", "reproduce"]

TABLE = "table.csv"
COMPARED = {"psnr": 0.01, "psnr_alone": 0.01, "gain": 0.01, "difference": 0.01, "ssim": 1e-4, "nmse": 2e-5}  # and how far they may be off


@dataclass(frozen=True)
class Reproduced:
    """One published table, made again.

    Args:
        folder: of the published table.
        output: where the new one was written.
        rows: for each row its method, scale and seed, and for each figure what was published and what was found.
    """

    folder: Path
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


def published_tables(study: Path) -> list[Path]:
    """Folders of the tables that a study has published, each in the folder of its comparison.

    Raises:
        UsageFault: there is none.
    """
    found = sorted(path.parent for path in study.glob(f"**/{PUBLISHED}"))
    if not found:
        raise UsageFault(study, f"no published table (searched **/{PUBLISHED})", "name the study folder of the repository")
    return found


def reproduce(table: Path, dataset: Path, output: Path, methods: str = "all", progress: Progress | None = None) -> Reproduced:
    """Score the rows of a published table again from their shipped weights, write the same tables and pictures, and compare the figures.

    Args:
        table: folder of a published table; `runs` of its comparison lies beside it.
        dataset: folder with datalist.json, with the same images.
        output: folder for what is made; a later command goes on with what it finds there.
        methods: `all`, or names with commas between.
        progress: told what goes on.

    Raises:
        UsageFault: none of these methods is in the table.
        Fault: weights that are missing or are not the recorded ones, other images than were scored, or a file that cannot be written.
    """
    progress = progress or Progress()
    torch.set_num_threads(1)  # a second one would change sums, and thus figures, in their last digits
    published = read_record(table / PUBLISHED)
    rows = _rows(table, methods)
    runs = {row.name: _trained(table.parent / "runs" / row.name) for row in rows if row.trained}
    section, slices = published["section"], published["slices"]
    digest = data_digest(dataset, (section,))
    if digest != published["data"]:
        finding = f"its {section} images are not those that were scored (digest {digest}, published {published['data']})"
        raise Fault(dataset, finding, "fetch them with: hftn-sr data open-ms")
    cases: list[Any] = load_datalist(dataset, section)
    protocol = choose_protocol(published["protocol"], published["protocol_crop"])
    results = []
    progress.begin(rows)
    for row in rows:
        progress.stage(row, "scoring", len(cases))
        folder, trained = output / "runs" / row.name, runs.get(row.name)
        depends = {**published, "version": hftn_sr.__version__, "weights": trained.sha256 if trained else None}
        told = partial(progress.advance, row)
        scored = score_row(folder, _whole(row, table), trained.weights if trained else None, cases, slices, protocol, depends, told)
        results.append(Result(row, folder, scored, trained.iterations, trained.minutes) if trained else Result(row, folder, scored))
        progress.end(row, None)
    comparison = Comparison(
        results=results,
        failures=[],
        protocol=protocol,
        baseline=published["baseline"],
        scales=sorted({row.scale for row in rows}),
        seeds=sorted({row.seed for row in rows if row.seed is not None}),
        section=section,
        eval_slices=slices,
        seen=published["seen"],
        budget=published["budget"],
        sizes=published["sizes"],
    )
    write_tables(output, comparison)
    return Reproduced(table, output, _compared(table, output))


def _rows(table: Path, methods: str) -> list[Row]:
    """Of a published table, in its order."""
    names = chosen_methods(methods)
    rows = [
        Row(
            method=each["method"],
            scale=int(each["scale"]),
            seed=int(each["seed"]) if each["seed"] else None,
            options=json.loads(each["options"]) if each["options"] else {},
            width=int(each["width"]) if each["width"] else None,
            cost=Cost(int(each["params"]), round(1e9 * float(each["gmac"]))),
        )
        for each in read_table(table / TABLE)
        if each["method"] in names
    ]
    if not any(row.trained for row in rows):
        raise UsageFault("--methods", f"{methods} is not in {table / TABLE}", "--methods all")
    return rows


def _whole(row: Row, table: Path) -> Row:
    """The row with every option of its network, whatever this version's defaults are."""
    settings = read_record(table.parent / "runs" / row.name / SETTINGS)
    return replace(row, options={name: value for name, value in settings.get("options", {}).items() if name != "scale"})


def _trained(folder: Path) -> Trained:
    found = finished_training(folder)
    if found is None:
        raise Fault(folder, "its weights are missing, or are not the recorded ones", "restore the folder from the repository")
    return found


def _compared(table: Path, output: Path) -> list[tuple[str, dict[str, tuple[float, float]]]]:
    """Both tables, as they stand in their files; what one of them lacks, as the difference to a row left out, does not count."""
    keys = ("method", "scale", "seed")
    published = {tuple(each[key] for key in keys): each for each in read_table(table / TABLE)}
    return [
        (
            " ".join([each["method"], f"x{each['scale']}"]),
            {
                figure: (float(known[figure]), float(each[figure]))
                for figure in COMPARED
                for known in [published[tuple(each[key] for key in keys)]]
                if known[figure] and each[figure]
            },
        )
        for each in read_table(output / TABLE)
    ]
