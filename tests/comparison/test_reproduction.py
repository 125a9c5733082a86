"""A published comparison is made again from its shipped weights, and what is not the same is said."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hftn_sr.comparison.reproduction import published_tables, reproduce
from hftn_sr.errors import SOME_FAILED, Fault, UsageFault

ROOT = Path(__file__).parents[2]


def script(name, *arguments):
    return subprocess.run([sys.executable, ROOT / "scripts" / name, *map(str, arguments)], capture_output=True, text=True, timeout=600)


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


def test_a_figure_that_is_not_the_published_one_is_named_and_fails(study, synthetic, tmp_path):
    shutil.copytree(study, tmp_path / "study")
    (table,) = published_tables(tmp_path / "study")
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
    assert line.startswith("ERROR x2/testing: edsr x2: psnr ")
    assert line.endswith(wrong["psnr"])


def test_damaged_weights_and_other_images_are_refused(study, synthetic, tmp_path):
    shutil.copytree(study, tmp_path / "study")
    (table,) = published_tables(tmp_path / "study")
    (tmp_path / "study" / "x2" / "runs" / "edsr_x2_s0" / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(Fault, match=r"edsr_x2_s0: its weights are missing, or are not the recorded ones"):
        reproduce(table, synthetic, tmp_path / "again")
    reproduce(table, synthetic, tmp_path / "again", "early_fusion")
    shutil.copytree(synthetic, tmp_path / "other")
    (tmp_path / "other" / "reference.nii.gz").write_bytes((synthetic / "target.nii.gz").read_bytes())
    with pytest.raises(Fault, match="its testing images are not those that were scored"):
        reproduce(table, tmp_path / "other", tmp_path / "again", "early_fusion")


def test_a_folder_without_a_published_table_and_a_method_that_is_not_in_it_are_explained(study, synthetic, tmp_path):
    with pytest.raises(UsageFault, match=r"no published table \(searched"):
        published_tables(tmp_path)
    with pytest.raises(UsageFault, match="sanet is not in"):
        reproduce(*published_tables(study), synthetic, tmp_path, "sanet")
