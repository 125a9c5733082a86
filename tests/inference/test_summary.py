"""The journal of a run: no row is lost, whatever ends it, and the summary is not written whole for each case."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from hftn_sr.errors import Fault
from hftn_sr.inference import summary
from hftn_sr.inference.case import Outcome
from hftn_sr.inference.summary import SummaryWriter, merge_summary


def outcome(name, status="done", message=""):
    return Outcome(name, status, Path(name) / "target_sr.nii.gz", message)


def states(folder):
    return {row["case"]: row["status"] for row in json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cases"]}


def left_in(folder):
    return {path.name for path in folder.iterdir()} - {"summary.json", "summary.csv"}


def killed(folder, *names, shard=None):
    """A run, as of many cases, that is killed within its last case."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    child = os.fork()
    if child == 0:
        writer = SummaryWriter(folder, names, shard, 6)
        writer.begin()
        for name in names[:-1]:
            writer.add(outcome(name))
            writer._cost = 1e9  # so that the summary is not due again
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_a_killed_run_did_is_in_the_next_summary(tmp_path):
    killed(tmp_path, "a", "b", "c", "d")
    assert set(states(tmp_path)) == {"a"}, "the rest is in the journal alone"
    (journal,) = tmp_path.glob("summary.*.jsonl")
    with journal.open("ab") as stream:
        stream.write(b'{"case": "d", "stat')  # as a power cut leaves it
    writer = SummaryWriter(tmp_path, ["a", "b", "c", "d"])
    writer.begin()
    writer.add(outcome("a", "done before"))
    assert states(tmp_path) == {"a": "done before", "b": "done", "c": "done"}
    writer.end(interrupted=True)
    assert left_in(tmp_path) == set()
    again = SummaryWriter(tmp_path, ["a", "b", "c", "d"])
    again.begin()
    again.add(outcome("a", "failed"))
    again.end()
    assert states(tmp_path) == {"a": "failed", "b": "done", "c": "done"}


def test_the_report_restores_what_a_killed_run_did(tmp_path):
    killed(tmp_path, "a", "b", "c")
    merged = merge_summary(tmp_path)
    assert (merged.missing, merged.cases) == (("c",), 3)
    assert states(tmp_path) == {"a": "done", "b": "done", "c": "missing"}
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["exit_code"] == 130
    assert left_in(tmp_path) == set()
    assert merge_summary(tmp_path) is None


def test_shards_are_merged_and_those_that_are_missing_are_told(tmp_path):
    names = ["a", "b", "c", "d", "e", "f"]
    for number in (1, 2):
        writer = SummaryWriter(tmp_path, names[number - 1 :: 3], (number, 3), 6)
        writer.begin()
        for name in names[number - 1 :: 3]:
            writer.add(outcome(name, "failed" if name == "b" else "done"))
        writer.end()
    assert not (tmp_path / "summary.json").exists()
    merged = merge_summary(tmp_path)
    assert (merged.missing, merged.unnamed, merged.shards) == ((), 2, ("3/3",))
    assert merge_summary(tmp_path, names).missing == ("c", "f")
    killed(tmp_path, "c", "f", shard=(3, 3))
    assert merge_summary(tmp_path, names) == summary.Merged(6, ("f",), 0, ("3/3",))
    last = SummaryWriter(tmp_path, ["c", "f"], (3, 3), 6)
    last.begin()
    last.add(outcome("c", "done before"))
    last.add(outcome("f"))
    last.end()
    assert merge_summary(tmp_path, names) == summary.Merged(6)
    assert states(tmp_path) == dict.fromkeys(names, "done") | {"b": "failed", "c": "done before"}
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["exit_code"] == 8
    assert left_in(tmp_path) == set()


def test_a_shard_is_done_by_one_run_at_a_time(tmp_path):
    first, second = (SummaryWriter(tmp_path, ["a"], (1, 2), 2) for _ in range(2))
    first.begin()
    with pytest.raises(Fault, match=r"summary\.1of2\.jsonl: another run does this shard\. Fix: wait for it to end"):
        second.begin()
    told = []
    merge_summary(tmp_path, ["a"], told.append)
    assert told == [f"{tmp_path / 'summary.1of2.jsonl'}: this run still goes on, the summary is as far as it got"]
    first.end()
    second.begin()
    second.end()


def test_what_runs_left_before_their_first_line_was_whole_is_removed(tmp_path):
    (tmp_path / "summary.0123abcd.jsonl").touch()
    (tmp_path / ".summary.0123abcd.jsonl.lock").touch()
    (tmp_path / "summary.89abcdef.jsonl").write_text('{"hftn_sr": "0.1.0", "sha')
    (tmp_path / ".summary.fedcba98.jsonl.lock").touch()
    beginning = SummaryWriter(tmp_path, ["b"])
    beginning._waiting.clear()  # another run, whose first line the disk has not taken yet
    beginning.begin()
    writer = SummaryWriter(tmp_path, ["a"])
    writer.begin()
    writer.add(outcome("a"))
    writer.end()
    assert left_in(tmp_path) == {beginning.journal.name, f".{beginning.journal.name}.lock"}
    beginning.end()
    assert left_in(tmp_path) == set()


def test_a_run_leaves_the_journals_of_others_alone(tmp_path):
    foreign = tmp_path / "summary.of_mine.jsonl"
    foreign.write_text('{"case": "x"}\n')
    other, own = SummaryWriter(tmp_path, ["b"]), SummaryWriter(tmp_path, ["a"])
    other.begin()
    other.add(outcome("b"))
    own.begin()
    own.add(outcome("a"))
    own.end()
    assert states(tmp_path) == {"a": "done"}
    assert other.journal.exists()
    other.end()
    assert (states(tmp_path), left_in(tmp_path)) == ({"b": "done"}, {foreign.name})


def test_a_row_that_the_disk_did_not_take_is_written_with_the_next(tmp_path, monkeypatch):
    writer = SummaryWriter(tmp_path, ["a", "b"], (1, 1), 2)
    writer.begin()

    class Full:
        def __init__(self, stream):
            self.stream, self.full = stream, True

        def write(self, data):
            if self.full:
                self.full = False
                self.stream.write(data[:10])
                raise OSError(28, "No space left on device")
            return self.stream.write(data)

        def close(self):
            self.stream.close()

    writer._stream = Full(writer._stream)
    with pytest.raises(Fault, match="no space left on the disk"):
        writer.add(outcome("a"))
    writer.add(outcome("b"))
    writer.end(interrupted=True)
    merge_summary(tmp_path)
    assert states(tmp_path) == {"a": "done", "b": "done"}


def test_the_summary_of_short_cases_is_written_whole_now_and_then_only(tmp_path, monkeypatch):
    clock, written = [0.0], []
    monkeypatch.setattr(summary.time, "monotonic", lambda: clock[0])

    def slow(folder, rows, *_):
        written.append(len(rows))
        clock[0] += len(rows) * 1e-5  # seconds, in proportion to its length

    monkeypatch.setattr(summary, "_write", slow)
    writer = SummaryWriter(tmp_path, [str(number) for number in range(2000)], None)
    writer.begin()
    for number in range(2000):
        clock[0] += 0.005
        writer.add(outcome(str(number)))
    assert written[0] == 1
    assert 20 < len(written) < 200, "at most 2 % of 10 s"
    assert sum(written) * 1e-5 <= 0.021 * clock[0]
    writer.end()
    assert written[-1] == 2000
