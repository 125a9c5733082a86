"""Small data for comparisons."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_comparison import small

import hftn_sr
from comparison.run import compare
from hftn_sr.volumes.nifti import read_nifti, save_nifti


def write_datalist(folder, *cases):
    (folder / "datalist.json").write_text(json.dumps({key: list(cases) for key in ("training", "validation", "testing")}))
    return folder


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """A dataset of one pair with four slices of 64 x 64 voxels."""
    folder = tmp_path_factory.mktemp("four [slices]")
    sample = Path(hftn_sr.__file__).parent / "sample"
    whole = read_nifti(sample / "synthetic_target.nii.gz")
    part = whole.on(whole.grid.cropped((60, 70, 2), (64, 64, 4)), np.ascontiguousarray(whole.data[60:124, 70:134, 2:6]))
    save_nifti(folder / "target.nii.gz", part, "synthetic")
    shutil.copy(sample / "synthetic_reference.nii.gz", folder / "reference.nii.gz")
    return write_datalist(folder, {"case": "synthetic", "target": "target.nii.gz", "reference": "reference.nii.gz"})


@pytest.fixture(scope="session")
def finished(synthetic, tmp_path_factory):
    """Folder of a comparison that nothing interrupted."""
    output = tmp_path_factory.mktemp("comparison @#1 $x [ü]")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(output.parent)  # paths as a user types them: relative
        compare(small(Path(os.path.relpath(synthetic)), Path(output.name)))
    return output


def smooth_noise(seed, shape=(2, 320, 320)):
    noise = np.fft.fftn(np.random.default_rng(seed).normal(size=shape), axes=(1, 2))
    decay = np.hypot(np.fft.fftfreq(shape[1])[:, None], np.fft.fftfreq(shape[2])) + 0.01
    image = np.fft.ifftn(noise / decay**1.5, axes=(1, 2)).real
    return (1e-4 * (image - image.min()) / np.ptp(image)).astype(np.float32)


@pytest.fixture(scope="session")
def knees(tmp_path_factory):
    """Two pairs in the layout of fastMRI's single-coil files, paired slice by slice."""
    folder = tmp_path_factory.mktemp("knees")
    cases = []
    for number in range(2):
        common = smooth_noise(number)
        for kind, acquisition, own in (("pd", "CORPD_FBK", 2), ("pdfs", "CORPDFS_FBK", 3)):
            image = common + smooth_noise(10 * own + number) / 2
            with h5py.File(folder / f"{kind}{number}.h5", "w") as file:
                file["reconstruction_esc"] = image
                file["kspace"] = np.fft.fftshift(np.fft.fft2(image, norm="ortho"), (-2, -1)).astype(np.complex64)
                file.attrs.update(acquisition=acquisition, max=image.max(), norm=np.linalg.norm(image), patient_id=str(number))
        cases.append({"case": f"knee{number}", "target": f"pdfs{number}.h5", "reference": f"pd{number}.h5", "grid": "index"})
    return write_datalist(folder, *cases)
