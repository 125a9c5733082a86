"""MGH, NRRD and MetaImage files, written by nibabel and ITK."""

import gzip

import itk
import nibabel as nib
import numpy as np
import pytest

from hftn_sr.errors import Fault
from hftn_sr.volumes.nifti import ReadOptions
from hftn_sr.volumes.reading import read_volume, read_volume_header, volume_sha256
from phantoms import oblique

DATA = np.random.default_rng(5).integers(-200, 900, (9, 7, 5)).astype(np.int16)
AFFINE = oblique((1.5, 0.8, 3.0))


def put(folder, suffix, data=DATA):
    """One image, written by another program's library."""
    path = folder / f"image{suffix}"
    if suffix in (".mgz", ".mgh"):
        nib.save(nib.MGHImage(data, AFFINE), path)
        return path
    image = itk.image_from_array(np.ascontiguousarray(data.T))
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    itk.imwrite(image, str(path))
    return path


@pytest.mark.parametrize("suffix", [".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_voxels_and_places_are_those_that_were_written(tmp_path, suffix):
    path = put(tmp_path, suffix)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, DATA)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.sha256 == volume_sha256(path)
    header = read_volume_header(path)
    assert header.grid.shape == DATA.shape
    np.testing.assert_array_equal(header.grid.affine, volume.affine)


@pytest.mark.parametrize("suffix", [".mgz", ".mgh", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    content = put(tmp_path, suffix).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(content[: int(share * len(content)) - 30])
    with pytest.raises(Fault, match="truncated"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
def test_a_header_depends_on_its_file_of_voxels(tmp_path, suffix):
    path = put(tmp_path, suffix)
    before = volume_sha256(path)
    (voxels,) = (each for each in tmp_path.iterdir() if each != path)
    if voxels.suffix == ".raw":
        voxels.write_bytes(bytes(1) + voxels.read_bytes()[1:])
        assert volume_sha256(path) != before
    voxels.unlink()
    with pytest.raises(Fault, match="no such file"):
        read_volume(path)


def test_several_volumes_of_a_file_are_refused_until_one_is_named(tmp_path):
    path = put(tmp_path, ".mgz", np.stack([DATA, DATA + 1], axis=3))
    with pytest.raises(Fault, match=r"2 volumes in one file .*--frame N with N from 0 to 1"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, ReadOptions(frame=1)).data, DATA + 1)


def test_a_colour_image_is_refused(tmp_path):
    image = itk.image_from_array(np.zeros((5, 7, 9, 3), np.uint8), is_vector=True)
    itk.imwrite(image, str(tmp_path / "image.nrrd"))
    with pytest.raises(Fault, match="not a scalar volume"):
        read_volume(tmp_path / "image.nrrd")


@pytest.mark.parametrize("suffix", [".mgz", ".nrrd"])
def test_voxels_that_are_not_finite_become_0_only_when_asked(tmp_path, suffix):
    data = DATA.astype(np.float32)
    data[2, 3, 1] = np.nan
    path = put(tmp_path, suffix, data)
    with pytest.raises(Fault, match=r"1 of 315 voxels are NaN or infinite\. Fix: --nan-to-num"):
        read_volume(path)
    assert read_volume(path, ReadOptions(nan_to_num=True)).data[2, 3, 1] == 0


def test_an_image_without_signal_is_read_only_if_asked_for(tmp_path):
    path = put(tmp_path, ".mha", np.full_like(DATA, 7))
    with pytest.raises(Fault, match="no signal: every voxel is 7"):
        read_volume(path)
    assert read_volume(path, blank=True).data.shape == DATA.shape


def compressed(folder, name):
    path = put(folder, name)
    itk.imwrite(itk.imread(str(path)), str(path), compression=True)
    return path


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd"])
def test_a_damaged_compressed_file_is_refused(tmp_path, suffix):
    path = compressed(tmp_path, suffix)
    np.testing.assert_array_equal(read_volume(path).data, DATA)
    file = next((each for each in tmp_path.iterdir() if each.suffix == ".zraw"), path)
    content = bytearray(file.read_bytes())
    content[-len(content) // 4] ^= 16
    file.write_bytes(content)
    with pytest.raises(Fault, match="damaged"):
        read_volume(path)


def test_a_file_without_a_position_is_refused_unless_voxel_sizes_are_declared_enough(tmp_path):
    content = bytearray(put(tmp_path, ".mgh").read_bytes())
    content[28:30] = bytes(2)  # goodRASFlag
    (tmp_path / "a.mgh").write_bytes(content)
    (tmp_path / "b.nrrd").write_bytes(
        b"NRRD0004\ntype: short\ndimension: 3\nsizes: 9 7 5\nencoding: raw\nendian: little\n\n" + DATA.tobytes("F")
    )
    for name in ("a.mgh", "b.nrrd"):
        with pytest.raises(Fault, match=r"no position in space\. Fix: --assume-affine spacing"):
            read_volume(tmp_path / name)
        volume = read_volume(tmp_path / name, ReadOptions(assume_affine="spacing"))
        np.testing.assert_array_equal(volume.data, DATA)
        assert any("by voxel sizes alone" in note for note in volume.notes)


def test_lengths_that_are_not_in_mm_are_refused(tmp_path):
    path = put(tmp_path, ".nrrd")
    path.write_bytes(path.read_bytes().replace(b"\n\n", b'\nspace units: "cm" "cm" "cm"\n\n', 1))
    with pytest.raises(Fault, match="its lengths are in"):
        read_volume(path)


def test_a_detached_nrrd_depends_on_its_file_of_voxels(tmp_path):
    header = put(tmp_path, ".nhdr")
    path = header.rename(tmp_path / "image.nrrd")
    np.testing.assert_array_equal(read_volume(path).data, DATA)
    before = volume_sha256(path)
    (voxels,) = (each for each in tmp_path.iterdir() if each != path)
    voxels.write_bytes(bytes(2) + voxels.read_bytes()[2:])
    assert volume_sha256(path) != before


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
@pytest.mark.parametrize("content", [b"", bytes(10), b"n+1" * 500])
def test_what_is_no_mgh_file_is_a_fault(tmp_path, suffix, content):
    (tmp_path / f"image{suffix}").write_bytes(content)
    with pytest.raises(Fault, match="truncated or damaged"):
        read_volume(tmp_path / f"image{suffix}")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_one_of_several_volumes_of_itk_s_formats_is_taken_where_it_is_named(tmp_path, suffix):
    stack = np.stack([DATA, DATA + 1], axis=3)
    image = itk.image_from_array(np.ascontiguousarray(stack.T))
    image.SetSpacing([1.5, 0.8, 3.0, 1.0])
    path = tmp_path / f"image{suffix}"
    itk.imwrite(image, str(path))
    with pytest.raises(Fault, match=r"2 volumes in one file .*--frame N with N from 0 to 1"):
        read_volume(path)
    volume = read_volume(path, ReadOptions(frame=1))
    np.testing.assert_array_equal(volume.data, DATA + 1)
    np.testing.assert_allclose(volume.affine, np.diag([-1.5, -0.8, 3.0, 1.0]), atol=1e-6)


@pytest.mark.parametrize("suffix", [".mgz", ".nrrd"])
def test_a_fourth_size_of_1_does_not_matter(tmp_path, suffix):
    if suffix == ".mgz":
        path = put(tmp_path, suffix)
    else:
        path = tmp_path / "image.nrrd"
        itk.imwrite(itk.image_from_array(np.ascontiguousarray(DATA[..., None].T)), str(path))
    volume = read_volume(path, ReadOptions(frame=2))
    np.testing.assert_array_equal(volume.data, DATA)
    assert any("--frame 2 does not apply" in note for note in volume.notes)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "holds numbers that are not finite"), (0.0, "is singular")])
def test_an_mgh_file_that_lies_nowhere_is_refused_without_a_word_of_the_library(tmp_path, capfd, value, said):
    image = nib.MGHImage(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.eye(4))
    content = bytearray(image.to_bytes())
    content[42:54] = np.full(3, value, ">f4").tobytes()  # the first axis' direction
    path = tmp_path / "a.mgh"
    path.write_bytes(content)
    with pytest.raises(Fault, match=said):
        read_volume(path)
    path.write_bytes(b"\0\0\0\2" + content[4:])
    with pytest.raises(Fault, match="truncated or damaged"):
        read_volume(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
def test_an_mgh_header_that_promises_more_than_the_file_holds_is_refused_before_memory_is_asked_for(tmp_path, suffix):
    content = bytearray(nib.MGHImage(DATA, AFFINE).to_bytes())
    content[16:20] = (1_811_939_329).to_bytes(4, "big")  # frames
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".mgz" else content)
    with pytest.raises(Fault, match=r"truncated or damaged \(its header promises 1141521777270 bytes of voxels\)"):
        read_volume(path)
