"""A comparison from beginning to end, or from where it was broken off."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import torch
from monai.bundle import ConfigParser

import hftn_sr
from comparison.choices import Choices, check_choices
from comparison.cost import Cost, method_cost
from comparison.dataset import dataset_folder
from comparison.figures import curves, reconstructions
from comparison.results import Comparison, Failure, Result
from comparison.rows import Row, needs_training
from comparison.schedule import TIMED_STEPS, Schedule, schedule, timed_schedule
from comparison.scoring import score_row
from comparison.settings import check_unchanged, data_digest, read_record
from comparison.sizes import GMAC, fitted_options, has_channels
from comparison.statistics import write_cases
from comparison.table import case_rows, markdown, table_csv
from comparison.training import TRAIN_YAML, Stopped, seconds_per_iteration, train_row
from hftn_sr.errors import Fault
from hftn_sr.networks import METHODS, build_network
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.training.protocols import choose_protocol
from hftn_sr.volumes.files import write_bytes, write_json

__all__ = ["PUBLISHED", "Progress", "compare", "write_tables"]

PUBLISHED = "published.json"  # what the figures of table.csv are of


class Progress:
    """What a comparison tells while it goes on; this one keeps silent. Called from several threads."""

    def sizes(self, method: str, scale: int) -> None:
        """The channels of this network are being fitted."""

    def begin(self, rows: Sequence[Row]) -> None:
        """These rows will be made."""

    def stage(self, row: Row, stage: str, total: int) -> None:
        """A row is being measured, trained or scored, in so many steps."""

    def advance(self, row: Row, done: int) -> None:
        """So many steps of it are done."""

    def end(self, row: Row, finding: str | None) -> None:
        """A row is finished, or failed and why."""


def compare(choices: Choices, progress: Progress | None = None) -> Comparison:
    """Train and score all rows, then write `table.csv`, `cases.csv`, `table.md`, `figure.png`, one figure for each scale and `curves.png`.

    A row that fails does not stop the others. Whatever was finished before is read instead of made again.

    Raises:
        UsageFault: choices that cannot be meant, or rows in the output that were made with other settings.
        Fault: data or output cannot be used, or no row could be finished.
    """
    progress = progress or Progress()
    choices = replace(
        choices,
        data=choices.data.absolute(),  # trainings run in folders of their own
        output=choices.output.absolute(),
        scales=list(dict.fromkeys(choices.scales)),
        seeds=list(dict.fromkeys(choices.seeds)),
    )
    check_choices(choices)
    choices.output.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(choices.output / ".lock", timeout=0):
            return _compare(choices, progress)
    except filelock.Timeout:
        raise Fault(choices.output, "another comparison is being made in it", "wait for it, or name another --output") from None


def _compare(choices: Choices, progress: Progress) -> Comparison:
    dataset = dataset_folder(choices.data, choices.output)
    data = data_digest(dataset, ("training", "validation"))
    cases: list[Any] = load_datalist(dataset, choices.section)
    trained_on = {case["target"] for case in load_datalist(dataset, "training")}
    workflow = hashlib.sha256(json.dumps(ConfigParser.load_config_file(TRAIN_YAML), sort_keys=True).encode()).hexdigest()[:16]
    rows = _rows(choices, progress)
    for row in rows:
        if row.trained:
            check_unchanged(choices.output / "runs" / row.name, _settings(choices, row, data, workflow), choices.overwrite)
    scored = {"section": choices.section, "slices": choices.eval_slices, "data": data_digest(dataset, (choices.section,))}
    stop = threading.Event()

    def finish(row: Row) -> Result | Failure:
        torch.set_num_threads(1)
        try:
            result = _finish(choices, dataset, row, cases, scored, stop, progress)
        except Stopped:
            return Failure(row, "stopped")
        except Exception as error:
            finding = str(error) if isinstance(error, Fault) else f"internal fault, {type(error).__name__}: {error}"
            progress.end(row, finding)
            return Failure(row, finding)
        progress.end(row, None)
        return result

    progress.begin(rows)
    with ThreadPoolExecutor(choices.jobs) as pool:
        futures = [pool.submit(finish, row) for row in rows]
        try:
            found = [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    comparison = Comparison(
        results=[each for each in found if isinstance(each, Result)],
        failures=[each for each in found if isinstance(each, Failure)],
        protocol=choose_protocol(choices.protocol, choices.protocol_crop),
        baseline=choices.reference_method,
        scales=list(choices.scales),
        seeds=list(choices.seeds),
        section=choices.section,
        eval_slices=choices.eval_slices,
        seen=[case["case"] for case in cases if case["target"] in trained_on],
        budget=choices.budget_words,
        sizes=choices.size_words,
    )
    if not comparison.results:
        raise Fault(choices.output, f"no row could be finished ({comparison.failures[0].finding})", "see its training.log")
    (choices.output / PUBLISHED).unlink(missing_ok=True)  # it never tells of another table than the one beside it
    write_tables(choices.output, comparison)
    write_bytes(choices.output / "curves.png", curves(comparison))
    of = {"baseline": comparison.baseline, "seen": list(comparison.seen), "budget": comparison.budget, "sizes": comparison.sizes}
    protocol = {"protocol": choices.protocol, "protocol_crop": choices.protocol_crop}
    write_json(choices.output / PUBLISHED, {**scored, **protocol, **of})
    return comparison


def _finish(
    choices: Choices,
    dataset: Path,
    row: Row,
    cases: Sequence[Mapping[Hashable, Any]],
    scored: Mapping[str, Any],
    stop: threading.Event,
    progress: Progress,
) -> Result:
    if stop.is_set():
        raise Stopped
    folder = choices.output / "runs" / row.name
    told: Callable[[int], None] = lambda done: progress.advance(row, done)  # noqa: E731 - a name for a type checker
    trained = None
    if row.seed is not None:
        plan = _plan(choices, dataset, row, folder, stop, progress)
        progress.stage(row, "training", plan.iterations)
        trained = train_row(folder, dataset, row, plan, choices.hyperparameters, stop, told)
    progress.stage(row, "scoring", len(cases))
    weights, protocol = trained.weights if trained else None, choose_protocol(choices.protocol, choices.protocol_crop)
    decomposition = METHODS[row.method].decomposition
    wanted = {
        **scored,
        "protocol": protocol.description,
        "version": hftn_sr.__version__,
        "decomposition": decomposition,
        "options": _all_options(row),
        "weights": trained.sha256 if trained else None,
    }
    found = score_row(folder, row, weights, cases, choices.eval_slices, protocol, decomposition, wanted, told)
    return Result(row, folder, found, trained.iterations, trained.minutes) if trained else Result(row, folder, found)


def _plan(choices: Choices, dataset: Path, row: Row, folder: Path, stop: threading.Event, progress: Progress) -> Schedule:
    """The row's epochs; with `minutes`, from a measurement that a resumed row does not repeat."""
    if choices.iterations is not None:
        return schedule(choices.iterations)
    if choices.minutes is None:
        raise ValueError("expected iterations or minutes, got neither")
    measured = folder / "timing.json"
    record = read_record(measured)
    if not record:
        progress.stage(row, "measuring", TIMED_STEPS)
        seconds = seconds_per_iteration(
            folder / "timing", dataset, row, TIMED_STEPS, choices.hyperparameters, stop, lambda done: progress.advance(row, done)
        )
        record = {"seconds_per_iteration": seconds}
        write_json(measured, record)
    return timed_schedule(choices.minutes, record["seconds_per_iteration"])


def _rows(choices: Choices, progress: Progress) -> list[Row]:
    """Scale by scale; interpolation once, networks once for each seed."""
    return [
        row
        for scale in choices.scales
        for method in choices.methods
        for sized in [_sized(choices, method, scale, progress)]
        for row in (
            [Row(method, scale, seed, *sized) for seed in choices.seeds] if needs_training(method) else [Row(method, scale, None, *sized)]
        )
    ]


def _sized(choices: Choices, method: str, scale: int, progress: Progress) -> tuple[Mapping[str, Any], int | None, Cost]:
    """Options, channels and cost, remembered in the output: fitting the channels takes seconds."""
    bound = choices.gmac or GMAC[scale]
    key = [hftn_sr.__version__, method, scale, choices.sizes, bound if choices.sizes == "matched" else None]
    store = choices.output / "sizes.json"
    known = read_record(store)
    if (name := json.dumps(key)) not in known:
        progress.sizes(method, scale)
        options = fitted_options(method, scale, bound) if choices.sizes == "matched" else {}
        cost = method_cost(method, scale, options)
        known[name] = {"options": options, "parameters": cost.parameters, "macs": cost.macs}
        write_json(store, known)
    found = known[name]
    every: Mapping[str, Any] = build_network(method, scale, found["options"]).options  # type: ignore[assignment]
    return found["options"], every["channels"] if has_channels(method) else None, Cost(found["parameters"], found["macs"])


def _settings(choices: Choices, row: Row, data: str, workflow: str) -> dict[str, Any]:
    """What the weights of a row depend on."""
    budget = {"iterations": choices.iterations} if choices.iterations is not None else {"minutes": choices.minutes}
    return {
        "method": row.method, "scale": row.scale, "seed": row.seed, "options": _all_options(row), **budget, **choices.hyperparameters,
        "decomposition": METHODS[row.method].decomposition, "data": data, "workflow": workflow, "version": hftn_sr.__version__,
    }  # fmt: skip


def _all_options(row: Row) -> dict[str, Any]:
    """Defaults of the network included."""
    options: Mapping[str, Any] = build_network(row.method, row.scale, row.options).options  # type: ignore[assignment]
    return dict(options)


def write_tables(output: Path, comparison: Comparison) -> None:
    """Write `table.csv`, `cases.csv`, `table.md`, `figure.png` and one figure for each scale.

    Args:
        output: folder.
        comparison: with results.

    Raises:
        Fault: a file cannot be written.
    """
    write_bytes(output / "table.csv", table_csv(comparison))
    write_cases(output / "cases.csv", case_rows(comparison))
    write_bytes(output / "table.md", markdown(comparison).encode())
    scales = [scale for scale in comparison.scales if comparison.find("zero_filling", scale, None)]
    if scales:
        write_bytes(output / "figure.png", reconstructions(comparison, scales))
        for scale in scales:
            write_bytes(output / f"figure_x{scale}.png", reconstructions(comparison, [scale]))
