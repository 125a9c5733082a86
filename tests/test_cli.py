"""The command as a user meets it: files, exit codes, one line per fault."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

import hftn_sr
from hftn_sr.cli.progress import ConsoleReporter
from hftn_sr.inference import summary
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.simulation import zero_filled
from hftn_sr.volumes.volume import Volume
from phantoms import oblique, phantom, points, write, write_volume

BUNDLE = Path(hftn_sr.__file__).parents[1]


@pytest.fixture
def super_resolve(command, weights):
    """Runs the tiny network for scale 2 without a picture."""
    return lambda *arguments: command("super-resolve", "--model", weights[2], "--device", "cpu", "--no-preview", *arguments)


def faults(result):
    """The ERROR lines; a fault never shows a traceback."""
    assert "Traceback" not in result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("ERROR ")]


def statuses(folder):
    return {row["case"]: row["status"] for row in json.loads((folder / "summary.json").read_text(encoding="utf-8"))["cases"]}


# From the truth and back


def test_degrade_super_resolve_and_evaluate_keep_the_place_when_4_does_not_divide_the_size(tmp_path, command, zero_weights):
    """One period of a cosine over what degrade keeps is exact under zero-filling, and any shift would show."""
    shape = (30, 27, 3)
    x, y = np.arange(30) - 1, np.arange(27) - 1  # degrade keeps 28 x 24 voxels, from (1, 1) on
    wave = 100 + 30 * np.cos(2 * np.pi * x / 28 + 0.4)[:, None, None] + 20 * np.sin(2 * np.pi * y / 24)[None, :, None]
    affine = oblique((1, 1, 3), shape=shape)
    truth = write(tmp_path / "truth.nii.gz", np.broadcast_to(wave, shape).astype(np.float32), affine)
    reference = write_volume(tmp_path / "reference.nii.gz", phantom(shape, kind="reference"))
    low, result, scores = tmp_path / "low.nii.gz", tmp_path / "result.nii.gz", tmp_path / "scores.json"
    degraded = command("degrade", "--input", truth, "--output", low, "--scale", 4)
    assert (degraded.exit_code, degraded.stdout.strip()) == (0, str(low))
    assert read_nifti(low).data.shape == (7, 6, 3)
    done = command("super-resolve", "--target", low, "--reference", reference, "--output", result, "--model", zero_weights[4])
    assert done.exit_code == 0
    assert "scale 4: voxel sizes" in done.stderr
    np.testing.assert_allclose(points(read_nifti(result).grid), points(read_nifti(truth).grid)[1:29, 1:25], atol=1e-4)
    evaluated = command("evaluate", "--prediction", result, "--truth", truth, "--json", scores)
    figures = json.loads(scores.read_text(encoding="utf-8"))
    assert figures["voxels_compared"] == [28, 24, 3]
    assert figures["psnr"] > 100
    assert f"PSNR  {figures['psnr']:.2f} dB  (dB, by volume, peak = maximum of the truth volume)" in evaluated.stdout
    assert "protocol corrected, 28 x 24 x 3 voxels compared" in evaluated.stdout


def test_evaluate_prints_zero_filling_where_it_is_given_the_target(tmp_path, put_case, super_resolve, command):
    truth = write_volume(tmp_path / "truth.nii", phantom())
    target, reference = put_case(tmp_path)
    result = tmp_path / "o.nii.gz"
    assert super_resolve("--target", target, "--reference", reference, "--output", result, "--no-report").exit_code == 0
    asked = ("evaluate", "--truth", truth, "--target", target, "--json", tmp_path / "s.json", "--prediction")
    done = command(*asked, result)
    found = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["zero_filling"]
    assert f"zero-filling  PSNR  {found['psnr']:.2f} dB  SSIM  {found['ssim']:.4f}  NMSE  {found['nmse']:.5f}" in done.stdout.splitlines()
    low = zero_filled(read_nifti(target), 2, 2)
    assert found["psnr"] == pytest.approx(hftn_sr.evaluate(write_volume(tmp_path / "z.nii", low), truth)["psnr"], abs=1e-3)
    wrong = command(*asked[:-3], "--prediction", truth, "--target", reference)
    assert wrong.exit_code == 9
    assert "its grid made 2 or 4 times finer in plane is not that of" in faults(wrong)[0]


def test_an_equal_volume_has_an_infinite_psnr_in_text_and_json(tmp_path, command):
    truth = write_volume(tmp_path / "a.nii", phantom((12, 12, 2)))
    assert "PSNR  inf dB" in command("evaluate", "--prediction", truth, "--truth", truth, "--json", tmp_path / "s.json").stdout
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["psnr"] == "infinite"


def test_figures_do_not_overwrite_the_images(tmp_path, command):
    truth = write_volume(tmp_path / "a.nii", phantom((12, 12, 2)))
    before = truth.read_bytes()
    result = command("evaluate", "--prediction", truth, "--truth", truth, "--json", truth)
    assert result.exit_code == 2
    assert "is an input, it would be overwritten" in faults(result)[0]
    assert truth.read_bytes() == before


def test_degrade_leaves_what_exists_and_never_its_input(tmp_path, command):
    truth, low = write_volume(tmp_path / "a.nii", phantom((12, 12, 2))), tmp_path / "b.nii"
    low.write_bytes(b"old")
    arguments = ("degrade", "--input", truth, "--output", low, "--scale", 2)
    assert command(*arguments).exit_code == 3
    assert low.read_bytes() == b"old"
    assert command(*arguments, "--overwrite", "always").exit_code == 0
    assert read_nifti(low).data.shape == (6, 6, 2)
    result = command("degrade", "--input", truth, "--output", truth, "--scale", 2, "--overwrite", "always")
    assert result.exit_code == 2
    assert "is the input, it would be overwritten" in faults(result)[0]
    assert read_nifti(truth).data.shape == (12, 12, 2)


def test_degrade_and_evaluate_say_what_they_found_while_reading(tmp_path, command):
    truth = write(tmp_path / "a.nii", phantom((12, 12, 2)).data[..., None], oblique((1, 1, 3)))
    for arguments in (
        ("degrade", "--input", truth, "--output", tmp_path / "b.nii", "--scale", 2),
        ("evaluate", "--prediction", truth, "--truth", truth),
    ):
        assert command(*arguments).stderr == "a.nii: volume 0 of 1 taken from sizes (12, 12, 2, 1)\n"


def test_the_cure_that_a_fault_names_works(tmp_path, command):
    series = write(tmp_path / "a.nii", np.random.default_rng(0).normal(size=(12, 12, 2, 3)), oblique((1, 1, 3)))
    arguments = ("degrade", "--input", series, "--output", tmp_path / "b.nii", "--scale", 2)
    (line,) = faults(command(*arguments))
    assert line == f"ERROR {series}: 3 volumes in one file (found 4D, need 3D). Fix: --frame N with N from 0 to 2."
    assert command(*arguments, "--frame", 2).exit_code == 0


# One pair


def test_a_fault_is_one_line_that_names_path_finding_and_cure(tmp_path, put_case, super_resolve):
    target, reference = put_case(tmp_path)
    target.write_bytes(b"")
    result = super_resolve("--target", target, "--reference", reference, "--output", tmp_path / "o.nii.gz")
    assert result.exit_code == 9
    assert faults(result) == [f"ERROR {target}: empty file (0 bytes). Fix: copy or export it again from its source."]
    assert result.stdout == ""


def test_debug_shows_the_traceback(tmp_path, put_case, super_resolve):
    target, reference = put_case(tmp_path)
    target.write_bytes(b"")
    result = super_resolve("--target", target, "--reference", reference, "--output", tmp_path / "o.nii.gz", "--debug")
    assert type(result.exception).__name__ == "Fault"


def test_an_internal_fault_is_one_line_and_exit_code_1(tmp_path, command, monkeypatch):
    truth = write_volume(tmp_path / "a.nii", phantom((12, 12, 2)))
    monkeypatch.setattr("hftn_sr.api.evaluate", lambda *_, **__: 1 / 0)
    result = command("evaluate", "--prediction", truth, "--truth", truth)
    assert result.exit_code == 1
    assert faults(result) == [
        "ERROR internal fault: ZeroDivisionError: division by zero. Fix: run again with --debug and report the traceback."
    ]


@pytest.mark.parametrize("name", ["with space", "ünïcödé 名", "[brackets] (and) {braces}", "-dash", "per%cent $dollar"])
def test_any_path_works(tmp_path, put_case, super_resolve, name):
    target, reference = put_case(tmp_path / name)
    output = tmp_path / name / f"{name}.nii.gz"
    result = super_resolve("--target", target, "--reference", reference, "--output", output)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{output} (")
    assert json.loads((tmp_path / name / f"{name}.json").read_text(encoding="utf-8"))["output"]["file"] == output.name


def test_an_existing_output_is_nothing_to_do(tmp_path, put_case, super_resolve):
    target, reference = put_case(tmp_path)
    arguments = ("--target", target, "--reference", reference, "--output", tmp_path / "o.nii.gz")
    assert super_resolve(*arguments).exit_code == 0
    again = super_resolve(*arguments)
    assert again.exit_code == 3
    assert f"{tmp_path / 'o.nii.gz'}: the output exists (--overwrite stale or always redoes it)" in again.stderr
    assert super_resolve(*arguments, "--overwrite", "stale").exit_code == 3
    assert super_resolve(*arguments, "--overwrite", "always").exit_code == 0


def test_the_picture_is_written_unless_declined(tmp_path, put_case, command, weights):
    target, reference = put_case(tmp_path)
    for option, there in (("--no-preview", False), ("--preview", True)):
        arguments = ("--target", target, "--reference", reference, "--output", tmp_path / "o.nii.gz", "--overwrite", "always")
        assert command("super-resolve", "--model", weights[2], *arguments, option).exit_code == 0
        assert (tmp_path / "o_preview.png").exists() == there


def test_a_lone_file_is_named_once(tmp_path, put_case, super_resolve, monkeypatch):
    put_case(tmp_path)
    monkeypatch.chdir(tmp_path)
    image = read_nifti(Path("target.nii.gz"))
    write(tmp_path / "target.nii.gz", image.data[..., None], image.affine)
    asked = ("--target", "target.nii.gz", "--reference", "reference.nii.gz", "--output", "o.nii.gz", "--no-report")
    assert "target.nii.gz: volume 0 of 1 taken from sizes (20, 22, 4, 1)" in super_resolve(*asked).stderr.splitlines()
    Path("target.nii.gz").write_bytes(b"")
    assert faults(super_resolve(*asked, "--overwrite", "always"))[0].startswith("ERROR target.nii.gz: empty file")


def test_notes_and_warnings_come_with_the_name_of_the_case(tmp_path, put_case, super_resolve):
    target, reference = put_case(tmp_path)
    result = super_resolve("--target", target, "--reference", reference, "--output", tmp_path / "o.nii.gz")
    assert result.stderr.splitlines() == [
        (
            "target.nii.gz measured 20 x 22 of 40 x 44 (left-right x front-back); "
            "scale 2: voxel sizes are 2.00 x 2.00 times the reference's; "
            "voxels of the result: 1 x 1 x 3 mm"
        ),
        "WARNING target.nii.gz slices are too small or too smooth to check whether the reference fits; it is used all the same",
    ]


def test_a_target_goes_without_a_reference_and_is_warned_of(tmp_path, put_case, super_resolve):
    target, _ = put_case(tmp_path)
    result = super_resolve("--target", target, "--output", tmp_path / "o" / "o.nii.gz", "--scale", 2)
    assert result.exit_code == 0, result.stderr
    assert "WARNING target.nii.gz no reference was given: the result is made from the target alone" in result.stderr
    assert "No reference" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_a_step_that_takes_long_is_logged_with_the_name_of_its_case():
    noted = io.StringIO()
    with ConsoleReporter(Console(file=noted)) as reporter:
        reporter.begin(1)
        reporter.case("one [1]")
        reporter.log("registering it")
    assert noted.getvalue() == "one [1] registering it\n"


# Usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--taget", "a.nii"), "--target"),
        (("--reference-transfrom", "a.txt"), "--reference-transform"),
        (("--data-consistancy",), "--data-consistency"),
        (("--target", "a.nii", "--reference", "b.nii", "--output", "c.nii", "d.nii"), "unexpected extra argument"),
        (("--device", "gpu"), "Invalid value for '--device'"),
        (("--overwrite", "sometimes"), "Invalid value for '--overwrite'"),
        (("--through-plane", "3"), "Invalid value for '--through-plane'"),
        (("--frame", "-1"), "Invalid value for '--frame'"),
    ],
)
def test_options_that_are_not_understood_end_the_command_before_anything_runs(tmp_path, super_resolve, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = super_resolve(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_command_is_refused(command):
    result = command("superresolve")
    assert result.exit_code == 2
    assert "No such command 'superresolve'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--output: is missing"),
        (("--output", "o.nii"), "--target: is missing"),
        (("--output", "o.nii", "--target", "t.nii", "--reference-transform", "t.txt"), "--reference-transform: needs a reference"),
        (("--output", "o.nii", "--target", "t.nii", "--reference-optional"), "--reference-optional: needs --cases"),
        (("--output", "o", "--bids", "ds", "--target", "FLAIR"), "--reference: is missing, a BIDS dataset needs its suffix"),
        (("--output", "o", "--cases", "in", "--target", "t.nii"), "--target: does not go with --cases"),
        (("--output", "o.nii", "--target", "t.nii", "--reference", "r.nii", "--scale", "0.5"), "--scale: 0.5x0.5 would make voxels larger"),
        (("--output", "o.nii", "--target", "t.nii", "--reference", "r.nii", "--model", "bigger"), "--model: no model 'bigger'"),
        (("--output", "o.nii", "--target", "t.nii", "--reference", "r.nii", "--model", "m.pt"), "weights of this kind could run code"),
        (
            ("--output", "o.nii", "--target", "t.nii", "--reference", "r.nii", "--model", "m.safetensors"),
            "m.safetensors: no such weights file",
        ),
    ],
)
def test_options_that_cannot_be_meant_are_a_usage_fault_of_one_line(tmp_path, super_resolve, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = super_resolve(*arguments)
    assert result.exit_code == 2
    (line,) = faults(result)
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_a_usage_fault(tmp_path, put_case, command, weights, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    target, reference = put_case(tmp_path)
    arguments = ("--target", target, "--reference", reference, "--output", tmp_path / "o.nii.gz", "--device", "cuda")
    result = command("super-resolve", "--model", weights[2], *arguments)
    assert result.exit_code == 2
    assert "--device: cuda was asked for, PyTorch sees no CUDA device" in faults(result)[0]


def test_what_would_degrade_nothing_is_a_usage_fault(tmp_path, command):
    result = command("degrade", "--input", "a.nii", "--output", tmp_path / "b.nii")
    assert (result.exit_code, len(faults(result))) == (2, 1)


@pytest.mark.parametrize("arguments", [("--help",), ("super-resolve", "--help"), ("--version",)])
def test_help_and_version_are_free_of_pytorch(arguments):
    code = "import sys; from hftn_sr.cli import main\ntry: main()\nfinally: sys.exit(7) if 'torch' in sys.modules else None"
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | {"PYTHONPATH": str(BUNDLE)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0
    assert run.stdout.startswith("Usage: ") or run.stdout == f"hftn-sr {hftn_sr.__version__}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU's OpenMP, of the Linux wheels, prints its settings like this")
@pytest.mark.parametrize(("own", "settled"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "ACTIVE")])
def test_threads_of_the_command_sleep_while_they_wait_unless_the_user_wants_otherwise(own, settled):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(BUNDLE), "OMP_DISPLAY_ENV": "true", **own}
    code = "import hftn_sr.cli, torch"
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert f"OMP_WAIT_POLICY = '{settled}'" in run.stderr


def test_the_help_says_research_use_only(command):
    assert "Research use only. Not for clinical use." in " ".join(command("--help").stdout.split())


# Many cases


def test_a_folder_of_good_and_bad_cases_is_worked_off_and_summed_up(tmp_path, put_case, super_resolve):
    source, output = tmp_path / "in", tmp_path / "out"
    for name in ("bad", "good [1]", "lone", "twice"):
        put_case(source / name)
    (source / "bad" / "reference.nii.gz").write_bytes(b"junk")
    (source / "lone" / "reference.nii.gz").unlink()
    (source / "twice" / "target.nii").touch()
    result = super_resolve("--cases", source, "--output", output)
    assert result.exit_code == 8
    assert statuses(output) == {"bad": "failed", "good [1]": "done", "lone": "failed", "twice": "failed"}
    assert {line.split()[1] for line in faults(result)} == {"bad", "lone", "twice"}
    assert (output / "good [1]" / "target_sr.nii.gz").is_file()
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    assert (summary["exit_code"], summary["interrupted"]) == (8, False)
    with (output / "summary.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert rows["good [1]"]["scale"] == "2"
    assert "not a NIfTI file (found text)" in rows["bad"]["message"]
    again = super_resolve("--cases", source, "--output", output)
    assert again.exit_code == 8
    assert statuses(output)["good [1]"] == "done before"


def test_a_case_without_a_reference_is_done_where_that_is_asked_for(tmp_path, put_case, super_resolve, command):
    source, output = tmp_path / "in", tmp_path / "out"
    for name in ("lone", "pair"):
        put_case(source / name)
    (source / "lone" / "reference.nii.gz").unlink()
    missing = super_resolve("--cases", source, "--output", output, "--reference-optional")
    assert missing.exit_code == 8  # nothing tells the scale
    (line,) = faults(missing)
    assert line.startswith("ERROR lone --scale: is missing, it cannot be found without a reference")
    assert super_resolve("--cases", source, "--output", output, "--reference-optional", "--scale", 2).exit_code == 0
    with (output / "summary.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert (rows["lone"]["status"], rows["lone"]["reference"], rows["lone"]["similarity"]) == ("done", "none", "")
    assert rows["pair"]["status"] == "done before"
    again = command("report", "--results", output, "--cases", source)
    assert again.exit_code == 0, again.stderr
    assert "2 cases: 2 done" in (output / "report.html").read_text(encoding="utf-8")
    single = command("report", "--results", output / "lone" / "target_sr.nii.gz", "--target", source / "lone" / "target.nii.gz")
    assert single.exit_code == 0, single.stderr


@pytest.mark.parametrize(("name", "content"), [("summary.csv", "mine"), ("summary.json", '{"m": 1}'), ("summary.json", "[1]")])
def test_somebody_else_s_summary_is_kept(tmp_path, put_case, super_resolve, name, content):
    put_case(tmp_path / "cases" / "a")
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_text(content)
    result = super_resolve("--cases", tmp_path / "cases", "--output", output)
    assert result.exit_code not in (0, 1)
    assert f"{name}: is not of this program" in result.stderr
    assert {path.name: path.read_text() for path in output.iterdir()} == {name: content}


def test_the_summary_is_rewritten_after_every_case_that_takes_long(tmp_path, put_case, super_resolve, monkeypatch):
    for name in ("a", "b", "c"):
        put_case(tmp_path / "in" / name)
    seen, write = [], summary._write

    def watched(folder, rows, interrupted, code):
        seen.append(len(rows))
        write(folder, rows, interrupted, code)

    monkeypatch.setattr(summary, "_write", watched)
    monkeypatch.setattr(summary, "SHARE", 1e9)  # these take a moment
    assert super_resolve("--cases", tmp_path / "in", "--output", tmp_path / "out").exit_code == 0
    assert seen == [1, 2, 3, 3]  # and at the end


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--voxel", "0.0005x1"), "--voxel: would make 800"),
        (("--acquired", "500x22"), "--acquired: 500 x 22 is more than the 20 x 22 of target.nii.gz"),
        (("--scale", 1.1), "--scale: asks for at most 1.10 times"),
        (("--output", "o.txt"), "o.txt: not a NIfTI file name"),
        (("--output-format", "dicom"), "not DICOM, and the result of a DICOM target alone can be DICOM. Fix: --output-format nifti"),
    ],
)
def test_an_option_that_cannot_be_meant_is_exit_code_2_for_a_pair_and_for_all_cases(
    tmp_path, put_case, super_resolve, monkeypatch, asked, told
):
    monkeypatch.chdir(tmp_path)
    target, reference = put_case(tmp_path / "in" / "a")
    alone = super_resolve("--target", target, "--reference", reference, "--output", "o.nii.gz", *asked)
    assert (alone.exit_code, len(faults(alone))) == (2, 1)
    assert told in faults(alone)[0]
    if "--output" in asked:
        return
    of_options_alone = "--output-format" in asked  # no voxel is read for it
    put_case(tmp_path / "in" / "b")
    asked = ("--cases", "in", "--output", "out", *asked)
    assert super_resolve(*asked).exit_code == 2
    (tmp_path / "in" / "b" / "target.nii.gz").write_bytes(b"junk")
    assert super_resolve(*asked, "--no-report").exit_code == (2 if of_options_alone else 9)


def test_all_cases_failed_is_exit_code_9(tmp_path, put_case, super_resolve):
    target, _ = put_case(tmp_path / "in" / "a")
    target.write_bytes(b"junk")
    assert super_resolve("--cases", tmp_path / "in", "--output", tmp_path / "out").exit_code == 9


def test_no_case_found_and_all_done_before_are_exit_code_3(tmp_path, put_case, super_resolve):
    (tmp_path / "in").mkdir()
    result = super_resolve("--cases", tmp_path / "in", "--output", tmp_path / "out")
    assert result.exit_code == 3
    assert "no case found (searched */target.nii.gz with */reference.nii.gz and the like, or folders of DICOM)" in faults(result)[0]
    put_case(tmp_path / "in" / "a")
    for code in (0, 3):
        assert super_resolve("--cases", tmp_path / "in", "--output", tmp_path / "out").exit_code == code


def test_an_output_that_is_a_file_is_refused_for_cases(tmp_path, put_case, super_resolve):
    put_case(tmp_path / "in" / "a")
    (tmp_path / "out").write_bytes(b"old")
    result = super_resolve("--cases", tmp_path / "in", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "is a file, a folder is needed with --cases" in faults(result)[0]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_dry_run_writes_nothing_at_all(tmp_path, put_case, super_resolve):
    for name in ("a", "b"):
        put_case(tmp_path / "in" / name)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = super_resolve("--cases", tmp_path / "in", "--output", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout.count("would write 40 x 44 x 4 voxels of 1 x 1 x 3 mm: measured 20 x 22 of 40 x 44") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_cases_may_lie_where_their_results_go(tmp_path, put_case, super_resolve):
    put_case(tmp_path / "a")
    assert super_resolve("--cases", tmp_path, "--output", tmp_path).exit_code == 0
    assert super_resolve("--cases", tmp_path, "--output", tmp_path).exit_code == 3


# Signals

SLOW_SECOND_CASE = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it, and so would its children
from hftn_sr.inference import result, run
apply, place = run.apply_network, result.NewFiles.into_place
def slow_network(network, pair, *rest):
    if pair.target.path.parent.name == "b" and "{where}" == "network":
        print("HERE", flush=True)
        time.sleep(60)
    return apply(network, pair, *rest)
def slow_place(files, order):
    order = list(order)
    if order[0].parent.name == "b" and "{where}" == "saving":
        print("HERE", flush=True)
        time.sleep(60)
    place(files, order)
run.apply_network, result.NewFiles.into_place = slow_network, slow_place
from hftn_sr.cli import main
main()
"""


@pytest.mark.parametrize(("ending", "where"), [(signal.SIGINT, "network"), (signal.SIGTERM, "saving")])
def test_an_interrupted_run_drops_its_case_whole_and_sums_up(tmp_path, put_case, super_resolve, weights, ending, where):
    for name in ("a", "b", "c"):
        put_case(tmp_path / "in" / name)
    arguments = (
        "super-resolve",
        "--cases",
        tmp_path / "in",
        "--output",
        tmp_path / "out",
        "--model",
        weights[2],
        "--no-preview",
        "--threads",
        1,
    )
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW_SECOND_CASE.format(where=where), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(BUNDLE)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while (line := run.stdout.readline()) and "HERE" not in line:
        pass
    time.sleep(0.2)
    run.send_signal(ending)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "interrupted after 1 of 3 cases" in errors
    assert "Traceback" not in errors
    assert statuses(tmp_path / "out") == {"a": "done"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["interrupted"], summary["exit_code"]) == (True, 130)
    assert list((tmp_path / "out" / "b").iterdir()) == []
    assert super_resolve("--cases", tmp_path / "in", "--output", tmp_path / "out").exit_code == 0
    assert statuses(tmp_path / "out") == {"a": "done before", "b": "done", "c": "done"}


@pytest.mark.parametrize(
    ("asked", "shape", "told"),
    [
        (("--scale", "1x2"), (40, 20, 12), "measured 40 x 20 of 40 x 40"),
        (("--scale", 1.6), (25, 25, 12), "measured 25 x 25 of 40 x 40"),
        (("--slice-thickness", 4), (40, 40, 3), "4 mm slices every 4 mm"),
        (("--slice-thickness", 4, "--slice-spacing", 5, "--scale", 2), (20, 20, 2), "measured 20 x 20 x 10"),
    ],
)
def test_degrade_simulates_any_loss_in_place(tmp_path, command, asked, shape, told):
    """A constant stays one, and the field of view that is left keeps its centre."""
    truth = write_volume(
        tmp_path / "a.nii", Volume(np.full((40, 40, 12), 7, np.float32) + np.eye(40)[..., None] / 99, np.diag([1, 1, 1.001, 1.0]))
    )
    done = command("degrade", "--input", truth, "--output", tmp_path / "b.nii", "--through-plane", 2, *asked)
    assert done.exit_code == 0, done.stderr
    low = read_nifti(tmp_path / "b.nii")
    assert low.data.shape == shape
    np.testing.assert_allclose(low.data, 7, atol=0.03)
    if "--slice-thickness" in asked:
        depth = low.grid.spacing[2] * shape[2]
        centre = low.affine @ [0, 0, (shape[2] - 1) / 2, 1]
        np.testing.assert_allclose(centre[2], 5.5 * 1.001, atol=1.01 / 2)
        assert depth == pytest.approx(round(depth / 1.001) * 1.001)
        known = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
        assert known == {"SliceThickness": 4.0, "SpacingBetweenSlices": pytest.approx(float(low.grid.spacing[2]), abs=1e-5)}
    assert told.split()[0] in str(nib.load(tmp_path / "b.nii").header["descrip"])
