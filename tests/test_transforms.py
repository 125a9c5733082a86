import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hftn_sr
from hftn_sr.errors import Fault
from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.transforms import (
    DegradePaird,
    LoadPaird,
    RandCropSamplesd,
    RandDegradePaird,
    RandDropReferenced,
    RandShiftReferenced,
    RandSliced,
    ShiftReferenced,
)
from hftn_sr.volumes.nifti import read_nifti, save_nifti

SAMPLE = Path(hftn_sr.__file__).parent / "sample"


@pytest.fixture(scope="module")
def loaded():
    case = {"case": "a", "target": str(SAMPLE / "synthetic_target.nii.gz"), "reference": str(SAMPLE / "synthetic_reference.nii.gz")}
    return LoadPaird(scale=4)(case)


@pytest.fixture
def slices():
    random = torch.Generator().manual_seed(0)
    return {key: torch.rand(1, 32, 48, generator=random) for key in ("label", "reference")}


def test_a_loaded_pair_lies_on_one_grid_with_intensities_around_one(loaded):
    assert loaded["label"].shape == loaded["reference"].shape == (1, 224, 272, 8)
    low = truncate(loaded["label"][0].movedim(-1, 0), 4)
    assert np.percentile(low[low > 0], 99.9) == pytest.approx(1, abs=1e-4)
    reference = loaded["reference"]
    assert np.percentile(reference[reference > 0], 99.9) == pytest.approx(1, abs=1e-4)


def test_a_loaded_pair_is_cropped_to_a_multiple_of_the_scale(tmp_path):
    whole = read_nifti(SAMPLE / "synthetic_target.nii.gz")
    odd = whole.on(whole.grid.cropped((1, 0, 0), (101, 90, 8)), np.ascontiguousarray(whole.data[1:102, :90]))
    save_nifti(tmp_path / "odd.nii.gz", odd, "")
    pair = LoadPaird(scale=4)({"target": tmp_path / "odd.nii.gz", "reference": SAMPLE / "synthetic_reference.nii.gz"})
    assert pair["label"].shape == pair["reference"].shape == (1, 100, 88, 8)
    unit = np.median(odd.data[0:100, 1:89][odd.data[0:100, 1:89] > 0] / pair["label"][0].numpy()[odd.data[0:100, 1:89] > 0])
    np.testing.assert_allclose(pair["label"][0].numpy() * unit, odd.data[0:100, 1:89], rtol=1e-4, atol=1e-3)


def test_a_transform_file_moves_the_reference(tmp_path, loaded):
    voxel = read_nifti(SAMPLE / "synthetic_target.nii.gz").affine[:3, 0]
    lps = -voxel[0], -voxel[1], voxel[2]
    (tmp_path / "one_voxel.txt").write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: 1 0 0 0 1 0 0 0 1 {lps[0]} {lps[1]} {lps[2]}\nFixedParameters: 0 0 0\n"
    )
    case = {"target": SAMPLE / "synthetic_target.nii.gz", "reference": SAMPLE / "synthetic_reference.nii.gz"}
    moved = LoadPaird(scale=4)({**case, "transform": str(tmp_path / "one_voxel.txt")})
    # A target point maps to the reference point one voxel further on, so the reference moves one voxel back.
    torch.testing.assert_close(moved["reference"][:, 20:200, 20:200], loaded["reference"][:, 21:201, 20:200], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_network_s_image_is_the_zero_filled_target_and_both_bands_of_the_reference(slices, scale):
    image = DegradePaird(scale)(slices)["image"]
    torch.testing.assert_close(image[0], zero_fill(truncate(slices["label"][0], scale), scale))
    torch.testing.assert_close(image[1] + image[2], slices["reference"][0])
    assert truncate(image[2], scale).abs().max() < 1e-6


def test_volumes_are_degraded_slice_by_slice(slices):
    volumes = {key: torch.stack([image, image.flip(-1)], -1) for key, image in slices.items()}
    first = DegradePaird(2)(volumes)["image"][..., 0]
    torch.testing.assert_close(first, DegradePaird(2)(slices)["image"])


def test_a_magnitude_target_has_no_negative_samples(slices):
    slices["label"] = (slices["label"] > 0.8).float()
    signed, magnitude = (DegradePaird(2, magnitude=flag)(slices)["image"][0, ::2, ::2] for flag in (False, True))
    assert signed.min() < -0.01
    torch.testing.assert_close(magnitude, signed.abs(), atol=1e-6, rtol=0)


def test_random_degradation_is_one_of_its_deterministic_twins(slices):
    slices["label"] = (slices["label"] > 0.8).float()
    twins = [DegradePaird(2, magnitude=flag)(slices)["image"] for flag in (False, True)]
    random = RandDegradePaird(2, magnitude_prob=0.5).set_random_state(seed=1)
    drawn = [[torch.equal(image, twin) for twin in twins].index(True) for image in (random(slices)["image"] for _ in range(12))]
    assert set(drawn) == {0, 1}


def test_a_shift_by_whole_voxels_moves_only_the_reference(slices):
    moved = ShiftReferenced((2, -3))(slices)
    torch.testing.assert_close(moved["reference"], slices["reference"].roll((2, -3), (-2, -1)), atol=1e-5, rtol=0)
    assert moved["label"] is slices["label"]


def test_random_shifts_stay_within_their_bound_and_repeat_with_their_seed(slices, monkeypatch):
    offsets = []
    monkeypatch.setattr("hftn_sr.transforms.augmentation.shift", lambda image, offset: offsets.append(offset) or image)
    for _ in range(2):
        transform = RandShiftReferenced(prob=0.5, voxels=0.7).set_random_state(seed=3)
        for _ in range(20):
            transform(slices)
    half = len(offsets) // 2
    assert offsets[:half] == offsets[half:]
    assert 3 < half < 17
    assert 0.3 < np.abs(offsets).max() <= 0.7


def test_dropped_references_are_empty(slices):
    transform = RandDropReferenced(prob=0.5).set_random_state(seed=0)
    energies = [float(transform(slices)["reference"].sum()) for _ in range(12)]
    assert set(energies) == {0.0, float(slices["reference"].sum())}


def test_slices_are_drawn_together_and_where_signal_is():
    label = torch.zeros(1, 8, 8, 5)
    label[..., 3] = 1
    index = torch.arange(5.0).expand(1, 8, 8, 5)
    drawn = RandSliced(["label", "reference"])({"label": label, "reference": index, "case": "a"})
    assert drawn["label"].shape == (1, 8, 8)
    assert drawn["reference"].unique().tolist() == [3]
    assert drawn["case"] == "a"


def test_crops_start_at_multiples_of_the_step_and_favour_signal():
    rows = torch.arange(64.0)[:, None].expand(64, 48)
    columns = torch.arange(48.0).expand(64, 48)
    label = ((rows >= 32) & (columns >= 24)).float()[None]
    transform = RandCropSamplesd(["label", "image"], size=16, step=8, num_samples=50).set_random_state(seed=0)
    crops = transform({"label": label, "image": torch.stack([rows, columns])})
    starts = np.array([crop["image"][:, 0, 0].tolist() for crop in crops])
    assert (starts % 8 == 0).all()
    assert starts.min(0)[0] >= 24 and starts.min(0)[1] >= 16  # crops without signal are not drawn
    assert len(np.unique(starts, axis=0)) > 5
    assert all(crop["image"].shape == (2, 16, 16) and crop["label"].shape == (1, 16, 16) for crop in crops)


def test_a_crop_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a multiple of 8, got 20"):
        RandCropSamplesd(["label"], size=20, step=8, num_samples=1)
    with pytest.raises(ValueError, match="at least 64 x 64"):
        RandCropSamplesd(["label"], size=64, step=8, num_samples=1)({"label": torch.ones(1, 40, 80)})


def test_a_datalist_names_what_is_wrong_with_it(tmp_path):
    with pytest.raises(Fault, match=r"datalist\.json: no such file.*hftn-sr data open-ms"):
        load_datalist(tmp_path, "training")
    (tmp_path / "datalist.json").write_text("[1, 2]")
    with pytest.raises(Fault, match="not a datalist"):
        load_datalist(tmp_path, "training")
    (tmp_path / "datalist.json").write_text(json.dumps({"training": []}))
    with pytest.raises(Fault, match="no training case"):
        load_datalist(tmp_path, "training")
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [{"case": "a", "target": "x.nii", "reference": "y.nii"}]}))
    with pytest.raises(Fault, match=r"x\.nii: no such file, but case a"):
        load_datalist(tmp_path, "training")
    (tmp_path / "datalist.json").write_text(json.dumps({"training": [{"target": "x.nii"}]}))
    with pytest.raises(Fault, match="a case without case, target and reference"):
        load_datalist(tmp_path, "training")
