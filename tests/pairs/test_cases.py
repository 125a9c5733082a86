"""Files of a case by their names."""

import pytest

from hftn_sr.errors import Fault
from hftn_sr.pairs.cases import case_files, lone_target
from hftn_sr.volumes.reading import read_volume_header


def test_a_target_is_alone_only_without_a_reference(tmp_path):
    assert lone_target(tmp_path) is None
    (tmp_path / "target.nii.gz").touch()
    assert lone_target(tmp_path) == tmp_path / "target.nii.gz"
    (tmp_path / "reference.nii").touch()
    assert lone_target(tmp_path) is None


def test_a_link_to_nothing_is_no_absent_reference(tmp_path):
    (tmp_path / "target.nii.gz").touch()
    (tmp_path / "reference.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    assert lone_target(tmp_path) is None


def test_the_transform_of_a_reference_that_is_not_there_is_a_fault(tmp_path):
    (tmp_path / "target.nii.gz").touch()
    (tmp_path / "reference_transform.tfm").touch()
    with pytest.raises(Fault, match="no reference, though reference_transform"):
        lone_target(tmp_path)


def test_a_folder_of_an_image_s_name_without_dicom_files_is_no_absent_image(tmp_path):
    for role in ("target", "reference"):
        (tmp_path / role / "S1").mkdir(parents=True)
    files = case_files(tmp_path)
    assert (files.target, files.reference) == (tmp_path / "target", tmp_path / "reference")
    with pytest.raises(Fault, match="a folder without a DICOM file"):
        read_volume_header(files.target)
    (tmp_path / "target.nii").touch()
    assert case_files(tmp_path).target == tmp_path / "target.nii"
