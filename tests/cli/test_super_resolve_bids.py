"""`super-resolve --bids`: a BIDS dataset in, a derivative dataset out, judged by the validator of BIDS itself where it is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hftn_sr.inference.result import own_record
from hftn_sr.volumes.nifti import read_nifti
from phantoms import phantom, points


@pytest.fixture
def run(command, weights, dataset):
    """Runs the tiny network on the dataset; further arguments come last."""

    def of(output, *arguments):
        asked = ("--bids", dataset, "--target", "FLAIR", "--reference", "T2w", "--output", output, "--scale", 2)
        return command("super-resolve", *asked, "--model", weights[2], "--device", "cpu", *arguments)

    return of


def content(folder):
    """Relative path to bytes of all files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def issues(folder):
    """(severity, code, location) of what the BIDS validator finds."""
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent)) or shutil.which("bids-validator-deno")
    if not program:
        pytest.skip("the BIDS validator is not installed (pip install bids-validator-deno)")
    done = subprocess.run([program, str(folder), "--format", "json"], capture_output=True, text=True, timeout=300, check=False)
    found = json.loads(done.stdout)
    assert found["summary"]["totalFiles"] > 0
    return [(issue["severity"], issue["code"], issue.get("location", "")) for issue in found["issues"]["issues"]]


IMAGES = [
    "sub-01/ses-a/anat/sub-01_ses-a_res-hi_desc-sr_FLAIR",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-fast_run-1_res-hi_desc-sr_FLAIR",
    "sub-02/anat/sub-02_res-hi_desc-sr_FLAIR",
]


def test_a_dataset_becomes_a_derivative_dataset_and_is_not_touched(dataset, run):
    before = content(dataset)
    output = dataset / "derivatives" / "hftn-sr"
    result = run(output)
    assert (result.exit_code, result.stderr) == (0, result.stderr)
    made = content(output)
    beside = [f"{stem}{ending}" for stem in IMAGES for ending in (".json", ".nii.gz", "_preview.png")]
    about = [".bidsignore", "README.md", "dataset_description.json", "report.html", "summary.csv", "summary.json"]
    assert sorted(name for name in made if not name.startswith("report_files/")) == sorted(beside + about)
    assert {path: held for path, held in content(dataset).items() if not path.startswith("derivatives/")} == before
    volume = read_nifti(output / f"{IMAGES[0]}.nii.gz")
    np.testing.assert_allclose(points(volume.grid), points(phantom().grid), atol=1e-4)
    described = json.loads(made["dataset_description.json"])
    assert (described["DatasetType"], described["DatasetLinks"]) == ("derivative", {"raw": "../.."})
    noted = json.loads(made[f"{IMAGES[1]}.json"])
    session = "bids:raw:sub-01/ses-b/anat/sub-01_ses-b"
    assert noted["Sources"] == [f"{session}_acq-fast_run-1_FLAIR.nii.gz", f"{session}_run-1_T2w.nii.gz"]
    assert (noted["SkullStripped"], noted["HftnSr"]["scale"]) == (False, 2)
    assert noted["Resolution"] == "1 x 1 x 3 mm, finer in plane than the source"
    assert own_record(output / f"{IMAGES[1]}.json") == noted["HftnSr"]


def test_the_validator_of_bids_finds_no_fault_and_does_where_there_is_one(dataset, run):
    output = dataset.parent / "derived"
    run(output)
    found = issues(output)
    assert [issue for issue in found if issue[0] == "error"] == []
    assert {issue[1] for issue in found} <= {"TOO_FEW_AUTHORS"}  # whoever publishes the dataset writes these


def test_the_validator_misses_what_is_not_known_until_one_file_says_it(dataset, run):
    (dataset / "FLAIR.json").unlink()
    output = dataset.parent / "derived"
    planned = run(output, "--dry-run")
    assert "SkullStripped would be left out of 3 side files" in planned.stderr
    result = run(output, "--no-preview")
    (said,) = [line for line in result.stderr.splitlines() if "SkullStripped" in line]
    assert said.startswith("SkullStripped is left out of 3 side files")
    assert {issue for issue in issues(output) if issue[0] == "error"} == {
        ("error", "SIDECAR_KEY_REQUIRED", f"/{image}.nii.gz") for image in IMAGES
    }
    (output / "FLAIR.json").write_text('{"SkullStripped": false}', encoding="utf-8")
    assert [issue for issue in issues(output) if issue[0] == "error"] == []
    assert "SkullStripped" not in run(output, "--no-preview", "--overwrite", "always").stderr


def test_a_broken_run_goes_on_and_only_what_is_stale_is_redone(dataset, run):
    output = dataset / "derivatives" / "sr"
    run(output, "--no-preview")
    made = content(output)
    (output / f"{IMAGES[1]}.nii.gz").unlink()
    again = run(output, "--no-preview", "--overwrite", "stale")
    assert again.exit_code == 0
    statuses = [case["status"] for case in json.loads((output / "summary.json").read_text(encoding="utf-8"))["cases"]]
    assert statuses == ["done before", "done", "done before"]
    assert content(output)[f"{IMAGES[1]}.nii.gz"] == made[f"{IMAGES[1]}.nii.gz"]
    image = nib.load(dataset / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz")
    nib.save(nib.Nifti1Image(2 * image.get_fdata(dtype=np.float32), image.affine), image.get_filename())
    run(output, "--no-preview", "--overwrite", "stale")
    statuses = [case["status"] for case in json.loads((output / "summary.json").read_text(encoding="utf-8"))["cases"]]
    assert statuses == ["done before", "done before", "done"]
    assert run(output, "--no-preview").exit_code == 3


def test_a_session_without_a_reference_is_done_alone_if_wanted(dataset, run):
    (dataset / "sub-02" / "anat" / "sub-02_T2w.nii.gz").unlink()
    output = dataset.parent / "derived"
    result = run(output, "--no-preview", "--reference-optional")
    assert result.exit_code == 0
    noted = json.loads((output / f"{IMAGES[2]}.json").read_text(encoding="utf-8"))
    assert noted["Sources"] == ["bids:raw:sub-02/anat/sub-02_FLAIR.nii.gz"]
    assert "reference" in next(line for line in result.stderr.splitlines() if line.startswith("WARNING sub-02_FLAIR "))
    assert [finding for finding in issues(output) if finding[0] == "error"] == []


def test_a_session_without_its_one_reference_fails_and_the_rest_is_done(dataset, run):
    (dataset / "sub-02" / "anat" / "sub-02_T2w.nii.gz").unlink()
    shutil.copy(dataset / "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz", dataset / "sub-01/ses-a/anat/sub-01_ses-a_acq-hires_T2w.nii.gz")
    (dataset / "sub-03" / "anat").mkdir(parents=True)
    (dataset / "sub-03" / "anat" / "sub-03_T2w.nii.gz").touch()
    output = dataset.parent / "derived"
    result = run(output, "--no-preview")
    assert result.exit_code == 8
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR ")]
    assert errors[0].startswith("ERROR sub-01_ses-a_FLAIR ")
    assert errors[0].endswith("Fix: --reference-entities acq- (or acq-hires).")
    assert "ERROR sub-02_FLAIR " in errors[1]
    assert "no reference beside it" in errors[1]
    assert "sessions with T2w but without FLAIR, left out: 1" in result.stderr
    assert run(output, "--no-preview", "--reference-entities", "acq-hires").exit_code == 8
    assert (output / f"{IMAGES[0]}.nii.gz").is_file()


def test_a_second_image_with_the_name_of_an_earlier_result_is_refused(dataset, run):
    folder, output = dataset / "sub-02" / "anat", dataset.parent / "derived"
    shutil.copy(folder / "sub-02_FLAIR.nii.gz", folder / "sub-02_desc-brain_FLAIR.nii.gz")
    (folder / "sub-02_FLAIR.nii.gz").rename(folder / "sub-02_desc-preproc_FLAIR.nii.gz")
    of_one = ("--no-preview", "--participant-label", "02", "--target-entities")
    assert run(output, *of_one, "desc-preproc").exit_code == 0
    made = (output / f"{IMAGES[2]}.nii.gz").read_bytes()
    refused = run(output, *of_one, "desc-brain", "--overwrite", "always")
    assert refused.exit_code == 9
    assert "was made from another image (bids:raw:sub-02/anat/sub-02_desc-preproc_FLAIR.nii.gz)" in refused.stderr
    assert run(output, *of_one, "desc-preproc").exit_code == 3
    assert (output / f"{IMAGES[2]}.nii.gz").read_bytes() == made


def test_links_of_an_annex_are_read_and_what_is_not_fetched_is_named(dataset, run):
    store = dataset / ".git" / "annex" / "objects"
    store.mkdir(parents=True)
    for index, path in enumerate([dataset / "FLAIR.json", *sorted(dataset.rglob("*.nii.gz"))]):
        path.rename(store / f"SHA256E-{index}")
        path.symlink_to(os.path.relpath(store / f"SHA256E-{index}", path.parent))
    (dataset / "sub-02" / "anat" / "sub-02_T2w.nii.gz").resolve().unlink()
    result = run(dataset / "derivatives" / "hftn-sr", "--no-preview")
    assert result.exit_code == 8
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("ERROR ")]
    assert "sub-02_T2w.nii.gz: its content is not fetched (a link into git-annex). Fix: datalad get sub-02_T2w.nii.gz" in said
    noted = json.loads((dataset / "derivatives" / "hftn-sr" / f"{IMAGES[0]}.json").read_text(encoding="utf-8"))
    assert (noted["SkullStripped"], noted["HftnSr"]["reference"]["used"]) == (False, True)


def test_a_dry_run_and_a_refused_one_write_nothing(dataset, run, tmp_path):
    before = content(tmp_path)
    planned = run(tmp_path / "derived", "--dry-run")
    assert planned.exit_code == 0
    assert planned.stdout.count("would write") == 3
    missing = run(tmp_path / "derived", "--bids", tmp_path / "none")
    assert (missing.exit_code, f"{tmp_path / 'none'}: no such folder" in missing.stderr) == (9, True)
    for arguments, finding in (
        ((dataset / "sr",), "lies inside the source dataset, which is never written to"),
        ((tmp_path / "derived", "--reference-transform", "x.tfm"), "--reference-transform: does not go with --bids"),
        ((tmp_path / "derived", "--target-entities", "acq"), "--target-entities: 'acq' are no BIDS entities"),
        ((tmp_path / "derived", "--pair-by", "x"), "--pair-by"),
        ((tmp_path / "derived", "--device", "cuda"), "--device: cuda was asked for"),
    ):
        refused = run(*arguments)
        assert refused.exit_code == 2
        assert finding in refused.stderr
    assert content(tmp_path) == before
    assert not (tmp_path / "derived").exists()


def test_entities_need_a_dataset(command, tmp_path):
    result = command(
        "super-resolve", "--target", "a.nii", "--reference", "b.nii", "--output", tmp_path / "c.nii", "--target-entities", "run-1"
    )
    assert (result.exit_code, "--target-entities: needs --bids" in result.stderr) == (2, True)


# The page of results that stand


def test_the_page_finds_the_dataset_by_itself_or_where_it_is_told(dataset, run, command, tmp_path):
    output = dataset.parent / "derived"
    assert run(output, "--no-preview", "--no-report").exit_code == 0
    (output / "sub-02/anat/sub-02_res-hi_desc-sr_FLAIR.nii.gz").unlink()
    made = command("report", "--results", output)
    assert (made.exit_code, made.stdout.strip()) == (0, str(output / "report.html"))
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "3 cases: 2 done, 1 no result" in page and "sub-01_ses-a_FLAIR" in page
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in output.glob("report_files/case_*/entry.json")]
    assert len(entries) == 2 and all(entry["pictures"] for entry in entries)
    moved = dataset.rename(tmp_path / "elsewhere")
    lost = command("report", "--results", output)
    assert lost.exit_code == 9
    assert "its source dataset is not where its description says (../ds). Fix: --bids DIR, where that dataset is now" in lost.stderr
    assert command("report", "--results", output, "--bids", moved).exit_code == 0


def test_a_dataset_is_not_taken_for_results_of_another_kind(dataset, command):
    assert "--cases: is missing" in command("report", "--results", dataset).stderr
    refused = command("report", "--results", dataset, "--bids", dataset)
    assert refused.exit_code == 2 and "holds no results of a BIDS dataset" in refused.stderr


def test_no_warning_of_a_dataset_names_an_option_that_it_refuses(dataset, run):
    for path in dataset.rglob("*_T2w.nii.gz"):
        image = nib.load(path)
        affine = image.affine.copy()
        affine[:3, 3] += 35 * affine[:3, 0]
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    result = run(dataset.parent / "derived", "--no-preview", "--no-report", "--register", "none")
    assert "the reference was left out" in result.stderr
    assert "run this pair alone with its transform, by --target and --reference" in result.stderr
    assert "--reference-transform" not in result.stderr
