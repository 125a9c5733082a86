"""A Dask cluster: the same bytes as one process, a worker that dies costs nothing, and what is missing is said in one line."""

from __future__ import annotations

import ast
import re
import signal
import sys

import pytest
from test_workers import Deadly, cases, check, options  # noqa: F401 - fixtures

from hftn_sr._bundle import BUNDLE
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.inference import cluster
from hftn_sr.inference.cluster import Cluster
from hftn_sr.inference.workers import Job


@pytest.fixture
def distributed():
    """Dask, quiet and quick to fail."""
    distributed = pytest.importorskip("distributed", reason="needs the extra hftn-sr[cluster]")
    import dask

    with dask.config.set({"distributed.scheduler.allowed-failures": 0, "logging.distributed": "critical"}):
        yield distributed


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_worker_that_is_killed_costs_no_result(tmp_path, cases, options, distributed):  # noqa: F811
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        Cluster(local.scheduler_address) as own,
    ):
        assert own.workers() == 2
        found = {outcome.case: outcome for outcome in own.run(cases, Job(options, Deadly(tmp_path)))}
    assert "always/target.nii.gz: its workers ended, tcp://127.0.0.1:" in found["always"].message
    check(tmp_path, found, options)


def test_the_command_runs_cases_on_a_cluster_and_keeps_to_its_limits(tmp_path, cases, command, weights, distributed, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cluster, "AHEAD", 2)
    fixed = (
        "super-resolve",
        "--cases",
        tmp_path / "in",
        "--output",
        tmp_path / "out",
        "--model",
        weights[2],
        "--device",
        "cpu",
        "--no-preview",
    )
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        result = command(*fixed, "--scheduler", local.scheduler_address)
        assert (result.exit_code, result.stdout.count("target_sr.nii.gz")) == (8, 3)
        assert "2 workers" in result.stderr
        assert "4 cases" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
        assert command(*fixed, "--scheduler", local.scheduler_address).stdout == "", "all done before"
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as local:
        result = command(*fixed, "--scheduler", local.scheduler_address)
        assert (result.exit_code, "Fix: start them by dask worker --nworkers 8 --nthreads 1" in result.stderr) == (2, True)


def test_all_workers_load_the_program_at_once(distributed):
    def loaded():
        return "hftn_sr.inference.run" in sys.modules

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        distributed.Client(local.scheduler_address, set_as_default=False) as client,
    ):
        assert set(client.run(loaded).values()) == {False}
        with Cluster(local.scheduler_address) as own:
            assert len([future.result(timeout=120) for future in own._loading]) == 2
        assert set(client.run(loaded).values()) == {True}


def test_the_example_is_measured_and_described_with_its_own_settings():
    repository = BUNDLE.parent
    told = {}
    for file in ("examples/dask_cluster.py", "scripts/measure_efficiency.py"):
        (value,) = re.findall(r"^SPARING = (\{.*?^\})", (repository / file).read_text(encoding="utf-8"), flags=re.M | re.S)
        told[file] = ast.literal_eval(value)
    (settings, other) = told.values()
    assert settings == other
    documented = (BUNDLE / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert all(f"{name}={value}" in documented for name, value in settings.items())


def test_a_scheduler_that_does_not_answer_is_one_line(distributed, monkeypatch):
    monkeypatch.setattr(cluster, "REACH", 1)
    with pytest.raises(Fault, match=r"tcp://127.0.0.1:9: no Dask scheduler answers \(.*\)\. Fix: start one: dask scheduler --port 8786\."):
        Cluster("tcp://127.0.0.1:9")
    with pytest.raises(Fault, match=r"nowhere\.json: no such file\. Fix: start one: dask scheduler --scheduler-file nowhere\.json"):
        Cluster("nowhere.json")


def test_dask_that_is_not_installed_is_one_line(command, tmp_path, put_case, monkeypatch):
    put_case(tmp_path / "in" / "a")
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = command("super-resolve", "--cases", tmp_path / "in", "--output", tmp_path / "out", "--scheduler", "tcp://x:1")
    line = "ERROR --scheduler: needs Dask, which is not installed. Fix: pip install 'hftn-sr[cluster]'."
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, line)
    with pytest.raises(UsageFault):
        Cluster("tcp://x:1")
