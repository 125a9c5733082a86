"""A finished comparison tried with wrong references and on lesions: right figures, none made twice, none lost."""

import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import matplotlib.image
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from comparison import robustness
from comparison.disturbance import ALIGNED, FOREIGN, Disturbance, disturbances
from comparison.finished import FinishedRow, Found, finished_rows
from comparison.kept import Kept
from comparison.lesion_table import lesion_csv, lesion_markdown
from comparison.recording import read_table
from comparison.robustness import CaseLesions, Robustness, Trial, measure_robustness
from comparison.robustness_table import gain_picture, robustness_csv, robustness_lines, robustness_markdown, row_scores
from comparison.rows import Row
from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.networks import build_network
from hftn_sr.networks.weights import save_weights
from hftn_sr.scoring.metrics import SliceSums
from hftn_sr.training.protocols import PROTOCOLS
from hftn_sr.volumes.nifti import read_nifti, save_nifti

SCRIPT = Path(__file__).parents[2] / "study" / "measure_robustness.py"
METHODS = ["zero_filling", "edsr", "early_fusion"]
ROWS = ["zero_filling_x2", "edsr_x2_s0", "early_fusion_x2_s0"]


@pytest.fixture(scope="module")
def patients(synthetic, tmp_path_factory):
    """The pair of the comparison as a test case with a mask of lesions, and another patient's to train on, which is its mirror image."""
    folder = tmp_path_factory.mktemp("patients")
    for name in ("target", "reference"):
        shutil.copy(synthetic / f"{name}.nii.gz", folder / f"{name}.nii.gz")
        volume = read_nifti(synthetic / f"{name}.nii.gz")
        save_nifti(folder / f"other_{name}.nii.gz", volume.on(volume.grid, np.ascontiguousarray(volume.data[::-1])), "synthetic")
    target = read_nifti(folder / "target.nii.gz")
    bright = np.zeros(target.data.shape, np.float32)
    row, column, depth = np.unravel_index(target.data[8:-8, 8:-8].argmax(), (48, 48, 4))
    bright[row + 6 : row + 11, column + 6 : column + 11, depth] = 1
    save_nifti(folder / "lesions.nii.gz", target.on(target.grid, bright), "synthetic")
    case = {"case": "synthetic", "target": "target.nii.gz", "reference": "reference.nii.gz", "lesions": "lesions.nii.gz"}
    other = {"case": "other", "target": "other_target.nii.gz", "reference": "other_reference.nii.gz"}
    (folder / "datalist.json").write_text(json.dumps({"training": [other], "validation": [other], "testing": [case]}))
    return folder


def trial(patients, finished, output, **choices):
    return Trial(**{"data": patients, "comparison": finished, "output": output, "methods": METHODS, "eval_slices": 2, **choices})


@pytest.fixture(scope="module")
def measured(patients, finished, tmp_path_factory):
    output = tmp_path_factory.mktemp("measured [@]")
    before = digests(finished)
    found = measure_robustness(trial(patients, finished, output))
    assert digests(finished) == before  # a comparison that goes on is only read
    return output, found


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_with_the_pair_as_it_lies_the_scores_are_those_of_the_comparison(measured, finished):
    _, found = measured
    expected = {row["method"]: row for row in read_table(finished / "table.csv")}
    assert [each.row.name for each in found.found.rows] == ROWS
    for each in found.found.rows:
        scores = row_scores(found, each)
        assert scores.psnr[ALIGNED.name].value == pytest.approx(float(expected[each.row.method]["psnr"]), abs=2e-4)
        assert scores.ssim[ALIGNED.name].value == pytest.approx(float(expected[each.row.method]["ssim"]), abs=2e-6)
        assert scores.aligned == pytest.approx(float(expected[each.row.method]["gain"]), abs=2e-4)


def test_a_wrong_reference_changes_what_looks_at_it_and_nothing_else(measured):
    _, found = measured
    for name in ROWS:
        errors = {step.name: found.sums[name][step.name]["synthetic"].squared_error for step in found.tried}
        changed = {step.name for step in found.tried[1:] if not np.allclose(errors[step.name], errors[ALIGNED.name], rtol=1e-6)}
        looks = name.startswith("early_fusion")
        assert changed == {step.name for step in found.tried[1:] if looks or not step.of_reference}, name


def test_gains_are_over_zero_filling_of_the_same_noisy_target(measured):
    _, found = measured
    zero, edsr = (row_scores(found, each) for each in found.found.rows[:2])
    noisy = Disturbance("noisy target", 0.05).name
    assert zero.psnr[noisy].value < zero.psnr[ALIGNED.name].value - 1
    assert {gain.value for gain in zero.gain.values()} == {0.0}
    assert edsr.gain[noisy].value == pytest.approx(edsr.psnr[noisy].value - zero.psnr[noisy].value)


def test_the_other_patient_is_one_of_another_section_or_left_out(measured, synthetic, finished, tmp_path):
    _, found = measured
    assert found.donors == {"synthetic": "other"}
    alone = measure_robustness(trial(synthetic, finished, tmp_path, methods=["zero_filling", "edsr"]))
    assert FOREIGN not in alone.tried and len(alone.tried) == len(disturbances()) - 1
    assert alone.seen == ["synthetic"]
    text = robustness_markdown(alone, {each.row.name: row_scores(alone, each) for each in alone.found.rows})
    assert "Other patient: none was found, not tried." in text
    assert "WARNING: trained on 1 of these cases (synthetic)" in text


def test_the_most_alike_name_is_the_donor_and_never_the_same_files():
    cases = [{"case": "p04_T2_to_FLAIR", "target": "a", "reference": "b"}]
    others = [
        {"case": "p01_T1_to_FLAIR", "target": "c", "reference": "d"},
        {"case": "p01_T2_to_FLAIR", "target": "c", "reference": "e"},
        {"case": "p04_T2_to_FLAIR_again", "target": "a", "reference": "f"},
    ]
    assert robustness.donors_of(cases, others)["p04_T2_to_FLAIR"] is others[1]
    assert robustness.donors_of(cases, others[2:]) == {}


def test_interrupted_it_goes_on_with_what_is_missing(measured, patients, finished, tmp_path, monkeypatch):
    _, whole = measured
    built, real = [], robustness.predictor

    def predictor(row, weights, protocol):
        built.append(row.name)
        if len(built) == 3:
            raise KeyboardInterrupt
        return real(row, weights, protocol)

    monkeypatch.setattr(robustness, "predictor", predictor)
    with pytest.raises(KeyboardInterrupt):
        measure_robustness(trial(patients, finished, tmp_path))
    again = measure_robustness(trial(patients, finished, tmp_path))
    assert built[:3] == ROWS and built[3] == ROWS[2] and built[4:] == ROWS  # then the lesions, in every row
    for name in ROWS:
        for step in whole.tried:
            one, other = (found.sums[name][step.name]["synthetic"] for found in (whole, again))
            np.testing.assert_array_equal(one.squared_error, other.squared_error)
    measure_robustness(trial(patients, finished, tmp_path))
    assert len(built) == 7  # nothing was missing


def test_rows_that_are_trained_later_are_added(measured, patients, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "comparison")
    (tmp_path / "comparison/runs/early_fusion_x2_s0/trained.json").rename(tmp_path / "aside")
    early = measure_robustness(trial(patients, tmp_path / "comparison", tmp_path / "output"))
    assert [each.row.name for each in early.found.rows] == ROWS[:2]
    text = robustness_markdown(early, {each.row.name: row_scores(early, each) for each in early.found.rows})
    assert "Not finished: early_fusion_x2_s0." in text
    (tmp_path / "aside").rename(tmp_path / "comparison/runs/early_fusion_x2_s0/trained.json")
    built, real = [], robustness.predictor
    monkeypatch.setattr(robustness, "predictor", lambda row, *rest: built.append(row.name) or real(row, *rest))
    late = measure_robustness(trial(patients, tmp_path / "comparison", tmp_path / "output"))
    assert set(built) == {"early_fusion_x2_s0"}
    assert [each.row.name for each in late.found.rows] == ROWS


def test_results_of_other_choices_are_refused_by_name_and_only_overwritten_when_told_to(tmp_path):
    path = tmp_path / "row.json"
    Kept(path, {"slices": 2, "weights": "a"}, overwrite=False).keep("case", [1])
    assert Kept(path, {"slices": 2, "weights": "a"}, overwrite=False).results == {"case": [1]}
    with pytest.raises(UsageFault, match="slices 2, now 4") as caught:
        Kept(path, {"slices": 4, "weights": "a"}, overwrite=False)
    assert str(path) in str(caught.value)
    assert Kept(path, {"slices": 4, "weights": "a"}, overwrite=True).results == {}
    for damaged in ("{", "3", "null", '{"wanted": {}}', '{"results": []}'):
        path.write_text(damaged)
        with pytest.raises(Fault, match="damaged"):
            Kept(path, {}, overwrite=True)


def test_results_depend_on_the_choices_and_on_the_weights(measured, patients, finished, tmp_path):
    output, _ = measured
    with pytest.raises(UsageFault, match="slices 2, now 1"):
        measure_robustness(trial(patients, finished, output, eval_slices=1))
    shutil.copytree(finished, tmp_path / "comparison")
    folder = tmp_path / "comparison/runs/edsr_x2_s0"
    shutil.copytree(output, tmp_path / "output")
    record = json.loads((folder / "trained.json").read_text())
    settings = json.loads((folder / "settings.json").read_text())
    network = build_network("edsr", 2, {key: value for key, value in settings["options"].items() if key != "scale"})
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    torch.nn.init.zeros_(next(iter(network.parameters())))
    save_weights(folder / "weights.safetensors", network, {})
    assert [each.row.name for each in finished_rows(tmp_path / "comparison", METHODS).rows] == [ROWS[0], ROWS[2]]  # not what was recorded
    record["sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "trained.json").write_text(json.dumps(record))
    with pytest.raises(UsageFault, match=r"edsr_x2_s0\.json: measured otherwise \(weights"):
        measure_robustness(trial(patients, tmp_path / "comparison", tmp_path / "output"))


def test_a_folder_without_rows_that_can_be_measured_is_explained(finished, tmp_path):
    with pytest.raises(UsageFault, match="no output of a comparison"):
        finished_rows(tmp_path, METHODS)
    with pytest.raises(NothingToDo, match="begun: early_fusion_x2_s0, edsr_x2_s0"):
        finished_rows(finished, ["zero_filling", "minet"])
    shutil.copytree(finished, tmp_path / "mixed")
    path = tmp_path / "mixed/runs/edsr_x2_s0/settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"protocol": "sanet"}))
    with pytest.raises(UsageFault, match="corrected and sanet"):
        finished_rows(tmp_path / "mixed", METHODS)


def test_two_commands_never_share_an_output_and_no_slice_is_none(patients, finished, tmp_path):
    with filelock.FileLock(tmp_path / ".lock"), pytest.raises(Fault, match="another command"):
        measure_robustness(trial(patients, finished, tmp_path))
    with pytest.raises(UsageFault, match="--eval-slices: 0"):
        measure_robustness(trial(patients, finished, tmp_path / "new", eval_slices=0))
    assert not (tmp_path / "new").exists()


def made_up(gains, ssim=0.9):
    """Rows whose PSNR exceeds that of zero-filling by these gains, by disturbance, in every slice."""
    names = ["zero_filling", *gains]
    tried = disturbances()

    def sums(gain):
        return {"case": SliceSums(np.full(4, 10 ** (-gain / 10)), np.ones(4), np.full(4, ssim), 100, 1.0)}

    rows = [FinishedRow(Row(name, 4, None if name == "zero_filling" else 0), None, None, "band") for name in names]
    found = Found(rows, [], PROTOCOLS["corrected"], [4], [0])
    all_sums = {
        each.row.name: {step.name: sums(gains[each.row.method](step) if each.row.method in gains else 0.0) for step in tried}
        for each in rows
    }
    return Robustness(found, "validation", None, tried, {"case": "donor"}, [], all_sums, {})


def test_mean_share_and_minimum_are_those_of_a_known_curve():
    def falling(step):
        """2 dB, of which 0.4 are lost for each voxel; foreign references are worse than none."""
        lost = {"moved": 0.4 * step.amount, "other patient": 2.5, "noisy target": 9.0}
        return 2.0 - lost.get(step.kind, 0.0)

    made = made_up({"edsr": lambda step: 0.5, "early_fusion": falling})
    steady, fusion = (row_scores(made, each) for each in made.found.rows[1:])
    assert fusion.aligned == pytest.approx(2.0)
    assert fusion.mean == pytest.approx(1.2)  # at 2 voxels, the middle
    assert fusion.share == pytest.approx(0.6)
    assert fusion.lowest == FOREIGN
    assert (steady.share, steady.mean) == (pytest.approx(1), pytest.approx(0.5))
    text = robustness_markdown(made, {each.row.name: row_scores(made, each) for each in made.found.rows})
    line = next(line for line in text.splitlines() if line.startswith("| early fusion"))
    assert "| +1.20 | 60% | -0.50" in line and line.endswith("| other patient | -0.50 | case |")
    assert next(line for line in text.splitlines() if line.startswith("| zero-filling")).endswith("| - |")


def test_the_mean_weighs_the_stretch_between_two_displacements_not_their_number():
    made = made_up({"edsr": lambda step: 1.0 if step.kind == "aligned" or step.amount <= 0.5 else 0.0})
    assert row_scores(made, made.found.rows[1]).mean == pytest.approx((0.5 + 0.25) / 4)


def test_one_case_below_zero_filling_is_not_hidden_by_the_mean_of_all():
    made = made_up({"edsr": lambda step: 1.0})
    good, bad = (SliceSums(np.full(4, 10 ** (-gain / 10)), np.ones(4), np.full(4, 0.9), 100, 1.0) for gain in (4.0, -0.25))
    plain = SliceSums(np.ones(4), np.ones(4), np.full(4, 0.9), 100, 1.0)
    made.sums["zero_filling_x4"]["zeroed"] = {"easy": plain, "hard": plain}
    made.sums["edsr_x4_s0"]["zeroed"] = {"easy": good, "hard": bad}
    found = row_scores(made, made.found.rows[1])
    assert found.gain["zeroed"].value == pytest.approx(1.875)
    assert found.lowest_case == (pytest.approx(-0.25), "hard")


def test_without_gain_there_is_no_share():
    made = made_up({"edsr": lambda step: -0.5})
    assert row_scores(made, made.found.rows[1]).share is None
    assert "| - |" in robustness_markdown(made, {each.row.name: row_scores(made, each) for each in made.found.rows})


def test_the_csv_has_a_line_for_each_row_and_disturbance_and_the_picture_its_curves(tmp_path):
    made = made_up({"edsr": lambda step: 0.5, "early_fusion": lambda step: 2.0 - 0.1 * step.amount})
    scores = {each.row.name: row_scores(made, each) for each in made.found.rows}
    (tmp_path / "robustness.csv").write_bytes(robustness_csv(made, scores))
    lines = read_table(tmp_path / "robustness.csv")
    assert len(lines) == 3 * len(disturbances())
    (line,) = (line for line in lines if (line["method"], line["disturbance"], line["amount"]) == ("early_fusion", "moved", "4.0"))
    assert (float(line["gain"]), float(line["share_of_aligned_gain"]), line["section"]) == (
        pytest.approx(1.6),
        pytest.approx(0.8),
        "validation",
    )
    (tmp_path / "flat.png").write_bytes(gain_picture(lines, "flat"))
    one = matplotlib.image.imread(tmp_path / "flat.png")
    steep = made_up({"edsr": lambda step: 0.5, "early_fusion": lambda step: 2.0 - 0.4 * step.amount})
    steep_lines = robustness_lines(steep, {each.row.name: row_scores(steep, each) for each in steep.found.rows})
    (tmp_path / "steep.png").write_bytes(gain_picture(steep_lines, "flat"))
    other = matplotlib.image.imread(tmp_path / "steep.png")
    assert one.shape == other.shape and not np.array_equal(one, other)


def test_lesions_say_which_set_they_are_in_and_what_is_left_of_them(measured):
    _, found = measured
    ((key, lesions),) = found.lesions.items()
    assert key == (2, "testing", "synthetic") and lesions.section == "testing"
    assert all(len(rows) == 1 for rows in lesions.rows.values())
    zero = lesions.rows["zero_filling_x2"][0]
    assert zero["voxels"] == 25
    assert zero["contrast"] != zero["true_contrast"] > 0
    text = lesion_markdown(found)
    assert "## x2: synthetic (test set)" in text and "No case of the test set" not in text
    assert f"| zero-filling | {zero['contrast'] / zero['true_contrast']:.0%} |" in text


def test_lesions_of_other_sets_are_told_apart_and_none_is_no_table(measured, tmp_path):
    _, found = measured
    (lesions,) = found.lesions.values()
    nothing = CaseLesions("validation", 3, dict.fromkeys(ROWS, ()))
    both = {(2, "training", "seen"): CaseLesions("training", 0, lesions.rows), (2, "validation", "empty"): nothing}
    made = Robustness(**{**vars(found), "lesions": both})
    text = lesion_markdown(made)
    assert "No case of the test set is among them." in text
    assert "## x2: seen (training set: every network has seen this patient)" in text
    assert "None of the 3 parts of its mask could be measured." in text
    (tmp_path / "lesions.csv").write_bytes(lesion_csv(made))
    assert [line["method"] for line in read_table(tmp_path / "lesions.csv")] == METHODS
    assert lesion_csv(Robustness(**{**vars(found), "lesions": {(2, "validation", "empty"): nothing}})) == b""


def test_the_command_writes_all_files_beside_the_comparison_and_explains_what_is_wrong(patients, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "comparison")
    command = [sys.executable, str(SCRIPT), "--data", str(patients), "--comparison", str(tmp_path / "comparison")]
    command += ["--methods", "early_fusion", "--eval-slices", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "comparison" / "robustness_testing"
    assert {path.name for path in output.iterdir()} >= {f"robustness.{kind}" for kind in ("md", "csv", "png")} | {
        "lesions.md",
        "lesions.csv",
    }
    assert done.stdout == (output / "robustness.md").read_text(encoding="utf-8")
    assert math.isfinite(float(read_table(output / "robustness.csv")[-1]["psnr"]))
    done = subprocess.run([*command, "--comparison", str(tmp_path)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ERROR {tmp_path}: no output of a comparison")
