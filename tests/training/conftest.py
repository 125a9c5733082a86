"""Data that several tests of the training share."""

import json
import shutil
from pathlib import Path

import pytest

import hftn_sr
from hftn_sr.volumes.nifti import read_nifti, save_nifti

SAMPLE = Path(hftn_sr.__file__).parent / "sample"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A training pair of four slices, two validation pairs and a test pair that are different parts of it."""
    folder = tmp_path_factory.mktemp("pairs")
    whole = read_nifti(SAMPLE / "synthetic_target.nii.gz")
    for name, (x, y, z) in {"all": (0, 0, 4), "left": (0, 8, 2), "right": (16, 0, 2), "last": (8, 4, 2)}.items():
        part = whole.on(whole.grid.cropped((70 + x, 80 + y, 2), (48, 56, z)), whole.data[70 + x :, 80 + y :, 2:][:48, :56, :z].copy())
        save_nifti(folder / f"{name}.nii.gz", part, "synthetic")
        shutil.copy(SAMPLE / "synthetic_reference.nii.gz", folder / f"{name}_reference.nii.gz")
    names = {"training": ["all"], "validation": ["left", "right"], "testing": ["last"]}
    lists = {
        section: [{"case": name, "target": f"{name}.nii.gz", "reference": f"{name}_reference.nii.gz"} for name in cases]
        for section, cases in names.items()
    }
    (folder / "datalist.json").write_text(json.dumps(lists))
    return folder
