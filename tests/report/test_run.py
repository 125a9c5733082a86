"""The page of a run is drawn from the run's memory, and is the one that its files give."""

from __future__ import annotations

import io
import json
import shutil

import matplotlib.image
import numpy as np
import pytest

from phantoms import phantom, write_volume


@pytest.fixture
def run(tmp_path, pair, command, weights):
    """A run by the command; the reference lies on a grid of its own."""
    target, _ = pair(2, (64, 72, 10))
    files = {
        "--target": write_volume(tmp_path / "target.nii.gz", target),
        "--reference": write_volume(tmp_path / "reference.nii.gz", phantom((60, 66, 12), (1.1, 1.1, 2.5), "reference")),
    }
    named = [word for pair in files.items() for word in pair]
    output = tmp_path / "out" / "sr.nii.gz"
    made = command("super-resolve", *named, "--output", output, "--scale", 2, "--model", weights[2], "--no-preview")
    assert made.exit_code == 0, made.stderr
    return output, named


def content(folder):
    """The entry of the page's only case, and its pictures by name."""
    (entry,) = folder.glob("report_files/case_*/entry.json")
    pictures = {path.name: matplotlib.image.imread(io.BytesIO(path.read_bytes())) for path in sorted(entry.parent.glob("*.png"))}
    return json.loads(entry.read_text(encoding="utf-8")), pictures


def test_the_page_of_a_run_is_the_one_that_its_files_give(run, command):
    output, named = run
    entry, pictures = content(output.parent)
    shutil.rmtree(output.parent / "report_files")
    assert command("report", "--results", output, *named).exit_code == 0
    again, drawn = content(output.parent)
    for each in (entry, again):
        each.pop("name"), each["made_of"].pop("name")  # the run calls a case by its target
        each["viewer"].pop("megabytes")
    assert entry == again
    assert pictures.keys() == drawn.keys() and pictures
    for name, picture in pictures.items():
        assert np.abs(picture - drawn[name]).max() < 0.02


def test_the_page_of_a_run_does_not_read_the_images_again(tmp_path, put_case, command, weights, monkeypatch):
    monkeypatch.setattr("hftn_sr.report.entry.open_images", None)
    target, reference = put_case(tmp_path, 2, (64, 72, 10))
    arguments = ("--target", target, "--reference", reference, "--output", tmp_path / "out" / "sr.nii.gz", "--model", weights[2])
    made = command("super-resolve", *arguments)
    assert "no report" not in made.stderr
    assert content(tmp_path / "out")[0]["pictures"]


def test_another_program_s_page_is_left_alone_by_a_run(tmp_path, put_case, command, weights):
    target, reference = put_case(tmp_path)
    page = tmp_path / "out" / "report.html"
    page.parent.mkdir()
    page.write_text("precious", encoding="utf-8")
    arguments = ("--target", target, "--reference", reference, "--output", tmp_path / "out" / "sr.nii.gz", "--model", weights[2])
    made = command("super-resolve", *arguments)
    assert made.exit_code == 0
    assert "WARNING no report: " in made.stderr and "is not of this program" in made.stderr
    assert page.read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "out" / "report_files").exists()
