"""A published comparison is made again from its shipped weights, and what is not the same is said."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comparison import reproduction
from comparison.reproduction import published_tables, reproduce
from comparison.scoring import score_row
from hftn_sr.errors import SOME_FAILED, Fault, UsageFault

ROOT = Path(__file__).parents[2]


def script(name, *arguments):
    return subprocess.run([sys.executable, ROOT / "study" / name, *map(str, arguments)], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def study(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "x2"
    done = script("ship_study.py", "--comparison", finished, "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder.parent


def rows_of(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_shipped_holds_no_image(study, finished):
    assert (finished / "runs" / "edsr_x2_s0" / "view.npz").is_file()
    names = {path.name for path in study.rglob("*") if path.is_file()}
    assert names == {"settings.json", "trained.json", "weights.safetensors", "validation.csv", "published.json", "table.csv", "cases.csv"}


def test_the_study_is_scored_again_to_the_last_digit_and_nothing_in_it_changes(study, finished, synthetic, tmp_path):
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    done = script("compare.py", "--resume", study, "--data", synthetic, "--output", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert "x2/testing: largest difference in PSNR 0.0000 dB" in done.stdout
    assert rows_of(tmp_path / "again" / "x2" / "testing" / "table.csv") == rows_of(finished / "table.csv")
    assert {path: path.read_bytes() for path in study.rglob("*") if path.is_file()} == before


def test_networks_are_built_and_fed_as_in_their_training_whatever_this_version_would_do(study, synthetic, tmp_path, monkeypatch):
    shutil.copytree(study, tmp_path / "study")
    path = tmp_path / "study" / "x2" / "runs" / "early_fusion_x2_s0" / "settings.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"decomposition": "gaussian"}))
    (table,) = published_tables(tmp_path / "study")
    given = {}

    def spy(folder, row, weights, cases, slices, protocol, decomposition, depends, told):
        given[row.method] = (dict(row.options, scale=row.scale), decomposition)
        assert weights is None or (depends["decomposition"], depends["options"]) == (decomposition, dict(row.options))
        return score_row(folder, row, weights, cases, slices, protocol, decomposition, depends, told)

    monkeypatch.setattr(reproduction, "score_row", spy)
    reproduce(table.only("early_fusion"), synthetic, tmp_path / "again")
    assert given["early_fusion"] == (settings["options"], "gaussian")


@pytest.mark.parametrize("option", ["--resume", "--data", "--output"])
def test_an_empty_name_is_not_the_current_folder(option, tmp_path):
    others = [f"{name}={tmp_path / 'again'}" for name in ("--data", "--output") if name != option]
    done = script("compare.py", *([] if option == "--resume" else ["--resume"]), *others, f"{option}=")
    assert done.returncode == 2
    assert f"{option}: no folder is named" in done.stderr
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(("name", "option"), [("measure_robustness.py", "--data"), ("ship_study.py", "--comparison")])
def test_nor_is_it_for_what_reads_a_comparison(name, option):
    done = script(name, f"{option}=")
    assert done.returncode == 2
    assert f"{option}: no folder is named" in done.stderr


def test_a_figure_that_is_not_the_published_one_is_named_and_fails(study, synthetic, tmp_path):
    shutil.copytree(study, tmp_path / "study")
    table = tmp_path / "study" / "x2" / "testing"
    rows = rows_of(table / "table.csv")
    wrong = next(row for row in rows if row["method"] == "edsr")
    wrong["psnr"] = f"{float(wrong['psnr']) + 0.02:.4f}"
    with (table / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = script("compare.py", "--resume", tmp_path / "study", "--data", synthetic, "--output", tmp_path / "again", "--methods", "edsr")
    assert done.returncode == SOME_FAILED
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert line.startswith("ERROR x2/testing: edsr x2 seed 0: psnr ")
    assert line.endswith(wrong["psnr"])


def test_damaged_weights_and_other_images_are_refused(study, synthetic, tmp_path):
    (table,) = published_tables(study)
    shutil.copytree(synthetic, tmp_path / "other")
    (tmp_path / "other" / "reference.nii.gz").write_bytes((synthetic / "target.nii.gz").read_bytes())
    with pytest.raises(Fault, match="its testing images or datalist are not those that were scored"):
        reproduce(table, tmp_path / "other", tmp_path / "again")
    shutil.copytree(study, tmp_path / "study")
    (tmp_path / "study" / "x2" / "runs" / "edsr_x2_s0" / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(Fault, match=r"edsr_x2_s0: its weights or settings are missing, or are not the recorded ones"):
        published_tables(tmp_path / "study")


def without(key):
    def change(text):
        content = json.loads(text)
        del content[key]
        return json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("testing/published.json", without("seen"), r"x2.testing: its published\.json, .* is damaged \(KeyError\('seen'\)\)"),
        ("testing/published.json", without("protocol"), "is damaged"),
        ("testing/published.json", lambda text: text[:-20], "is damaged"),
        ("testing/table.csv", lambda text: text[: len(text) * 2 // 3], "is damaged|lacks rows"),
        ("testing/table.csv", lambda text: text.replace("psnr_without_data_consistency", "alone"), "is damaged"),
        ("testing/table.csv", lambda text: "", "is damaged"),
        ("testing/table.csv", lambda text: text.replace("edsr", "resnet"), "missing, or are not the recorded ones"),
        ("runs/edsr_x2_s0/trained.json", without("minutes"), "is damaged"),
        ("runs/edsr_x2_s0/trained.json", lambda text: "{", r"trained\.json: damaged"),
        ("runs/edsr_x2_s0/settings.json", lambda text: "{}", "its weights or settings are missing"),
        ("runs/edsr_x2_s0/settings.json", without("decomposition"), "its weights or settings are missing"),
        ("runs/edsr_x2_s0/settings.json", lambda text: text.replace('"band"', '"bands"'), "its weights or settings are missing"),
    ],
)
def test_a_damaged_study_is_named_before_anything_is_scored_and_to_be_restored(study, tmp_path, file, change, message):
    shutil.copytree(study, tmp_path / "study")
    path = tmp_path / "study" / "x2" / file
    path.write_text(change(path.read_text()))
    with pytest.raises(Fault, match=f"(?s){message}.*restore the folder from the repository"):
        published_tables(tmp_path / "study")


def test_a_published_table_is_never_replaced(study, finished, synthetic):
    (table,) = published_tables(study)
    for output in (table.folder, finished):
        before = (output / "table.csv").read_bytes()
        with pytest.raises(UsageFault, match="holds the table of a comparison, which would be replaced"):
            reproduce(table, synthetic, output)
        assert (output / "table.csv").read_bytes() == before


def test_what_cannot_be_meant_is_explained(study, finished, tmp_path):
    with pytest.raises(UsageFault, match=r"no published table \(searched"):
        published_tables(tmp_path)
    with pytest.raises(UsageFault, match=r"no runs/ beside it.*ship_study\.py"):
        published_tables(finished)
    (table,) = published_tables(study)
    with pytest.raises(UsageFault, match=r"--methods: sanet is not in .*table\.csv"):
        table.only("edsr,sanet")
    assert [row.method for row in table.only("edsr").rows] == ["zero_filling", "edsr"]


def test_weights_that_are_not_the_recorded_ones_are_not_shipped(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "comparison")
    with (tmp_path / "comparison" / "runs" / "edsr_x2_s0" / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    done = script("ship_study.py", "--comparison", tmp_path / "comparison", "--output", tmp_path / "study")
    assert done.returncode == 9
    assert "edsr_x2_s0: its weights are missing, or are not the recorded ones" in done.stderr
    assert not (tmp_path / "study").exists()
