"""Many tiny cases through the real path of a batch: finding, locks, checks, atomic files, journal, summary. Only the network is a stub.

python scripts/simulate_batch.py --cases 100000 --folder /dev/shm/simulated

Prints what each step takes, whether it grows with the number of cases, and how many cases a second the two engines hand out.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Generator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from hftn_sr._version import __version__
from hftn_sr.inference import run, summary
from hftn_sr.inference.batch import Engine, find_cases, run_cases
from hftn_sr.inference.case import Case, Outcome, side_files
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.shards import of_shard
from hftn_sr.inference.summary import Merged, SummaryWriter, merge_summary
from hftn_sr.inference.workers import Job, run_in_processes
from hftn_sr.volumes.files import json_bytes, write_files

RECORD = {
    "software": {"hftn_sr": __version__}, "scale": 2, "reference": {"file": "reference.nii.gz", "used": True}, "similarity": {"value": 1.1},
    "coverage": 1.0,
}  # fmt: skip


def stub(case: Case, options: RunOptions, model: Any, started: float, reporter: Reporter) -> Outcome:
    """Instead of reading, network and saving: two small files, written as results are."""
    del options, model, reporter
    write_files({side_files(case.output)[0]: json_bytes(RECORD), case.output: b"stub"})
    return _outcome(case, time.monotonic() - started)


def _outcome(case: Case, seconds: float) -> Outcome:
    return Outcome(case.name, "done", case.output, "", ("a warning as cases have it",), RECORD, seconds, ("a note",))


run._run = stub  # in every process that imports this script: those of workers do
OPTIONS = RunOptions(preview=False)


def main(
    folder: Annotated[Path, typer.Option(help="Folder to make; in memory (/dev/shm) it takes no time of the disk.")],
    cases: Annotated[int, typer.Option(help="Cases in all.")] = 100_000,
    jobs: Annotated[int, typer.Option(help="Parts that run at the same time, as in a job array.")] = 4,
    shared: Annotated[int, typer.Option(help="Cases for each engine with two workers; 0 for none.")] = 2000,
    find: Annotated[bool, typer.Option(help="Find the cases in their folder, as the command does.")] = True,
) -> None:
    """Run the simulation."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    started = time.monotonic()
    _make(folder / "in", cases)
    typer.echo(f"{cases} cases stand after {time.monotonic() - started:.1f} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    started, used = time.monotonic(), time.process_time()
    if find:
        found, failed = find_cases(folder / "in", folder / "out")
        assert len(found) == cases and not failed
        _tell("found", cases, started, used)
    else:
        found = [_case(folder, number) for number in range(cases)]
    _summary_alone(found, folder / "alone")
    _restore(found, folder / "alone")
    started = time.monotonic()
    parts = [get_context("fork").Process(target=_part, args=(found, folder / "out", number, jobs)) for number in range(1, jobs + 1)]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        assert part.exitcode == 0
    typer.echo(f"{cases} cases in {jobs} parts: {time.monotonic() - started:.1f} s; load {os.getloadavg()[0]:.1f}")
    started, used = time.monotonic(), time.process_time()
    assert merge_summary(folder / "out", [case.name for case in found]) == Merged(cases)
    _tell("merged", cases, started, used)
    rows = json.loads((folder / "out" / "summary.json").read_bytes())["cases"]
    assert [(row["case"], row["status"]) for row in rows] == [(case.name, "done") for case in found]
    left = [path.name for path in (*(folder / "out").glob("*/.*"), *(folder / "out").glob(".*"), *(folder / "out").glob("*.jsonl"))]
    typer.echo(f"locks, parts and journals that are left: {len(left)}")
    if shared:
        few = found[:shared]
        _engine("own workers", partial(run_in_processes, job=Job(OPTIONS), workers=2, reporter=Reporter()), few, folder / "own")
        _dask(few, folder / "dask")


def _make(folder: Path, count: int) -> None:
    first = folder / "p000000"
    first.mkdir(parents=True, exist_ok=True)
    for name in ("target.nii.gz", "reference.nii.gz"):
        (first / name).write_bytes(b"")
    for number in range(1, count):
        place = folder / f"p{number:06d}"
        if not place.exists():
            place.mkdir()
            for name in ("target.nii.gz", "reference.nii.gz"):
                os.link(first / name, place / name)


def _case(folder: Path, number: int) -> Case:
    place = folder / "in" / f"p{number:06d}"
    return Case(place.name, place / "target.nii.gz", place / "reference.nii.gz", folder / "out" / place.name / "target_sr.nii.gz")


def _part(found: list[Case], out: Path, number: int, jobs: int) -> None:
    """What a job of an array does."""
    cases, _ = of_shard(found, [], (number, jobs))
    writer = SummaryWriter(out, [case.name for case in cases], (number, jobs), len(found))
    writer.begin()
    started = mark = time.process_time()
    fifth = len(cases) // 5
    costs = []
    for count, outcome in enumerate(run_cases(cases, OPTIONS, Reporter()), 1):
        assert outcome.status == "done", outcome
        writer.add(outcome)
        if count % fifth == 0:
            now = time.process_time()
            costs.append(f"{(now - mark) / fifth * 1e3:.2f}")
            mark = now
    writer.end()
    whole = (time.process_time() - started) / len(cases) * 1e3
    typer.echo(f"  part {number}: {len(cases)} cases, {whole:.2f} ms of CPU each, by fifths {', '.join(costs)}")


def _summary_alone(found: list[Case], out: Path) -> None:
    """The rows of one process with all cases: what journal and summary take."""
    whole, taken = summary._write, []

    def timed(*arguments: Any) -> None:
        started = time.process_time()
        whole(*arguments)
        taken.append(time.process_time() - started)

    summary._write = timed  # type: ignore[assignment]
    writer = SummaryWriter(out, [case.name for case in found])
    started, used = time.monotonic(), time.process_time()
    writer.begin()
    for case in found:
        writer.add(_outcome(case, 0))
    size = writer.journal.stat().st_size / 1e6
    writer.end()
    summary._write = whole
    _tell("rows kept", len(found), started, used)
    typer.echo(
        f"  of that the summary {sum(taken):.1f} s of CPU in {len(taken)} times, {taken[-1]:.2f} s the last; journal {size:.1f} MB, "
        f"summary.json {(out / 'summary.json').stat().st_size / 1e6:.1f} MB"
    )


def _restore(found: list[Case], out: Path) -> None:
    """A run that was killed: its journal is read, and the summary is made of it."""
    writer = SummaryWriter(out, [case.name for case in found])
    writer._due = lambda: False  # type: ignore[method-assign]
    writer.begin()
    for case in found:
        writer.add(_outcome(case, 0))
    writer._close()
    assert writer._lock
    writer._lock.release()  # as its death does
    started, used = time.monotonic(), time.process_time()
    merged = merge_summary(out, [case.name for case in found])
    assert merged and not merged.missing
    _tell("restored from the journal", len(found), started, used)


def _engine(name: str, engine: Engine, cases: list[Case], out: Path) -> None:
    """What an engine with two workers does in a second, from the second hundred on: workers take seconds to start."""
    cases = [Case(case.name, case.target, case.reference, out / case.name / "target_sr.nii.gz") for case in cases]
    writer = SummaryWriter(out, [case.name for case in cases])
    writer.begin()
    started, warm, own = 0.0, min(100, len(cases) // 2), 0.0
    for number, outcome in enumerate(engine(cases), 1):
        assert outcome.status == "done", outcome
        if number == warm:
            started, own = time.monotonic(), time.process_time()
        writer.add(outcome)
    rate = (len(cases) - warm) / (time.monotonic() - started)
    cpu = (time.process_time() - own) / (len(cases) - warm)
    writer.end()
    typer.echo(
        f"{name}, 2 workers: {rate:.0f} cases a second, {cpu * 1e3:.2f} ms of CPU a case in the parent; load {os.getloadavg()[0]:.1f}"
    )


def _dask(cases: list[Case], out: Path) -> None:
    from distributed import LocalCluster

    from hftn_sr.inference.cluster import Cluster

    # Scheduler, workers and client are threads of this process, so that its CPU time holds the cases, too.
    two = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with LocalCluster(**two) as local, Cluster(local.scheduler_address) as cluster:

        def engine(cases: Any) -> Generator[Outcome, None, None]:
            yield from cluster.run(cases, Job(OPTIONS))

        _engine("Dask, all in one process", engine, cases, out)


def _tell(what: str, count: int, started: float, used: float) -> None:
    wall, cpu = time.monotonic() - started, time.process_time() - used
    typer.echo(f"{what}: {count} in {wall:.1f} s, {cpu / count * 1e3:.3f} ms of CPU each; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    typer.run(main)
