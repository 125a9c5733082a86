"""`super-resolve` and `convert` on DICOM series, a folder each."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import MediaStorageDirectoryStorage

from hftn_sr.volumes.dicom import read_dicom
from hftn_sr.volumes.nifti import read_nifti, save_nifti
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


@pytest.fixture
def to_dicom(command, weights, tmp_path):
    def of(*arguments, output="series"):
        given = ("--output", tmp_path / "out" / output, "--output-format", "dicom", "--model", weights[2], "--device", "cpu")
        return command("super-resolve", *arguments, *given)

    return of


def test_a_dicom_target_goes_back_as_dicom(folders, run, to_dicom, tmp_path):
    result = to_dicom("--target", folders[0], "--reference", folders[1])
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"series", "series.json", "series_preview.png", "report.html", "report_files"}
    assert run(*folders, "nifti", "--no-report").exit_code == 0
    ours, nifti = read_dicom(out / "series"), read_nifti(tmp_path / "nifti" / "out.nii.gz")
    np.testing.assert_allclose(ours.data, nifti.data, atol=0.51 * np.ptp(nifti.data) / 65535)
    np.testing.assert_allclose(ours.affine, nifti.affine, atol=1e-4)
    record = json.loads((out / "series.json").read_text(encoding="utf-8"))
    assert (record["output"]["sha256"], record["output"]["format"]) == (ours.sha256, "dicom")
    noted = b"".join(path.read_bytes() for path in out.iterdir() if path.is_file()) + (result.stdout + result.stderr).encode()
    assert [text for text in PATIENT if text.encode() in noted] == []


def test_a_series_is_redone_when_it_or_its_inputs_changed(folders, to_dicom, tmp_path):
    pair, out = ("--target", folders[0], "--reference", folders[1]), tmp_path / "out" / "series"
    assert to_dicom(*pair).exit_code == 0
    first = {each.name: each.read_bytes() for each in out.iterdir()}
    assert to_dicom(*pair).exit_code == 3
    assert to_dicom(*pair, "--overwrite", "stale").exit_code == 3
    (out / "slice_0002.dcm").unlink()
    assert to_dicom(*pair, "--overwrite", "stale").exit_code == 0
    assert {each.name: each.read_bytes() for each in out.iterdir()} == first
    assert to_dicom(*pair, "--overwrite", "always").exit_code == 0
    assert not [each for each in out.parent.iterdir() if each.name.startswith(".")]


def test_a_folder_with_anything_else_in_it_is_never_replaced(folders, to_dicom, tmp_path):
    pair, out = ("--target", folders[0], "--reference", folders[1], "--overwrite", "always"), tmp_path / "out" / "series"
    out.mkdir(parents=True)
    assert to_dicom(*pair).exit_code == 0  # an empty one is
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    refused = to_dicom(*pair)
    assert (refused.exit_code, "files or folders that are not of this program" in refused.stderr) == (9, True)
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"
    refused = to_dicom(*pair, output="../dicom/flair")  # the target itself
    assert (refused.exit_code, len(list(folders[0].iterdir()))) == (9, 4)


@pytest.mark.parametrize("overwrite", ["never", "stale"])
@pytest.mark.parametrize("first", ["nifti", "dicom"])
def test_cases_that_stand_in_the_other_format_are_done_before_and_none_is_lost(scans, command, weights, tmp_path, first, overwrite):
    for role, volume in zip(("target", "reference"), scans, strict=True):
        write_series(tmp_path / "cases" / "p1" / role, volume)
    out = tmp_path / "out"

    def run(output_format, *more):
        given = ("--cases", tmp_path / "cases", "--output", out, "--model", weights[2], "--device", "cpu", "--no-preview")
        return command("super-resolve", *given, "--output-format", output_format, *more)

    assert run(first, "--no-report").exit_code == 0
    before = {path.name for path in (out / "p1").iterdir()}
    second = "dicom" if first == "nifti" else "nifti"
    again = run(second, "--overwrite", overwrite)
    assert (again.exit_code, {path.name for path in (out / "p1").iterdir()}) == (3, before)
    stands = "target_sr.nii.gz" if first == "nifti" else "target_sr"
    assert f"the result stands as {stands}; another --output takes one in the other format" in again.stderr
    (row,) = json.loads((out / "summary.json").read_text(encoding="utf-8"))["cases"]
    assert (row["status"], row["output"], row["scale"]) == ("done before", stands, 2)
    assert "no pictures" not in (out / "report.html").read_text(encoding="utf-8")
    refused = run(second, "--overwrite", "always")
    assert (refused.exit_code, f"is the record of {stands}, which would lose it" in refused.stderr) == (9, True)


def test_cases_go_back_as_dicom_where_their_target_was(scans, to_dicom, command, tmp_path):
    for case in ("p1", "p2"):
        for role, volume in zip(("target", "reference"), scans, strict=True):
            write_series(tmp_path / "cases" / case / role, volume)
    shutil.rmtree(tmp_path / "cases" / "p2" / "target")
    save_nifti(tmp_path / "cases" / "p2" / "target.nii.gz", scans[0], "test")
    result = to_dicom("--cases", tmp_path / "cases", output=".")
    assert result.exit_code == 8
    assert "Fix: --output-format nifti" in result.stderr
    assert read_dicom(tmp_path / "out" / "p1" / "target_sr").data.shape == (40, 44, 4)
    drawn = command("report", "--results", tmp_path / "out", "--cases", tmp_path / "cases")
    assert drawn.exit_code == 0, drawn.stderr
    assert "no pictures" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    one = tmp_path / "out" / "p1"
    named = ("--target", tmp_path / "cases" / "p1" / "target", "--reference", tmp_path / "cases" / "p1" / "reference")
    assert command("report", "--results", one / "target_sr", *named).exit_code == 0


@pytest.mark.parametrize(
    ("name", "told"), [("sr.nii.gz", "a folder is needed for a DICOM series"), ("file", "is a file, a DICOM series needs a folder")]
)
def test_a_name_that_is_no_folder_s_is_refused(folders, to_dicom, tmp_path, name, told):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_bytes(b"x")
    refused = to_dicom("--target", folders[0], "--reference", folders[1], output=name)
    assert (refused.exit_code, told in refused.stderr) == (2, True), refused.stderr
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["file"]


def test_a_series_that_is_not_of_its_record_is_made_again(folders, to_dicom, tmp_path):
    """As after a kill between the two steps in which a folder is replaced."""
    pair, out = ("--target", folders[0], "--reference", folders[1]), tmp_path / "out" / "series"
    assert to_dicom(*pair).exit_code == 0
    record = json.loads((tmp_path / "out" / "series.json").read_text(encoding="utf-8"))
    record["output"]["sha256"] = "0" * 64
    (tmp_path / "out" / "series.json").write_text(json.dumps(record), encoding="utf-8")
    out.rename(out.with_name(".series.01234567.old"))
    assert to_dicom(*pair).exit_code == 0
    again = json.loads((tmp_path / "out" / "series.json").read_text(encoding="utf-8"))
    assert again["output"]["sha256"] == read_dicom(out).sha256
    assert to_dicom(*pair).exit_code == 3


def test_an_output_in_the_folder_of_the_target_is_refused(folders, to_dicom):
    refused = to_dicom("--target", folders[0], "--reference", folders[1], output="../dicom/flair/sr")
    assert (refused.exit_code, "lies in the folder of the target" in refused.stderr) == (2, True)
    assert len(list(folders[0].iterdir())) == 4
