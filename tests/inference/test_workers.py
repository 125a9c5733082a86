"""Several workers: the same bytes as one process, a worker that dies is replaced, and an end is an end for all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference import memory, workers
from hftn_sr.inference.batch import find_cases, run_cases
from hftn_sr.inference.memory import Demand, available, check_memory, limit_memory
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.workers import Job, check_workers, run_in_processes, run_one


class Deadly(Reporter):
    """Kills the process of case `once` at its first run, and that of case `always` at each, as the system does when memory runs out."""

    def __init__(self, folder):
        self.mark, self.name = folder / "died", ""

    def case(self, name):
        self.name = name

    def slices(self, count):
        if self.name == "always" or (self.name == "once" and not self.mark.exists()):
            if self.name == "once":
                self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Heard(Reporter):
    def __init__(self):
        self.steps = []

    def log(self, step):
        self.steps.append(step)


@pytest.fixture
def cases(tmp_path, put_case):
    """Four cases under their names, one of them damaged, and what one process makes of the good ones."""
    for name in ("always", "bad", "good", "once"):
        put_case(tmp_path / "in" / name)
    (tmp_path / "in" / "bad" / "target.nii.gz").write_bytes(b"")
    return find_cases(tmp_path / "in", tmp_path / "out")[0]


@pytest.fixture
def options(weights):
    return RunOptions(str(weights[2]), preview=False)


def check(tmp_path, found, options):
    """Results are those of one process; the bad case and the deadly one have failed; nothing else is left."""
    assert {name: outcome.status for name, outcome in found.items()} == {
        "always": "failed",
        "bad": "failed",
        "good": "done",
        "once": "done",
    }
    assert "empty file" in found["bad"].message
    again, _ = find_cases(tmp_path / "in", tmp_path / "serial")
    for outcome in run_cases([case for case in again if case.name in ("good", "once")], options, Reporter()):
        assert outcome.output.read_bytes() == (tmp_path / "out" / outcome.case / "target_sr.nii.gz").read_bytes()
    assert [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")] == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_worker_that_is_killed_is_replaced_and_its_case_run_again(tmp_path, cases, options, monkeypatch):
    monkeypatch.setattr(workers, "DEATHS", 2)
    heard = Heard()
    found = {outcome.case: outcome for outcome in run_in_processes(cases, Job(options, Deadly(tmp_path)), 2, heard)}
    assert sorted(heard.steps) == [f"{name}: its worker process ended; another one begins it again" for name in ("always", "once")]
    assert "always/target.nii.gz: its worker process ended 2 times. Fix: try it alone" in found["always"].message
    check(tmp_path, found, options)


class Slow(Reporter):
    def slices(self, count):
        time.sleep(60)


def test_workers_end_with_the_run(tmp_path, cases, options):
    running = run_in_processes(cases[1:3], Job(options, Slow()), 2, Reporter())
    assert next(running).status == "failed"  # the damaged one; the other is within its slices, or soon
    started = time.monotonic()
    running.close()
    while multiprocessing.active_children() and time.monotonic() < started + 50:
        time.sleep(0.1)
    assert time.monotonic() - started < 45, "3 s, and what a very busy machine adds; the case would take a minute"
    assert not list((tmp_path / "out").rglob("target_sr*"))


def test_a_worker_has_its_share_of_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "_status", lambda field: 3 << 30)
    monkeypatch.setattr(memory, "_of_machine", lambda: 64 << 30)
    monkeypatch.setattr(memory, "GROUPS", ())
    limit_memory(16 << 30)
    try:
        assert available() == 13 << 30
        with pytest.raises(Fault, match=r"needs 15.0 GB, 14.0 GB is free\)\. Fix: fewer workers at a time, "):
            check_memory(Path("t.nii"), Demand(18 << 30, 14 << 30, available()))
    finally:
        limit_memory(None)
    assert available() == 64 << 30


def test_more_workers_than_cuda_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_workers(2, "cuda")
    check_workers(8, "cpu")
    with pytest.raises(UsageFault, match=r"3 workers and 2 CUDA devices, .*Fix: --workers 2"):
        check_workers(3, "cuda")


def test_a_worker_of_another_version_or_without_the_folder_refuses_the_job(tmp_path, cases, options):
    with pytest.raises(Fault, match=r"the job comes from 0\.0\. Fix: install the same version everywhere"):
        run_one(cases[0], Job(options, version="0.0"))
    with pytest.raises(Fault, match=r"sees another folder there\. Fix: give --output a folder that all workers share"):
        run_one(cases[0], Job(options, witness=tmp_path / "nowhere" / "summary.0.jsonl"))


def test_the_command_runs_cases_in_workers(tmp_path, cases, command, weights):
    fixed = ("super-resolve", "--cases", tmp_path / "in", "--model", weights[2], "--device", "cpu", "--no-preview", "--workers", "2")
    result = command(*fixed, "--output", tmp_path / "out")
    assert (result.exit_code, result.stdout.count("target_sr.nii.gz")) == (8, 3)
    assert "4 cases: 3 done, 1 failed" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8") or "failed" in (
        tmp_path / "out" / "summary.csv"
    ).read_text(encoding="utf-8")
