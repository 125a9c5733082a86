"""A small BIDS dataset, for the two commands that take one."""

import json

import pytest

from phantoms import write_volume


@pytest.fixture
def dataset(tmp_path, pair):
    """Two subjects, one of them with two sessions, as a scanner's converter leaves them."""
    folder = tmp_path / "ds"
    target, reference = pair(2)
    folder.mkdir()
    noted = {"Name": "Heads", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    (folder / "dataset_description.json").write_text(json.dumps(noted), encoding="utf-8")
    (folder / "FLAIR.json").write_text('{"SkullStripped": false}', encoding="utf-8")
    for stem in ("sub-01/ses-a/anat/sub-01_ses-a", "sub-01/ses-b/anat/sub-01_ses-b_acq-fast_run-1", "sub-02/anat/sub-02"):
        write_volume(folder / f"{stem}_FLAIR.nii.gz", target)
        write_volume(folder / f"{stem.replace('_acq-fast', '')}_T2w.nii.gz", reference)
    return folder
