"""Pairs in BIDS datasets, by names alone."""

import json
import re

import pytest

from hftn_sr.errors import Fault, NothingToDo, UsageFault
from hftn_sr.pairs.bids import read_entities
from hftn_sr.pairs.bids_derivative import check_place, check_source, result_path, sidecar, unknown_stripping, write_description
from hftn_sr.pairs.bids_pairs import BidsRequest, find_pairs


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


def find(folder, target="FLAIR", reference="T2w", of_target="", of_reference="", **request):
    return find_pairs(folder, BidsRequest(target, reference, read_entities("", of_target), read_entities("", of_reference), **request))


def as_cured(fault):
    """The options that a message's cure names, as `find` takes them; of several choices the first."""
    options = re.findall(r"--(target|reference)-entities ([\w-]+)", fault.fix)
    assert options
    return {f"of_{role}": text for role, text in options}


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


def test_a_reference_of_another_session_is_named_and_not_taken(dataset):
    found = find(dataset("sub-01_ses-a_FLAIR.nii.gz", "sub-01_ses-b_T2w.nii.gz", "sub-02_ses-b_T2w.nii.gz", "sub-03_FLAIR.nii.gz"))
    assert not found.pairs
    said = "no reference of its session (searched *_T2w.nii[.gz] in its folder; another session has sub-01_ses-b_T2w.nii.gz). "
    assert said in str(found.faults["sub-01_ses-a_FLAIR"])
    said = "FLAIR.nii.gz: no reference beside it (searched *_T2w.nii[.gz] in its folder). Fix: check --reference and its entities, or "
    assert str(found.faults["sub-03_FLAIR"]).endswith(f"{said}--reference-optional.")


def test_a_target_goes_alone_only_where_there_is_nothing_to_choose_and_only_if_asked(dataset):
    folder = dataset(
        "sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz", "sub-02_T2w.nii.gz",
        "sub-03_FLAIR.nii.gz", "sub-03_acq-a_T2w.nii.gz", "sub-03_acq-b_T2w.nii.gz",
    )  # fmt: skip
    found = find(folder, reference_optional=True)
    assert [(pair.name, pair.reference is None) for pair in found.pairs] == [("sub-01_FLAIR", True), ("sub-02_FLAIR", False)]
    assert list(found.faults) == ["sub-03_FLAIR"]
    assert list(find(folder).faults) == ["sub-01_FLAIR", "sub-03_FLAIR"]
    assert sidecar(found.pairs[0])["Sources"] == ["bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz"]


def test_runs_are_paired_with_the_same_run_or_the_only_reference(dataset):
    flairs = ("sub-01_run-1_FLAIR.nii.gz", "sub-01_run-2_FLAIR.nii.gz")
    assert names(find(dataset(*flairs, "sub-01_T2w.nii.gz"))) == [(flair, "sub-01_T2w.nii.gz") for flair in flairs]
    (dataset() / "sub-01" / "anat" / "sub-01_T2w.nii.gz").unlink()
    found = find(dataset("sub-01_run-1_T2w.nii.gz", "sub-01_run-3_T2w.nii.gz"))
    assert names(found) == [(flairs[0], "sub-01_run-1_T2w.nii.gz")]
    fault = found.faults["sub-01_run-2_FLAIR"]
    assert "2 T2w runs could be its reference (sub-01_run-1_T2w.nii.gz, sub-01_run-3_T2w.nii.gz)" in str(fault)
    assert fault.fix == "--target-entities run-2 --reference-entities run-1 (or run-3)"
    assert names(find(dataset(), **as_cured(fault))) == [(flairs[1], "sub-01_run-1_T2w.nii.gz")]
    assert len(find(dataset(), of_reference="run-3").pairs) == 2


def test_runs_are_numbers(dataset):
    folder = dataset("sub-01_run-01_FLAIR.nii", "sub-01_run-02_FLAIR.nii", "sub-01_run-1_T2w.nii", "sub-01_run-2_T2w.nii")
    assert names(find(folder)) == [(f"sub-01_run-0{run}_FLAIR.nii", f"sub-01_run-{run}_T2w.nii") for run in (1, 2)]
    assert names(find(folder, of_target="run-2")) == [("sub-01_run-02_FLAIR.nii", "sub-01_run-2_T2w.nii")]
    (fault,) = find(dataset("sub-02_FLAIR.nii", "sub-02_run-1_T2w.nii", "sub-02_run-01_T2w.nii")).faults.values()
    assert "several files of one image (sub-02_run-01_T2w.nii, sub-02_run-1_T2w.nii)" in str(fault)


def test_a_lone_reference_of_another_run_is_not_taken_unasked(dataset):
    folder = dataset(
        "sub-01_run-01_FLAIR.nii", "sub-01_run-02_FLAIR.nii", "sub-01_run-1_T2w.nii", "sub-02_FLAIR.nii", "sub-02_run-1_T2w.nii"
    )
    found = find(folder, reference_optional=True)
    assert names(found) == [("sub-01_run-01_FLAIR.nii", "sub-01_run-1_T2w.nii"), ("sub-02_FLAIR.nii", "sub-02_run-1_T2w.nii")]
    (fault,) = found.faults.values()
    assert str(fault).endswith(
        "sub-01_run-02_FLAIR.nii: the only T2w is of another run (sub-01_run-1_T2w.nii). "
        "Fix: --target-entities run-02 --reference-entities run-1."
    )
    assert names(find(folder, **as_cured(fault))) == [("sub-01_run-02_FLAIR.nii", "sub-01_run-1_T2w.nii")]


@pytest.mark.parametrize("entity", ["echo", "inv", "flip"])
def test_other_indices_are_numbers_and_labels_are_not(dataset, entity):
    folder = dataset(f"sub-01_{entity}-01_T2w.nii", f"sub-01_{entity}-02_T2w.nii", "sub-01_FLAIR.nii", "sub-01_acq-01_T1w.nii")
    assert names(find(folder, of_reference=f"{entity}-2")) == [("sub-01_FLAIR.nii", f"sub-01_{entity}-02_T2w.nii")]
    assert list(find(folder, reference="T1w", of_reference="acq-1").faults) == ["sub-01_FLAIR"]


DISTORTION = [f"sub-01_rec-DIS{kind}_run-{run}" for kind in ("2D", "3D") for run in (1, 2)]


@pytest.mark.parametrize(
    ("flairs", "given", "cure", "pairs"),
    [
        (["sub-01"], {}, "--reference-entities rec-DIS2D_run-1 (or rec-DIS2D_run-2, rec-DIS3D_run-1, rec-DIS3D_run-2)", 1),
        (["sub-01"], {"of_reference": "rec-DIS3D"}, "--reference-entities rec-DIS3D_run-1 (or rec-DIS3D_run-2)", 1),
        (["sub-01_run-01", "sub-01_run-02"], {}, "--reference-entities rec-DIS2D (or rec-DIS3D)", 2),
        (
            ["sub-01_rec-DIS2D", "sub-01_rec-DIS3D"],
            {},
            (
                "--target-entities rec-DIS2D (or rec-DIS3D) "
                "--reference-entities rec-DIS2D_run-1 (or rec-DIS2D_run-2, rec-DIS3D_run-1, rec-DIS3D_run-2)"
            ),
            1,
        ),
        (
            ["sub-01_rec-DIS2D", "sub-01_rec-DIS3D"],
            {"of_target": "rec-DIS3D", "of_reference": "rec-DIS3D"},
            "--target-entities rec-DIS3D --reference-entities rec-DIS3D_run-1 (or rec-DIS3D_run-2)",
            1,
        ),
        (DISTORTION, {"of_reference": "rec-DIS2D"}, "--target-entities rec-DIS2D (or rec-DIS3D) --reference-entities rec-DIS2D", 2),
        (
            ["sub-01_rec-DIS2D_run-3", "sub-01_rec-DIS3D_run-3"],
            {},
            (
                "--target-entities rec-DIS2D_run-3 (or rec-DIS3D_run-3) "
                "--reference-entities rec-DIS2D_run-1 (or rec-DIS2D_run-2, rec-DIS3D_run-1, rec-DIS3D_run-2)"
            ),
            1,
        ),
    ],
)
def test_the_cure_of_an_ambiguity_repeats_what_was_given_and_leaves_nothing_to_choose(dataset, flairs, given, cure, pairs):
    folder = dataset(*(f"{stem}_FLAIR.nii.gz" for stem in flairs), *(f"{stem}_T2w.nii.gz" for stem in DISTORTION))
    found = find(folder, **given)
    assert {fault.fix for fault in found.faults.values()} == {cure}
    cured = find(folder, **as_cured(next(iter(found.faults.values()))))
    assert (len(cured.pairs), cured.faults) == (pairs, {})
    assert not found.pairs


@pytest.mark.parametrize("role", ["target", "reference"])
def test_which_of_two_images_is_meant_is_asked_with_the_option_that_tells(dataset, role):
    twice, once = ("FLAIR", "T2w") if role == "target" else ("T2w", "FLAIR")
    folder = dataset(f"sub-01_acq-fast_{twice}.nii.gz", f"sub-01_{twice}.nii.gz", f"sub-01_{once}.nii.gz")
    (fault,) = find(folder).faults.values()
    which = "the target" if role == "target" else "its reference"
    assert f"2 {twice} images could be {which} (sub-01_{twice}.nii.gz, sub-01_acq-fast_{twice}.nii.gz)" in str(fault)
    assert str(fault).endswith(f"Fix: --{role}-entities acq- (or acq-fast).")
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


def test_a_description_that_is_not_fetched_is_named(dataset, tmp_path):
    folder = dataset("sub-01_FLAIR.nii.gz", "sub-01_T2w.nii.gz")
    (folder / "dataset_description.json").unlink()
    (folder / "dataset_description.json").symlink_to(".git/annex/objects/xyz")
    assert len(find(folder).pairs) == 1
    with pytest.raises(Fault, match=r"dataset_description\.json: its content is not fetched"):
        write_description(folder, tmp_path / "out")


def test_both_kinds_of_file_of_one_image_are_a_fault(dataset):
    (fault,) = find(dataset("sub-01_FLAIR.nii.gz", "sub-01_FLAIR.nii", "sub-01_T2w.nii.gz")).faults.values()
    assert "several files of one image (sub-01_FLAIR.nii, sub-01_FLAIR.nii.gz)" in str(fault)


def test_what_cannot_be_meant_is_refused(dataset, tmp_path):
    folder = dataset("sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz")
    with pytest.raises(NothingToDo, match=r"no target \(searched .*\*_flair.nii\[.gz\] with run-1, found T1w, T2w\)"):
        find(folder, "flair", of_target="run-1")
    with pytest.raises(UsageFault, match=r"'flair.nii.gz' is no BIDS suffix, which is needed with a BIDS dataset. Fix: --target FLAIR"):
        find(folder, "flair.nii.gz")
    with pytest.raises(UsageFault, match="'run-1_acq' are no BIDS entities"):
        read_entities("--target-entities", "run-1_acq")
    with pytest.raises(Fault, match="no dataset_description"):
        find(tmp_path)
    with pytest.raises(Fault, match="no such folder"):
        find(tmp_path / "other")


# The derivative dataset


@pytest.mark.parametrize(
    ("target", "result"),
    [
        ("sub-01_ses-a_acq-x_run-2_desc-preproc_FLAIR.nii", "sub-01_ses-a_acq-x_run-2_res-hi_desc-sr_FLAIR.nii.gz"),
        ("sub-01_acq-a+b_FLAIR.nii", "sub-01_acq-a+b_res-hi_desc-sr_FLAIR.nii.gz"),
        ("sub-01_space-MNI_res-2_label-WM_FLAIR.nii.gz", "sub-01_space-MNI_res-hi_label-WM_desc-sr_FLAIR.nii.gz"),
        ("sub-01_res-hi_desc-sr_FLAIR.nii.gz", "sub-01_res-hi_desc-sr_FLAIR.nii.gz"),
    ],
)
def test_the_name_of_a_result_keeps_all_entities_but_res_and_desc(dataset, target, result):
    (pair,) = find(dataset(target), reference_optional=True).pairs
    assert result_path(pair.target) == f"{pair.target.path.parent.relative_to(pair.target.dataset).as_posix()}/{result}"


def test_a_result_of_another_image_is_not_taken_for_this_one_s(dataset, tmp_path):
    folder = dataset("sub-01_desc-preproc_FLAIR.nii.gz", "sub-01_desc-brain_FLAIR.nii.gz")
    preproc, brain = (find(folder, of_target=f"desc-{label}", reference_optional=True).pairs[0] for label in ("preproc", "brain"))
    output = tmp_path / result_path(preproc.target)
    assert output == tmp_path / result_path(brain.target)
    check_source(output, brain.target)
    output.parent.mkdir(parents=True)
    output.with_name("sub-01_res-hi_desc-sr_FLAIR.json").write_text(json.dumps(sidecar(preproc)), encoding="utf-8")
    check_source(output, preproc.target)
    with pytest.raises(
        Fault, match=r"was made from another image \(bids:raw:sub-01/anat/sub-01_desc-preproc_FLAIR.nii.gz\). Fix: another output"
    ):
        check_source(output, brain.target)


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


def put(path, **content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_side_file_names_its_sources_and_says_of_the_skull_what_the_target_s_says(dataset, tmp_path):
    folder = dataset("sub-01_ses-a_FLAIR.nii.gz", "sub-01_ses-a_T2w.nii.gz")
    (pair,) = find(folder).pairs
    assert sidecar(pair)["Sources"] == [f"bids:raw:sub-01/ses-a/anat/sub-01_ses-a_{suffix}.nii.gz" for suffix in ("FLAIR", "T2w")]
    assert "SkullStripped" not in sidecar(pair)
    dataset(DatasetType="derivative")
    assert "SkullStripped" not in sidecar(pair)
    beside = put(folder / "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.json", SkullStripped=True, SpatialReference="orig")
    assert (sidecar(pair)["SkullStripped"], sidecar(pair)["SpatialReference"]) == (True, "orig")
    beside.write_text("{", encoding="utf-8")
    with pytest.raises(Fault, match=r"FLAIR\.json: cannot be read as JSON"):
        sidecar(pair)
    beside.unlink()
    beside.symlink_to("../../../.git/annex/objects/xyz")
    with pytest.raises(Fault, match=r"FLAIR\.json: its content is not fetched .*Fix: datalad get sub-01_ses-a_FLAIR\.json"):
        sidecar(pair)


def test_side_files_are_inherited_from_above_and_the_closest_one_counts(dataset):
    folder = dataset("sub-01_ses-a_acq-x_FLAIR.nii.gz")
    (pair,) = find(folder, reference_optional=True).pairs
    put(folder / "T2w.json", SkullStripped=False)
    put(folder / "task-rest_FLAIR.json", SkullStripped=False)
    put(folder / "sub-01" / "sub-01_ses-b_FLAIR.json", SkullStripped=False)
    put(folder / "xFLAIR.json", SkullStripped=False)
    assert "SkullStripped" not in sidecar(pair)
    above = put(folder / "FLAIR.json", SkullStripped=False, EchoTime=0.1)
    assert (sidecar(pair)["SkullStripped"], pair.target.metadata()["EchoTime"]) == (False, 0.1)
    put(folder / "acq-x_FLAIR.json", SkullStripped=True)
    assert sidecar(pair)["SkullStripped"] is True
    put(folder / "sub-01" / "sub-01_FLAIR.json", SkullStripped=False)
    assert sidecar(pair)["SkullStripped"] is False
    put(folder / "sub-01/ses-a" / "sub-01_ses-a_FLAIR.json", SkullStripped=True)
    assert (sidecar(pair)["SkullStripped"], above.exists()) == (True, True)


def test_what_is_not_known_of_the_skull_is_said_once_and_can_be_said_by_one_file(dataset, tmp_path):
    folder, output = dataset("sub-01_FLAIR.nii.gz", "sub-02_FLAIR.nii.gz", "sub-03_FLAIR.nii.gz"), tmp_path / "out"
    put(folder / "sub-03" / "anat" / "sub-03_FLAIR.json", SkullStripped=False)
    contents = {result_path(pair.target): sidecar(pair) for pair in find(folder, reference_optional=True).pairs}
    cure = f'put {{"SkullStripped": false}}, or true, into {output / "FLAIR.json"}'
    said = f"SkullStripped is left out of 2 side files, as the targets' side files do not say it; BIDS requires it: {cure}"
    assert unknown_stripping(output, contents, "FLAIR") == said
    output.mkdir()
    put(output / "FLAIR.json", SkullStripped=False)
    assert unknown_stripping(output, contents, "FLAIR") == ""
