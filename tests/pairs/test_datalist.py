"""Datalists: what would be misread, misspelt or seen in training and in testing is refused with the list and the case named."""

from __future__ import annotations

import json

import pytest
from loopback import fill

from hftn_sr.errors import Fault
from hftn_sr.pairs.datalist import DATALIST, load_datalist, workflow_datalist, workflow_sections_apart

FILES = ("a.nii", "b.nii", "c.nii", "d.nii", "e.nii", "f.nii")
CASE = {"case": "p1", "target": "a.nii", "reference": "b.nii"}
OTHER = {"case": "p2", "target": "c.nii", "reference": "d.nii"}


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path, dict.fromkeys(FILES, b"") | {"sub/a.nii": b""})
    (tmp_path / "deep").mkdir()
    return tmp_path


def write(folder, content):
    (folder / DATALIST).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def refusal(folder, content, section="training"):
    with pytest.raises(Fault) as caught:
        load_datalist(write(folder, content), section)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text.replace("x" * 300, "")) < 400 + 2 * len(str(folder))
    return text


CASES = {
    "weight 0": ({"weight": 0}, "case p1 has weight 0 (need a number above 0"),
    "weight -1": ({"weight": -1}, "case p1 has weight -1"),
    "weight NaN": ({"weight": float("nan")}, "case p1 has weight nan"),
    "weight infinite": ({"weight": float("inf")}, "case p1 has weight inf"),
    "weight null": ({"weight": None}, "case p1 has weight None"),
    "weight true": ({"weight": True}, "case p1 has weight True"),
    "weight text": ({"weight": "2"}, "case p1 has weight '2'"),
    "weight huge": ({"weight": 10**400}, "case p1 has weight 1000"),
    "misspelt weight": ({"wieght": 2}, 'case p1, has the key "wieght" (did you mean "weight"?). Fix: rename the key'),
    "capital": ({"Grid": "index"}, 'has the key "Grid" (did you mean "grid"?)'),
    "misspelt transform": ({"transfrom": "x.txt"}, 'did you mean "transform"?'),
    "target is reference": ({"reference": "a.nii"}, "case p1 has one file as target and reference (a.nii). Fix: name an image of another"),
    "target is reference by a link": ({"reference": "deep/../a.nii"}, "one file as target and reference"),
    "name up": ({"case": "../../p1"}, "'../../p1' has a name that leads out of a folder"),
    "name absolute": ({"case": "/etc/p1"}, "leads out of a folder"),
    "name of Windows": ({"case": "C:\\p1"}, "leads out of a folder"),
    "name up in Windows": ({"case": "a\\..\\b"}, "leads out of a folder"),
    "name with a newline": ({"case": "p\n1"}, r"case 'p\n1' has a name"),
    "name too long": ({"case": "p" * 5000}, "case 'pppp"),
    "name a number": ({"case": 7}, "a case is named 7, which is no text"),
    "name empty": ({"case": " "}, "a case is named ' '"),
    "target a number": ({"target": 3}, "case p1 has target 3, which is no file name"),
    "target null": ({"target": None}, "case p1 has target None"),
    "target empty": ({"target": ""}, "case p1 has target ''"),
    "target a list": ({"target": ["a.nii"]}, "case p1 has target ['a.nii']"),
    "transform a number": ({"transform": 1}, "case p1 has transform 1, which is no file name"),
    "target a folder": ({"target": "deep"}, "deep: is a folder without DICOM files, but case p1 of"),
    "transform a folder": ({"transform": "deep"}, "deep: is a folder, but case p1 of"),
    "missing": ({"target": "gone.nii"}, "gone.nii: no such file, but case p1 of"),
    "file name too long": ({"target": "x" * 5000}, "case p1 has target 'xxxxx"),
    "name too long for a disk": ({"target": "x" * 300}, "no such file, but case p1"),
    "a newline": ({"target": "a\nb.nii"}, r"case p1 has target 'a\nb.nii', which is no file name"),
    "zero byte": ({"target": "a\0.nii"}, r"case p1 has target 'a\x00.nii', which is no file name"),
    "grid a list": ({"grid": []}, "case p1 has grid []"),
    "read unknown": ({"read": {"nan": True}}, "case p1 has read {'nan': True} (known: frame (int), nan_to_num (bool)"),
    "read a list": ({"read": [1]}, "case p1 has read [1]"),
}


@pytest.mark.parametrize(("change", "finding"), CASES.values(), ids=CASES)
def test_a_case_that_cannot_be_meant_is_refused_by_its_name(change, finding, folder):
    text = refusal(folder, {"training": [{**CASE, **change}]})
    assert finding in text
    assert str(folder / DATALIST) in text
    assert ". Fix: " in text


GARBAGE = {
    "no JSON": ("{training: [}", "not a datalist, nor JSON at all"),
    "no text": ("", "not a datalist, nor JSON at all"),
    "a list": ([CASE], "not a datalist ([{"),
    "a number": ("7", "not a datalist (7)"),
    "null": ("null", "not a datalist (None)"),
    "NaN": ("NaN", "not a datalist (nan)"),
    "deep": ("[" * 100_000, "not a datalist (nested too deeply)"),
    "section a mapping": ({"training": {"a": CASE}}, '"training" is no list of cases ({'),
    "section text": ({"training": "a.nii"}, "\"training\" is no list of cases ('a.nii')"),
    "section null": ({"training": None}, '"training" is no list of cases (None)'),
    "section empty": ({"training": []}, "no training case in it"),
    "no section": ({}, "no training case in it"),
    "misspelt section": ({"trainning": [CASE]}, 'has the section "trainning" (did you mean "training"?). Fix: rename it to "training"'),
    "short section": ({"training": [CASE], "val": [OTHER]}, 'did you mean "validation"?'),
    "entry a number": ({"training": [1]}, "a case without case, target and reference: 1"),
    "entry null": ({"training": [CASE, None]}, "a case without case, target and reference: None"),
    "entry a list": ({"training": [["p1", "a.nii", "b.nii"]]}, "a case without case, target and reference: ['p1'"),
    "entry incomplete": (
        {"training": [{"case": "p1", "target": "a.nii", "refrence": "b.nii"}]},
        'has the key "refrence" (did you mean "reference"?)',
    ),
    "one name twice": ({"training": [CASE, {**OTHER, "case": "p1"}]}, "several training cases of one name (p1)"),
    "one pair twice": ({"training": [CASE, {**CASE, "case": "p9"}]}, "cases p1 and p9 of training are the same files"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "finding"), GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_with_the_list_named_and_what_to_write(content, finding, folder):
    text = refusal(folder, content)
    assert text.startswith(f"{folder / DATALIST}: ")
    assert finding in text


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / DATALIST).write_bytes(b'\xff\xfe{"training": []}')
    with pytest.raises(Fault, match=r"datalist\.json: not a datalist, nor JSON at all \('utf-8' codec"):
        load_datalist(folder, "training")


def test_a_sound_case_keeps_what_is_known_and_drops_the_rest(folder):
    case = {**CASE, "weight": 2, "comment": "scanned twice", "transform": None, "read": {"frame": 1}}
    (loaded,) = load_datalist(write(folder, {"training": [case], "made by": "hand"}), "training")
    paths = {"target": str(folder / "a.nii"), "reference": str(folder / "b.nii"), "transform": "", "inverse_transform": "", "lesions": ""}
    assert loaded == {"case": "p1", **paths, "weight": 2.0, "grid": "header", "read": {"frame": 1}}


def ended(capsys, check, *arguments):
    with pytest.raises(SystemExit) as caught:
        check(*arguments)
    assert caught.value.code == 9
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    "leak",
    [
        {"case": "p2", "target": "a.nii", "reference": "d.nii"},
        {"case": "p2", "target": "c.nii", "reference": "a.nii"},
        {"case": "p2", "target": "c.nii", "reference": "link.nii"},
        CASE,
    ],
    ids=["target", "target as reference", "link", "case"],
)
@pytest.mark.parametrize("section", ["validation", "testing"])
def test_an_image_in_two_sections_ends_the_workflow_with_one_line(section, leak, folder, capsys):
    (folder / "link.nii").symlink_to(folder / "a.nii")
    line = ended(capsys, workflow_sections_apart, write(folder, {"training": [CASE], section: [leak]}))
    assert line.startswith(f"ERROR {folder / DATALIST}: ")
    assert f"stands in training (case p1) and in {section} (case {leak['case']}). Fix: keep all images of a patient" in line


@pytest.mark.parametrize(
    ("one", "other", "rule", "patient"),
    [
        ("p1_v1", "p1_v2", {"patient": "^[^_]+"}, "p1"),
        ("sub-07_ses-1", "sub-07_ses-2", None, "sub-07"),
        ("p1", "p1", None, "p1"),
        ("p1_v1", "p2_v1", {"patient": "("}, None),
        ("p1_v1", "p1_v2", None, None),
    ],
)
def test_a_patient_that_seems_to_be_in_two_sections_is_warned_of(one, other, rule, patient, folder, capsys):
    content = {"training": [{**CASE, "case": one}], "validation": [{**OTHER, "case": other}], "split": rule}
    workflow_sections_apart(write(folder, content))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (patient is not None)
    if patient:
        finding = f"patient {patient} seems to stand in training (case {one}) and in validation (case {other})"
        assert lines[0].startswith(f"WARNING {folder / DATALIST}: {finding}")


def test_sections_that_are_apart_give_no_warning(folder, capsys):
    content = {"training": [CASE], "validation": [OTHER], "testing": [{"case": "p3", "target": "e.nii", "reference": "f.nii"}]}
    workflow_sections_apart(write(folder, content))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [{"training": [CASE]}, {"training": [CASE], "validation": []}])
def test_a_workflow_may_have_no_validation_cases_but_needs_training_cases(content, folder, capsys):
    assert workflow_datalist(write(folder, content), "validation") == []
    assert "no training case in it" in ended(capsys, workflow_datalist, write(folder, {"validation": [OTHER]}), "training")


def test_garbage_in_other_sections_is_no_leak(folder):
    workflow_sections_apart(
        write(folder, {"training": [CASE], "validation": 3, "testing": [None, {"case": 1}, {"case": "p", "target": []}]})
    )
