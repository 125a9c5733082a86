"""Files of a case by their names."""

import pytest

from hftn_sr.errors import Fault
from hftn_sr.pairs.cases import lone_target


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
