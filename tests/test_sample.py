"""The synthetic sample pair in the bundle is what its README says, and super-resolution has something to do on it."""

from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.volumes.volume import Grid

SAMPLE = Path(str(files("hftn_sr"))) / "sample"
NAMES = ("target", "reference")


def load(name):
    return nib.load(SAMPLE / f"synthetic_{name}.nii.gz")


def target_in_reference():
    """Voxel positions of the target's voxels in the reference, by the headers alone; (3, X, Y, Z)."""
    target, reference = load("target"), load("reference")
    voxels = np.stack(np.meshgrid(*map(np.arange, target.shape), indexing="ij"))
    matrix = np.linalg.inv(reference.affine) @ target.affine
    return np.einsum("ij,jxyz->ixyz", matrix[:3, :3], voxels) + matrix[:3, 3].reshape(3, 1, 1, 1)


def resampled_reference():
    return map_coordinates(load("reference").get_fdata(), target_in_reference(), order=1)


def mutual_information(first, second, bins=32):
    """In nats."""
    joint = np.histogram2d(first.ravel(), second.ravel(), bins)[0]
    joint /= joint.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def psnr(image, truth):
    return float(10 * torch.log10(truth.max() ** 2 / torch.mean((image - truth) ** 2)))


def test_the_pair_is_small_enough_to_be_package_data():
    assert sum((SAMPLE / f"synthetic_{name}.nii.gz").stat().st_size for name in NAMES) < 1.1e6


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_synthetic_and_places_the_image_without_ambiguity(name):
    header = load(name).header
    assert header["descrip"].item().decode() == "synthetic, hftn-sr sample"
    assert header.get_xyzt_units()[0] == "mm"
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-5)
    assert header.get_data_dtype() == np.int16
    assert Grid(header.get_data_shape(), load(name).affine).through_plane() == 2


@pytest.mark.parametrize("name", NAMES)
def test_equal_data_gives_equal_bytes_because_the_file_carries_no_time(name):
    assert (SAMPLE / f"synthetic_{name}.nii.gz").read_bytes()[4:8] == bytes(4)


def test_both_scales_divide_the_target():
    assert all(size % 4 == 0 for size in load("target").shape[:2])


def test_the_reference_lies_on_another_grid_and_covers_the_target():
    target, reference = load("target"), load("reference")
    assert not np.allclose(target.header.get_zooms(), reference.header.get_zooms())
    inside = target_in_reference()
    last = np.reshape(reference.shape, (3, 1, 1, 1)) - 1
    assert (inside >= 0).all()
    assert (inside <= last).all()


def test_the_reference_shows_the_same_anatomy_in_another_contrast():
    target, reference = load("target").get_fdata(), resampled_reference()
    elsewhere = np.roll(reference, 8, axis=0)
    head = target > 0.1 * target.max()
    assert mutual_information(target[head], reference[head]) > 2 * mutual_information(target[head], elsewhere[head])
    assert np.corrcoef(target[head], reference[head])[0, 1] < 0.5


def test_lesions_of_one_contrast_are_absent_from_the_other():
    scanner = np.array([2.3, 21.7, -38.4])
    both, target_only, reference_only = (
        np.rint(nib.affines.apply_affine(np.linalg.inv(load("target").affine), scanner + centre)).astype(int)
        for centre in ((25, 14, 26), (-28, 2, 26), (26, -14, 30))
    )
    images = {"target": load("target").get_fdata(), "reference": resampled_reference()}
    shown = {name: image > 1.35 * np.median(image[image > 40]) for name, image in images.items()}
    places = (both, target_only, reference_only)
    found = {name: [bool(mask[tuple(place)]) for place in places] for name, mask in shown.items()}
    assert found == {"target": [True, True, False], "reference": [True, False, True]}


@pytest.mark.parametrize(("factor", "low", "high"), [(2, 28, 36), (4, 21, 28)])
def test_zero_filling_loses_detail(factor, low, high):
    truth = torch.from_numpy(load("target").get_fdata()).permute(2, 0, 1)
    assert low < psnr(zero_fill(truncate(truth, factor), factor), truth) < high


def test_the_notice_of_the_template_is_there():
    notice = (SAMPLE / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "provided\nthat the above copyright notice appear in all copies" in notice
    assert "synthetic" in notice
