"""Pairs in BIDS datasets, by names alone."""

import json

import pytest

from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.pairs.bids import find_pairs, read_entities
from hftn_sr.pairs.bids_derivative import check_place, sidecar, write_description


@pytest.fixture
def dataset(tmp_path):
    """Makes a dataset of empty images; gives its folder."""

    def of(*images, **description):
        folder = tmp_path / "raw data"
        folder.mkdir(exist_ok=True)
        told = {"Name": "Heads", "BIDSVersion": "1.9.0", **description}
        (folder / "dataset_description.json").write_text(json.dumps(told), encoding="utf-8")
        for name in images:
            parts = [part for part in name.split("_") if part.startswith(("sub-", "ses-"))]
            path = folder.joinpath(*parts, "anat", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return folder

    return of


def names(found):
    return [(pair.target.path.name, pair.reference.path.name) for pair in found.pairs]


def find(folder, target="FLAIR", reference="T2w", of_target="", of_reference=""):
    return find_pairs(folder, target, reference, read_entities("", of_target), read_entities("", of_reference))


def test_a_target_is_paired_within_its_subject_and_session(dataset):
    found = find(
        dataset(
            "sub-01_FLAIR.nii.gz", "sub-01_T2w.nii", "sub-01_T1w.nii.gz",
            "sub-02_ses-a_FLAIR.nii.gz", "sub-02_ses-a_T2w.nii.gz", "sub-02_ses-b_FLAIR.nii.gz", "sub-02_ses-b_T2w.nii.gz",
            "sub-03_T2w.nii.gz",
        )
    )  # fmt: skip
    assert names(found) == [
        ("sub-01_FLAIR.nii.gz", "sub-01_T2w.nii"),
        ("sub-02_ses-a_FLAIR.nii.gz", "sub-02_ses-a_T2w.nii.gz"),
        ("sub-02_ses-b_FLAIR.nii.gz", "sub-02_ses-b_T2w.nii.gz"),
    ]
    assert (found.faults, found.without_target) == ({}, 1)
    assert [pair.target.relative for pair in found.pairs][1] == "sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz"


def test_a_reference_of_another_session_is_none(dataset):
    found = find(dataset("sub-01_ses-a_FLAIR.nii.gz", "sub-01_ses-b_T2w.nii.gz"))
    assert not found.pairs
    said = "FLAIR.nii.gz: no reference beside it (searched *_T2w.nii[.gz] in its folder). Fix: check --reference and its entities, or "
    assert str(found.faults["sub-01_ses-a_FLAIR"]).endswith(f"{said}--reference-optional.")


def test_a_target_goes_alone_only_where_there_is_nothing_to_choose_and_only_if_asked(dataset):
    folder = dataset(
        "sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz", "sub-02_T2w.nii.gz",
        "sub-03_FLAIR.nii.gz", "sub-03_acq-a_T2w.nii.gz", "sub-03_acq-b_T2w.nii.gz",
    )  # fmt: skip
    found = find_pairs(folder, "FLAIR", "T2w", {}, {}, reference_optional=True)
    assert [(pair.name, pair.reference is None) for pair in found.pairs] == [("sub-01_FLAIR", True), ("sub-02_FLAIR", False)]
    assert list(found.faults) == ["sub-03_FLAIR"]
    assert list(find(folder).faults) == ["sub-01_FLAIR", "sub-03_FLAIR"]
    content, _ = sidecar(found.pairs[0])
    assert content["Sources"] == ["bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz"]


def test_runs_are_paired_with_the_same_run_or_the_only_reference(dataset):
    flairs = ("sub-01_run-1_FLAIR.nii.gz", "sub-01_run-2_FLAIR.nii.gz")
    assert names(find(dataset(*flairs, "sub-01_T2w.nii.gz"))) == [(flair, "sub-01_T2w.nii.gz") for flair in flairs]
    (dataset() / "sub-01" / "anat" / "sub-01_T2w.nii.gz").unlink()
    found = find(dataset("sub-01_run-1_T2w.nii.gz", "sub-01_run-3_T2w.nii.gz"))
    assert names(found) == [(flairs[0], "sub-01_run-1_T2w.nii.gz")]
    assert (
        "2 runs of T2w could be its reference (sub-01_run-1_T2w.nii.gz, sub-01_run-3_T2w.nii.gz). Fix: --reference-entities run-1"
        in str(found.faults["sub-01_run-2_FLAIR"])
    )
    assert len(find(dataset(), of_reference="run-3").pairs) == 2


@pytest.mark.parametrize("role", ["target", "reference"])
def test_which_of_two_images_is_meant_is_asked_with_the_option_that_tells(dataset, role):
    twice, once = ("FLAIR", "T2w") if role == "target" else ("T2w", "FLAIR")
    folder = dataset(f"sub-01_acq-fast_{twice}.nii.gz", f"sub-01_{twice}.nii.gz", f"sub-01_{once}.nii.gz")
    (fault,) = find(folder).faults.values()
    assert f"2 {twice} images could be the {role} (sub-01_{twice}.nii.gz, sub-01_acq-fast_{twice}.nii.gz)" in str(fault)
    assert str(fault).endswith(f"Fix: --{role}-entities acq- or acq-fast.")
    for entities, chosen in (("acq-fast", f"sub-01_acq-fast_{twice}.nii.gz"), ("acq-", f"sub-01_{twice}.nii.gz")):
        (pair,) = find(folder, **{f"of_{role}": entities}).pairs
        assert getattr(pair, role).path.name == chosen


def test_one_suffix_may_be_both_where_entities_tell_the_two_apart(dataset):
    found = find(dataset("sub-01_acq-fast_T2w.nii.gz", "sub-01_acq-fine_T2w.nii.gz"), "T2w", "T2w", "acq-fast", "acq-fine")
    assert names(found) == [("sub-01_acq-fast_T2w.nii.gz", "sub-01_acq-fine_T2w.nii.gz")]
    alone = find(dataset("sub-02_T2w.nii.gz"), "T2w", "T2w", "acq-", "")
    assert list(alone.faults) == ["sub-02_T2w"]  # an image is not its own reference


def test_phase_images_are_no_candidates_unless_asked_for(dataset):
    folder = dataset("sub-01_part-mag_FLAIR.nii.gz", "sub-01_part-phase_FLAIR.nii.gz", "sub-01_T2w.nii.gz")
    assert names(find(folder)) == [("sub-01_part-mag_FLAIR.nii.gz", "sub-01_T2w.nii.gz")]
    assert names(find(folder, of_target="part-phase")) == [("sub-01_part-phase_FLAIR.nii.gz", "sub-01_T2w.nii.gz")]


def test_a_file_that_is_not_fetched_or_not_of_bids(dataset):
    folder = dataset("sub-01_FLAIR.nii.gz", "sub-01_T2w.nii.gz", "sub-01_T2w_old.nii.gz", "sub-01_T2w.json")
    annexed = folder / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    annexed.unlink()
    annexed.symlink_to("../.git/annex/objects/xyz")
    assert names(find(folder)) == [("sub-01_FLAIR.nii.gz", "sub-01_T2w.nii.gz")]


def test_both_kinds_of_file_of_one_image_are_a_fault(dataset):
    (fault,) = find(dataset("sub-01_FLAIR.nii.gz", "sub-01_FLAIR.nii", "sub-01_T2w.nii.gz")).faults.values()
    assert "several files of one image (sub-01_FLAIR.nii, sub-01_FLAIR.nii.gz)" in str(fault)


def test_what_cannot_be_meant_is_refused(dataset, tmp_path):
    folder = dataset("sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz")
    with pytest.raises(NothingToDo, match=r"no target \(searched .*\*_flair.nii\[.gz\] with run-1, found T1w, T2w\)"):
        find(folder, "flair", of_target="run-1")
    with pytest.raises(UsageFault, match=r"'flair.nii.gz' is no BIDS suffix, which is needed with --bids. Fix: --target FLAIR"):
        find(folder, "flair.nii.gz")
    with pytest.raises(UsageFault, match="'run-1_acq' are no BIDS entities"):
        read_entities("--target-entities", "run-1_acq")
    with pytest.raises(Fault, match="no dataset_description"):
        find(tmp_path)
    with pytest.raises(Fault, match="no such folder"):
        find(tmp_path / "other")


# The derivative dataset


def test_the_name_of_a_result_keeps_its_entities_but_one(dataset):
    folder = dataset("sub-01_ses-a_acq-x_run-2_desc-preproc_FLAIR.nii", "sub-01_ses-a_T2w.nii.gz")
    (pair,) = find(folder).pairs
    assert pair.target.derived("sr") == "sub-01/ses-a/anat/sub-01_ses-a_acq-x_run-2_desc-sr_FLAIR.nii.gz"


@pytest.mark.parametrize("place", [".", "sub-01/anat", "derivatives", "sr"])
def test_the_source_dataset_is_not_written_to(dataset, place):
    folder = dataset("sub-01_FLAIR.nii.gz")
    with pytest.raises(UsageFault, match=r"lies inside the source dataset.*derivatives/hftn-sr"):
        check_place(folder, folder / place)
    check_place(folder, folder / "derivatives" / "sr")


def test_a_folder_with_something_else_in_it_is_refused(dataset, tmp_path):
    folder, output = dataset("sub-01_FLAIR.nii.gz"), tmp_path / "out"
    output.mkdir()
    check_place(folder, output)
    (output / "notes.txt").touch()
    with pytest.raises(Fault, match="holds files that are not a dataset of hftn-sr"):
        check_place(folder, output)
    (output / "dataset_description.json").write_text('{"GeneratedBy": [{"Name": "fMRIPrep"}]}', encoding="utf-8")
    with pytest.raises(Fault, match="holds files that are not a dataset of hftn-sr"):
        check_place(folder, output)
    (output / "dataset_description.json").unlink()
    write_description(folder, output)
    check_place(folder, output)
    with pytest.raises(Fault, match=r"was made from another dataset \({'raw': '../raw%20data'}\)"):
        check_place(tmp_path / "other", output)


def test_the_description_links_to_the_source_and_keeps_what_a_person_wrote(dataset, tmp_path):
    folder, output = dataset(License="CC0", DatasetDOI="doi:10.18112/openneuro.ds000001"), tmp_path / "out" / "sr"
    write_description(folder, output)
    path = output / "dataset_description.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    assert (told["Name"], told["DatasetType"], told["License"]) == ("Super-resolved images of Heads", "derivative", "CC0")
    assert told["DatasetLinks"] == {"raw": "../../raw%20data"}
    assert told["SourceDatasets"] == [{"URL": "../../raw%20data", "DOI": "doi:10.18112/openneuro.ds000001"}]
    assert [program["Name"] for program in told["GeneratedBy"]] == ["hftn-sr"]
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    told |= {"Name": "Mine", "GeneratedBy": [{"Name": "hftn-sr", "Version": "0.0.1"}]}
    path.write_text(json.dumps(told), encoding="utf-8")
    (output / "README.md").write_text("mine", encoding="utf-8")
    write_description(folder, output)
    again = json.loads(path.read_text(encoding="utf-8"))
    assert (again["Name"], again["GeneratedBy"][0]["Version"], len(again["GeneratedBy"])) == ("Mine", "0.0.1", 2)
    assert (output / "README.md").read_text(encoding="utf-8") == "mine"
    before = path.stat().st_mtime_ns
    write_description(folder, output)
    assert path.stat().st_mtime_ns == before


def test_a_side_file_names_its_sources_and_says_what_the_target_s_says(dataset):
    folder = dataset("sub-01_ses-a_FLAIR.nii.gz", "sub-01_ses-a_T2w.nii.gz")
    (pair,) = find(folder).pairs
    content, warning = sidecar(pair)
    assert content["Sources"] == [f"bids:raw:sub-01/ses-a/anat/sub-01_ses-a_{suffix}.nii.gz" for suffix in ("FLAIR", "T2w")]
    assert (content["SkullStripped"], warning) == (False, "")
    dataset(DatasetType="derivative")
    content, warning = sidecar(pair)
    assert "SkullStripped" not in content
    assert "does not say SkullStripped" in warning
    beside = folder / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_FLAIR.json"
    beside.write_text('{"SkullStripped": true, "SpatialReference": "orig"}', encoding="utf-8")
    content, warning = sidecar(pair)
    assert (content["SkullStripped"], content["SpatialReference"], warning) == (True, "orig", "")
    beside.write_text("{", encoding="utf-8")
    with pytest.raises(Fault, match=r"FLAIR\.json: cannot be read as JSON"):
        sidecar(pair)
