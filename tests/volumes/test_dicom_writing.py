"""A result as a DICOM series: read back by this package and by ITK, judged by dciodvfy, and free of what must not be copied."""

import shutil
import subprocess

import itk
import numpy as np
import pydicom
import pytest

from hftn_sr.volumes.dicom import dicom_slices, read_dicom
from hftn_sr.volumes.dicom_writing import Derivation, dicom_files
from hftn_sr.volumes.volume import Volume
from phantoms import oblique
from series import enhanced, slices_of, write_one, write_series, write_slices

DERIVATION = Derivation("Super-resolved by a test.", "key")


@pytest.fixture
def source():
    data = np.random.default_rng(0).integers(0, 4000, (10, 12, 5)).astype(np.float32)
    return Volume(data, oblique((0.9, 0.9, 4.0), shape=(10, 12, 5)))


def written(folder, source_folder, volume, derivation=DERIVATION, frame=None):
    folder.mkdir(exist_ok=True)
    for name, content in dicom_files(volume, dicom_slices(source_folder, frame), derivation):
        (folder / name).write_bytes(content)
    return folder


def finer(volume, scale=2, rng=1):
    """Random voxels, negative ones among them, on the result's grid of a low-resolution volume."""
    grid = volume.grid.finer(scale, 2)
    return volume.on(grid, np.random.default_rng(rng).normal(300, 200, grid.shape).astype(np.float32))


def headers(folder):
    return [pydicom.dcmread(each) for each in sorted(folder.iterdir())]


def itk_volume(folder):
    """Voxels and affine (RAS) by ITK's own reader of a series."""
    names = itk.GDCMSeriesFileNames.New(Directory=str(folder))
    image = itk.imread(list(names.GetFileNames(names.GetSeriesUIDs()[0])), itk.F)
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return itk.array_from_image(image).T, np.diag([-1, -1, 1, 1]) @ affine


def test_what_is_written_is_read_back_to_half_a_step_and_in_place(source, tmp_path):
    result = finer(source)
    step = np.ptp(result.data) / 65535
    folder = written(tmp_path / "sr", write_series(tmp_path / "lr", source), result)
    ours = read_dicom(folder)
    for data, affine in ((ours.data, ours.affine), itk_volume(folder)):
        np.testing.assert_allclose(data, result.data, atol=0.51 * step)
        np.testing.assert_allclose(affine, result.affine, atol=1e-5)
    assert ours.notes == ()


def test_it_is_a_derived_series_of_the_same_study_and_place(source, tmp_path):
    scan = {
        "StudyInstanceUID": "1.2.3",
        "FrameOfReferenceUID": "1.2.4",
        "PatientIdentityRemoved": "YES",
        "ImageType": ["ORIGINAL", "PRIMARY", "M"],
    }
    lr = write_series(tmp_path / "lr", source, **scan)
    given = {each.SOPInstanceUID: each for each in headers(lr)}
    got = headers(written(tmp_path / "sr", lr, finer(source)))
    first = got[0]
    assert {(each.StudyInstanceUID, each.FrameOfReferenceUID, each.PatientIdentityRemoved) for each in got} == {("1.2.3", "1.2.4", "YES")}
    assert (first.PatientID, first.PatientName, first.AccessionNumber, first.EchoTime) == ("PID4711", "Doe^Jane", "ACC0815", 90)
    assert {each.SeriesInstanceUID for each in got}.isdisjoint(each.SeriesInstanceUID for each in given.values())
    assert len({each.SOPInstanceUID for each in got} - set(given)) == len(got) == 5
    assert (first.ImageType, first.SeriesDescription, first.SeriesNumber) == (
        ["DERIVED", "SECONDARY", "M"],
        "t2 tra SR research only",
        9005,
    )
    assert (first.DerivationCodeSequence[0].CodeValue, first.DerivationDescription) == ("113085", DERIVATION.text)
    assert first.ContributingEquipmentSequence[0].Manufacturer == "hftn-sr"
    assert first.ImageComments == "Research use only. Not for clinical use."
    for each in got:  # the image that it was made from lies at the same place
        (item,) = each.SourceImageSequence
        assert given[item.ReferencedSOPInstanceUID].ImagePositionPatient == pytest.approx(each.ImagePositionPatient, abs=1e-6)


def test_private_and_unknown_attributes_stay_behind(source, tmp_path):
    slices = slices_of(source, OperatorsName="Who^Else", PatientComments="secret", PatientAddress="Elm Street")
    for each in slices:
        each.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x08, "LO", "secret")
        code = pydicom.Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Profile"
        code.private_block(0x0021, "ACME", create=True).add_new(0x01, "LO", "secret")
        each.DeidentificationMethodCodeSequence = [code]
    folder = written(tmp_path / "sr", write_slices(tmp_path / "lr", slices), finer(source))
    everything = b"".join(each.read_bytes() for each in folder.iterdir())
    assert not [text for text in (b"secret", b"SIEMENS MR", b"Elm Street", b"Who^Else", b"ACME") if text in everything]
    assert b"Basic Profile" in everything
    found = []
    for each in headers(folder):
        each.walk(lambda _, element: found.append(element.tag.is_private))
    assert not any(found)


def test_the_same_result_gives_the_same_bytes_and_another_one_other_uids(source, tmp_path):
    lr = write_series(tmp_path / "lr", source)
    one, two = (written(tmp_path / name, lr, finer(source)) for name in ("a", "b"))
    assert [each.read_bytes() for each in sorted(one.iterdir())] == [each.read_bytes() for each in sorted(two.iterdir())]
    other = headers(written(tmp_path / "c", lr, finer(source), Derivation("x", "another")))
    assert {each.SOPInstanceUID for each in other}.isdisjoint(each.SOPInstanceUID for each in headers(one))


def test_a_series_of_an_enhanced_image_is_classic_and_names_the_frames(source, tmp_path):
    (tmp_path / "lr").mkdir()
    one = enhanced([source, source.on(source.grid, source.data + 7)], echoes=[30.123456789012345, 90])
    write_one(tmp_path / "lr" / "enhanced", one)
    got = headers(written(tmp_path / "sr", tmp_path / "lr", finer(source), frame=0))
    assert {each.SOPClassUID.name for each in got} == {"MR Image Storage"}
    assert [each.SourceImageSequence[0].ReferencedFrameNumber for each in got] == [1, 2, 3, 4, 5]
    assert (float(got[0].EchoTime), got[0].RepetitionTime, got[0].ScanningSequence) == (pytest.approx(30.1234567890), 4000, "RM")


@pytest.mark.parametrize(
    ("element", "value"),
    [
        *(("SeriesNumber", value) for value in ("", "2147483647")),
        *(("SeriesDescription", value) for value in ("", "x" * 64, "Ödem \\ T2")),
        *(("ImageType", value) for value in ("", ["ORIGINAL", "PRIMARY"])),
        *(("StudyInstanceUID", value) for value in ("1.2", "")),
        ("PatientName", "Müller^Jörg"),
    ],
)
def test_odd_headers_do_not_stop_it(source, tmp_path, element, value):
    lr = write_series(tmp_path / "lr", source, SpecificCharacterSet="ISO_IR 192", **{element: value})
    folder = written(tmp_path / "sr", lr, finer(source))
    assert len(read_dicom(folder).data) == 20
    assert all(each.SeriesDescription.endswith("SR research only") and len(each.SeriesDescription) <= 64 for each in headers(folder))
    assert all(each.StudyInstanceUID and each.FrameOfReferenceUID for each in headers(folder))


def test_a_source_of_few_attributes_does_too(source, tmp_path):
    slices = slices_of(source)
    for each in slices:
        for name in (
            "PatientName",
            "PatientID",
            "StudyDate",
            "EchoTime",
            "RepetitionTime",
            "SeriesDescription",
            "SeriesNumber",
            "SliceThickness",
        ):
            delattr(each, name)
    got = headers(written(tmp_path / "sr", write_slices(tmp_path / "lr", slices), finer(source)))
    assert (got[0].PatientName, got[0].PatientID, got[0].SliceThickness) == ("", "", pytest.approx(4))


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="needs dciodvfy of Debian's dicom3tools")
@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_dciodvfy_finds_no_error(source, tmp_path, kind):
    if kind == "classic":
        scan = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4", "StudyTime": "1200", "StudyID": "1", "ScanningSequence": "SE"}
        lr = write_series(tmp_path / "lr", source, **scan)
    else:
        (tmp_path / "lr").mkdir()
        write_one(tmp_path / "lr" / "enhanced", enhanced([source]))
        lr = tmp_path / "lr"
    for each in written(tmp_path / "sr", lr, finer(source)).iterdir():
        said = subprocess.run(["dciodvfy", each], capture_output=True, text=True, check=False)
        assert "Error" not in said.stderr + said.stdout, said.stderr
