"""A folder of cases under awkward names, on an awkward disk, interrupted, and run again."""

from __future__ import annotations

import csv
import json
import os
import sys

import pytest

from hftn_sr.errors import Fault, Note, interrupted, printable
from hftn_sr.inference.case import Outcome
from hftn_sr.inference.summary import write_summary


@pytest.fixture
def run(tmp_path, command, weights):
    """Runs the tiny network on the cases in `in`, results in `out`."""
    fixed = ("super-resolve", "--cases", tmp_path / "in", "--output", tmp_path / "out", "--model", weights[2], "--device", "cpu")
    return lambda *arguments: command(*fixed, "--no-preview", *arguments)


def rows(folder):
    """Rows of both summaries by case."""
    with (folder / "summary.csv").open(encoding="utf-8", newline="") as stream:
        table = {row["case"]: row for row in csv.DictReader(stream)}
    return {row["case"]: row for row in json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cases"]}, table


# Run again


def test_a_folder_run_again_keeps_the_rows_of_finished_cases(tmp_path, put_case, run):
    for name in ("a", "b"):
        put_case(tmp_path / "in" / name)
    assert run("--no-report").exit_code == 0
    first, _ = rows(tmp_path / "out")
    (tmp_path / "out" / "b" / "target_sr.nii.gz").unlink()
    again = run()
    assert again.exit_code == 0
    second, table = rows(tmp_path / "out")
    known = {"status": "done before", "message": "the output exists (--overwrite stale or always redoes it)"}
    assert {**second["a"], "seconds": 0} == {**first["a"], **known, "seconds": 0}
    assert second["a"]["scale"] == 2 and second["a"]["similarity"] > 1 and second["a"]["warnings"] and second["a"]["seconds"] > 0
    assert (table["a"]["output"], table["b"]["status"]) == ("target_sr.nii.gz", "done")
    assert "WARNING a " not in again.stderr and "WARNING b " in again.stderr
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "2 cases: 1 done before, 1 done" in page
    assert '<p class="quiet"><strong>Done before:</strong>' in page
    assert run().exit_code == 3


@pytest.mark.parametrize(
    "record", ['{"software": {"hftn_sr": "9"}, "similarity": 3, "coverage": NaN, "scale": [2], "reference": 1}', "[]", ""]
)
def test_an_odd_record_of_a_finished_case_does_not_end_the_run(tmp_path, put_case, run, record):
    put_case(tmp_path / "in" / "a")
    put_case(tmp_path / "in" / "b")
    assert run().exit_code == 0
    (tmp_path / "out" / "a" / "target_sr.json").write_text(record)
    result = run()
    assert result.exit_code in (3, 8) and "internal fault" not in result.stderr
    assert set(rows(tmp_path / "out")[0]) == {"a", "b"}


def test_a_file_without_a_record_in_the_place_of_a_result_is_skipped(tmp_path, put_case, run):
    put_case(tmp_path / "in" / "a")
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "target_sr.nii.gz").write_bytes(b"mine")
    assert run("--no-report").exit_code == 3
    assert rows(tmp_path / "out")[0]["a"]["status"] == "skipped"


# Names


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_utf_8_fails_its_case_and_no_other(tmp_path, put_case, run):
    put_case(tmp_path / "in" / os.fsdecode(b"bad\xff"))
    put_case(tmp_path / "in" / "good")
    result = run()
    assert result.exit_code == 8
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert line == (
        f"ERROR bad\\xff {tmp_path}/in/bad\\xff/target.nii.gz: the name of this file or of a folder above it is not UTF-8. Fix: rename it."
    )
    found, table = rows(tmp_path / "out")
    assert {name: row["status"] for name, row in found.items()} == {"bad\\xff": "failed", "good": "done"}
    assert table["bad\\xff"]["message"] == line.partition("xff ")[2]
    assert "2 cases: 1 failed, 1 done" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses such names")
def test_a_line_break_in_a_name_breaks_no_line(tmp_path, put_case, run):
    target, _ = put_case(tmp_path / "in" / "one\nERROR two\x1b[2J")
    target.write_bytes(b"")
    result = run("--no-report")
    (line,) = result.stderr.splitlines()
    name = "one\\nERROR two\\x1b[2J"
    assert line.startswith(f"ERROR {name} {tmp_path}/in/{name}/target.nii.gz: empty file (0 bytes). Fix: ")


@pytest.mark.parametrize("name", ["=1+1", "+1", "@x", "-1", "\t=1", "'=1", "plain", "a=1"])
def test_no_cell_of_the_table_is_a_formula(tmp_path, name):
    write_summary(tmp_path, [Outcome(name, "failed", tmp_path / "o.nii", "=message", ("-warning",))])
    found, table = rows(tmp_path)
    ((stored, row),) = table.items()
    assert stored == (f"'{name}" if name[0] in "=+@-'" else printable(name))
    assert (row["message"], row["warnings"]) == ("'=message", "'-warning")
    assert found[printable(name)]["message"] == "=message"


def test_every_fault_is_one_line():
    fault = Fault("a\nb", "damaged (text of\r\n a library\u2028)", "c\td")
    assert str(fault) == "a\\nb: damaged (text of\\r\\n a library\\u2028). Fix: c\\td."
    assert printable("é 名 \udcfe") == "é 名 \\xfe"


# A summary that cannot be written


@pytest.mark.parametrize("name", ["summary.json", "summary.csv"])
def test_a_summary_that_cannot_be_written_is_said_once_and_shows_in_the_exit_code(tmp_path, put_case, run, name):
    for case in ("a", "b"):
        put_case(tmp_path / "in" / case)
    (tmp_path / "out" / name).mkdir(parents=True)
    result = run("--no-report")
    assert result.exit_code == 8
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    assert line.startswith(f"ERROR {tmp_path / 'out' / name}: cannot be written")
    assert len(result.stdout.splitlines()) == 2
    other = tmp_path / "out" / ("summary.csv" if name == "summary.json" else "summary.json")
    assert other.read_text(encoding="utf-8").count("target_sr.nii.gz") == 2


def test_a_summary_that_could_not_be_written_for_a_while_leaves_no_trace(tmp_path, put_case, run, monkeypatch):
    from hftn_sr.inference.summary import NewFiles

    calls, write = [], NewFiles.write

    def full_once(self, path, chunks):
        if path.name == "summary.json":
            calls.append(path)
            if len(calls) == 1:
                raise Fault(path, "no space left on the disk (needs 0.1 MB)", "free space or choose another --output")
        return write(self, path, chunks)

    monkeypatch.setattr(NewFiles, "write", full_once)
    for case in ("a", "b"):
        put_case(tmp_path / "in" / case)
    result = run("--no-report")
    assert result.exit_code == 0
    assert result.stderr.count("no space left on the disk") == 1


# Interrupted while something else goes wrong


def failing_write(*_, **__):
    """A disk that is full at the moment of Ctrl-C: the error of the file that is closed takes the place of the interruption."""
    try:
        raise KeyboardInterrupt
    finally:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("where", ["os.fsync", "hftn_sr.inference.result.nifti_chunks", "hftn_sr.inference.run.prepare_pair"])
def test_an_interruption_wins_over_the_fault_that_it_brings_about(tmp_path, put_case, run, monkeypatch, where):
    for case in ("a", "b"):
        put_case(tmp_path / "in" / case)
    with monkeypatch.context() as broken:
        broken.setattr(where, failing_write)
        result = run("--no-report")
    assert result.exit_code == 130
    assert "interrupted after 0 of 2 cases" in result.stderr and "ERROR a" not in result.stderr
    if where != "os.fsync":
        summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
        assert (summary["interrupted"], summary["exit_code"], summary["cases"]) == (True, 130, [])


def test_only_an_error_on_the_way_of_an_interruption_counts_as_one():
    def raised(first, second):
        try:
            try:
                raise first
            except BaseException:
                raise second  # noqa: B904 - the context is what is looked at
        except BaseException as error:
            return error

    assert interrupted(raised(KeyboardInterrupt(), OSError()))
    assert not interrupted(raised(ValueError(), OSError()))


# Notes


def test_a_note_is_told_plainly_and_a_warning_as_such(capsys):
    from hftn_sr.cli.faults import tell

    tell(Note("a.nii: volume 0 of 3"), "a.nii")
    tell(Note("scale 2 chosen"), "a.nii")
    tell("a.nii: sheared axes", "b")
    assert capsys.readouterr().err.splitlines() == ["a.nii: volume 0 of 3", "a.nii scale 2 chosen", "WARNING b a.nii: sheared axes"]
