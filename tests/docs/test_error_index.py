"""The index of errors says what the commands say."""

import importlib
import re
from pathlib import Path

import pytest

from hftn_sr import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "bundle" / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = [
    [re.sub(r"\\(.)", r"\1", cell.strip()).replace("&lt;", "<") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "---" not in line
]
MESSAGES = [row for row in ROWS if len(row) == 3]


@pytest.fixture(scope="module")
def index():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        yield importlib.import_module("documentation.error_index")


def pattern(text):
    return re.escape(text).replace("…", ".+")


def found_in_index(result):
    """Whether a row has this message with its cure and exit code."""
    return any(
        re.search(rf"{pattern(finding)}\. Fix: (.* or )?{pattern(fix)}", result.stderr) and code == str(result.exit_code)
        for finding, code, fix in MESSAGES
        if not finding.startswith("… (")
    )


def test_the_page_is_what_the_code_says(index):
    assert index.error_index(ROOT / "bundle") == PAGE, "a message changed: make errors"


def test_every_exit_code_is_explained(index):
    assert set(index.CODES) == {name for name in errors.__all__ if name.isupper()}


def test_a_module_of_no_group_is_refused(index, monkeypatch):
    monkeypatch.setattr(index, "GROUPS", index.GROUPS[1:])
    with pytest.raises(errors.Fault, match=r"api\.py: makes messages and belongs to no group"):
        index.error_index(ROOT / "bundle")


def test_messages_met_in_practice_are_in_the_index(command, tmp_path):
    text = tmp_path / "text.nii.gz"
    text.write_text("no image")
    folder = tmp_path / "empty"
    folder.mkdir()
    out = tmp_path / "out.nii.gz"
    met = [
        command("degrade", "--input", text, "--output", out, "--scale", 2),
        command("degrade", "--input", tmp_path / "gone.nii.gz", "--output", out, "--scale", 2),
        command("degrade", "--input", text, "--output", out, "--scale", 3),
        command("super-resolve", "--cases", folder, "--output", tmp_path / "results"),
        command("super-resolve", "--target", text, "--reference", text, "--output", out, "--model", "bse"),
        command("super-resolve", "--bids", folder, "--target", "FLAIR", "--reference", "T2w", "--output", tmp_path / "derived"),
        command("data", "split", "--cases", folder, "--patient", "("),
        command("convert", folder, "--output", tmp_path / "nifti"),
        command("report", "--results", folder),
    ]
    assert [result.stderr for result in met if not found_in_index(result)] == []


def test_the_search_for_messages_follows_names(index, tmp_path):
    (tmp_path / "other.py").write_text('COPY = "copy it again"\n')
    (tmp_path / "found.py").write_text(
        "from hftn_sr.errors import Fault\nfrom hftn_sr.other import COPY\n\n"
        "def read(path, size):\n"
        '    finding = "unused"\n'
        '    finding = f"too small ({size} bytes)" if size else "empty"\n'
        "    raise Fault(path, finding, COPY)\n"
    )
    entries = importlib.import_module("documentation.faults").faults_of(tmp_path, tmp_path)
    assert [(entry.finding, entry.fix, entry.code) for entry in entries] == [
        ("too small (… bytes)", "copy it again", 9),
        ("empty", "copy it again", 9),
    ]
