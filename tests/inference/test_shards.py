"""Parts of the cases: disjoint, complete, and named by the user or by Slurm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftn_sr.errors import UsageFault
from hftn_sr.inference.case import Case, Outcome
from hftn_sr.inference.shards import choose_shard, of_shard


@given(st.sets(st.text(min_size=1)), st.sets(st.text(min_size=1)), st.integers(1, 9))
def test_every_case_is_in_one_shard_and_shards_differ_by_one_case_at_most(good, bad, count):
    cases = [Case(name, Path("t"), None, Path("o")) for name in good - bad]
    failed = [Outcome(name, "failed", Path("o")) for name in bad]
    parts = [of_shard(cases, failed, (number, count)) for number in range(1, count + 1)]
    assert sorted(case.name for own, _ in parts for case in own) == sorted(good - bad)
    assert sorted(outcome.case for _, own in parts for outcome in own) == sorted(bad)
    sizes = [len(own) + len(known) for own, known in parts]
    assert max(sizes) - min(sizes) <= 1


def array(task, count, first, last):
    return {
        f"SLURM_ARRAY_TASK_{name}": str(value)
        for name, value in zip(("ID", "COUNT", "MIN", "MAX"), (task, count, first, last), strict=True)
    }


@pytest.mark.parametrize(
    ("task", "shard"), [((1, 4, 1, 4), (1, 4)), ((4, 4, 1, 4), (4, 4)), ((0, 3, 0, 2), (1, 3)), ((2, 3, 0, 2), (3, 3))]
)
def test_slurm_names_the_shard(task, shard):
    assert choose_shard("slurm", array(*task)) == shard
    assert choose_shard(f"{shard[0]}/{shard[1]}") == shard


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ("0/4", {}, r"--shard: 0/4 \(I counts from 1 to N\)\. Fix: --shard 1/4 to --shard 4/4\."),
        ("5/4", {}, r"5/4 \(I counts from 1 to N\)"),
        ("1/0", {}, r"1/0 \(I counts from 1 to N\)"),
        ("2", {}, r"'2' \(need I/N, or slurm\)"),
        ("slurm", {}, r"SLURM_ARRAY_TASK_ID is not set: no Slurm job array\. Fix: sbatch --array=1-4, or --shard I/N"),
        ("slurm", array(3, 1, 3, 3), r"1 tasks numbered 3 to 3: which part task 3 is, .*--shard \$SLURM_ARRAY_TASK_ID/N"),
        ("slurm", array(7, 3, 1, 7), r"the array has 3 tasks numbered 1 to 7"),
    ],
)
def test_what_names_no_shard_is_refused(given, environment, message):
    with pytest.raises(UsageFault, match=message):
        choose_shard(given, environment)


def test_two_shards_and_a_report_are_one_run(tmp_path, put_case, command, weights, monkeypatch):
    for name in ("a", "b", "c", "d", "e"):
        put_case(tmp_path / "in" / name)
    (tmp_path / "in" / "d" / "target.nii.gz").write_bytes(b"")
    (tmp_path / "in" / "e" / "reference.nii.gz").unlink()
    fixed = ("super-resolve", "--cases", tmp_path / "in", "--model", weights[2], "--device", "cpu", "--no-preview")
    assert command(*fixed, "--output", tmp_path / "whole").exit_code == 8
    out = tmp_path / "parts"
    first = command(*fixed, "--output", out, "--shard", "1/2")
    assert (first.exit_code, "shard 1 of 2: 3 of 5 cases" in first.stderr) == (8, True)
    assert not (out / "summary.json").exists() and not (out / "report.html").exists()
    early = command("report", "--results", out, "--cases", tmp_path / "in")
    assert early.exit_code == 8
    assert f"ERROR {out}: 2 of 5 cases were not done: b, d, shards 2/2 are not over. Fix: run shard 2/2 again." in early.stderr
    for name, value in array(2, 2, 1, 2).items():
        monkeypatch.setenv(name, value)
    assert command(*fixed, "--output", out, "--shard", "slurm").exit_code == 8
    last = command("report", "--results", out, "--cases", tmp_path / "in")
    assert (last.exit_code, f"{out}: 5 cases in one summary, none is missing" in last.stderr) == (0, True)

    def kept(folder):
        rows = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cases"]
        return {row["case"]: {**row, "seconds": 0} for row in rows}

    assert kept(out) == kept(tmp_path / "whole")
    for name in ("a", "b", "c"):
        file = Path(name) / "target_sr.nii.gz"
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert [path.name for path in out.rglob("*.jsonl")] == []
    assert "5 cases" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        (("--target", "t.nii", "--shard", "1/2"), "--shard: needs --cases or --bids"),
        (("--target", "t.nii", "--workers", "2"), "--workers: needs --cases or --bids"),
        (("--target", "t.nii", "--scheduler", "tcp://x:1"), "--scheduler: needs --cases or --bids"),
        (("--cases", "in", "--scheduler", "tcp://x:1", "--shard", "1/2"), "--shard: does not go with --scheduler"),
        (("--cases", "in", "--scheduler", "tcp://x:1", "--workers", "2"), "--workers: does not go with --scheduler"),
    ],
)
def test_options_for_many_cases_that_exclude_each_other_are_refused(command, tmp_path, options, finding):
    result = command("super-resolve", "--output", tmp_path / "out", *options)
    assert (result.exit_code, finding in result.stderr) == (2, True)
