"""The figures of the study are drawn from its published files."""

import importlib
from pathlib import Path

import pytest

from comparison.figures import validation_gain
from comparison.recording import read_table
from comparison.robustness_table import gain_picture

STUDY = Path(__file__).parents[2] / "study"


def test_the_gain_during_training_ends_at_the_last_step():
    steps, gains = validation_gain(STUDY / "x4" / "runs" / "base_x4_s0", 4000)
    assert steps == [500, 1000, 1500, 2000, 2500, 3000, 3500, 4000]
    assert gains[0] < gains[-1] == pytest.approx(3.4817, abs=1e-4)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_published_robustness_is_whole_and_can_be_drawn(scale):
    lines = read_table(STUDY / f"x{scale}" / "robustness.csv")
    methods = {line["method"] for line in lines}
    assert methods == {line["method"] for line in read_table(STUDY / f"x{scale}" / "validation" / "table.csv")} - {"cubic"}
    assert len(lines) == 19 * len(methods)
    assert gain_picture(lines, "heading").startswith(b"\x89PNG")


def test_the_drawing_command_writes_its_figures(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(STUDY))
    importlib.import_module("draw_study").main(tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"study_ranking.png", *(f"study_x{scale}_{kind}.png" for scale in (2, 4) for kind in ("curves", "robustness"))}
