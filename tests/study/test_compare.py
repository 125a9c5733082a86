"""A comparison as a user makes it: complete, the same after any interruption, refused where it would mix what does not belong together."""

import csv
import json
import math
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import filelock
import matplotlib.image
import pytest
import safetensors.torch
import torch
from small_comparison import SMALL, small

from comparison import run
from comparison.dataset import dataset_folder
from comparison.recording import TRAINING, VALIDATION, read_table
from comparison.rows import Row
from comparison.run import compare
from comparison.settings import data_digest
from hftn_sr.errors import Fault, UsageFault
from hftn_sr.pairs.datalist import load_datalist

SCRIPT = Path(__file__).parents[2] / "study" / "compare.py"
COLUMNS = [
    "method",
    "scale",
    "protocol",
    "psnr",
    "psnr_low",
    "psnr_high",
    "ssim",
    "nmse",
    "gain",
    "params",
    "gmac",
    "iterations",
    "minutes",
]


def table(output, without=("minutes",)):
    return [{key: value for key, value in row.items() if key not in without} for row in read_table(output / "table.csv")]


def test_a_comparison_has_a_row_for_each_method_and_all_its_files(finished):
    rows = read_table(finished / "table.csv")
    assert list(rows[0])[: len(COLUMNS)] == COLUMNS
    assert [row["method"] for row in rows] == ["zero_filling", "edsr", "early_fusion"]
    assert [row["iterations"] for row in rows] == ["0", "4", "4"]
    assert float(rows[0]["gain"]) == 0
    for row in rows[1:]:
        assert float(row["gain"]) == pytest.approx(float(row["psnr"]) - float(rows[0]["psnr"]), abs=2e-4)
        assert float(row["psnr_low"]) <= float(row["psnr"]) <= float(row["psnr_high"])
        assert float(row["gmac"]) <= SMALL["gmac"]
    with (finished / "cases.csv").open(newline="") as file:
        assert {(row["method"], row["case"], row["slices"]) for row in csv.DictReader(file)} == {
            (method, "synthetic", "2") for method in ("zero_filling", "edsr", "early_fusion")
        }
    assert "**protocol corrected" in (finished / "table.md").read_text(encoding="utf-8")
    for name in ("figure.png", "figure_x2.png", "curves.png"):
        assert matplotlib.image.imread(finished / name).std() > 0


def test_all_methods_are_trained_on_the_same_patches_and_each_iteration_on_others(finished):
    edsr, fusion = (
        [row["patches"] for row in read_table(finished / "runs" / f"{name}_x2_s0" / TRAINING)] for name in ("edsr", "early_fusion")
    )
    assert edsr == fusion
    assert len(set(edsr)) == SMALL["iterations"]


def test_the_last_iteration_is_validated_and_its_weights_are_the_ones_scored(finished):
    folder = finished / "runs" / "edsr_x2_s0"
    assert int(read_table(folder / VALIDATION)[-1]["epoch"]) == 4
    trained, scored = (json.loads((folder / name).read_text()) for name in ("trained.json", "scores.json"))
    assert trained["iterations"] == 4
    assert scored["weights"] == trained["sha256"]


def test_killed_at_any_moment_and_given_again_it_ends_with_the_same_table(finished, synthetic, tmp_path):
    output = tmp_path / "killed"
    command = [sys.executable, SCRIPT, "--data", synthetic, "--output", output, "--methods", "edsr", "--scales", "2", "--gmac", "0.3"]
    command += ["--iterations", "4", "--eval-slices", "2", "--crop-size", "32"]
    row = output / "runs" / "edsr_x2_s0"
    moment = random.SystemRandom().uniform(0, 3)
    # As soon as something is saved, then at any moment from the second start of the workflow on.
    for awaited, delay in ((row / "latest.pt", 0.0), (row / "training.log", moment)):
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not awaited.exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(delay)
        process.kill()
        process.wait()
    compare(small(synthetic, output, "edsr"))
    without = ("minutes", "baseline", "difference", "difference_low", "difference_high")
    assert table(output, without) == table(finished, without)[:2], f"killed {moment} s into the second attempt"
    unbroken = finished / "runs" / "edsr_x2_s0"
    again, weights = (safetensors.torch.load_file(folder / "weights.safetensors") for folder in (row, unbroken))
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())
    for name, columns in ((TRAINING, ("iteration", "loss", "patches")), (VALIDATION, ("epoch", "psnr_gain"))):
        again, before = ([[each[key] for key in columns] for each in read_table(folder / name)] for folder in (row, unbroken))
        assert again == before


def test_a_training_ends_when_nobody_waits_for_it_any_more():
    code = "import os, time; from comparison.recording import end_with; end_with(os.getppid() + 1); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 1


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"iterations": 8}, "iterations 4, now 8"),
        ({"gmac": 0.5}, "options.channels"),
        ({"learning_rate": 1e-3}, "learning_rate None, now 0.001"),
        ({"crop_size": 48}, "crop_size 32, now 48"),
    ],
)
def test_a_changed_setting_is_refused_by_name(finished, synthetic, changed, named):
    before = (finished / "table.csv").read_bytes()
    with pytest.raises(UsageFault, match=named) as caught:
        compare(small(synthetic, finished, **changed))
    assert "edsr_x2_s0" in str(caught.value)
    assert (finished / "table.csv").read_bytes() == before


def test_changed_data_are_refused(finished, synthetic, tmp_path):
    shutil.copytree(synthetic, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    datalist.write_text(datalist.read_text().replace('"case": "synthetic"', '"weight": 2.0, "case": "synthetic"'))
    with pytest.raises(UsageFault, match="data "):
        compare(small(tmp_path / "data", finished))


def test_a_folder_that_holds_something_else_is_left_alone(synthetic, tmp_path):
    stranger = tmp_path / "runs" / "edsr_x2_s0" / "thesis.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("years")
    with pytest.raises(UsageFault, match=r"holds files but no settings\.json"):
        compare(small(synthetic, tmp_path))
    assert stranger.read_text() == "years"


def test_scores_of_cases_that_were_trained_on_say_so(finished):
    assert "WARNING: trained on 1 of the scored cases (synthetic)" in (finished / "table.md").read_text(encoding="utf-8")


def test_slices_paired_by_index_are_other_data(synthetic, tmp_path):
    shutil.copytree(synthetic, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    before = data_digest(tmp_path / "data", ["training"])
    datalist.write_text(datalist.read_text().replace('"case": "synthetic"', '"grid": "index", "case": "synthetic"'))
    assert data_digest(tmp_path / "data", ["training"]) != before


def test_scoring_other_slices_needs_no_new_training(finished, synthetic, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    for name in ("edsr", "early_fusion"):
        (tmp_path / "copy" / "runs" / f"{name}_x2_s0" / "latest.pt").unlink()
    compare(small(synthetic, tmp_path / "copy", eval_slices=None))
    assert [row["interval_over"] for row in table(tmp_path / "copy")] == ["4 slices"] * 3


def test_a_measured_budget_is_measured_once(synthetic, tmp_path, monkeypatch):
    measured = iter([0.04])
    monkeypatch.setattr(run, "seconds_per_iteration", lambda *arguments: next(measured))
    choices = small(synthetic, tmp_path, iterations=None, minutes=0.2)
    plans = [run._plan(choices, synthetic, Row("edsr", 2, 0), tmp_path, None, run.Progress()) for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].iterations == 200  # of the 300 that fit: eight epochs of 25, each of them validated


def test_a_row_that_fails_does_not_stop_the_others(finished, synthetic, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "copy")
    real = run.score_row
    monkeypatch.setattr(run, "score_row", lambda folder, row, *rest: 1 / 0 if row.method == "edsr" else real(folder, row, *rest))
    found = compare(small(synthetic, tmp_path / "copy"))
    assert [(failure.row.method, "ZeroDivisionError" in failure.finding) for failure in found.failures] == [("edsr", True)]
    assert [row["method"] for row in table(tmp_path / "copy")] == ["zero_filling", "early_fusion"]
    assert "edsr_x2_s0: internal fault" in (tmp_path / "copy" / "table.md").read_text(encoding="utf-8")


def test_pairs_of_fastmri_files_are_compared_under_both_protocols_apart(knees, tmp_path):
    for protocol in ("corrected", "sanet"):
        compare(small(knees, tmp_path / protocol, "edsr", scales=(4,), iterations=2, eval_slices=1, protocol=protocol))
        assert {row["protocol"] for row in table(tmp_path / protocol)} == {protocol}
        assert f"**protocol {protocol}: " in (tmp_path / protocol / "table.md").read_text(encoding="utf-8")
    corrected, sanet = (float(table(tmp_path / protocol)[0]["psnr"]) for protocol in ("corrected", "sanet"))
    assert sanet < corrected - 5  # its low-resolution intensities are s times too high
    patches = [
        [row["patches"] for row in read_table(tmp_path / name / "runs" / "edsr_x4_s0" / TRAINING)] for name in ("corrected", "sanet")
    ]
    assert not set(patches[0]) & set(patches[1])
    with pytest.raises(UsageFault, match="protocol corrected, now sanet"):
        compare(small(knees, tmp_path / "corrected", "edsr", scales=(4,), iterations=2, eval_slices=1, protocol="sanet"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"iterations": None}, "one budget is needed"),
        ({"minutes": 1.0}, "one budget is needed"),
        ({"scales": (3,)}, "--scales: 3"),
        ({"baseline": "neu"}, "neu is not among the methods"),
        ({"eval_slices": 0}, "--eval-slices"),
        ({"gmac": math.nan}, "--gmac: nan"),
        ({"learning_rate": 0.0}, r"--learning-rate: 0\.0"),
        ({"iterations": None, "minutes": 1e300}, r"--minutes: 1e\+300"),
        ({"protocol_crop": 64}, "expected no crop for the protocol 'corrected'"),
        ({"iterations": 100_003}, "cannot be cut into epochs"),
    ],
)
def test_choices_that_cannot_be_meant_are_refused_before_anything_is_written(synthetic, tmp_path, choices, message):
    with pytest.raises(UsageFault, match=message):
        compare(small(synthetic, tmp_path / "new", **choices))
    assert not (tmp_path / "new").exists()


def test_two_comparisons_never_share_an_output(finished, synthetic):
    with filelock.FileLock(finished / ".lock"), pytest.raises(Fault, match="another comparison"):
        compare(small(synthetic, finished))


def test_data_without_a_datalist_are_explained(tmp_path):
    with pytest.raises(Fault, match=r"datalist\.json"):
        compare(small(tmp_path, tmp_path / "output"))


def test_a_copy_of_the_open_data_gets_its_datalist_in_the_output(mirror, tmp_path):
    bare = tmp_path / "mirror"
    bare.mkdir()
    for name in ("longitudinal", "cross_sectional"):
        (bare / name).symlink_to(mirror / name)
    choices = small(bare, tmp_path / "output")
    found = dataset_folder(choices.data, choices.output)
    assert sorted(path.name for path in bare.iterdir()) == ["cross_sectional", "longitudinal"]
    assert len(load_datalist(found, "testing")) == 2
    assert dataset_folder(found, choices.output) == found
