"""The cost of a whole job, as study/measure_job.py tells it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.resampling import same_grid


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "study"))
    return importlib.import_module("measure_job")


def test_a_reference_lies_on_the_grid_of_the_result_and_another_is_turned_against_it(script, tmp_path):
    script.put_pairs(tmp_path, 64, 4, [2])
    target, same, turned = (read_nifti(tmp_path / f"{name}.nii.gz") for name in ("target_x2", "same grid", "turned"))
    result = target.grid.finer(2, 2)
    assert result.shape == (64, 64, 4) and same_grid(same.grid, result)
    assert turned.grid.shape == result.shape and not same_grid(turned.grid, result)
    np.testing.assert_allclose(turned.grid.spacing, result.spacing, rtol=0.01)


def test_the_share_outside_the_network_stands_beside_its_bound(script, monkeypatch, tmp_path):
    seconds = {"start": 9.0, "read_and_place": 1.0, "network": 3.0, "restore_and_save": 0.5, "page": 9.0}
    monkeypatch.setattr(script, "put_pairs", lambda *_: None)
    monkeypatch.setattr(script, "run_job", lambda *_: seconds)
    app = typer.Typer()
    app.command()(script.main)
    done = CliRunner().invoke(app, ["--scales", "4", "--output", str(tmp_path / "job.json")])
    assert done.exit_code == 0, done.output
    assert done.output.count("33% (bound 40%, kept)") == 2 and done.output.count("33% (bound 15%, missed)") == 2
    written = json.loads((tmp_path / "job.json").read_text())
    assert [row["outside"] for row in written["rows"]] == [pytest.approx(1 / 3)] * 4
