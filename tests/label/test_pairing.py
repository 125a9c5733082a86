"""Which files a request to the MONAI Label app means."""

import pytest
from hftn_sr_label.pairing import NAMES, Forbidden, NotFound, find_pair, name_rules, paired_images

from hftn_sr.errors import Fault, UsageFault


class Folder:
    """Images of a folder by name, as MONAI Label's local datastore has them."""

    def __init__(self, folder, *names):
        self.files = {name: folder / f"{name}.nii.gz" for name in names}
        for path in self.files.values():
            path.touch()

    def list_images(self):
        return list(self.files)

    def get_image_uri(self, image_id):
        return str(self.files.get(image_id, ""))


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return Folder(folder, "patient01_FLAIR", "patient01_T2W", "patient01_PD", "patient02_FLAIR")


@pytest.fixture
def find(images, tmp_path):
    return lambda image, reference="", names=NAMES: find_pair(images, image, reference, name_rules(names), [tmp_path / "images"])


def test_the_reference_is_found_by_its_name(find, tmp_path):
    pair = find("patient01_FLAIR")
    assert (pair.target, pair.reference) == (tmp_path / "images/patient01_FLAIR.nii.gz", tmp_path / "images/patient01_T2W.nii.gz")
    assert pair.how == "by name rule, patient01_T2W"


def test_other_names_find_another_reference(find):
    assert find("patient01_FLAIR", names="*_FLAIR=*_PD").reference.name == "patient01_PD.nii.gz"


@pytest.mark.parametrize("reference", ["patient01_PD", "patient01_PD.nii.gz", "absolute"])
def test_the_reference_is_found_by_id_and_by_path(find, tmp_path, reference):
    asked = str(tmp_path / "images/patient01_PD.nii.gz") if reference == "absolute" else reference
    pair = find("patient02_FLAIR", asked)
    assert pair.reference == tmp_path / "images/patient01_PD.nii.gz"
    assert pair.how == ("by ID" if reference == "patient01_PD" else "by path")


def test_a_target_given_by_path_has_its_reference_by_name(find, tmp_path):
    pair = find(str(tmp_path / "images/patient01_FLAIR.nii.gz"))
    assert (pair.name, pair.reference.name) == ("patient01_FLAIR", "patient01_T2W.nii.gz")


def test_a_missing_reference_names_what_was_searched(find):
    with pytest.raises(
        NotFound, match=r"patient02_FLAIR: no reference by its name \(searched patient02_T2W, patient02_T2w\)\. Fix: .*reference"
    ):
        find("patient02_FLAIR")
    with pytest.raises(NotFound, match=r"'patient01_PD' fits none of the patterns \*_FLAIR, \*_PDFS, \*_target"):
        find("patient01_PD")


def test_several_references_are_not_chosen_from(find):
    with pytest.raises(Fault, match=r"several references by its name \(patient01_T2W, patient01_PD\)"):
        find("patient01_FLAIR", names="*_FLAIR=*_T2W, *_FLAIR=*_PD")


@pytest.mark.parametrize("asked", ["nobody", "nobody.nii.gz", "images", ""])
def test_a_wrong_id_is_not_found(find, asked):
    with pytest.raises(NotFound, match=r"is no ID and no file of the datastore \(image\)"):
        find(asked)


@pytest.mark.parametrize("asked", ["../secret.nii.gz", "/etc/passwd", "patient01_FLAIR/../../secret.nii.gz", "link/secret.nii.gz", ".."])
def test_a_path_outside_of_the_datastore_is_refused_whether_it_exists_or_not(find, tmp_path, asked):
    (tmp_path / "secret.nii.gz").touch()
    (tmp_path / "images/link").symlink_to(tmp_path)
    for image, reference in ((asked, ""), ("patient01_FLAIR", asked)):
        with pytest.raises(Fault) as refused:
            find(image, reference)
        assert isinstance(refused.value, NotFound if asked == ".." else Forbidden)
        assert "datastore" in str(refused.value)


def test_an_uploaded_folder_holds_its_own_reference(find, tmp_path):
    upload = tmp_path / "images/upload"
    upload.mkdir()
    for name in ("target.nii.gz", "reference.nii.gz"):
        (upload / name).touch()
    assert find("upload").reference == upload / "reference.nii.gz"
    (upload / "reference.nii.gz").unlink()
    with pytest.raises(Fault, match="no reference"):
        find("upload")


def test_no_root_means_no_path(images, tmp_path):
    with pytest.raises(Forbidden):
        find_pair(images, str(tmp_path / "images/patient01_FLAIR.nii.gz"), "", name_rules(NAMES), [])


@pytest.mark.parametrize("names", ["", " , ", "FLAIR=T2W", "*_FLAIR", "**=*_T2W", "*_FLAIR=*_FLAIR"])
def test_a_wrong_rule_is_refused(names):
    with pytest.raises(UsageFault, match=r"names: .*TARGET=REFERENCE|names: no rule"):
        name_rules(names)


def test_only_targets_with_a_reference_are_pairs(images):
    assert paired_images(images, name_rules(NAMES)) == {"patient01_FLAIR": "patient01_T2W"}
