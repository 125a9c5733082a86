"""`hftn-sr convert`: fastMRI files become NIfTI files that say what is known of them."""

import json

import nibabel as nib
import numpy as np

from hftn_sr.volumes import files
from hftn_sr.volumes.fastmri import read_fastmri
from knees import HEADER, knee, write_coils, write_knee


def test_a_file_becomes_nifti_with_the_voxel_sizes_of_its_header(tmp_path, command):
    images = knee(slices=5)
    source = write_knee(tmp_path / "file1.h5", images, header=HEADER.replace("<z>3.5", "<z>3"), patient_id="ab12cd34")
    before = source.read_bytes()
    result = command("convert", source, "--output", tmp_path / "nifti")
    assert (result.exit_code, result.stdout.strip()) == (0, str(tmp_path / "nifti" / "file1.nii.gz"))
    assert result.stderr.splitlines()[-1] == "file1.h5: taken as coronal and centred; position and signs of the axes are not in the file"
    image = nib.load(tmp_path / "nifti" / "file1.nii.gz")  # by another reader than ours
    np.testing.assert_array_equal(image.get_fdata(), images.transpose(1, 2, 0))
    np.testing.assert_allclose(image.header.get_zooms(), [140 / 32, 105 / 24, 3])
    assert (image.header.get_xyzt_units()[0], nib.aff2axcodes(image.affine)) == ("mm", ("S", "L", "P"))
    np.testing.assert_allclose(image.affine @ [16, 12, 2, 1], [0, 0, 0, 1], atol=1e-5)
    assert b"position unknown" in image.header["descrip"].item()
    found = json.loads((tmp_path / "nifti" / "file1.json").read_text(encoding="utf-8"))
    assert found["Position"].startswith("unknown")
    assert (found["AxesAssumed"], found["Dataset"], found["Acquisition"]) == ("SLP", "reconstruction_esc", "CORPD_FBK")
    assert found["Source"] == {"file": "file1.h5", "sha256": read_fastmri(source).sha256}
    assert "ab12cd34" not in json.dumps(found)
    assert source.read_bytes() == before
    assert {path.name for path in (tmp_path / "nifti").iterdir()} == {"file1.nii.gz", "file1.json"}


def test_coils_of_k_space_are_combined(tmp_path, command):
    path, images = write_coils(tmp_path / "a.h5")
    result = command("convert", path, "--output", tmp_path, "--image", "kspace")
    assert "root sum of squares of 3 coils" in result.stderr
    np.testing.assert_allclose(nib.load(tmp_path / "a.nii.gz").get_fdata(), images.transpose(1, 2, 0), rtol=1e-4, atol=1e-5)


def test_what_exists_is_left_alone_unless_asked(tmp_path, command):
    source = write_knee(tmp_path / "a.h5", knee())
    assert command("convert", source, "--output", tmp_path).exit_code == 0
    (tmp_path / "a.nii.gz").write_bytes(b"mine")
    again = command("convert", source, "--output", tmp_path)
    assert (again.exit_code, (tmp_path / "a.nii.gz").read_bytes()) == (3, b"mine")
    assert "SKIPPED" in again.stderr
    assert "--overwrite always" in again.stderr
    assert command("convert", source, "--output", tmp_path, "--overwrite", "always").exit_code == 0
    assert nib.load(tmp_path / "a.nii.gz").shape == (32, 24, 3)
    (tmp_path / "a.nii.gz").unlink()
    (tmp_path / "a.json").write_text("mine", encoding="utf-8")
    refused = command("convert", source, "--output", tmp_path)
    assert (refused.exit_code, (tmp_path / "a.json").read_text(encoding="utf-8")) == (9, "mine")
    assert "a.json: stands where this run would write" in refused.stderr


def test_a_folder_is_converted_and_a_bad_file_does_not_stop_the_rest(tmp_path, command):
    for name in ("b", "c"):
        write_knee(tmp_path / "in" / f"{name}.h5", knee())
    (tmp_path / "in" / "a.h5").write_bytes(b"")
    (tmp_path / "in" / "readme.txt").write_text("no scan", encoding="utf-8")
    result = command("convert", tmp_path / "in", "--output", tmp_path / "out")
    assert result.exit_code == 8
    assert f"ERROR {tmp_path / 'in' / 'a.h5'}: empty file" in result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b.nii.gz", "b.json", "c.nii.gz", "c.json"}
    assert command("convert", tmp_path / "in" / "a.h5", "--output", tmp_path / "out").exit_code == 9


def test_folders_that_lie_deeper_are_named(tmp_path, command):
    write_knee(tmp_path / "in" / "a.h5", knee())
    write_knee(tmp_path / "in" / "more" / "b.h5", knee())
    result = command("convert", tmp_path / "in", "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert f"{tmp_path / 'in'}: passed over sub-folders without images of their own: more; name them to look into them" in result.stderr
    found = command("convert", tmp_path / "in" / "more", "--output", tmp_path / "out").stderr
    assert "passed over" not in found
    assert (tmp_path / "out" / "b.nii.gz").is_file()


def test_nothing_is_left_of_a_file_that_could_not_be_written_whole(tmp_path, command, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    result = command("convert", write_knee(tmp_path / "a.h5", knee()), "--output", tmp_path / "out")
    assert result.exit_code == 9
    assert "no space left on the disk" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_two_files_of_one_name_and_an_empty_folder_are_refused(tmp_path, command):
    one, two = (write_knee(tmp_path / name / "a.h5", knee()) for name in ("x", "y"))
    twice = command("convert", one, two, "--output", tmp_path / "out")
    assert twice.exit_code == 2
    assert "would be written over by another file of its name" in twice.stderr
    (tmp_path / "empty").mkdir()
    empty = command("convert", tmp_path / "empty", "--output", tmp_path / "out")
    assert empty.exit_code == 3
    assert "no fastMRI file in it (searched *.h5 and *.hdf5)" in empty.stderr
    assert not (tmp_path / "out").exists()


def test_the_help_fits_a_screen_and_has_an_example(command):
    text = command("convert", "--help").stdout
    assert len(text.splitlines()) <= 25
    assert "hftn-sr convert" in text.split("Example")[1]
