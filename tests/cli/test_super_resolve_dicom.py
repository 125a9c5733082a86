"""`super-resolve` and `convert` on DICOM series, a folder each."""

import json

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import MediaStorageDirectoryStorage

from hftn_sr.volumes.dicom import read_dicom
from hftn_sr.volumes.nifti import read_nifti
from series import PATIENT, dataset, slices_of, write_one, write_series, write_slices


@pytest.fixture
def scans(pair):
    """Target and reference in whole numbers above 0, as a scanner stores them."""
    return [volume.on(volume.grid, np.round(volume.data.clip(0))) for volume in pair(2)]


@pytest.fixture
def folders(scans, tmp_path):
    names = ("flair", "t2.1")  # a dot is no suffix
    return [write_series(tmp_path / "dicom" / name, volume) for name, volume in zip(names, scans, strict=True)]


@pytest.fixture
def run(command, weights, tmp_path):
    def of(target, reference, name, *arguments):
        named = ("--target", target, "--reference", reference, "--output", tmp_path / name / "out.nii.gz", "--model", weights[2])
        return command("super-resolve", *named, "--device", "cpu", *arguments)

    return of


def everything(folder):
    """The bytes of all files below a folder, NIfTI unpacked."""
    found = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".gz")
    return found + b"".join(nib.load(path).header.binaryblock for path in sorted(folder.rglob("*.nii.gz")))


def test_a_dicom_pair_gives_the_same_as_its_nifti_pair(folders, scans, run, command, tmp_path):
    result = run(*folders, "dicom_sr")
    assert result.exit_code == 0, result.stderr
    assert command("convert", *folders, "--output", tmp_path / "nifti").exit_code == 0
    assert run(*(tmp_path / "nifti" / f"{name}.nii.gz" for name in ("flair", "t2.1")), "nifti_sr", "--no-report").exit_code == 0
    one, other = (read_nifti(tmp_path / name / "out.nii.gz") for name in ("dicom_sr", "nifti_sr"))
    assert one.data.shape == (40, 44, 4)
    np.testing.assert_allclose(one.data, other.data, atol=1e-3 * other.data.max())  # the NIfTI header has its affine in float32
    np.testing.assert_allclose(one.affine, scans[0].grid.finer(2, 2).affine, atol=1e-4)
    record = json.loads((tmp_path / "dicom_sr" / "out.json").read_text(encoding="utf-8"))
    assert record["target"] == {"file": "flair", "sha256": read_dicom(folders[0]).sha256}
    assert record["placement"]["by"] == "header"
    assert {path.name for path in (tmp_path / "dicom_sr").iterdir()} >= {"out.nii.gz", "out.json", "out_preview.png", "report.html"}
    noted = everything(tmp_path / "dicom_sr") + everything(tmp_path / "nifti") + (result.stdout + result.stderr).encode()
    assert [text for text in PATIENT if text.encode() in noted] == []


def test_a_result_is_redone_only_when_its_series_changed(folders, scans, run):
    assert run(*folders, "out", "--no-preview").exit_code == 0
    assert run(*folders, "out", "--no-preview", "--overwrite", "stale").exit_code == 3
    changed = scans[1].on(scans[1].grid, scans[1].data + (scans[1].data > 100))
    write_series(folders[1], changed)
    assert run(*folders, "out", "--no-preview", "--overwrite", "stale").exit_code == 0


def test_cases_may_hold_series(scans, command, weights, tmp_path):
    for role, volume in zip(("target", "reference"), scans, strict=True):
        write_series(tmp_path / "cases" / "p1" / role, volume)
    arguments = ("--output", tmp_path / "out", "--model", weights[2], "--device", "cpu", "--no-report", "--no-preview")
    result = command("super-resolve", "--cases", tmp_path / "cases", *arguments)
    assert (result.exit_code, (tmp_path / "out" / "p1" / "target_sr.nii.gz").is_file()) == (0, True), result.stderr
    (tmp_path / "cases" / "p1" / "target.nii.gz").write_bytes(b"x")
    refused = command("super-resolve", "--cases", tmp_path / "cases", *arguments)
    assert (refused.exit_code, "ambiguous: target.nii.gz and the DICOM series target/" in refused.stderr) == (9, True)


def test_a_folder_that_is_no_series_is_refused_in_one_line(folders, run, tmp_path):
    refused = run(tmp_path / "dicom", folders[1], "out")
    assert refused.exit_code == 9
    assert "dicom: a folder without a DICOM file (found 0 other files, 2 sub-folders). Fix: " in refused.stderr
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_every_series_in_a_folder_becomes_nifti(folders, scans, command, tmp_path):
    result = command("convert", tmp_path / "dicom", "--output", tmp_path / "nifti")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (tmp_path / "nifti").iterdir()} == {"flair.nii.gz", "flair.json", "t2.1.nii.gz", "t2.1.json"}
    image = nib.load(tmp_path / "nifti" / "flair.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(), scans[0].data)
    np.testing.assert_allclose(image.affine, scans[0].affine, atol=1e-4)
    noted = json.loads((tmp_path / "nifti" / "flair.json").read_text(encoding="utf-8"))
    assert (noted["EchoTime"], noted["RepetitionTime"], noted["MagneticFieldStrength"]) == (0.09, 4.0, 3.0)
    assert noted["Source"] == {"file": "flair", "sha256": read_dicom(folders[0]).sha256}
    assert command("convert", tmp_path / "dicom", "--output", tmp_path / "nifti").exit_code == 3
    absent = command("convert", folders[0], "--frame", 5, "--output", tmp_path / "nifti")
    assert (absent.exit_code, "1 volume in the series, no number 5. Fix: leave --frame out" in absent.stderr) == (9, True)


def test_a_disc_with_an_index_at_its_root_is_searched_below(folders, command, tmp_path):
    index = dataset(np.zeros((1, 1)), SOPClassUID=MediaStorageDirectoryStorage)
    write_one(tmp_path / "dicom" / "DICOMDIR", index)
    result = command("convert", tmp_path / "dicom", "--output", tmp_path / "nifti")
    assert (result.exit_code, len(list((tmp_path / "nifti").glob("*.nii.gz")))) == (0, 2), result.stderr
    alone = tmp_path / "alone"
    alone.mkdir()
    write_one(alone / "DICOMDIR", index)
    refused = command("convert", alone, "--output", tmp_path / "nifti")
    assert (refused.exit_code, "no MR image among 1 DICOM files" in refused.stderr) == (9, True)


def test_one_of_several_series_is_converted_by_its_number(folders, scans, command, tmp_path):
    write_slices(folders[0], slices_of(scans[1], SeriesNumber=12), name="x{}")
    refused = command("convert", folders[0], "--output", tmp_path / "nifti")
    assert (refused.exit_code, "2 series in one folder (12 t2 tra, 4 slices; 5 t2 tra, 4 slices)" in refused.stderr) == (9, True)
    assert command("convert", folders[0], "--series", 12, "--output", tmp_path / "nifti").exit_code == 0
    np.testing.assert_array_equal(nib.load(tmp_path / "nifti" / "flair_series-12.nii.gz").get_fdata(), scans[1].data)
    (tmp_path / "a.h5").write_bytes(b"")
    mixed = command("convert", tmp_path / "a.h5", "--series", 12, "--output", tmp_path / "nifti")
    assert (mixed.exit_code, "--series: is for DICOM series only" in mixed.stderr) == (2, True)
