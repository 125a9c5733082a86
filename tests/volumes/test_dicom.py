"""DICOM series, written by pydicom and placed in space by hand: another reader's work than what is tested."""

import os

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from hftn_sr.errors import Fault
from hftn_sr.volumes.dicom import dicom_scan, dicom_sha256, read_dicom, read_dicom_header
from hftn_sr.volumes.nifti import ReadOptions, save_nifti
from hftn_sr.volumes.reading import read_volume, read_volume_header, volume_sha256
from hftn_sr.volumes.volume import Grid, Volume
from phantoms import contrast, oblique, points
from series import PATIENT, dataset, enhanced, slices_of, write_one, write_series, write_slices

SHAPE = (20, 16, 5)


def scan(kind="target", degrees=(8.0, -5.0, 12.0), spacing=(1.25, 0.9, 3.0), shape=SHAPE):
    """The phantom in whole numbers, as a scanner stores it."""
    grid = Grid(shape, oblique(spacing, degrees, shape))
    return Volume(np.round(contrast(points(grid), kind)), grid.affine)


def test_an_oblique_series_lies_where_its_header_says(tmp_path):
    """Every number by hand: 30 degrees about left-right (LPS x), 2 mm between rows, 1.5 mm between columns, 4 mm between slices."""
    cosine, sine = np.sqrt(0.75), 0.5
    pixels = np.arange(12, dtype="u2").reshape(3, 4)  # 3 rows, 4 columns
    common = {"ImageOrientationPatient": [1, 0, 0, 0, cosine, sine], "PixelSpacing": [2, 1.5], "SeriesInstanceUID": "1.2.3"}
    normal = np.array([0, -sine, cosine])
    first = np.array([-30.0, 40, 50])
    slices = [
        dataset(pixels + 100 * k, ImagePositionPatient=[f"{x:.10g}" for x in first + 4 * k * normal], InstanceNumber=9 - k, **common)
        for k in range(3)
    ]
    volume = read_dicom(write_slices(tmp_path / "a", slices[::-1]))
    expected = [
        [-1.5, 0, 0, 30],
        [0, -2 * cosine, 4 * sine, -40],
        [0, 2 * sine, 4 * cosine, 50],
        [0, 0, 0, 1],
    ]
    np.testing.assert_allclose(volume.affine, expected, atol=1e-6)
    assert np.linalg.det(volume.affine[:3, :3]) > 0
    assert volume.data.shape == (4, 3, 3)
    assert (volume.data[3, 1, 2], volume.data[0, 2, 0], volume.codes, volume.units) == (207, 8, (1, 1), 2)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (8.0, -5.0, 12.0), (80.0, 10.0, -20.0), (170.0, 5.0, 95.0), (0, -90.0, 90.0)])
def test_each_voxel_keeps_its_value_and_its_place(tmp_path, degrees):
    original = scan(degrees=degrees)
    volume = read_dicom(write_series(tmp_path / "a", original))
    np.testing.assert_array_equal(volume.data, original.data)
    np.testing.assert_allclose(volume.affine, original.affine, atol=1e-6)


def test_nibabel_s_reader_of_dicom_agrees(tmp_path):
    """nibabel counts rows first; its stack wants files in order."""
    import pydicom
    from nibabel.nicom.dicomwrappers import wrapper_from_data

    original = scan(degrees=(20.0, -35.0, 12.0))
    volume = read_dicom(write_slices(tmp_path / "a", slices_of(original)))
    for k in range(SHAPE[2]):
        other = wrapper_from_data(pydicom.dcmread(tmp_path / "a" / f"IM{k:04d}"))
        np.testing.assert_array_equal(other.get_data().T, volume.data[..., k])
        lps = np.diag([-1.0, -1, 1, 1]) @ other.affine
        for i, j in ((0, 0), (7, 3), (19, 15)):
            np.testing.assert_allclose((volume.affine @ [i, j, k, 1])[:3], (lps @ [j, i, 0, 1])[:3], atol=1e-6)


@pytest.mark.parametrize(("slope", "intercept"), [(0.125, 0.0), (2.0, -40.0)])
def test_the_header_s_scaling_is_applied(tmp_path, slope, intercept):
    stored = np.random.default_rng(0).integers(0, 4000, SHAPE)
    original = Volume((stored * slope + intercept).astype(np.float32), np.diag([1.0, 1, 3, 1]))
    volume = read_dicom(write_series(tmp_path / "a", original, slope=slope, intercept=intercept))
    np.testing.assert_allclose(volume.data, original.data, rtol=1e-6)


def test_each_slice_is_scaled_by_its_own_header(tmp_path):
    slices = slices_of(scan())
    for number, each in enumerate(slices):
        each.RescaleSlope = 1 + number
    volume = read_dicom(write_slices(tmp_path / "a", slices))
    np.testing.assert_allclose(volume.data, scan().data * np.arange(1, SHAPE[2] + 1), rtol=1e-6)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_the_way_of_writing_does_not_matter(tmp_path, syntax):
    slices = slices_of(scan())
    for each in slices:
        if syntax.is_encapsulated:
            each.compress(syntax)
        else:
            each.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read_dicom(write_slices(tmp_path / "a", slices)).data, scan().data)


def test_negative_voxels_are_kept(tmp_path):
    pixels = np.arange(-6, 6, dtype="i2").reshape(3, 4)
    place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "ImagePositionPatient": [0, 0, 0]}
    one = dataset(pixels, PixelRepresentation=1, SpacingBetweenSlices=6, **place)
    one.PixelData = pixels.astype("<i2").tobytes()
    volume = read_dicom(write_slices(tmp_path / "a", [one]))
    np.testing.assert_array_equal(volume.data[..., 0], pixels.T)
    np.testing.assert_allclose(volume.grid.spacing, [1, 1, 6])
    assert any("a single slice, 6 mm thick" in note for note in volume.notes)


def test_the_header_alone_gives_the_grid_of_the_volume(tmp_path):
    folder = write_series(tmp_path / "a", scan())
    grid, whole = read_volume_header(folder).grid, read_volume(folder).grid
    assert grid.shape == whole.shape
    np.testing.assert_array_equal(grid.affine, whole.affine)


def test_the_hash_is_of_the_images_and_not_of_their_names(tmp_path):
    slices = slices_of(scan())
    one = read_dicom(write_slices(tmp_path / "a", slices)).sha256
    other = write_slices(tmp_path / "b", slices[::-1], name="slice{}.dcm")
    (other / "readme.txt").write_text("anything", encoding="utf-8")
    assert read_dicom(other).sha256 == one == dicom_sha256(other) == volume_sha256(other)
    slices[2].PixelData = bytes(len(slices[2].PixelData))
    assert read_dicom(write_slices(tmp_path / "c", slices)).sha256 != one


def test_nothing_tells_who_was_scanned(tmp_path):
    folder = write_series(tmp_path / "a", scan())
    (folder / "copy").write_bytes((folder / "IM0000").read_bytes())
    volume = read_dicom(folder)
    save_nifti(tmp_path / "a.nii", volume, "from DICOM")
    told = " ".join([*volume.notes, str(dicom_scan(folder))]) + (tmp_path / "a.nii").read_bytes().decode("latin1")
    assert [text for text in PATIENT if text in told] == []


def test_how_it_was_measured_is_told_in_the_units_of_bids(tmp_path):
    known = {"Manufacturer": "SIEMENS", "MagneticFieldStrength": 3.0, "RepetitionTime": 4.0, "EchoTime": 0.09, "SliceThickness": 3.0}
    assert dicom_scan(write_series(tmp_path / "a", scan())) == known


def test_other_files_are_left_alone_and_counted(tmp_path):
    folder = write_series(tmp_path / "a", scan())
    (folder / "notes.txt").write_text("hello", encoding="utf-8")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / "below").mkdir()
    state = dataset(np.zeros((2, 2)), SOPClassUID=GrayscaleSoftcopyPresentationStateStorage, Modality="PR")
    del state.PixelData, state.Rows, state.Columns
    write_one(folder / "PR1", state)
    volume = read_dicom(folder)
    np.testing.assert_array_equal(volume.data, scan().data)
    assert "a: 2 files in it that are no MR images were left alone" in volume.notes


def test_a_file_that_lies_there_twice_counts_once(tmp_path):
    folder = write_series(tmp_path / "a", scan())
    before = read_dicom(folder)
    (folder / "copy").write_bytes((folder / "IM0002").read_bytes())
    volume = read_dicom(folder)
    np.testing.assert_array_equal(volume.data, scan().data)
    assert "a: 1 files in it are copies of others and were left out" in volume.notes
    assert volume.sha256 == before.sha256


def several(elements, kind=("target", "reference")):
    """Slices of two volumes of one series, which differ in these elements."""
    volumes = [slices_of(scan(each), **{name: values[index] for name, values in elements.items()}) for index, each in enumerate(kind)]
    for number, each in enumerate(one for pair in zip(*volumes, strict=True) for one in pair):
        each.SeriesInstanceUID, each.InstanceNumber = "1.2.3", number + 1
    return [each for volume in volumes for each in volume]


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"EchoTime": (90.5, 9.5)}, r"2 volumes in one series \(EchoTime 9.5; EchoTime 90.5\)"),
        (
            {"TemporalPositionIdentifier": (2, 1), "AcquisitionNumber": (1, 1)},
            r"\(TemporalPositionIdentifier 1; TemporalPositionIdentifier 2\)",
        ),
        ({"ImageType": (["ORIGINAL", "PRIMARY", "P"], ["ORIGINAL", "PRIMARY", "M"])}, r"\(ImageType ORIGINAL\\PRIMARY\\M; "),
    ],
)
def test_one_of_several_volumes_is_taken_where_it_is_named(tmp_path, elements, told):
    folder = write_slices(tmp_path / "a", several(elements))
    with pytest.raises(Fault, match=rf"{told}.*Fix: --frame N with N from 0 to 1"):
        read_volume(folder)
    with pytest.raises(Fault, match="Fix: --frame N"):
        read_dicom(folder, frame=2)
    for frame, kind in enumerate(("reference", "target")):
        volume = read_volume(folder, ReadOptions(frame=frame))
        np.testing.assert_array_equal(volume.data, scan(kind).data)
        assert any(f"volume {frame} of 2 volumes" in note for note in volume.notes)
        assert volume.sha256 == volume_sha256(folder)
    assert read_dicom(write_series(tmp_path / "b", scan()), frame=1).data.shape == SHAPE


def test_one_of_several_series_is_taken_where_it_is_named(tmp_path):
    folder = write_slices(tmp_path / "a", slices_of(scan()))
    write_slices(folder, slices_of(scan("reference"), SeriesNumber=12, SeriesDescription="flair"), name="x{}")
    with pytest.raises(Fault, match=r"a: 2 series in one folder \(12 flair, 5 slices; 5 t2 tra, 5 slices\).*Fix: .*own.*--series NUMBER"):
        read_dicom(folder)
    with pytest.raises(Fault, match=r"0 series of number 3 \(found 12 flair"):
        read_dicom(folder, series=3)
    volume = read_dicom(folder, series=12)
    np.testing.assert_array_equal(volume.data, scan("reference").data)
    assert read_dicom_header(folder, series=12).grid.shape == SHAPE
    alone = write_slices(tmp_path / "b", [])
    for path in folder.glob("x*"):
        (alone / path.name).write_bytes(path.read_bytes())
    assert volume.sha256 == dicom_sha256(alone) != read_dicom(folder, series=5).sha256


def test_a_lost_outer_slice_is_noticed_by_its_number(tmp_path):
    slices = slices_of(scan())
    assert not any("copied whole" in note for note in read_dicom(write_slices(tmp_path / "a", slices)).notes)
    volume = read_dicom(write_slices(tmp_path / "b", slices[1:]))
    assert "b: no image of number 1 in it; was the series copied whole?" in volume.notes
    np.testing.assert_array_equal(volume.data, scan().data[..., 1:])


def test_slices_that_are_not_stacked_at_right_angles_are_kept_so(tmp_path):
    slices = slices_of(scan(degrees=(0, 0, 0)))
    for number, each in enumerate(slices):
        x, y, z = map(float, each.ImagePositionPatient)
        each.ImagePositionPatient = [x, y + 0.5 * number, z]
    volume = read_dicom(write_slices(tmp_path / "a", slices))
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -0.5, 3])
    assert any("sheared axes (cosine 0.164), kept as they are" in note for note in volume.notes)


def test_an_image_without_signal_is_read_only_if_asked_for(tmp_path):
    folder = write_series(tmp_path / "a", Volume(np.full(SHAPE, 7.0, np.float32), np.eye(4)))
    with pytest.raises(Fault, match="no signal: every voxel is 7"):
        read_volume(folder)
    assert read_volume(folder, blank=True).data.shape == SHAPE


def changed(index, **elements):
    """Writes the phantom with other elements in one of its slices, or in all."""

    def write(folder):
        slices = slices_of(scan())
        for each in slices if index is None else [slices[index]]:
            for key, value in elements.items():
                delattr(each, key) if value is None else setattr(each, key, value)
        return write_slices(folder, slices)

    return write


def spoilt(how, index=2):
    """Writes the phantom, then changes the bytes of one file."""

    def write(folder):
        path = write_slices(folder, slices_of(scan())) / f"IM{index:04d}"
        path.write_bytes(how(path.read_bytes()))
        return folder

    return write


def without(name):
    def write(folder):
        (write_slices(folder, slices_of(scan())) / name).unlink()
        return folder

    return write


def web_page(folder):
    path = spoilt(lambda data: b"<html>")(folder) / "IM0002"
    return path.rename(folder / "IM0002.dcm").parent


def emptied(folder):
    folder.mkdir()
    (folder / "a.nii.gz").write_bytes(b"x")
    (folder / "below").mkdir()
    return folder


def private(folder):
    slices = slices_of(scan())
    slices[1].file_meta.TransferSyntaxUID = JPEG2000Lossless
    slices[1].PixelData = encapsulate([b"no such stream"])
    slices[1]["PixelData"].is_undefined_length = True
    return write_slices(folder, slices)


def localizer(folder):
    slices = [*slices_of(scan()), *slices_of(scan(degrees=(0, 90, 0)))]
    for each in slices:
        each.SeriesInstanceUID = "1.2.3"
    return write_slices(folder, slices)


def extra(folder):
    """One position has a second image, of another acquisition."""
    slices = slices_of(scan())
    again = slices_of(scan("reference"))[2]
    again.SeriesInstanceUID, again.EchoTime = slices[0].SeriesInstanceUID, "20"
    return write_slices(folder, [*slices, again])


FAULTS = {
    "no DICOM": (emptied, r"a: a folder without a DICOM file \(found 1 other files, 1 sub-folders\).*Fix: .*holds a DICOM series"),
    "missing slice": (without("IM0002"), r"\(6 mm between IM0001 and IM0003, 3 mm elsewhere; 1 seem to be missing\).*Fix: copy the series"),
    "second slice": (without("IM0001"), r"a: its slices are not evenly spaced \(6 mm between IM0000 and IM0002, 3 mm elsewhere; 1 seem"),
    "a slice astray": (changed(2, ImagePositionPatient=[-5, 4, 11]), r"a: its slices are not evenly spaced"),
    "extra image": (extra, r"a: 1 of 5 positions hold several images, and no echo time.*Fix: put the slices of one volume into a folder"),
    "localizer": (localizer, r"a: 2 volumes in one series \(orientation 1; orientation 2\)\. Fix: --frame N with N from 0 to 1"),
    "matrix": (changed(1, Rows=8, Columns=40), r"a: slices of different sizes \(\(20, 16\) voxels .* and \(40, 8\)"),
    "voxel size": (changed(1, PixelSpacing=[0.9, 1.3]), r"a: slices of different sizes"),
    "CT": (changed(None, SOPClassUID=CTImageStorage, Modality="CT"), r"a: no MR image among 5 DICOM files.*Fix: give the folder of an MR"),
    "modality": (changed(1, Modality="PT"), r"IM0001: not an MR image \(found modality PT, need MR\)"),
    "enhanced": (changed(0, SOPClassUID=EnhancedMRImageStorage), r"IM0000: None frames promised, 0 described.*Fix: copy"),
    "mosaic": (changed(0, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), r"IM0000: many slices in one image .*dcm2niix"),
    "frames": (changed(0, NumberOfFrames=2, Rows=8), r"IM0000: many slices in one image"),
    "colour": (
        changed(0, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsAllocated=8, BitsStored=8, HighBit=7,
                PixelData=bytes(960)),
        r"IM0000: not a greyscale MR image \(found RGB, need MONOCHROME2\)",
    ),
    "no position": (changed(3, ImagePositionPatient=None), r"IM0003: no ImagePositionPatient of 3 numbers.*Fix: export the original"),
    "no orientation": (changed(3, ImageOrientationPatient=None), r"IM0003: no ImageOrientationPatient of 6 numbers"),
    "no voxel size": (changed(3, PixelSpacing=None), r"IM0003: no PixelSpacing of 2 numbers"),
    "voxel size 0": (changed(3, PixelSpacing=[0, 1]), r"IM0003: its geometry is impossible"),
    "directions": (changed(3, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), r"IM0003: its geometry is impossible"),
    "truncated": (spoilt(lambda data: data[:-9]), r"IM0002: truncated or damaged.*Fix: copy"),
    "truncated outer slice": (spoilt(lambda data: data[:-9], 4), r"IM0004: truncated or damaged"),
    "truncated early": (spoilt(lambda data: data[:150]), r"IM0002: (truncated|not an MR)"),
    "empty": (spoilt(lambda data: b""), r"IM0002: empty, truncated or not a DICOM file"),
    "web page": (web_page, r"IM0002\.dcm: empty, truncated or not a DICOM file"),
    "compression": (private, r"IM0001: cannot be decoded \(transfer syntax 1\.2\.840\.10008\.1\.2\.4\.90\).*Fix: export it without"),
    "one file": (lambda folder: write_slices(folder, slices_of(scan())) / "IM0000", r"IM0000: one DICOM file, .*Fix: give the folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_folder_without_a_right_reading_is_a_fault_that_names_it(tmp_path, name):
    write, finding = FAULTS[name]
    with pytest.raises(Fault, match=finding):
        read_volume(write(tmp_path / "a"))


def test_a_missing_folder_is_a_fault(tmp_path):
    with pytest.raises(Fault, match="no such file"):
        read_volume(tmp_path / "a")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless_but_never_a_crash(tmp_path, place, value):
    small = Volume(np.arange(24, dtype=np.float32).reshape(4, 2, 3), np.diag([1.0, 1, 3, 1]))
    path = write_slices(tmp_path / "a", slices_of(small)) / "IM0001"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] = value
    path.write_bytes(content)
    try:
        volume = read_dicom(path.parent)
    except Fault:
        return
    assert np.isfinite(volume.data).all()


def test_a_series_saved_as_nifti_is_the_same_to_another_reader(tmp_path):
    volume = read_dicom(write_series(tmp_path / "a", scan()))
    save_nifti(tmp_path / "a.nii.gz", volume, "from DICOM")
    image = nib.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.get_fdata(), scan().data)
    np.testing.assert_allclose(image.affine, scan().affine, atol=1e-5)
    np.testing.assert_allclose(image.get_qform(), scan().affine, atol=1e-4)


def test_every_second_slice_lost_is_told(tmp_path):
    folder = write_slices(tmp_path / "s", slices_of(scan(shape=(20, 16, 8)))[::2])
    assert "s: its slices lie 6 mm apart, 3 mm by their header; was the series copied whole?" in read_dicom(folder).notes


def test_a_link_to_nothing_is_no_absent_slice(tmp_path):
    folder = write_series(tmp_path / "s", scan())
    (folder / "IM9999").symlink_to(tmp_path / "nothing")
    with pytest.raises(Fault, match=r"IM9999: a link to nothing\. Fix: fetch"):
        read_dicom(folder)


# Series as archives and anonymisers leave them


def test_one_enhanced_image_is_read_as_the_slices_that_it_was_made_of(tmp_path):
    original = scan()
    folder = write_slices(tmp_path / "a", [enhanced([original])])
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.data, original.data)
    np.testing.assert_allclose(volume.affine, original.affine, atol=1e-6)
    assert volume.grid.slice_axis == 2
    assert dicom_scan(folder) == {
        "Manufacturer": "SIEMENS", "MagneticFieldStrength": 3.0, "RepetitionTime": 4.0, "FlipAngle": 90.0, "SliceThickness": 3.0
    }  # fmt: skip


def test_each_frame_of_an_enhanced_image_is_scaled_by_its_own_header(tmp_path):
    halves = Volume(scan().data / 2, scan().affine)
    folder = write_slices(tmp_path / "a", [enhanced([scan(), halves], echoes=(20, 90), scalings=[1.0, 0.5])])
    for frame, expected in enumerate((scan(), halves)):
        np.testing.assert_array_equal(read_dicom(folder, frame).data, expected.data)


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"])
def test_the_stacks_of_an_enhanced_image_are_volumes_of_their_own(tmp_path, uid):
    volumes = [scan(), scan("reference", degrees=(0, 90, 0), spacing=(1, 1, 5.0))]
    one = enhanced(volumes)
    one.SOPClassUID = uid
    folder = write_slices(tmp_path / "a", [one])
    with pytest.raises(Fault, match=r"2 volumes in one series \(orientation 1; orientation 2\)\. Fix: --frame N"):
        read_volume(folder)
    for frame, expected in enumerate(volumes):
        volume = read_volume(folder, ReadOptions(frame=frame))
        np.testing.assert_array_equal(volume.data, expected.data)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)


def test_frames_that_are_promised_and_not_there_are_a_fault(tmp_path):
    one = enhanced([scan()])
    one.PerFrameFunctionalGroupsSequence = one.PerFrameFunctionalGroupsSequence[:-1]
    with pytest.raises(Fault, match="5 frames promised, 4 described"):
        read_volume(write_slices(tmp_path / "a", [one]))
    one = enhanced([scan()])
    one.PixelData = one.PixelData[:-2]
    with pytest.raises(Fault, match="IM0000: truncated or damaged"):
        read_volume(write_slices(tmp_path / "b", [one]))


def without_preamble(path):
    path.write_bytes(path.read_bytes()[132:])


@pytest.mark.parametrize("which", ["all", "two"])
def test_files_without_a_preamble_count_as_any_other(tmp_path, which):
    folder = write_series(tmp_path / "a", scan())
    for path in sorted(folder.iterdir())[: None if which == "all" else 2]:
        without_preamble(path)
    np.testing.assert_array_equal(read_volume(folder).data, scan().data)


def test_slices_whose_series_uid_an_anonymiser_drew_anew_are_one_series(tmp_path):
    slices = slices_of(scan())
    for number, each in enumerate(slices):
        each.SeriesInstanceUID = f"1.2.3.{number}"
    volume = read_volume(write_slices(tmp_path / "a", slices))
    np.testing.assert_array_equal(volume.data, scan().data)
    assert any("different series UIDs; taken as one series" in note for note in volume.notes)
    other = [*slices, *slices_of(scan("reference"), SeriesNumber=6)]
    with pytest.raises(Fault, match=r"6 series in one folder"):
        read_volume(write_slices(tmp_path / "b", other))


def test_slices_that_were_exported_twice_under_other_uids_count_once(tmp_path):
    slices = [*slices_of(scan()), *slices_of(scan())]
    for each in slices:
        each.SeriesInstanceUID = "1.2.3"
    volume = read_volume(write_slices(tmp_path / "a", slices))
    np.testing.assert_array_equal(volume.data, scan().data)
    assert any("5 images in it have the place and the voxels of others" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("element", "value", "told"),
    [
        ("EchoTime", "20", r"EchoTime \(90 in 2, 20 in 3\)|EchoTime \(20 in 3, 90 in 2\)"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "P"], r"ImageType"),
        ("InversionTime", "900", r"InversionTime \(900 in 3, none in 2\)"),
        ("EchoNumbers", "2", r"EchoNumbers"),
        ("TemporalPositionIdentifier", "2", r"TemporalPositionIdentifier"),
    ],
)
def test_slices_of_another_contrast_among_those_of_a_volume_are_named(tmp_path, element, value, told):
    slices = slices_of(scan())
    for each in slices[::2]:
        setattr(each, element, value)
    with pytest.raises(Fault, match=rf"its slices differ in {told}.*Fix: put the slices of one volume into a folder"):
        read_volume(write_slices(tmp_path / "a", slices))


def test_a_rounded_echo_time_is_no_other_contrast(tmp_path):
    slices = slices_of(scan())
    slices[1].EchoTime = "90.01"
    np.testing.assert_array_equal(read_volume(write_slices(tmp_path / "a", slices)).data, scan().data)


def with_mapping(each, slope, intercept):
    each.RealWorldValueMappingSequence = [Dataset()]
    each.RealWorldValueMappingSequence[0].RealWorldValueSlope = slope
    each.RealWorldValueMappingSequence[0].RealWorldValueIntercept = intercept


def test_a_real_world_value_mapping_scales_where_nothing_else_does(tmp_path):
    slices = slices_of(scan())
    for number, each in enumerate(slices):
        del each.RescaleSlope, each.RescaleIntercept
        with_mapping(each, 1.0 + number, 0.0)
    volume = read_volume(write_slices(tmp_path / "a", slices))
    np.testing.assert_allclose(volume.data, scan().data * np.arange(1, SHAPE[2] + 1), rtol=1e-6)
    assert any("scaled by its real-world value mapping" in note for note in volume.notes)


def test_a_real_world_value_mapping_beside_another_scaling_is_told(tmp_path):
    slices = slices_of(scan())
    for each in slices:
        with_mapping(each, 3.0, 0.0)
    volume = read_volume(write_slices(tmp_path / "a", slices))
    np.testing.assert_array_equal(volume.data, scan().data)
    assert any("real-world value mapping is not that of its RescaleSlope" in note for note in volume.notes)


def test_a_pipe_in_the_folder_is_left_alone(tmp_path):
    folder = write_series(tmp_path / "a", scan())
    os.mkfifo(folder / "pipe")
    np.testing.assert_array_equal(read_volume(folder).data, scan().data)


def test_two_patients_of_one_series_number_are_not_joined(tmp_path):
    slices = slices_of(scan())
    for number, each in enumerate(slices):
        each.SeriesInstanceUID, each.PatientID = f"1.2.{number % 2}", "AB"[number % 2]
    with pytest.raises(Fault, match="2 series in one folder"):
        read_volume(write_slices(tmp_path / "a", slices))


def test_a_slice_whose_voxels_are_too_few_is_refused(tmp_path):
    slices = slices_of(scan())
    slices[2].PixelData = slices[2].PixelData[:400]
    with pytest.raises(Fault, match=r"IM0002: truncated or damaged \(400 bytes of voxels, needs 640\)"):
        read_volume(write_slices(tmp_path / "a", slices))


@pytest.mark.parametrize("kind", ["implicit", "explicit"])
def test_an_enhanced_image_without_a_preamble_is_read(tmp_path, kind):
    one = enhanced([scan()])
    if kind == "implicit":
        one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    folder = write_slices(tmp_path / "a", [one])
    (path,) = folder.iterdir()
    content = path.read_bytes()
    after_meta = 144 + int.from_bytes(content[140:144], "little")  # the group's length stands in front of it
    path.write_bytes(content[after_meta:])
    np.testing.assert_array_equal(read_volume(folder).data, scan().data)


@pytest.mark.parametrize("compression", ["JPEG", "JPEG2000"])
def test_compressed_frames_of_an_enhanced_image_are_read_and_scaled_once(tmp_path, compression):
    image = itk.image_from_array(np.ascontiguousarray(scan().data.T.astype(np.uint16)))
    writer = itk.GDCMImageIO.New()
    writer.SetCompressionType(getattr(itk.GDCMImageIOEnums, f"Compression_{compression}"))
    itk.imwrite(image, str(tmp_path / "packed.dcm"), imageio=writer, compression=True)
    packed = pydicom.dcmread(tmp_path / "packed.dcm")
    one = enhanced([scan()], scalings=[1.0])
    one.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    assert one.file_meta.TransferSyntaxUID.is_compressed
    one.PixelData, one["PixelData"].VR = packed.PixelData, "OB"
    one["PixelData"].is_undefined_length = True
    for frame in one.PerFrameFunctionalGroupsSequence:
        frame.PixelValueTransformationSequence[0].RescaleSlope = 2
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -7
    np.testing.assert_array_equal(read_volume(write_slices(tmp_path / "a", [one])).data, scan().data * 2 - 7)


def test_volumes_that_two_attributes_together_distinguish_are_told_apart(tmp_path):
    kinds = [(echo, kind) for echo in (20, 90) for kind in ("M", "P")]
    elements = {"EchoTime": [echo for echo, _ in kinds], "ImageType": [["ORIGINAL", "PRIMARY", kind] for _, kind in kinds]}
    folder = write_slices(tmp_path / "a", several(elements, kind=("target", "reference") * 2))
    with pytest.raises(
        Fault, match=r"4 volumes in one series \(EchoTime 20.0, ImageType ORIGINAL\\PRIMARY\\M; .*--frame N with N from 0 to 3"
    ):
        read_volume(folder)
    np.testing.assert_array_equal(read_volume(folder, ReadOptions(frame=3)).data, scan("reference").data)


def test_an_echo_of_fewer_slices_is_a_volume_of_its_own(tmp_path):
    slices = several({"EchoTime": (20, 90)})
    folder = write_slices(tmp_path / "a", slices[:-2])
    np.testing.assert_array_equal(read_volume(folder, ReadOptions(frame=0)).data, scan().data)
    np.testing.assert_array_equal(read_volume(folder, ReadOptions(frame=1)).data, scan("reference").data[..., :3])


def test_series_without_a_number_are_not_to_be_chosen_by_one(tmp_path):
    folder = write_slices(tmp_path / "a", slices_of(scan(), SeriesNumber=""))
    write_slices(folder, slices_of(scan("reference"), SeriesNumber=""), name="x{}")
    with pytest.raises(Fault, match=r"2 series in one folder .*Fix: put the files of one series into a folder of its own\.$"):
        read_dicom(folder)


def test_a_volume_number_for_a_series_of_one_volume_is_told(tmp_path):
    volume = read_volume(write_series(tmp_path / "a", scan()), ReadOptions(frame=3))
    assert volume.notes == ("a: holds one volume, which was taken; --frame 3 does not apply to it",)


# Headers that the decoder must not see


def test_bytes_behind_the_voxels_that_are_no_elements_are_refused_at_once(tmp_path):
    """ITK took 3 to 20 s over them, and more in another run."""
    folder = write_series(tmp_path / "series", scan())
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes() + b"\xe0\x7f\x10\x10OW\0\0\xff\xff\xff\x7f" + bytes(50))
    with pytest.raises(Fault, match=r"truncated or damaged \(an element \(7FE0,1010\) of 2147483647 bytes\)"):
        read_dicom(folder)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"BitsStored": 17}, "17 bits stored of 16"),
        ({"BitsStored": 0}, "0 bits stored of 16"),
        ({"PixelRepresentation": 3}, "pixel representation 3"),
        ({"Columns": 19}, "640 bytes of voxels, needs 608"),
    ],
)
def test_voxels_of_an_impossible_kind_are_refused(tmp_path, elements, said):
    with pytest.raises(Fault, match=said):
        read_dicom(write_series(tmp_path / "series", scan(), **elements))


def test_more_voxels_than_an_enhanced_image_has_frames_for_are_refused(tmp_path):
    with pytest.raises(Fault, match="3200 bytes of voxels, needs 2560"):
        read_dicom(write_slices(tmp_path / "series", [enhanced([scan()], Rows=16, Columns=16)]))
