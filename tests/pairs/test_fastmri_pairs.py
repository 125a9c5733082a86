"""The published pairs of fastMRI files; lists of the same form are served on the loopback interface."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loopback import fill

from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.pairs import fastmri
from hftn_sr.pairs.datalist import SECTIONS, load_datalist, write_cases
from hftn_sr.pairs.download import MIRROR_VARIABLE
from hftn_sr.pairs.fastmri import FastMRIPair, fastmri_cases, fetch_lists, read_lists
from hftn_sr.training.transforms import LoadPaird
from knees import knee, write_knee

MIRROR = Path(os.environ.get(MIRROR_VARIABLE) or "unset")
TRAIN = [FastMRIPair(f"file{index:03}", f"file{index + 100}") for index in range(20)]
LISTS = {"train": TRAIN, "val": [FastMRIPair("file500", "file600"), FastMRIPair("file501", "file601")]}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """All files of LISTS, each of a patient of its own."""
    folder = tmp_path_factory.mktemp("images")
    for name, pairs in LISTS.items():
        for pair in pairs:
            write_pair(folder / f"singlecoil_{name}", pair, pair.pd)
    return folder


def write_pair(folder, pair, patient):
    write_knee(folder / f"{pair.pd}.h5", knee(slices=4), patient_id=patient)
    write_knee(folder / f"{pair.pdfs}.h5", knee(seed=1), patient_id=patient, acquisition="CORPDFS_FBK")


def names(cases, section):
    return [entry["case"] for entry in cases[section]]


def test_the_lists_come_by_hash_and_are_read_in_their_order(server, tmp_path, monkeypatch):
    content = {f"singlecoil_{name}_split_less.csv": b"file1,file2,0.5\nfile3,file4,0.25\n" for name in ("train", "val")}
    server.content = content
    files = {name: hashlib.sha256(text).hexdigest() for name, text in content.items()}
    source = replace(fastmri._source(), base=server.base, files=files, size=66)
    monkeypatch.setattr(fastmri, "_source", lambda: source)
    assert fetch_lists(tmp_path / "data").downloaded == list(content)
    assert read_lists(tmp_path / "data")["val"] == [FastMRIPair("file1", "file2"), FastMRIPair("file3", "file4")]
    fill(tmp_path / "mirror" / fastmri.FOLDER, content)
    assert fetch_lists(tmp_path / "again", tmp_path / "mirror").copied == list(content)


@pytest.mark.skipif(not (MIRROR / fastmri.FOLDER).is_dir(), reason=f"{MIRROR_VARIABLE} names no copy of the lists")
def test_the_published_lists_have_227_and_45_pairs_of_different_files(tmp_path):
    assert fetch_lists(tmp_path, MIRROR).downloaded == []
    lists = read_lists(tmp_path)
    assert {name: len(pairs) for name, pairs in lists.items()} == {"train": 227, "val": 45}
    assert lists["train"][0] == FastMRIPair("file1000685", "file1000568")
    assert len({name for pairs in lists.values() for pair in pairs for name in (pair.pd, pair.pdfs)}) == 2 * (227 + 45)


@pytest.mark.parametrize("content", ["file1,file2\n", "<html>sign in</html>", None])
def test_what_is_no_list_of_pairs_is_a_fault(tmp_path, content):
    if content is not None:
        fill(tmp_path / fastmri.FOLDER, {"singlecoil_train_split_less.csv": content.encode()})
    with pytest.raises(Fault, match=r"singlecoil_train_split_less\.csv: not a list of pairs"):
        read_lists(tmp_path)


def test_the_val_list_is_for_testing_and_a_tenth_of_the_train_list_for_validation(images, tmp_path):
    listed = fastmri_cases(LISTS, images, tmp_path)
    assert (listed.missing, listed.warnings) == ([], [])
    assert names(listed.cases, "testing") == ["file600_PD_to_PDFS", "file601_PD_to_PDFS"]
    assert [len(listed.cases[section]) for section in SECTIONS] == [18, 2, 2]
    every = names(listed.cases, "training") + names(listed.cases, "validation")
    assert sorted(every) == sorted(f"{pair.pdfs}_PD_to_PDFS" for pair in TRAIN)
    drawn = {tuple(names(fastmri_cases(LISTS, images, tmp_path, seed=seed).cases, "validation")) for seed in (0, 0, 1, 2, 3)}
    assert len(drawn) == 4


@pytest.mark.parametrize(("target", "reference"), [("PDFS", "PD"), ("PD", "PDFS")])
def test_the_target_is_the_contrast_that_was_asked_for(images, tmp_path, target, reference):
    first = fastmri_cases(LISTS, images, tmp_path, target).cases["testing"][0]
    files = {"PD": "file500", "PDFS": "file600"}
    assert first["case"] == f"{files[target]}_{reference}_to_{target}"
    assert (Path(first["target"]).stem, Path(first["reference"]).stem, first["grid"]) == (files[target], files[reference], "index")
    with pytest.raises(UsageFault, match="'T1' is not known"):
        fastmri_cases(LISTS, images, tmp_path, "T1")


def test_pairs_of_one_patient_are_in_one_section(tmp_path):
    for index, pair in enumerate(TRAIN):
        write_pair(tmp_path / "singlecoil_train", pair, f"patient{index % 4}")
    write_pair(tmp_path / "singlecoil_val", LISTS["val"][0], "patient0")
    listed = fastmri_cases(LISTS, tmp_path, tmp_path)
    assert [len(listed.cases[section]) for section in SECTIONS] == [10, 5, 1]
    assert sum("its patient is in testing" in warning for warning in listed.warnings) == 5
    patients = {f"{pair.pdfs}_PD_to_PDFS": index % 4 for index, pair in enumerate(TRAIN)}
    drawn, kept = ({patients[case] for case in names(listed.cases, section)} for section in ("validation", "training"))
    assert (len(drawn), len(kept), drawn & kept) == (1, 2, set())


def test_pairs_without_both_files_are_left_out_and_the_files_counted(tmp_path):
    for pair in TRAIN[:3]:
        write_pair(tmp_path / "singlecoil_train", pair, pair.pd)
    (tmp_path / "singlecoil_train" / "file001.h5").unlink()
    listed = fastmri_cases(LISTS, tmp_path, tmp_path)
    assert sorted(names(listed.cases, "training") + names(listed.cases, "validation")) == ["file100_PD_to_PDFS", "file102_PD_to_PDFS"]
    assert len(listed.missing) == 2 * 17 + 1 + 4
    assert [str(tmp_path / "singlecoil_train/file001.h5"), f"{tmp_path}: no testing case is left"] == [
        str(listed.missing[0]),
        *listed.warnings,
    ]


def test_damaged_and_swapped_files_are_named(tmp_path):
    for pair in TRAIN[:2]:
        write_pair(tmp_path / "singlecoil_train", pair, pair.pd)
    (tmp_path / "singlecoil_train/file000.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    write_knee(tmp_path / "singlecoil_train/file001.h5", knee(), acquisition="CORPDFS_FBK", patient_id="file001")
    warnings = fastmri_cases(LISTS, tmp_path, tmp_path).warnings
    assert any("left out" in warning and "file000.h5: truncated" in warning for warning in warnings)
    assert any("file001.h5: listed as PD, its acquisition is CORPDFS_FBK" in warning for warning in warnings)


def test_a_folder_without_any_pair_is_told_and_so_is_a_missing_one(tmp_path):
    with pytest.raises(NothingToDo, match=r"no usable pair \(searched singlecoil_train/\*\.h5 and .*, 44 files missing\)"):
        fastmri_cases(LISTS, tmp_path, tmp_path)
    with pytest.raises(Fault, match="no such folder"):
        fastmri_cases(LISTS, tmp_path / "absent", tmp_path)


def test_a_listed_pair_is_loaded_slice_by_slice(images, tmp_path):
    listed = fastmri_cases(LISTS, images, tmp_path / "list")
    write_cases(tmp_path / "list", listed.cases, listed.rule)
    loaded = LoadPaird(scale=2)(load_datalist(tmp_path / "list", "testing")[0])
    assert loaded["label"].shape == loaded["reference"].shape == (1, 24, 32, 3)  # rows along head-foot come last
    expected = knee(slices=4)[:3].transpose(2, 1, 0)  # of the reference, PD, which has one slice more
    ratio = loaded["reference"][0].numpy() / expected
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-5)
