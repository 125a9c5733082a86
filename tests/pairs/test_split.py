"""Division of the user's own pairs by patient."""

import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import fill

from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.inference.batch import find_cases
from hftn_sr.pairs.cases import case_files, case_folders
from hftn_sr.pairs.datalist import SECTIONS, check_new, load_datalist, relative, write_cases
from hftn_sr.pairs.split import missing_sections, split_cases, split_patients

names = st.sets(st.text(string.ascii_letters + string.digits + "äß漢-", min_size=1, max_size=6), min_size=3, max_size=60)
fractions = st.tuples(*[st.floats(0.01, 100)] * 3)


def put(folder, *cases):
    """Empty images of each case."""
    return fill(folder, {f"{case}/{role}.nii.gz": b"" for case in cases for role in ("target", "reference")})


@given(patients=names, fractions=fractions, seed=st.integers(0, 1000))
def test_every_patient_is_in_one_section_and_no_section_is_empty(patients, fractions, seed):
    sections = split_patients(patients, fractions, seed)
    assert list(sections) == list(SECTIONS)
    assert sorted(patient for members in sections.values() for patient in members) == sorted(patients)
    assert all(sections.values())


@given(patients=names, fractions=fractions, seed=st.integers(0, 1000))
def test_the_fractions_hold_to_less_than_one_patient_where_each_is_worth_one(patients, fractions, seed):
    quotas = [len(patients) * share / sum(fractions) for share in fractions]
    for members, quota in zip(split_patients(patients, fractions, seed).values(), quotas, strict=True):
        assert abs(len(members) - quota) < 1 + 1e-9 or min(quotas) < 1


@given(patients=st.permutations([f"p{index:02}" for index in range(12)]), seed=st.integers(0, 1000))
def test_the_order_of_the_patients_does_not_matter(patients, seed):
    assert split_patients(patients, seed=seed) == split_patients(sorted(patients), seed=seed)


def test_one_seed_gives_one_division_on_every_system_and_another_gives_another():
    patients = [f"p{index:02}" for index in range(20)]
    first = split_patients(patients, seed=0)
    assert (first["validation"], first["testing"]) == (["p13", "p16"], ["p05", "p06", "p10", "p12"])  # of sha256sum("0 p00") and so on
    divisions = [json.dumps(split_patients(patients, seed=seed)) for seed in range(50)]
    assert len(set(divisions)) == 50


@pytest.mark.parametrize(
    ("count", "shares", "seats"),
    [
        (10, (70, 10, 20), [7, 1, 2]),
        (3, (70, 10, 20), [1, 1, 1]),
        (5, (70, 10, 20), [3, 1, 1]),
        (8, (1, 1, 1), [3, 3, 2]),
        (4, (98, 1, 1), [2, 1, 1]),
    ],
)
def test_seats_go_by_largest_remainder_and_each_section_gets_one(count, shares, seats):
    assert [len(members) for members in split_patients(map(str, range(count)), shares).values()] == seats


@pytest.mark.parametrize("shares", [(70, 30, 0), (70, -10, 40), (70, 10, float("nan")), (70, 10, float("inf")), (70, 30)])
def test_shares_that_are_not_three_positive_numbers_are_refused(shares):
    with pytest.raises(UsageFault, match=r"--fractions: found .*, need three positive numbers"):
        split_patients("abc", shares)


def test_all_visits_of_a_patient_come_to_one_section_and_all_cases_once(tmp_path):
    cases = [f"p{patient}_visit{visit}" for patient in range(8) for visit in (1, 2)]
    divided = split_cases(put(tmp_path, *cases), tmp_path)
    for section in SECTIONS:
        assert {entry["case"] for entry in divided.cases[section]} == {case for case in cases if case[:2] in divided.patients[section]}
    assert sorted(entry["case"] for entries in divided.cases.values() for entry in entries) == sorted(cases)


def test_the_patient_is_what_the_expression_finds(tmp_path):
    put(tmp_path, "visit1-anna", "visit2-anna", "visit1-bo", "visit1-cy")
    named = {patient for members in split_cases(tmp_path, tmp_path, patient=r"-(\w+)").patients.values() for patient in members}
    assert named == {"anna", "bo", "cy"}
    whole = {patient for members in split_cases(tmp_path, tmp_path, patient=r"[a-c]\w+$").patients.values() for patient in members}
    assert whole == named
    with pytest.raises(Fault, match=r"visit1-anna: no patient in its name \(searched '\[A-Z\]'\)\. Fix: --patient REGEX"):
        split_cases(tmp_path, tmp_path, patient="[A-Z]")
    with pytest.raises(UsageFault, match=r"--patient: '\(' is no regular expression"):
        split_cases(tmp_path, tmp_path, patient="(")


def test_letters_composed_in_two_ways_are_one_patient(tmp_path):
    divided = split_cases(put(tmp_path, "Zo\u00eb_1", "Zoe\u0308_2", "b", "c"), tmp_path)
    assert sorted(len(members) for members in divided.patients.values()) == [1, 1, 1]
    assert max(len(entries) for entries in divided.cases.values()) == 2


@pytest.mark.parametrize(
    ("cases", "trained", "validated", "told"),
    [
        (("p1_1", "p1_2", "p1_3"), 3, 0, "one patient only: p1 trains, nothing can be validated or tested, and the last weights are saved"),
        (("p1_1", "p2_1"), 1, 1, "validates and chooses the best weights, nobody is left for testing; the gain on p"),
    ],
)
def test_of_one_or_two_patients_it_is_said_what_cannot_be_validated(cases, trained, validated, told, tmp_path):
    divided = split_cases(put(tmp_path, *cases), tmp_path)
    assert [len(divided.cases[section]) for section in SECTIONS] == [trained, validated, 0]
    assert told in missing_sections(divided.patients)
    write_cases(tmp_path, divided.cases, divided.rule)
    assert len(load_datalist(tmp_path, "training")) == trained
    with pytest.raises(Fault, match="no testing case in it"):
        load_datalist(tmp_path, "testing")


def test_of_three_patients_nothing_is_missing():
    assert missing_sections(split_patients("abc")) is None


def test_an_empty_folder_and_a_missing_one_are_told(tmp_path):
    with pytest.raises(NothingToDo, match=r"no case found \(searched"):
        split_cases(tmp_path, tmp_path)
    with pytest.raises(Fault, match="no such folder"):
        split_cases(tmp_path / "absent", tmp_path)
    with pytest.raises(NothingToDo, match=r"1 incomplete, the first: .*no reference"):
        split_cases(fill(tmp_path, {"a/target.nii": b""}), tmp_path)


def test_incomplete_cases_are_left_out_and_named(tmp_path):
    fill(put(tmp_path, "a", "b", "c"), {"d/target.nii": b"", "e/notes.txt": b"", "a/reference_transform.txt": b""})
    divided = split_cases(tmp_path, tmp_path)
    assert [fault.path for fault in divided.faults] == [str(tmp_path / "d")]
    (entry,) = (entry for entries in divided.cases.values() for entry in entries if entry["case"] == "a")
    assert entry == {"case": "a", "target": "a/target.nii.gz", "reference": "a/reference.nii.gz", "transform": "a/reference_transform.txt"}


def test_a_case_is_what_super_resolve_takes_for_one(tmp_path):
    put(tmp_path, "a", "b b", ".hidden")
    fill(tmp_path, {"c/target.nii": b"", "c/reference.nii": b"", "c/reference_transform.tfm": b"", "d/target.nii": b"", "e/else.txt": b""})
    fill(tmp_path, {"f/target.nii": b"", "f/target.nii.gz": b"", "f/reference.nii": b""})
    cases, failed = find_cases(tmp_path, tmp_path / "out")
    found, faults = {}, {}
    for folder in case_folders(tmp_path):
        try:
            if files := case_files(folder):
                found[folder.name] = (files.target, files.reference, files.transform)
        except Fault as fault:
            faults[folder.name] = str(fault)
    assert found == {case.name: (case.target, case.reference, case.transform) for case in cases}
    assert faults == {outcome.case: outcome.message for outcome in failed}


def test_the_datalist_is_read_back_from_another_folder(tmp_path):
    divided = split_cases(put(tmp_path / "cases", "a", "b", "c"), tmp_path / "list")
    write_cases(tmp_path / "list", divided.cases, divided.rule)
    (case,) = load_datalist(tmp_path / "list", "testing")
    assert (tmp_path / "cases" / case["case"] / "target.nii.gz").samefile(case["target"])
    content = json.loads((tmp_path / "list/datalist.json").read_text())
    assert content["split"] == {"fractions": [70, 10, 20], "seed": 0, "patient": "^[^_]+"}
    assert not any(tmp_path.as_posix() in entry["target"] for section in SECTIONS for entry in content[section])


def test_a_relative_path_leads_back_through_a_link(tmp_path):
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep/er")
    fill(tmp_path, {"images/a.nii": b"here"})
    assert (tmp_path / "link" / relative(tmp_path / "images/a.nii", tmp_path / "link")).read_bytes() == b"here"


def test_a_datalist_that_exists_is_replaced_only_when_asked(tmp_path):
    check_new(tmp_path, overwrite=False)
    fill(tmp_path, {"datalist.json": b"mine"})
    check_new(tmp_path, overwrite=True)
    with pytest.raises(NothingToDo, match=r"datalist\.json: exists already\. Fix: --overwrite always"):
        check_new(tmp_path, overwrite=False)


@pytest.mark.parametrize(
    ("entry", "finding"),
    [({"grid": "indx"}, "grid 'indx'"), ({"grid": "index", "transform": "a/target.nii.gz"}, "grid 'index' and a transform")],
)
def test_a_grid_that_is_not_known_is_a_fault(tmp_path, entry, finding):
    case = {"case": "a", "target": "a/target.nii.gz", "reference": "a/reference.nii.gz"}
    write_cases(put(tmp_path, "a"), {"testing": [{**case, **entry}], "training": [case]}, {})
    with pytest.raises(Fault, match=rf"case a has {finding}\. Fix: "):
        load_datalist(tmp_path, "testing")
    assert load_datalist(tmp_path, "training")[0]["grid"] == "header"
