"""`hftn-sr-bids`: the arguments of a BIDS App, the results of `super-resolve --bids`."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import hftn_sr
from hftn_sr.cli.bids_app import app

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bids_app(weights):
    """Runs the tiny network; arguments as a BIDS App takes them."""

    def of(*arguments):
        fast = ("--model", weights[2], "--device", "cpu", "--no-preview", "--no-report")
        return CliRunner().invoke(app, [str(argument) for argument in (*arguments, *fast)])

    return of


CONTRASTS = ("--target", "FLAIR", "--reference", "T2w")


def planned(result):
    """The names of the results that a dry run would write."""
    return re.findall(r"(sub-[^/\s]+)_res-hi_desc-sr_FLAIR\.nii\.gz: would write", result.stdout)


def test_the_result_is_that_of_super_resolve(dataset, bids_app, command, weights, tmp_path):
    done = bids_app(dataset, tmp_path / "app", "participant", *CONTRASTS, "--scale", 2)
    assert (done.exit_code, done.stderr) == (0, done.stderr)
    asked = ("--bids", dataset, *CONTRASTS, "--output", tmp_path / "other", "--scale", 2, "--model", weights[2], "--device", "cpu")
    assert command("super-resolve", *asked, "--no-preview", "--no-report").exit_code == 0
    made, other = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.name.endswith((".nii.gz", ".md"))}
        for folder in (tmp_path / "app", tmp_path / "other")
    )
    assert made == other
    assert len(made) == 4
    described = json.loads((tmp_path / "app" / "dataset_description.json").read_text(encoding="utf-8"))
    assert (described["DatasetType"], described["GeneratedBy"][0]["Name"]) == ("derivative", "hftn-sr")
    assert bids_app(dataset, tmp_path / "app", "participant", *CONTRASTS, "--scale", 2).exit_code == 3


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((), ["01_ses-a", "01_ses-b_acq-fast_run-1", "02"]),
        (("--participant-label", "02"), ["02"]),
        (("--participant_label", "sub-02", "01"), ["01_ses-a", "01_ses-b_acq-fast_run-1", "02"]),
        (("--participant-label=02", "--participant_label=01"), ["01_ses-a", "01_ses-b_acq-fast_run-1", "02"]),
        (("--session-label", "b", "ses-a", "--participant-label", "01"), ["01_ses-a", "01_ses-b_acq-fast_run-1"]),
        (("--session_label", "a"), ["01_ses-a"]),
        (("--participant-label", "01", "02", "--n_cpus", "1", "--target_entities", "acq-"), ["01_ses-a", "02"]),
    ],
)
def test_labels_choose_participants_and_sessions_in_the_spellings_of_bids_apps(dataset, bids_app, tmp_path, labels, names):
    result = bids_app(dataset, tmp_path / "out", "participant", *labels, "--dry-run", "--skip-bids-validation", *CONTRASTS)
    assert (result.exit_code, planned(result)) == (0, [f"sub-{name}" for name in names])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("participant", "--participant-label", "01", "07", "sub-1"),
            "--participant-label: no sub-07, sub-1 in {ds} (present: 01, 02). Fix: ",
        ),
        (
            ("participant", "--participant-label", "02", "--session-label", "b"),
            "--session-label: no ses-b in {ds} (present: none). Fix: leave",
        ),
        (("participant", "--session-label", "c"), "--session-label: no ses-c in {ds} (present: a, b). Fix: --session-label a."),
        (("group",), "group: there is no such level: each participant is super-resolved alone. Fix: participant."),
        (("subject",), "analysis level: 'subject' is not known (need participant). Fix: BIDS_DIR OUTPUT_DIR participant."),
    ],
)
def test_what_is_not_there_is_refused_by_name(dataset, bids_app, tmp_path, arguments, message):
    result = bids_app(dataset, tmp_path / "out", *arguments, *CONTRASTS)
    assert result.exit_code == 2
    assert f"ERROR {message.format(ds=dataset)}" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_contrasts_must_be_named(dataset, bids_app, tmp_path):
    for given, message in (
        ((), "--target: is missing, a BIDS dataset needs its suffix. Fix: --target FLAIR, or another suffix"),
        (CONTRASTS[:2], "--reference: is missing, a BIDS dataset needs its suffix. Fix: --reference T2w, or another suffix"),
    ):
        result = bids_app(dataset, tmp_path / "out", "participant", *given)
        assert (result.exit_code, message in result.stderr) == (2, True)


def test_a_participant_that_was_asked_for_and_has_no_target_is_a_failed_case(dataset, bids_app, tmp_path):
    result = bids_app(dataset, tmp_path / "out", "participant", "--participant-label", "01", "02", "--session-label", "a", *CONTRASTS)
    assert result.exit_code == 8
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR ")]
    assert "no target (searched sub-02/[ses-a/]anat/*_FLAIR.nii[.gz], found no image)" in line
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["sub-01_ses-a_res-hi_desc-sr_FLAIR.nii.gz"]
    nothing = bids_app(dataset, tmp_path / "other", "participant", "--participant-label", "01", "--target", "T1w", "--reference", "T2w")
    assert (nothing.exit_code, "found FLAIR, T2w" in nothing.stderr) == (3, True)


def test_labels_need_a_dataset(command, tmp_path):
    result = command("super-resolve", "--target", "a.nii", "--output", tmp_path / "o.nii", "--scale", 2, "--participant-label", "01")
    assert (result.exit_code, "--participant-label: needs --bids" in result.stderr) == (2, True)


def test_the_help_fits_a_terminal_and_ends_with_an_example_that_the_parser_takes(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert "Research use only. Not for clinical use." in shown
    (example,) = re.findall(r"^ +hftn-sr-bids (.+)$", shown.partition("Example")[2], re.MULTILINE)
    get_command(app).make_context("hftn-sr-bids", shlex.split(example))


def test_no_option_is_offered_that_cannot_be_taken():
    names = {name for parameter in get_command(app).params for name in parameter.opts}
    assert "--output-format" not in names and {"--overwrite", "--dry-run", "--participant-label"} <= names


def test_it_is_a_command_of_the_package_and_runs_without_installation():
    assert 'hftn-sr-bids = "hftn_sr.cli.bids_app:main"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    called = [sys.executable, "-m", "hftn_sr.cli.bids_app", "--version"]
    run = subprocess.run(called, env=os.environ | {"PYTHONPATH": str(ROOT / "bundle")}, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, f"hftn-sr-bids {hftn_sr.__version__}\n")
