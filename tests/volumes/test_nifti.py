"""Reading refuses whatever has no single right reading; saving loses nothing."""

from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import itk
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftn_sr.errors import Fault
from hftn_sr.volumes.nifti import ReadOptions, nifti_bytes, read_nifti, save_nifti
from hftn_sr.volumes.reading import read_volume, read_volume_header
from hftn_sr.volumes.volume import Volume
from phantoms import oblique, phantom, write

RNG = np.random.default_rng(5)
DATA = RNG.integers(-200, 900, (9, 7, 5)).astype(np.int16)
AFFINE = oblique((1.5, 0.8, 3.0))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image.nii.gz"


def refused(path, options=ReadOptions()):  # noqa: B008 - frozen
    """The message of the fault that reading ends with, which names the file."""
    with pytest.raises(Fault) as caught:
        read_nifti(path, options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def plain(tmp_path, **header):
    return write(tmp_path / "image.nii", DATA, AFFINE, **header)


def read_all(content):
    """What reading these bytes ends with, by whatever name: a volume, or None where it was refused."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "image.nii.gz"
        file.write_bytes(content)
        try:
            return read_nifti(file)
        except Fault:
            return None


# Damaged files


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(share):
    content = nifti_bytes(Volume(DATA.astype(np.float32), AFFINE), "")
    assert read_all(content[: int(share * len(content))]) is None
    content = gzip.decompress(content)
    assert read_all(content[: int(share * len(content))]) is None


def test_a_truncated_compressed_file_says_copy_it_again(path):
    write(path, DATA, AFFINE)
    path.write_bytes(path.read_bytes()[:-20])
    assert "truncated: the compressed data ends too early. Fix: copy or export it again" in refused(path)


def test_a_truncated_plain_file_says_how_much_is_missing(tmp_path):
    file = plain(tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    assert f"truncated (found {352 + DATA.nbytes - 20} bytes, the header promises {352 + DATA.nbytes})" in refused(file)


def test_a_file_that_ends_within_its_header_is_called_truncated(tmp_path):
    file = plain(tmp_path)
    file.write_bytes(file.read_bytes()[:200])
    assert "truncated (found 200 bytes, the header promises 348)" in refused(file)


def test_100_flipped_bits_in_compressed_files_are_found_or_change_no_voxel():
    truth = RNG.normal(size=(12, 10, 6)).astype(np.float32)
    content = nifti_bytes(Volume(truth, AFFINE), "")
    found = 0
    for position in RNG.integers(0, 8 * len(content), 100):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        volume = read_all(bytes(damaged))
        found += volume is None
        if volume is not None:
            np.testing.assert_array_equal(volume.data, truth)
            np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert found > 90


def test_damaged_compressed_data_is_named_as_such(path):
    write(path, DATA, AFFINE)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)
    assert "damaged: the compressed data fails its check" in refused(path)


def test_a_checksum_behind_extra_bytes_is_checked_too(path):
    content = bytearray(gzip.compress(gzip.decompress(nifti_bytes(Volume(DATA.astype(np.float32), AFFINE), "")) + bytes(5000)))
    content[-6] ^= 1
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_an_empty_file_is_called_empty(path):
    path.write_bytes(b"")
    assert "empty file (0 bytes). Fix: copy or export it again" in refused(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    assert "no such file" in refused(tmp_path / "nowhere.nii.gz")
    assert "is a folder, a NIfTI file is needed" in refused(tmp_path)


# Names and kinds


@pytest.mark.parametrize(
    ("written", "read", "note"), [(".nii", ".nii.gz", "is not gzip-compressed"), (".nii.gz", ".nii", "is gzip-compressed")]
)
def test_the_content_decides_about_compression_and_a_wrong_name_is_noted(tmp_path, written, read, note):
    write(tmp_path / f"image{written}", DATA, AFFINE).rename(tmp_path / f"other{read}")
    volume = read_nifti(tmp_path / f"other{read}")
    np.testing.assert_array_equal(volume.data, DATA)
    assert any(note in found for found in volume.notes)


@pytest.mark.parametrize(("content", "kind"), [(b"<html>404</html>" * 40, "text"), (bytes(range(256)) * 4, "unknown binary data")])
def test_other_files_are_refused_with_the_tool_that_converts(path, content, kind):
    path.write_bytes(content)
    assert f"not a NIfTI file (found {kind}). Fix: convert the image to NIfTI, for example with dcm2niix" in refused(path)


def test_half_of_a_header_image_pair_is_refused(tmp_path):
    nib.save(nib.Nifti1Pair(DATA, AFFINE), tmp_path / "image.hdr")
    assert "one half of a header/image pair" in refused(tmp_path / "image.hdr")


def test_nifti_2_is_read(tmp_path):
    volume = read_nifti(write(tmp_path / "image.nii.gz", DATA, AFFINE, kind=nib.Nifti2Image))
    np.testing.assert_array_equal(volume.data, DATA)
    np.testing.assert_allclose(volume.affine, AFFINE)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_big_endian_files_are_read(tmp_path, kind):
    image = kind(DATA, AFFINE)
    swapped = kind(DATA, AFFINE, image.header.as_byteswapped(">"))
    swapped.to_filename(tmp_path / "image.nii")
    assert (tmp_path / "image.nii").read_bytes()[:4] in ((348).to_bytes(4, "big"), (540).to_bytes(4, "big"))
    volume = read_nifti(tmp_path / "image.nii")
    np.testing.assert_array_equal(volume.data, DATA)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.data.dtype.isnative


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_every_type_of_number_is_read_as_float32(path, dtype):
    truth = RNG.integers(0, 100, (5, 4, 3)).astype(dtype)
    volume = read_nifti(write(path, truth, AFFINE))
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, truth)


# Numbers of dimensions


def test_several_volumes_are_refused_and_one_can_be_chosen(path):
    series = RNG.integers(0, 100, (5, 4, 3, 6)).astype(np.int16)
    write(path, series, AFFINE)
    assert "6 volumes in one file (found 4D, need 3D). Fix: --frame N with N from 0 to 5" in refused(path)
    np.testing.assert_array_equal(read_nifti(path, ReadOptions(frame=4)).data, series[..., 4])
    assert "no frame 6 (found 6 volumes)" in refused(path, ReadOptions(frame=6))


def test_a_frame_chosen_for_one_file_of_a_pair_leaves_the_other_readable(path):
    np.testing.assert_array_equal(read_nifti(write(path, DATA, AFFINE), ReadOptions(frame=4)).data, DATA)


@pytest.mark.parametrize("ones", [(1,), (1, 1), (1, 1, 1)])
def test_further_dimensions_of_one_are_dropped_and_noted(path, ones):
    volume = read_nifti(write(path, DATA.reshape(*DATA.shape, *ones), AFFINE))
    np.testing.assert_array_equal(volume.data, DATA)
    assert any("volume 0 of 1 taken from sizes (9, 7, 5, 1" in note for note in volume.notes)


def test_vector_images_are_refused(path):
    assert "not a scalar volume" in refused(write(path, RNG.normal(size=(5, 4, 3, 1, 3)), AFFINE))


def test_a_two_dimensional_image_is_a_single_slice(path):
    volume = read_nifti(write(path, DATA[..., 0], AFFINE))
    assert volume.data.shape == (9, 7, 1)
    np.testing.assert_array_equal(volume.data[..., 0], DATA[..., 0])
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.grid.through_plane() == 2


# Voxels


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted_and_become_0_only_when_asked(path, bad):
    data = DATA.astype(np.float32)
    data[1, 2, 3] = data[4, 4, 4] = bad
    write(path, data, AFFINE)
    assert f"2 of {DATA.size} voxels are NaN or infinite. Fix: --nan-to-num" in refused(path)
    volume = read_nifti(path, ReadOptions(nan_to_num=True))
    assert volume.data[1, 2, 3] == volume.data[4, 4, 4] == 0
    assert volume.data[0, 0, 0] == DATA[0, 0, 0]
    assert any("2 voxels that are not finite taken as 0" in note for note in volume.notes)


def test_numbers_beyond_float32_count_as_infinite_without_a_warning_of_numpy(path):
    write(path, np.where(DATA > 0, 1e300, 1.0), AFFINE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "voxels are NaN or infinite" in refused(path)


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_is_refused(path, value):
    assert f"no signal: every voxel is {value}" in refused(write(path, np.full((5, 4, 3), value, np.int16), AFFINE))
    assert (read_nifti(path, blank=True).data == value).all()


def test_negative_intensities_are_kept(path):
    assert read_nifti(write(path, DATA, AFFINE)).data.min() == DATA.min() < 0


def test_complex_voxels_need_the_option_that_takes_their_magnitude(path):
    data = (RNG.normal(size=(5, 4, 3)) + 1j * RNG.normal(size=(5, 4, 3))).astype(np.complex64)
    write(path, data, AFFINE)
    assert "complex voxels, real ones are needed. Fix: --magnitude" in refused(path)
    volume = read_nifti(path, ReadOptions(magnitude=True))
    np.testing.assert_allclose(volume.data, np.abs(data), rtol=1e-6)
    assert any("absolute value of complex voxels" in note for note in volume.notes)


def test_colour_images_are_refused(path):
    colours = np.zeros((5, 4, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, AFFINE), path)
    assert "not a scalar MR image (RGB voxels)" in refused(path)


def test_an_unknown_voxel_type_is_refused(tmp_path):
    assert "unknown voxel type (datatype 77)" in refused(plain(tmp_path, datatype=77))


def test_intensity_scaling_is_applied(tmp_path):
    np.testing.assert_allclose(read_nifti(plain(tmp_path, scl_slope=0.25, scl_inter=-3)).data, DATA * 0.25 - 3)


@pytest.mark.parametrize(
    ("slope", "intercept", "noted"), [(0, 5, False), (np.nan, np.nan, False), (np.nan, 5, True), (np.inf, 0, True), (2, np.nan, True)]
)
def test_scaling_that_is_not_a_number_means_none_and_is_noted(tmp_path, slope, intercept, noted):
    volume = read_nifti(plain(tmp_path, scl_slope=slope, scl_inter=intercept))
    np.testing.assert_array_equal(volume.data, DATA)
    assert any("voxels taken as stored" in note for note in volume.notes) == noted


# Place


def test_a_file_without_a_place_is_refused_unless_voxel_sizes_are_declared_enough(tmp_path):
    file = write(tmp_path / "image.nii.gz", DATA, np.diag([1.5, 0.8, 3.0, 1.0]), codes=(0, 0))
    assert "no position in space (sform and qform codes are 0). Fix: --assume-affine spacing" in refused(file)
    assert "no position in space" in refused(file, ReadOptions(assume_affine="sform"))
    volume = read_nifti(file, ReadOptions(assume_affine="spacing"))
    np.testing.assert_allclose(volume.affine, np.diag([1.5, 0.8, 3.0, 1.0]), rtol=1e-6)
    assert any("placed by voxel sizes alone" in note for note in volume.notes)


def test_a_file_with_a_place_keeps_it_where_another_of_the_pair_has_none(path):
    volume = read_nifti(write(path, DATA, AFFINE), ReadOptions(assume_affine="spacing"))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("codes", [(2, 0), (0, 1), (4, 4)])
def test_either_form_places_the_file_and_its_code_is_kept(path, codes):
    volume = read_nifti(write(path, DATA, AFFINE, codes=codes))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    assert volume.codes == codes


def two_forms(path, qform):
    image = nib.Nifti1Image(DATA, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(qform, 1)
    nib.save(image, path)
    return path


def test_forms_that_contradict_each_other_are_refused_until_one_is_named(path):
    other = AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])
    two_forms(path, other)
    assert "sform and qform place a corner 24.00 mm apart (at most 0.40 mm is accepted). Fix: --assume-affine sform or" in refused(path)
    for name, expected in (("sform", AFFINE), ("qform", other)):
        volume = read_nifti(path, ReadOptions(assume_affine=name))
        np.testing.assert_allclose(volume.affine, expected, atol=1e-4)
        assert any(f"placed by its {name}, as asked" in note for note in volume.notes)


def test_forms_that_hardly_differ_are_read_by_the_sform_and_noted(path):
    other = AFFINE.copy()
    other[0, 3] += 0.2
    volume = read_nifti(two_forms(path, other))
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert any("sform and qform differ by 0.200 mm; sform used" in note for note in volume.notes)


@pytest.mark.parametrize(("header"), [{"quatern_b": 5.0, "quatern_c": 5.0}, {"pixdim": [7.0, 1, 1, 1, 0, 0, 0, 0]}])
def test_a_garbage_qform_is_refused_and_the_cure_that_is_named_works(tmp_path, header):
    file = plain(tmp_path, **header)
    assert "its qform is impossible" in refused(file)
    assert "--assume-affine sform" in refused(file)
    np.testing.assert_allclose(read_nifti(file, ReadOptions(assume_affine="sform")).affine, AFFINE, atol=1e-5)


def test_a_sheared_place_is_kept_and_noted(path):
    sheared = AFFINE.copy()
    sheared[:3, 1] += 0.1 * sheared[:3, 0]
    image = nib.Nifti1Image(DATA, sheared)
    image.set_sform(sheared, 1)
    image.set_qform(None, 0)
    nib.save(image, path)
    volume = read_nifti(path)
    np.testing.assert_allclose(volume.affine, sheared, atol=1e-5)
    assert any("sheared axes (cosine 0.18" in note for note in volume.notes)
    save_nifti(path, volume, "")
    np.testing.assert_allclose(nib.load(path).affine, sheared, atol=1e-5)


@pytest.mark.parametrize(
    ("row", "finding"), [([0, 0, 0, 0], "its sform is singular"), ([np.nan, 0, 0, 0], "its sform holds numbers that are not finite")]
)
def test_a_singular_or_nan_place_is_refused(tmp_path, row, finding):
    assert finding in refused(plain(tmp_path, srow_x=row, qform_code=0))


# Headers that lie


def test_a_header_that_promises_more_than_any_memory_is_refused_from_the_files_size(tmp_path):
    file = plain(tmp_path, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    assert f"the header promises {2 * 32767**3 + 352}" in refused(file)
    (tmp_path / "image.nii.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert "truncated (found" in refused(tmp_path / "image.nii.gz")


@pytest.mark.parametrize("dim", [[3, 0, 7, 5, 1, 1, 1, 1], [3, -9, 7, 5, 1, 1, 1, 1], [1, 9, 1, 1, 1, 1, 1, 1], [7, 9, 7, 5, 1, 1, 0, 1]])
def test_impossible_sizes_are_refused(tmp_path, dim):
    assert "the header's sizes are impossible" in refused(plain(tmp_path, dim=dim))


@pytest.mark.parametrize("offset", [np.inf, -np.inf, np.nan, 0.0, -352.0])
def test_an_impossible_place_of_the_first_voxel_is_refused(tmp_path, offset):
    assert "the NIfTI header is damaged" in refused(plain(tmp_path, vox_offset=offset))


def test_a_place_of_the_first_voxel_beyond_the_file_is_refused(tmp_path):
    assert "truncated" in refused(plain(tmp_path, vox_offset=3e38))


def _valid(kind):
    image = kind(DATA, AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE, 1)
    return image.to_bytes()


VALID = {kind: _valid(kind) for kind in (nib.Nifti1Image, nib.Nifti2Image)}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # in nibabel
@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(list(VALID)), changes=st.lists(st.tuples(st.integers(0, 539), st.integers(0, 255)), min_size=1, max_size=6))
def test_random_header_bytes_are_refused_or_read_right(kind, changes):
    content = bytearray(VALID[kind])
    size = kind.header_class.template_dtype.itemsize
    for position, value in changes:
        content[position % size] = value
    volume = read_all(bytes(content))
    if volume is None:
        return
    assert np.isfinite(volume.data).all()
    assert np.isfinite(volume.affine).all()
    try:
        expected = np.asarray(kind.from_bytes(bytes(content)).dataobj)
    except (nib.spatialimages.HeaderDataError, nib.spatialimages.ImageDataError, ValueError):
        expected = None  # nibabel has no opinion
    if expected is not None:
        np.testing.assert_allclose(volume.data, expected.reshape(volume.data.shape), rtol=1e-5)
    saved = read_all(nifti_bytes(volume, ""))
    assert saved is not None
    np.testing.assert_array_equal(saved.data, volume.data)
    np.testing.assert_allclose(saved.affine, volume.affine, rtol=1e-5, atol=1e-5 * np.abs(volume.affine).max())


# Saving


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
def test_a_round_trip_keeps_voxels_place_units_and_codes(tmp_path, name):
    volume = Volume(phantom((9, 8, 4)).data, AFFINE, units=2 | 8, codes=(4, 1))
    save_nifti(tmp_path / name, volume, "test")
    back = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, AFFINE, atol=1e-5)
    assert (back.units, back.codes, back.notes) == (2 | 8, (4, 1), ())
    assert nib.load(tmp_path / name).header["descrip"].item() == b"test"


def test_units_that_nifti_does_not_know_are_left_out():
    content = bytearray(VALID[nib.Nifti2Image])
    content[500:504] = (256 + 2).to_bytes(4, "little")
    assert read_all(bytes(content)).units == 2


def test_a_code_that_nifti_does_not_know_is_saved_as_scanner_position(tmp_path):
    save_nifti(tmp_path / "image.nii", Volume(DATA.astype(np.float32), AFFINE, codes=(77, -3)), "")
    np.testing.assert_allclose(read_nifti(tmp_path / "image.nii").affine, AFFINE, atol=1e-5)
    assert read_nifti(tmp_path / "image.nii").codes == (1, 0)


def test_the_same_volume_gives_the_same_bytes():
    assert nifti_bytes(phantom((9, 8, 4)), "a") == nifti_bytes(phantom((9, 8, 4)), "a")
    assert nifti_bytes(phantom((9, 8, 4)), "a") != nifti_bytes(phantom((9, 8, 4)), "b")


def test_a_description_of_any_length_and_alphabet_fits_the_header():
    header = nib.Nifti1Image.from_bytes(nifti_bytes(phantom((9, 8, 4)), "é" * 200, compressed=False)).header
    assert header["descrip"].item() == b"?" * 79


def test_nibabel_and_itk_read_the_saved_file_alike(tmp_path):
    volume = Volume(phantom((9, 8, 4)).data, AFFINE)
    save_nifti(tmp_path / "image.nii.gz", volume, "")
    by_nibabel, by_itk = nib.load(tmp_path / "image.nii.gz"), itk.imread(str(tmp_path / "image.nii.gz"), itk.F)
    np.testing.assert_array_equal(by_nibabel.get_fdata(dtype=np.float32), volume.data)
    np.testing.assert_array_equal(itk.array_view_from_image(by_itk).T, volume.data)
    for index in ((0, 0, 0), (8, 0, 0), (0, 7, 0), (0, 0, 3), (5, 2, 1)):
        position = (AFFINE @ [*index, 1])[:3]
        np.testing.assert_allclose((by_nibabel.affine @ [*index, 1])[:3], position, atol=1e-4)
        np.testing.assert_allclose(by_itk.TransformIndexToPhysicalPoint(index), position * [-1, -1, 1], atol=1e-4)


def test_nothing_of_the_patient_is_carried_over(tmp_path):
    file = plain(tmp_path, descrip=b"DOE^JANE", db_name=b"JANE", aux_file=b"1957-03-02", intent_name=b"jane.doe")
    save_nifti(tmp_path / "saved.nii", read_nifti(file), "result")
    content = (tmp_path / "saved.nii").read_bytes().lower()
    assert b"jane" not in content
    assert b"1957" not in content


# Headers that say less, or other, than they seem to


def test_an_sform_whose_sizes_are_not_those_of_pixdim_is_refused_and_both_cures_work(tmp_path):
    directions = np.diag([1.0, 1, 1, 1])
    path = write(tmp_path / "image.nii", DATA, directions, sform_code=1, qform_code=0, pixdim=[1, 0.72, 0.72, 3, 0, 0, 0, 0])
    assert "sform and its pixdim name different voxel sizes (1 x 1 x 1 and 0.72 x 0.72 x 3 mm)" in refused(path)
    np.testing.assert_allclose(read_nifti(path, ReadOptions(assume_affine="spacing")).grid.spacing, [0.72, 0.72, 3], rtol=1e-6)
    np.testing.assert_allclose(read_nifti(path, ReadOptions(assume_affine="sform")).grid.spacing, [1, 1, 1])


@pytest.mark.parametrize(("code", "unit", "millimetres"), [(1, "metres", 1e-3), (3, "micrometres", 1e3)])
def test_lengths_in_other_units_are_converted_to_mm(tmp_path, code, unit, millimetres):
    affine = AFFINE.copy()
    affine[:3] *= millimetres
    path = write(tmp_path / "image.nii", DATA, affine, xyzt_units=code)
    volume = read_nifti(path)
    np.testing.assert_allclose(volume.affine, AFFINE, rtol=1e-5, atol=1e-5)
    assert volume.units == 2
    assert f"image.nii: its header counts in {unit}; converted to mm" in volume.notes


def test_a_unit_that_makes_no_voxels_of_an_mr_image_is_refused(tmp_path):
    path = write(tmp_path / "image.nii", DATA, AFFINE, xyzt_units=1)
    assert "its header counts in metres, which makes voxels of 1500 x 800 x 3000 mm. Fix: correct xyzt_units" in refused(path)


def test_where_one_form_is_sound_the_cure_names_it(tmp_path):
    path = write(tmp_path / "image.nii", DATA, AFFINE, srow_x=[0] * 4, srow_y=[0] * 4, srow_z=[0] * 4)
    assert "its sform is singular" in refused(path)
    assert "Fix: --assume-affine qform, which is sound" in refused(path)
    np.testing.assert_allclose(read_nifti(path, ReadOptions(assume_affine="qform")).affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize(("dim_info", "axis"), [(0b010000, 0), (0b110000, 2), (0b000110, None), (0, None)])
def test_the_slice_axis_of_dim_info_counts_and_survives_a_round_trip(tmp_path, dim_info, axis):
    path = write(tmp_path / "image.nii", DATA, np.diag([2.0, 2, 2, 1]), dim_info=dim_info)
    volume = read_nifti(path)
    assert volume.grid.slice_axis == axis
    assert volume.grid.through_plane() == (2 if axis is None else axis)
    assert volume.grid.finer(2, 0).slice_axis == axis
    save_nifti(tmp_path / "again.nii", volume, "")
    assert read_nifti(tmp_path / "again.nii").grid.slice_axis == axis


def test_a_flipped_bit_is_called_damage_before_what_it_looks_like(path):
    """One that turns a voxel into NaN would otherwise be cured by --nan-to-num."""
    data = np.full((16, 16, 4), 1.5, np.float32)
    data[3, 4, 1] = 2
    content = bytearray(gzip.decompress(write(path, data, AFFINE).read_bytes()))
    content[352 + 4 * 100 : 352 + 4 * 101] = b"\xff\xff\xff\xff"  # NaN
    intact = gzip.compress(bytes(content))
    path.write_bytes(intact)
    assert "NaN or infinite" in refused(path)
    path.write_bytes(intact[:-8] + b"\0\0\0\0" + intact[-4:])  # another checksum
    assert "damaged: the compressed data fails its check" in refused(path)


POINTERS = {
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", r"Git LFS pointer\)\. Fix: git lfs pull"),
    "git-annex": (b"/annex/objects/MD5E-s5--0.nii.gz\n", r"git-annex pointer\)\. Fix: datalad get image.nii.gz, or git annex get"),
}


@pytest.mark.parametrize("name", POINTERS)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".h5", ".mgz", ".nrrd"])
def test_a_file_that_was_not_fetched_is_named_with_what_fetches_it(tmp_path, name, suffix):
    content, finding = POINTERS[name]
    (tmp_path / f"image{suffix}").write_bytes(content)
    with pytest.raises(Fault, match=finding.replace("image.nii.gz", f"image{suffix}")):
        read_volume(tmp_path / f"image{suffix}")


def test_a_link_into_an_annex_without_content_is_named(path):
    path.symlink_to("../.git/annex/objects/aa/bb/MD5E-s5--0.nii.gz/MD5E-s5--0.nii.gz")
    assert "a link into git-annex). Fix: datalad get image.nii.gz" in refused(path)


def test_a_pipe_is_refused_instead_of_waited_for(path):
    os.mkfifo(path)
    for read in (read_volume, read_volume_header):
        with pytest.raises(Fault, match="not a file but a pipe, a socket or a device"):
            read(path)


@pytest.mark.parametrize(
    ("start", "kind"), [(b"\x89HDF\r\n", "HDF5"), (b"\x89PNG\r\n", "PNG"), (b"PK\x03\x04", "zip"), (b"CDF\x01", "MINC 1")]
)
def test_a_file_of_another_kind_is_named(path, start, kind):
    path.write_bytes(start + bytes(500))
    assert kind in refused(path)


def test_micrometres_on_numbers_in_mm_are_refused(tmp_path):
    path = write(tmp_path / "image.nii", DATA, AFFINE, xyzt_units=3)
    assert "its header counts in micrometres" in refused(path)


def test_a_pixdim_without_sizes_contradicts_no_sform(tmp_path):
    path = write(tmp_path / "image.nii", DATA, np.diag([0.5, 0.5, 3, 1]), sform_code=1, qform_code=0, pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(read_nifti(path).grid.spacing, [0.5, 0.5, 3])


def test_a_volume_number_for_a_file_of_one_volume_is_told(tmp_path):
    path = write(tmp_path / "a.nii", np.arange(60.0).reshape(5, 4, 3))
    assert "a.nii: holds one volume, which was taken; --frame 4 does not apply to it" in read_nifti(path, ReadOptions(frame=4)).notes
    assert not [note for note in read_nifti(path, ReadOptions(frame=0)).notes if "--frame" in note]


def test_a_nifti_2_file_whose_line_ends_were_converted_is_refused(tmp_path):
    file = write(tmp_path / "a.nii", DATA, AFFINE, kind=nib.Nifti2Image)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"\r\n\x1a\n", b"\n\x1a\n\0", 1))
    assert "damaged by a conversion of line ends" in refused(file)


@pytest.mark.parametrize("name", ["sform", "qform"])
def test_a_code_that_the_standard_does_not_know_counts_as_0(tmp_path, name):
    other = "qform" if name == "sform" else "sform"
    file = write(tmp_path / "a.nii", DATA, AFFINE, **{f"{name}_code": 512})
    volume = read_nifti(file)
    assert f"a.nii: its {name}_code 512 is not known and counts as 0, its {name} as missing" in volume.notes
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    file = write(tmp_path / "b.nii", DATA, AFFINE, **{f"{name}_code": 512, f"{other}_code": 0})
    assert "no position in space" in refused(file)
