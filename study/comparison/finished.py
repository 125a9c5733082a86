"""What a comparison has finished so far, read from its folder without touching it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison.rows import Row
from comparison.settings import SETTINGS, network_options, read_record
from comparison.training import finished_training
from hftn_sr.errors import NothingToDo, UsageFault
from hftn_sr.kspace import Decomposition
from hftn_sr.networks import METHODS
from hftn_sr.training.protocols import Protocol, choose_protocol

__all__ = ["FinishedRow", "Found", "finished_rows"]


@dataclass(frozen=True)
class FinishedRow:
    """A method at one scale, ready to be measured.

    Args:
        row: which.
        weights: of its network; None for interpolation.
        sha256: of that file.
        decomposition: how it was fed in training.
    """

    row: Row
    weights: Path | None
    sha256: str | None
    decomposition: Decomposition


@dataclass(frozen=True)
class Found:
    """The rows of a comparison.

    Args:
        rows: finished, scale by scale, in the order of the tables; zero-filling is always among them.
        unfinished: names of rows that were begun.
        protocol: of all.
        scales: in order.
        seeds: likewise.
    """

    rows: Sequence[FinishedRow]
    unfinished: Sequence[str]
    protocol: Protocol
    scales: Sequence[int]
    seeds: Sequence[int]


def finished_rows(comparison: Path, methods: Sequence[str]) -> Found:
    """The trained rows of these methods in the output of a comparison, which may still be going on, and interpolation.

    Args:
        comparison: output folder of a comparison.
        methods: keys of METHODS.

    Raises:
        UsageFault: no output of a comparison, or one with rows of several protocols.
        NothingToDo: no network of these methods is trained.
        Fault: damaged settings.
    """
    runs = comparison / "runs"
    settings = {path.parent: read_record(path) for path in sorted(runs.glob(f"*/{SETTINGS}"))}
    if not settings:
        raise UsageFault(
            comparison, f"no output of a comparison (searched runs/*/{SETTINGS})", "--comparison with the --output of compare.py"
        )
    wanted = {folder: each for folder, each in settings.items() if each["method"] in methods}
    trained = {folder: finished_training(folder) for folder in wanted}
    if not any(trained.values()):
        names = ", ".join(folder.name for folder in settings)
        raise NothingToDo(comparison, f"no network of these methods is trained (begun: {names})", "wait, or --methods")
    protocols = {(each["protocol"], each["protocol_crop"]) for folder, each in wanted.items() if trained[folder]}
    if len(protocols) > 1:
        names = " and ".join(sorted(name for name, _ in protocols))
        raise UsageFault(
            comparison, f"its rows have several protocols ({names}), which share no table", "name methods of one with --methods"
        )
    rows = [
        FinishedRow(
            Row(each["method"], each["scale"], each["seed"], network_options(each)), found.weights, found.sha256, each["decomposition"]
        )
        for folder, each in wanted.items()
        if (found := trained[folder])
    ]
    scales = sorted({each.row.scale for each in rows})
    rows += [
        FinishedRow(Row(method, scale, None), None, None, METHODS[method].decomposition)
        for scale in scales
        for method in ("zero_filling", "cubic")
        if method == "zero_filling" or (method in methods and (runs / f"cubic_x{scale}").is_dir())
    ]
    order = list(METHODS)
    return Found(
        rows=sorted(rows, key=lambda each: (each.row.scale, order.index(each.row.method), each.row.seed or 0)),
        unfinished=[folder.name for folder, found in trained.items() if not found],
        protocol=choose_protocol(*next(iter(protocols))),
        scales=scales,
        seeds=sorted({each.row.seed for each in rows if each.row.seed is not None}),
    )
