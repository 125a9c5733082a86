"""The commands `hftn-sr data ...`, in-process."""

import json

import pytest
from loopback import fill

from hftn_sr.pairs import fastmri
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.pairs.download import Source
from hftn_sr.volumes.files import sha256_of
from knees import knee, write_knee


@pytest.fixture
def cases(tmp_path):
    """Six patients with two visits each."""
    visits = [f"p{patient}_{visit}" for patient in range(6) for visit in "ab"]
    return fill(tmp_path / "cases", {f"{case}/{role}.nii.gz": b"" for case in visits for role in ("target", "reference")})


def test_split_writes_a_datalist_and_names_the_patients_of_each_section(command, cases):
    done = command("data", "split", "--cases", cases)
    assert done.exit_code == 0, done.stderr
    *sections, path = done.stdout.splitlines()
    assert [line.split(":")[0:2] for line in sections] == [
        ["training", " patients 4, cases 8"],
        ["validation", " patients 1, cases 2"],
        ["testing", " patients 1, cases 2"],
    ]
    named = [line.split(": ")[2].split() for line in sections]
    assert sorted(patient for patients in named for patient in patients) == [f"p{index}" for index in range(6)]
    assert path == str(cases / "datalist.json")
    assert {case["case"][:2] for case in load_datalist(cases, "testing")} == set(named[2])


def test_split_leaves_a_datalist_alone_unless_told(command, cases):
    fill(cases, {"datalist.json": b"mine"})
    done = command("data", "split", "--cases", cases)
    assert (done.exit_code, (cases / "datalist.json").read_bytes()) == (3, b"mine")
    assert "exists already. Fix: --overwrite always" in done.stderr
    assert command("data", "split", "--cases", cases, "--overwrite", "always").exit_code == 0
    assert json.loads((cases / "datalist.json").read_text())["split"]["seed"] == 0


def test_split_takes_another_folder_other_shares_and_another_rule(command, cases, tmp_path):
    options = ("--output", tmp_path / "list", "--fractions", 1, 1, 1, "--seed", 3, "--patient", r"_(.)")
    done = command("data", "split", "--cases", cases, *options)
    assert [line.split()[2] for line in done.stdout.splitlines()[:3]] == ["1,", "1,", "0,"]
    assert done.exit_code == 0
    assert "WARNING two patients only: " in done.stderr and "A third patient gives one" in done.stderr
    done = command("data", "split", "--cases", cases, *options[:-2], "--overwrite", "always")
    assert [line.split()[2] for line in done.stdout.splitlines()[:3]] == ["2,", "2,", "2,"]
    assert len(load_datalist(tmp_path / "list", "validation")) == 4


def test_split_names_incomplete_cases_and_ends_with_8(command, cases):
    fill(cases, {"p9_a/target.nii.gz": b""})
    done = command("data", "split", "--cases", cases)
    assert done.exit_code == 8
    assert "p9_a: no reference (searched reference.nii.gz and the like, and reference/ for DICOM)" in done.stderr
    assert (cases / "datalist.json").is_file()


@pytest.mark.parametrize("options", [("--fractions", 70, 30, 0), ("--patient", "("), ("--overwrite", "yes"), ("--sead", 1)])
def test_wrong_options_write_nothing(command, cases, options):
    assert command("data", "split", "--cases", cases, *options).exit_code == 2
    assert not (cases / "datalist.json").exists()


@pytest.fixture
def lists(server, tmp_path, monkeypatch):
    """Two lists, served under their own hashes."""
    rows = {"train": [("file1", "file2"), ("file3", "file4"), ("file5", "file6")], "val": [("file7", "file8")]}
    mirror = fill(
        tmp_path / "mirror",
        {f"singlecoil_{name}_split_less.csv": "".join(f"{a},{b},0.5\n" for a, b in pairs).encode() for name, pairs in rows.items()},
    )
    files = {path.name: sha256_of(path) for path in mirror.iterdir()}
    source = Source(server.base, fastmri.FOLDER, files, 100)
    monkeypatch.setattr(fastmri, "_source", lambda: source)
    return mirror


def test_fastmri_lists_the_pairs_that_are_there_and_counts_the_others(command, lists, tmp_path):
    for name, number in (("train", 1), ("train", 2), ("train", 3), ("train", 4), ("val", 7), ("val", 8)):
        attributes = {"acquisition": "CORPD_FBK" if number % 2 else "CORPDFS_FBK", "patient_id": str((number + 1) // 2)}
        write_knee(tmp_path / f"images/singlecoil_{name}/file{number}.h5", knee(), **attributes)
    options = ("data", "fastmri", "--images", tmp_path / "images", "--output", tmp_path / "data", "--mirror", lists)
    done = command(*options)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'data' / 'datalist.json'}: training 1, validation 1, testing 1 pairs\n"
    assert f"WARNING 2 files missing, their pairs left out: {tmp_path / 'images/singlecoil_train/file5.h5'}" in done.stderr
    (case,) = load_datalist(tmp_path / "data", "testing")
    assert (case["case"], case["grid"]) == ("file8_PD_to_PDFS", "index")
    assert command(*options).exit_code == 3
    assert command(*options, "--overwrite", "always", "--target", "PD").exit_code == 0
    assert load_datalist(tmp_path / "data", "testing")[0]["case"] == "file7_PDFS_to_PD"


def test_fastmri_without_images_says_where_they_come_from(command, lists, tmp_path):
    done = command("data", "fastmri", "--images", tmp_path, "--output", tmp_path / "data", "--mirror", lists)
    assert done.exit_code == 3
    assert "no usable pair" in done.stderr
    assert "https://fastmri.med.nyu.edu" in done.stderr
    assert not (tmp_path / "data" / "datalist.json").exists()
