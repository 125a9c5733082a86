"""The shipped study is whole, and its figures come out again where the images are to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from comparison.dataset import dataset_folder
from comparison.reproduction import published_tables, reproduce
from comparison.settings import read_record
from comparison.training import finished_training
from hftn_sr.networks import build_network
from hftn_sr.networks.weights import load_weights

STUDY = Path(__file__).parents[2] / "study"
TABLES = published_tables(STUDY)
RUNS = sorted(STUDY.glob("*/runs/*"))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: str(table.folder.relative_to(STUDY)))
def test_every_row_of_a_published_table_has_its_weights(table):
    assert len(table.trained) >= 6
    assert sorted(table.trained) == [path.name for path in RUNS if path.parents[1] == table.folder.parent]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_weights_of_a_row_are_the_recorded_ones_and_fit_its_network(run):
    trained, settings = finished_training(run), read_record(run / "settings.json")
    assert trained
    assert trained.iterations == settings["iterations"]
    options = {name: value for name, value in settings["options"].items() if name != "scale"}
    load_weights(build_network(settings["method"], settings["scale"], options), trained.weights)


def test_the_study_holds_no_image():
    results = [path for scale in ("x2", "x4") for path in (STUDY / scale).rglob("*") if path.is_file()]
    assert {path.suffix for path in results} <= {".json", ".csv", ".safetensors"}


@pytest.mark.parametrize("table", [table for table in TABLES if table.folder.name == "testing"], ids=lambda table: table.folder.parent.name)
def test_the_figures_of_base_on_the_test_patient_come_out_again(table, mirror, tmp_path):
    found = reproduce(table.only("base"), dataset_folder(mirror, tmp_path), tmp_path)
    scale = table.folder.parent.name
    assert [name for name, _ in found.rows] == [f"zero_filling {scale}", f"base {scale} seed 0"]
    assert found.differing == []
