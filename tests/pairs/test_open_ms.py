"""Fetching and listing of the open MS data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from loopback import contents, fill

from hftn_sr.errors import Fault
from hftn_sr.pairs import open_ms
from hftn_sr.pairs.download import MIRROR_VARIABLE, data_folder
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.placement import chained_transforms, similarity

MIRROR = Path(os.environ.get(MIRROR_VARIABLE) or "unset")
needs_data = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"{MIRROR_VARIABLE} names no copy of the data")


@pytest.fixture
def stand_in(tmp_path) -> Path:
    """A folder with an empty file for each of the data's."""
    return fill(tmp_path / "stand_in", dict.fromkeys(open_ms._source().files, b""))


def test_no_patient_is_in_two_splits(stand_in):
    patients: dict[str, set[str]] = {"train": set(), "validation": set(), "test": set()}
    for pair in open_ms.open_ms_pairs(stand_in):
        assert pair.target.parent == pair.reference.parent
        patients[pair.split].add("/".join(pair.target.parts[-4:-1]))
    assert sum(map(len, patients.values())) == len(set.union(*patients.values()))
    assert patients == {
        "train": {"longitudinal/raw/patient01", "longitudinal/raw/patient19", "cross_sectional/MNI/patient07"},
        "validation": {"longitudinal/raw/patient03", "cross_sectional/MNI/patient19"},
        "test": {"longitudinal/raw/patient04"},
    }


def test_the_pairs_are_those_of_the_data_with_the_misaligned_one_left_out(stand_in):
    cases = [pair.case for pair in open_ms.open_ms_pairs(stand_in)]
    assert [case.removeprefix("longitudinal").removesuffix("_to_FLAIR") for case in cases if case.startswith("longitudinal")] == [
        *("01_study1_T1", "01_study1_T2", "01_study2_T1", "01_study2_T2"),
        *("03_study1_T2", "03_study2_T1", "03_study2_T2"),
        *("04_study1_T1", "04_study1_T2", "19_study2_T1"),
    ]
    ordered = ["FLAIR_to_T1", "FLAIR_to_T2", "T1_to_FLAIR", "T1_to_T2", "T2_to_FLAIR", "T2_to_T1"]
    assert [case.removeprefix("mni07_") for case in cases if case.startswith("mni07")] == ordered
    assert len(cases) == len(set(cases)) == 10 + 6 + 6


def test_each_path_of_a_pair_shows_its_contrast_and_visit(stand_in):
    for pair in open_ms.open_ms_pairs(stand_in):
        visit = f"{pair.case.split('_')[1]}_" if pair.transform else ""
        assert pair.target.name.startswith(visit + pair.target_contrast)
        assert pair.reference.name.startswith(visit + pair.reference_contrast)
        assert pair.case.endswith(f"_{pair.reference_contrast}_to_{pair.target_contrast}")
        if pair.transform:
            assert pair.transform.name == pair.reference.name.replace(".nii.gz", "_intrastudy_to_FLAIR.txt")


def test_every_series_of_a_visit_can_be_the_target(stand_in, tmp_path):
    pairs = open_ms.open_ms_pairs(stand_in, "all")
    native = {pair.case: pair for pair in pairs if pair.native}
    visits = {"01_study1": 6, "01_study2": 6, "03_study1": 2, "03_study2": 6, "04_study1": 6, "19_study2": 2}
    assert {visit: sum(case.startswith(f"longitudinal{visit}") for case in native) for visit in visits} == visits
    assert len(native) == sum(visits.values()) and len(pairs) == len(native) + 12
    for pair in native.values():
        ends = {"transform": pair.reference_contrast, "inverse_transform": pair.target_contrast}
        for name, contrast in ends.items():
            file = getattr(pair, name)
            study = pair.case.split("_")[1]
            assert (file and file.name) == (None if contrast == "FLAIR" else f"{study}_{contrast}W_intrastudy_to_FLAIR.txt")
    open_ms.write_datalist(stand_in, tmp_path / "datalist.json", targets="all")
    datalist = json.loads((tmp_path / "datalist.json").read_text())
    assert {section: len(entries) for section, entries in datalist.items()} == {"training": 20, "validation": 14, "testing": 6}
    weights = {entry["case"]: entry["weight"] for entry in datalist["training"]}
    assert weights["longitudinal01_study1_T1_to_FLAIR"] == 3.0 == 2 * weights["longitudinal01_study1_FLAIR_to_T1"]
    assert weights["mni07_T1_to_T2"] == 1.0
    open_ms.write_datalist(stand_in, tmp_path / "datalist.json", "patient01", "all")
    datalist = json.loads((tmp_path / "datalist.json").read_text())
    assert [len(datalist[section]) for section in ("training", "validation", "testing")] == [6 + 16, 6, 12]


@needs_data
def test_both_ways_between_two_series_lead_back(tmp_path):
    """What the transforms make of a point must return to it, and each contrast must fit on the other's grid better than moved."""
    root = data_folder(MIRROR, open_ms.FOLDER)
    pairs = {pair.case: pair for pair in open_ms.open_ms_pairs(root, "all")}

    def fits(case, moved=0.0):
        pair = pairs[case]
        target, reference = read_nifti(pair.target), read_nifti(pair.reference)
        to_reference = chained_transforms(pair.transform, pair.inverse_transform)
        return similarity(target, reference.moved(np.array([[1, 0, 0, moved], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]) @ to_reference))

    for case in ("longitudinal03_study2_T1_to_T2", "longitudinal03_study2_T2_to_T1", "longitudinal03_study2_FLAIR_to_T1"):
        assert fits(case) > max(fits(case, 2.0), fits(case, -2.0)) + 0.005, case
    there, back = (pairs[f"longitudinal03_study2_{name}"] for name in ("T1_to_T2", "T2_to_T1"))
    both = [chained_transforms(pair.transform, pair.inverse_transform) for pair in (there, back)]
    np.testing.assert_allclose(both[0] @ both[1], np.eye(4), atol=1e-9)


def test_a_missing_image_is_named(stand_in):
    (stand_in / "longitudinal/raw/patient04/study1_T2W.nii.gz").unlink()
    with pytest.raises(Fault, match=r"patient04/study1_T2W\.nii\.gz: found no such file"):
        open_ms.open_ms_pairs(stand_in)


def test_the_datalist_has_relative_paths_and_three_sections(stand_in, tmp_path):
    open_ms.write_datalist(stand_in, tmp_path / "lists/open_ms.json")
    datalist = json.loads((tmp_path / "lists/open_ms.json").read_text())
    assert {section: len(entries) for section, entries in datalist.items()} == {"training": 11, "validation": 9, "testing": 2}
    assert datalist["testing"][1] == {
        "case": "longitudinal04_study1_T2_to_FLAIR",
        "target": "longitudinal/raw/patient04/study1_FLAIR.nii.gz",
        "reference": "longitudinal/raw/patient04/study1_T2W.nii.gz",
        "transform": "longitudinal/raw/patient04/study1_T2W_intrastudy_to_FLAIR.txt",
        "weight": 3.0,
    }
    assert datalist["training"][-1]["transform"] == ""
    masked = {entry["case"]: entry["lesions"] for section in datalist.values() for entry in section if "lesions" in entry}
    assert sorted(masked) == [f"mni{patient}_{contrast}_to_FLAIR" for patient in ("07", "19") for contrast in ("T1", "T2")]
    assert all(case[3:5] == Path(mask).parent.name[-2:] and Path(mask).name.startswith("GOLD_STANDARD") for case, mask in masked.items())
    assert [path.name for path in (tmp_path / "lists").iterdir()] == ["open_ms.json"]


@pytest.mark.parametrize(("patient", "tested", "trained"), [("patient01", 4, 12), ("patient03", 3, 13), ("patient04", 2, 14)])
def test_a_patient_left_out_is_tested_alone_and_never_trained_on(stand_in, tmp_path, patient, tested, trained):
    open_ms.write_datalist(stand_in, tmp_path / "datalist.json", patient)
    datalist = json.loads((tmp_path / "datalist.json").read_text())
    cases = {section: [entry["case"] for entry in entries] for section, entries in datalist.items()}
    assert {section: len(names) for section, names in cases.items()} == {"training": trained, "validation": 6, "testing": tested}
    assert {name.split("_")[0] for name in cases["testing"]} == {f"longitudinal{patient[-2:]}"}
    assert {name.split("_")[0] for name in cases["validation"]} == {"mni19"}
    assert not any(name.startswith(f"longitudinal{patient[-2:]}") for name in cases["training"])


def test_a_datalist_that_cannot_be_finished_leaves_the_old_one(stand_in, tmp_path, full_disk):
    fill(tmp_path / "lists", {"old.json": b"old"})
    with pytest.raises(Fault, match="no space left on the disk"):
        open_ms.write_datalist(stand_in, tmp_path / "lists/old.json")
    assert contents(tmp_path / "lists") == {"old.json": b"old"}


def test_the_table_names_the_licences_and_every_image_of_a_pair(stand_in):
    source = open_ms._source()
    assert {"longitudinal/LICENSE.txt", "cross_sectional/LICENSE.txt"} <= source.files.keys()
    assert (len(source.files), source.size) == (41, 71_830_011)


@needs_data
@pytest.mark.parametrize("above", [True, False])
def test_the_real_mirror_serves_all_files_and_pairs_by_its_folder_or_the_one_above(tmp_path, above):
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / open_ms.FOLDER).symlink_to(data_folder(MIRROR, open_ms.FOLDER))
    mirror = tmp_path / "above" if above else data_folder(MIRROR, open_ms.FOLDER)
    report = open_ms.fetch_open_ms(tmp_path / "data", mirror)
    assert (len(report.copied), report.downloaded, report.notes) == (41, [], [])
    assert len(open_ms.fetch_open_ms(tmp_path / "data").kept) == 41
    assert sum(map(len, contents(tmp_path / "data").values())) == open_ms._source().size
    open_ms.write_datalist(mirror, tmp_path / "list.json")
    first = json.loads((tmp_path / "list.json").read_text())["testing"][0]
    assert all((mirror / first[key]).is_file() for key in ("target", "reference", "transform"))
