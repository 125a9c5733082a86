"""fastMRI files, of the layout that the data set's paper and reader describe, written here: the real ones are not for everyone."""

import h5py
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftn_sr.errors import Fault, UsageFault
from hftn_sr.volumes.fastmri import fastmri_attributes, fastmri_scan, read_fastmri, read_fastmri_header
from hftn_sr.volumes.nifti import save_nifti
from hftn_sr.volumes.placement import paired_by_index
from hftn_sr.volumes.reading import read_volume
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.volume import Volume
from knees import HEADER, knee, write_coils, write_knee


def test_slices_come_last_and_voxel_sizes_from_the_header(tmp_path):
    images = knee(slices=5)
    volume = read_fastmri(write_knee(tmp_path / "a.h5", images, header=HEADER.replace("<y>105", "<y>120")))
    np.testing.assert_array_equal(volume.data, images.transpose(1, 2, 0))
    np.testing.assert_allclose(volume.grid.spacing, [140 / 32, 120 / 24, 3.5])
    assert (volume.grid.through_plane(), len(volume.sha256)) == (2, 64)


def test_k_space_gives_the_images_that_the_file_holds(tmp_path):
    path = write_knee(tmp_path / "a.h5", knee())
    np.testing.assert_allclose(read_fastmri(path, "kspace").data, read_fastmri(path).data, rtol=1e-4, atol=1e-5)


def test_k_space_is_inverted_from_its_centre_without_a_change_of_energy(tmp_path):
    kspace = np.zeros((1, 64, 37), np.complex64)
    kspace[0, 32 + 3, 18] = 5j  # three cycles along the rows, even and odd size
    with h5py.File(write_knee(tmp_path / "a.h5", knee(slices=1)), "r+") as file:
        del file["kspace"]
        file["kspace"] = kspace
    np.testing.assert_allclose(read_fastmri(tmp_path / "a.h5", "kspace").data, 5 / np.sqrt(64 * 37), rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 24), (31, 23)])
def test_the_middle_of_the_field_of_view_is_kept(tmp_path, size):
    bright = np.zeros((1, 64, 36), complex)
    bright[0, 32, 18] = 1
    path = write_knee(
        tmp_path / "a.h5", knee(slices=1), kspace=bright, header=HEADER.replace("<x>32", f"<x>{size[0]}").replace("<y>24", f"<y>{size[1]}")
    )
    data = read_fastmri(path, "kspace").data
    assert np.argwhere(data > 0.5).tolist() == [[32 - (64 - size[0]) // 2, 18 - (36 - size[1]) // 2, 0]]


def test_the_centre_of_the_field_of_view_is_the_origin_and_rows_turned_upside_down_are_upright(tmp_path):
    volume = read_fastmri(write_knee(tmp_path / "a.h5", knee()))
    np.testing.assert_allclose(volume.affine @ [16, 12, 1, 1], [0, 0, 0, 1], atol=1e-9)
    assert nib.aff2axcodes(volume.affine) == ("S", "L", "P")
    axial = read_fastmri(write_knee(tmp_path / "b.h5", knee(), acquisition="AXT2"))
    assert nib.aff2axcodes(axial.affine) == ("A", "L", "S")
    assert any("acquisition AXT2" in note for note in axial.notes)
    assert all(np.linalg.det(each.affine[:3, :3]) > 0 for each in (volume, axial))


@pytest.mark.parametrize("image", ["reconstruction_rss", "kspace"])
def test_coils_are_combined_by_the_root_of_their_sum_of_squares(tmp_path, image):
    path, images = write_coils(tmp_path / "a.h5")
    volume = read_fastmri(path, image)
    np.testing.assert_allclose(volume.data, images.transpose(1, 2, 0), rtol=1e-4, atol=1e-5)
    assert any("root sum of squares of 3 coils" in note for note in volume.notes) == (image == "kspace")
    assert not any("attribute max" in note for note in volume.notes)


def test_the_images_in_the_file_come_before_those_of_its_k_space(tmp_path):
    path, images = write_coils(tmp_path / "a.h5")
    np.testing.assert_array_equal(read_fastmri(path).data, images.transpose(1, 2, 0))
    raw = read_fastmri(change(path, "reconstruction_rss"))
    assert any("images computed from its k-space" in note for note in raw.notes)
    both = add(write_knee(tmp_path / "b.h5", knee()), "reconstruction_rss", 2 * knee())
    np.testing.assert_array_equal(read_fastmri(both).data, knee().transpose(1, 2, 0))
    assert not any("attribute max" in note for note in read_fastmri(both, "reconstruction_rss").notes)


@pytest.mark.parametrize("image", ["auto", "kspace"])
def test_the_header_alone_gives_the_grid_of_the_volume(tmp_path, image):
    path = write_knee(tmp_path / "a.h5", knee(slices=5))
    grid, whole = read_fastmri_header(path, image).grid, read_fastmri(path, image).grid
    assert grid.shape == whole.shape
    np.testing.assert_array_equal(grid.affine, whole.affine)


def test_the_header_says_how_the_scan_was_measured_and_nothing_of_who(tmp_path):
    told = """<measurementInformation><measurementID>7</measurementID><patientPosition>HFS</patientPosition></measurementInformation>
    <acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor><systemFieldStrength_T>2.8936</systemFieldStrength_T>
    <institutionName>NYU</institutionName></acquisitionSystemInformation>
    <sequenceParameters><TR>2750</TR><TE>27</TE><flipAngle_deg>x</flipAngle_deg></sequenceParameters></ismrmrdHeader>"""
    path = write_knee(tmp_path / "a.h5", knee(), header=HEADER.replace("</ismrmrdHeader>", told), patient_id="ab12")
    known = {
        "Dataset": "reconstruction_esc",
        "Acquisition": "CORPD_FBK",
        "RepetitionTime": 2.75,
        "EchoTime": 0.027,
        "MagneticFieldStrength": 2.8936,
        "Manufacturer": "SIEMENS",
    }
    assert fastmri_scan(path) == {**known, "PatientPosition": "HFS"}
    bare = write_knee(tmp_path / "b.h5", knee(), header=None)
    assert fastmri_scan(bare, "kspace") == {"Dataset": "kspace", "Acquisition": "CORPD_FBK"}


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (None, "no ismrmrd_header"),
        (HEADER[:200], "cannot be used"),
        (HEADER.replace("<x>140", "<x>0"), "cannot be used"),
        (HEADER.replace("<x>140", "<x>nan"), "cannot be used"),
        (HEADER.replace("reconSpace", "otherSpace"), "no reconSpace/matrixSize/x"),
        ('<!DOCTYPE a [<!ENTITY b "b">]>' + HEADER, "document type"),
        (HEADER + " " * (1 << 20), "too long"),
    ],
)
def test_without_a_usable_header_voxels_are_of_unit_size_and_a_note_says_so(tmp_path, header, why):
    volume = read_fastmri(write_knee(tmp_path / "a.h5", knee(), header=header))
    assert volume.grid.spacing.tolist() == [1, 1, 1]
    assert volume.grid.through_plane() == 2
    assert any(why in note and "voxel sizes taken as 1 mm" in note for note in volume.notes)


def test_a_maximum_that_is_not_the_file_s_own_is_noted(tmp_path):
    right = read_fastmri(write_knee(tmp_path / "a.h5", knee()))
    wrong = read_fastmri(write_knee(tmp_path / "b.h5", knee(), max=7.0))
    assert not any("attribute max" in note for note in right.notes)
    assert any("attribute max says 7" in note for note in wrong.notes)


def test_the_attributes_are_read_without_the_voxels(tmp_path):
    path = write_knee(tmp_path / "a.h5", np.full((2, 32, 24), np.nan, np.float32), patient_id="ab12", norm=3.0, max=2.0)
    assert fastmri_attributes(path) == {"acquisition": "CORPD_FBK", "max": 2.0, "norm": 3.0, "patient_id": "ab12"}


def test_an_image_without_signal_is_read_only_if_asked_for(tmp_path):
    path = write_knee(tmp_path / "a.h5", np.zeros((2, 32, 24), np.float32))
    with pytest.raises(Fault, match="no signal: no voxel is above 0"):
        read_volume(path)
    assert read_volume(path, blank=True).data.shape == (32, 24, 2)


def change(path, name, value=None):
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value
    return path


FAULTS = {
    "no image": (
        lambda path: change(change(path, "reconstruction_esc"), "kspace"),
        r"no reconstruction_esc and no .* in it \(found ismrmrd_header\).*give a fastMRI file",
    ),
    "test set": (
        lambda path: change(change(path, "reconstruction_esc"), "ismrmrd_header") and add(path, "mask", np.eye(36)[0]),
        r"undersampled k-space \(1 of 36 columns\).*Fix: .*training or validation set",
    ),
    "four axes": (
        lambda path: change(path, "reconstruction_esc", np.ones((2, 4, 8, 8), np.float32)),
        r"reconstruction_esc of sizes \(2, 4, 8, 8\)",
    ),
    "no k-space": (
        lambda path: change(change(path, "reconstruction_esc"), "kspace", np.zeros((2, 64, 36), np.complex64)),
        "no voxel is above 0",
    ),
    "a hole in k-space": (
        lambda path: change(change(path, "reconstruction_esc"), "kspace", np.full((2, 2, 64, 36), np.nan, np.complex64)),
        "9216 of 9216 voxels of kspace are NaN",
    ),
    "two axes": (
        lambda path: change(path, "reconstruction_esc", np.ones((8, 8), np.float32)),
        r"sizes \(8, 8\) .*need \(slices, H, W\), real",
    ),
    "no slice": (lambda path: change(path, "reconstruction_esc", np.ones((0, 8, 8), np.float32)), r"sizes \(0, 8, 8\)"),
    "complex": (lambda path: change(path, "reconstruction_esc", np.ones((2, 8, 8), np.complex64)), "complex64, need .* real"),
    "NaN": (lambda path: change(path, "reconstruction_esc", np.full((2, 4, 4), np.nan)), "32 of 32 voxels of reconstruction_esc are NaN"),
    "nothing bright": (lambda path: change(path, "reconstruction_esc", np.zeros((2, 4, 4))), "no voxel is above 0"),
    "a link": (lambda path: change(path, "reconstruction_esc", h5py.ExternalLink("b.h5", "x")), "no dataset within this file"),
    "a group": (lambda path: change(path, "reconstruction_esc") and group(path), "no dataset within this file"),
    "a huge promise": (lambda path: change(path, "reconstruction_esc") and promise(path), r"promises 4000000000000 bytes"),
    "truncated": (lambda path: cut(path, 0.5), "truncated or damaged.*Fix: copy"),
    "a few bytes": (lambda path: cut(path, 0.001), "truncated or damaged|not an HDF5 file"),
    "empty": (lambda path: cut(path, 0), "empty file"),
    "text": (lambda path: path.write_text("<html>sign in</html>") and path, "not an HDF5 file"),
    "missing": (lambda path: path.unlink() or path, "no such file"),
}


def add(path, name, value):
    with h5py.File(path, "r+") as file:
        file[name] = value
    return path


def group(path):
    with h5py.File(path, "r+") as file:
        file.create_group("reconstruction_esc")
    return path


def promise(path):
    with h5py.File(path, "r+") as file:
        file.create_dataset("reconstruction_esc", (100, 100_000, 100_000), np.float32, chunks=(1, 100, 100))
    return path


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_without_a_right_reading_is_a_fault_that_names_it(tmp_path, name):
    spoil, finding = FAULTS[name]
    path = spoil(write_knee(tmp_path / "a.h5", knee()))
    with pytest.raises(Fault, match=rf"a\.h5: .*({finding})"):
        read_fastmri(path)


def test_a_folder_is_a_fault(tmp_path):
    with pytest.raises(Fault, match="cannot be read"):
        read_fastmri(tmp_path)


def test_undersampled_k_space_is_refused_and_a_full_mask_is_not(tmp_path):
    path = add(write_knee(tmp_path / "a.h5", knee()), "mask", np.arange(36) % 4 == 0)
    with pytest.raises(Fault, match=r"undersampled k-space \(9 of 36 columns\)"):
        read_fastmri(path, "kspace")
    assert read_fastmri(change(path, "mask", np.ones(36)), "kspace").data.shape == (32, 24, 3)


def test_k_space_smaller_than_its_image_or_without_any_size_is_a_fault(tmp_path):
    path = write_knee(tmp_path / "a.h5", knee(), header=HEADER.replace("<x>32", "<x>320"))
    with pytest.raises(Fault, match="images of 320 x 24 from k-space of 64 x 36"):
        read_fastmri(path, "kspace")
    change(path, "ismrmrd_header")
    assert read_fastmri(path, "kspace").data.shape == (32, 24, 3)
    with pytest.raises(Fault, match="no size of its images"):
        read_fastmri(change(path, "reconstruction_esc"), "kspace")


def test_a_misspelt_image_is_refused(tmp_path):
    path = write_knee(tmp_path / "a.h5", knee())
    with pytest.raises(UsageFault, match="'reconstruction_sos' is not known"):
        read_fastmri(path, "reconstruction_sos")


def test_an_image_that_was_asked_for_is_not_replaced_by_another(tmp_path):
    with pytest.raises(Fault, match=r"no reconstruction_rss in it .*Fix: name a dataset that it holds"):
        read_fastmri(write_knee(tmp_path / "a.h5", knee()), "reconstruction_rss")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), data=st.data())
def test_a_changed_byte_is_refused_or_harmless_but_never_a_crash(tmp_path, place, value, data):
    path = write_knee(tmp_path / "a.h5", knee())
    content = bytearray(path.read_bytes())
    skeleton = [i for i in range(len(content)) if i < 2500 or i > len(content) - 2500]  # where HDF5 keeps what is not a voxel
    content[skeleton[int(place * len(skeleton))]] = value
    path.write_bytes(content)
    try:
        volume = read_fastmri(path)
    except Fault:
        return
    assert np.isfinite(volume.data).all()


def test_the_suffix_decides_how_a_volume_is_read(tmp_path):
    images = knee()
    volume = read_volume(write_knee(tmp_path / "a.H5", images))
    save_nifti(tmp_path / "a.nii.gz", volume, "knee")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").data, images.transpose(1, 2, 0))


def test_a_pair_by_index_lies_on_the_target_s_grid_up_to_the_shorter_volume(tmp_path):
    target = read_fastmri(write_knee(tmp_path / "a.h5", knee(slices=5)))
    reference = read_fastmri(write_knee(tmp_path / "b.h5", knee(slices=4, seed=1), header=None))
    for first, second in ((target, reference), (reference, target)):
        one, other = paired_by_index(first, second)
        np.testing.assert_array_equal(one.data, first.data[:, :, :4])
        np.testing.assert_array_equal(resample(other, one.grid), second.data[:, :, :4])
        assert any("paired up to the shorter, 4" in note for note in other.notes)


def test_a_short_scan_is_paired_with_a_long_one_on_its_finer_grid():
    """Sample j of a low-resolution image lies at sample 2 j of the high-resolution one: both are Fourier transforms about their centres."""
    x = np.arange(32)
    wave = np.broadcast_to(np.cos(2 * np.pi * (x - 16) / 32)[:, None, None], (32, 24, 3)).astype(np.float32)
    short = Volume(np.ascontiguousarray(wave[::2, ::2, :2]), np.diag([2.0, 2, 4, 1]))
    target, reference = paired_by_index(short, Volume(wave, np.eye(4)), short.grid.finer(2, 2))
    np.testing.assert_allclose(resample(reference, target.grid.finer(2, 2)), wave[:, :, :2], atol=1e-6)
    np.testing.assert_allclose(reference.affine @ [10, 6, 1, 1], target.affine @ [5, 3, 1, 1])


def test_images_of_equal_matrices_cannot_be_super_resolved_by_index():
    volume = Volume(np.ones((8, 8, 3), np.float32), np.diag([1.0, 1, 4, 1]))
    with pytest.raises(Fault, match=r"in-plane sizes \[8, 8\], .* has \[8, 8\] and needs \[16, 16\].*hftn-sr degrade"):
        paired_by_index(volume, volume, volume.grid.finer(2, 2))


def test_images_of_two_matrices_cannot_be_paired_by_index():
    small, large = (Volume(np.ones((size, 8, 3), np.float32), np.diag([1.0, 1, 4, 1])) for size in (8, 9))
    with pytest.raises(Fault, match=r"in-plane sizes \[9, 8\], the target .* has \[8, 8\]"):
        paired_by_index(small, large)
