"""The pairs of a datastore as a datalist."""

import pytest
from hftn_sr_label.pairing import name_rules
from hftn_sr_label.training_data import check_settings, divide, training_data, write_training_data

from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.pairs.datalist import load_datalist
from phantoms import phantom, write_volume

RULES = name_rules("*_FLAIR=*_T2W")


class Store:
    def __init__(self, files):
        self.files = files

    def list_images(self):
        return list(self.files)

    def get_image_uri(self, image_id):
        return str(self.files.get(image_id, ""))


@pytest.fixture
def store(tmp_path, pair):
    """Two patients with high-resolution pairs, a third whose target has low resolution, a fourth whose reference is damaged."""
    files = {}
    for patient in ("p1", "p2", "p3", "p4"):
        for contrast, kind in (("FLAIR", "target"), ("T2W", "reference")):
            volume = pair(2)[0] if (patient, contrast) == ("p3", "FLAIR") else phantom(kind=kind)
            files[f"{patient}_{contrast}"] = write_volume(tmp_path / "images" / f"{patient}_{contrast}.nii.gz", volume)
    damaged = files["p4_T2W"]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    return Store(files)


def test_pairs_of_high_resolution_become_cases_and_the_others_are_named(store):
    data = training_data(store, RULES)
    assert sorted(data.cases) == ["p1_FLAIR", "p2_FLAIR"]
    low, damaged = sorted(data.left_out, key=lambda finding: "p4" in finding)
    assert "p3_FLAIR: in-plane voxels are 2.00 times those of p3_T2W" in low
    assert str(store.files["p4_T2W"]) in damaged


def test_a_datastore_without_pairs_says_what_was_searched(store):
    with pytest.raises(NothingToDo, match=r"no pair of high-resolution images in it \(searched \*_A with \*_B\)"):
        training_data(store, name_rules("*_A=*_B"))


def test_the_datalist_is_one_that_the_workflow_reads(store, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    assert write_training_data(folder, training_data(store, RULES), 0.1, 0, r"^[^_]+") == {"training": 1, "validation": 1}
    names = {section: [case["case"] for case in load_datalist(folder, section)] for section in ("training", "validation")}
    assert sorted(names["training"] + names["validation"]) == ["p1_FLAIR", "p2_FLAIR"]


def test_visits_of_a_patient_stay_together_and_a_tenth_validates():
    cases = [f"p{number}_{visit}" for number in range(20) for visit in "ab"]
    sections = divide(cases, {}, 0.1, 0, r"^[^_]+")
    assert all(sections[f"p{number}_a"] == sections[f"p{number}_b"] for number in range(20))
    assert list(sections.values()).count("validation") == 4
    assert sections != divide(cases, {}, 0.1, 1, r"^[^_]+")


def test_no_patient_changes_its_section_when_others_come():
    first = divide([f"p{number}" for number in range(4)], {}, 0.25, 0, r".+")
    later = divide([f"p{number}" for number in range(12)], first, 0.25, 0, r".+")
    assert {name: later[name] for name in first} == first
    assert list(later.values()).count("validation") == 3


def test_one_patient_cannot_validate_itself():
    with pytest.raises(Fault, match=r"one patient only \(p1\), training needs another one to validate"):
        divide(["p1_a", "p1_b"], {}, 0.1, 0, r"^[^_]+")
    with pytest.raises(Fault, match="all 2 patients are for training"):
        divide(["p1", "p2"], {"p1": "training", "p2": "training"}, 0.1, 0, r".+")


def test_a_wrong_rule_for_patients_is_refused():
    with pytest.raises(UsageFault, match="patient: '\\(' is no regular expression"):
        divide(["p1"], {}, 0.1, 0, "(")
    with pytest.raises(Fault, match="q1: no patient in its name"):
        divide(["q1"], {}, 0.1, 0, "p[0-9]")


def test_a_run_goes_on_only_with_its_own_settings(tmp_path):
    check_settings(tmp_path, {"scale": 2, "epochs": 3})
    check_settings(tmp_path, {"scale": 2, "epochs": 3})
    with pytest.raises(UsageFault, match="was begun with epochs 3, now 4"):
        check_settings(tmp_path, {"scale": 2, "epochs": 4})
