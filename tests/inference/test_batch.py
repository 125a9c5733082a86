"""Many cases: a bad one does not stop the rest, and the summary always says how it stands."""

from __future__ import annotations

import csv
import json

import pytest
import torch

import hftn_sr
from hftn_sr.errors import Fault, NothingToDo
from hftn_sr.inference import batch
from hftn_sr.inference.batch import find_cases, run_cases
from hftn_sr.inference.case import Outcome
from hftn_sr.inference.options import RunOptions
from hftn_sr.inference.reporter import Reporter
from hftn_sr.inference.summary import exit_code, write_summary


@pytest.fixture
def options(weights):
    return RunOptions(str(weights[2]), preview=False)


def outcomes(*states):
    return [Outcome(f"case {index}", state, batch.Path("target_sr.nii.gz")) for index, state in enumerate(states)]


class Heard(Reporter):
    def __init__(self):
        self.calls = []

    def begin(self, cases):
        self.calls.append(("begin", cases))

    def case(self, name):
        self.calls.append(("case", name))

    def slices(self, count):
        self.calls.append(("slices", count))

    def end(self, outcome):
        self.calls.append(("end", outcome.case, outcome.status))


# Finding


def test_each_sub_folder_with_both_images_is_a_case_and_the_tree_is_mirrored(tmp_path, put_case):
    for name in ("b", "a [1] ü"):
        put_case(tmp_path / "in" / name)
    cases, failed = find_cases(tmp_path / "in", tmp_path / "out")
    assert [case.name for case in cases] == ["a [1] ü", "b"]
    assert cases[0].output == tmp_path / "out" / "a [1] ü" / "target_sr.nii.gz"
    assert (cases[0].target.name, cases[0].reference.name, cases[0].transform) == ("target.nii.gz", "reference.nii.gz", None)
    assert failed == []


@pytest.mark.parametrize("suffix", [".txt", ".tfm", ".mat", ".h5"])
def test_a_transform_in_the_case_folder_belongs_to_the_case(tmp_path, put_case, suffix):
    put_case(tmp_path / "a")
    (tmp_path / "a" / f"reference_transform{suffix}").touch()
    (case,), _ = find_cases(tmp_path, tmp_path / "out")
    assert case.transform == tmp_path / "a" / f"reference_transform{suffix}"


def test_incomplete_and_ambiguous_cases_are_listed_as_failed(tmp_path, put_case):
    for name in ("good", "no reference", "no target", "two targets", "two transforms", "neither"):
        put_case(tmp_path / name)
    (tmp_path / "no reference" / "reference.nii.gz").unlink()
    (tmp_path / "no target" / "target.nii.gz").unlink()
    (tmp_path / "two targets" / "target.nii").touch()
    for suffix in ("txt", "mat"):
        (tmp_path / "two transforms" / f"reference_transform.{suffix}").touch()
    for file in (tmp_path / "neither").iterdir():
        file.unlink()
    cases, failed = find_cases(tmp_path, tmp_path / "out")
    assert [case.name for case in cases] == ["good"]
    messages = {outcome.case: outcome.message for outcome in failed}
    assert set(messages) == {"no reference", "no target", "two targets", "two transforms"}
    assert "no reference (searched reference.nii.gz and the like, and reference/ for DICOM)" in messages["no reference"]
    assert "no target (searched target.nii.gz and the like, and target/ for DICOM)" in messages["no target"]
    assert "ambiguous: target.nii.gz and target.nii. Fix: keep one of them" in messages["two targets"]
    assert "ambiguous: reference_transform.txt and reference_transform.mat" in messages["two transforms"]


def test_a_folder_without_cases_names_the_pattern_that_was_searched(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "target.nii.gz").touch()
    with pytest.raises(
        NothingToDo, match=r"no case found \(searched \*/target\.nii\.gz with \*/reference\.nii\.gz and the like, or folders of DICOM\)"
    ):
        find_cases(tmp_path, tmp_path / "out")


def test_a_missing_folder_is_a_fault(tmp_path):
    with pytest.raises(Fault, match="no such folder"):
        find_cases(tmp_path / "nowhere", tmp_path / "out")


def test_hidden_folders_are_no_cases(tmp_path, put_case):
    put_case(tmp_path / ".cache")
    with pytest.raises(NothingToDo):
        find_cases(tmp_path, tmp_path / "out")


# Running


def test_a_bad_case_does_not_stop_the_rest_and_the_model_is_loaded_once(tmp_path, put_case, options, monkeypatch):
    for name in ("a", "b", "c", "d"):
        put_case(tmp_path / name)
    (tmp_path / "b" / "target.nii.gz").write_bytes(b"")
    (tmp_path / "d" / "reference.nii.gz").unlink()
    loaded, load = [], batch.load_model
    monkeypatch.setattr(batch, "load_model", lambda *arguments: loaded.append(arguments) or load(*arguments))
    heard = Heard()
    cases, known = find_cases(tmp_path, tmp_path / "out")
    done = {outcome.case: outcome for outcome in run_cases(cases, options, heard, known)}
    assert {name: outcome.status for name, outcome in done.items()} == {"d": "failed", "a": "done", "b": "failed", "c": "done"}
    assert "target.nii.gz: empty file" in done["b"].message
    assert exit_code(list(done.values())) == 8
    assert len(loaded) == 1
    assert heard.calls[:3] == [("begin", 4), ("end", "d", "failed"), ("case", "a")]
    assert heard.calls[3:5] == [("slices", 4), ("end", "a", "done")]
    for name in ("a", "c"):
        assert (tmp_path / "out" / name / "target_sr.nii.gz").stat().st_size
    assert not (tmp_path / "out" / "b" / "target_sr.nii.gz").exists()


def test_the_api_runs_the_cases_of_a_folder(tmp_path, put_case, weights):
    put_case(tmp_path / "in" / "a")
    put_case(tmp_path / "in" / "b")[1].unlink()
    cases, failed = hftn_sr.find_cases(str(tmp_path / "in"), str(tmp_path / "out"))
    options = hftn_sr.run_options(str(weights[2]), "cpu", preview=False)
    states = {outcome.case: outcome.status for outcome in hftn_sr.super_resolve_cases(cases, options, failed=failed)}
    assert states == {"b": "failed", "a": "done"}
    assert (tmp_path / "out" / "a" / "target_sr.nii.gz").is_file()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(), "not enough memory for this case. Fix: close other programs"),
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory for this case"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"),
            "not enough memory for this case",
        ),
        (OSError(5, "Input/output error"), "the system refused ([Errno 5] Input/output error). Fix: check the disk"),
        (ZeroDivisionError("by zero"), "internal fault, ZeroDivisionError: by zero. Fix: run again with --debug"),
    ],
)
def test_an_error_that_nobody_foresaw_fails_its_case_only(tmp_path, put_case, options, monkeypatch, error, message):
    for name in ("a", "b"):
        put_case(tmp_path / name)
    run = batch.run_case

    def failing(case, *arguments):
        if case.name == "a":
            raise error
        return run(case, *arguments)

    monkeypatch.setattr(batch, "run_case", failing)
    cases, _ = find_cases(tmp_path, tmp_path / "out")
    first, second = run_cases(cases, options, Reporter())
    assert (first.status, second.status) == ("failed", "done")
    assert f"{tmp_path / 'a' / 'target.nii.gz'}: {message}" in first.message
    with pytest.raises(type(error)):
        list(run_cases(cases, options, Reporter(), strict=True))


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["done", "done"], 0), (["done", "done before"], 0), (["planned", "planned"], 0), (["skipped", "done before"], 3),
        (["done", "failed"], 8), (["skipped", "failed"], 8), (["failed", "failed"], 9),
    ],
)  # fmt: skip
def test_the_exit_code_differs_for_all_some_and_none(states, code):
    assert exit_code(outcomes(*states)) == code


# Summing up


def test_the_summary_holds_a_row_for_each_case_in_both_formats(tmp_path):
    record = {"scale": 2, "reference": {"file": "r.nii", "used": False}, "similarity": {"value": 1.2}, "coverage": 0.93}
    done = Outcome("ü, [1]", "done", tmp_path / "target_sr.nii.gz", "", ("first", "second"), record, 1.234, ("a third",))
    failed = Outcome("b", "failed", tmp_path / "target_sr.nii.gz", "x: empty file. Fix: y.")
    write_summary(tmp_path, [done, failed])
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["interrupted"], summary["exit_code"]) == (False, 8)
    assert summary["cases"][0] == {
        "case": "ü, [1]", "status": "done", "output": "target_sr.nii.gz", "scale": 2, "reference": "left out", "similarity": 1.2,
        "coverage": 0.93, "seconds": 1.23, "warnings": "first; second", "message": "", "notes": "a third", "uncertainty_mean": "",
    }  # fmt: skip
    with (tmp_path / "summary.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == ["ü, [1]", "b"]
    assert rows[1]["message"] == "x: empty file. Fix: y."
    assert {key: str(value) for key, value in summary["cases"][0].items()} == rows[0]


@pytest.mark.parametrize("states", [[], ["done"]])
def test_the_summary_of_an_interrupted_run_says_so(tmp_path, states):
    write_summary(tmp_path, outcomes(*states), interrupted=True)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert (summary["interrupted"], summary["exit_code"], len(summary["cases"])) == (True, 130, len(states))
    assert (tmp_path / "summary.csv").is_file()
