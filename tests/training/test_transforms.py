import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hftn_sr
from hftn_sr.errors import Fault
from hftn_sr.kspace import truncate, zero_fill
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.training.transforms import (
    Cropd,
    DegradePaird,
    DropReferenced,
    GammaContrastd,
    LoadPaird,
    MisalignReferenced,
    RandCropSamplesd,
    RandDegradePaird,
    RandDropReferenced,
    RandGammaContrastd,
    RandMisalignReferenced,
    RandOrientd,
    RandSliced,
    RandVoxelSized,
    RestoreIntensityd,
    Sliced,
    SliceSignald,
    VoxelSized,
    separate_slices,
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
    moved = MisalignReferenced((2, -3))(slices)
    torch.testing.assert_close(moved["reference"], slices["reference"].roll((2, -3), (-2, -1)), atol=1e-5, rtol=0)
    assert moved["label"] is slices["label"]


@pytest.mark.parametrize("shape", [(64, 81), (65, 80)])
@pytest.mark.parametrize("angle", [-3.0, 0.5, 3.0])
def test_a_turn_moves_a_spot_around_the_centre_and_keeps_its_mass(shape, angle):
    rows, columns = (torch.arange(size, dtype=torch.float32) - (size - 1) / 2 for size in shape)
    spot = torch.exp(-((rows[:, None] - 15) ** 2 + (columns - 2) ** 2) / 18)
    turned = MisalignReferenced((0, 0), angle)({"reference": spot[None]})["reference"][0]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    place = [float((turned * axis).sum() / turned.sum()) for axis in (rows[:, None], columns)]
    assert place == pytest.approx([15 * cos - 2 * sin, 2 * cos + 15 * sin], abs=1e-3)
    assert float(turned.square().sum()) == pytest.approx(float(spot.square().sum()), rel=1e-4)  # nothing is smoothed
    back = MisalignReferenced((0, 0), -angle)({"reference": turned[None]})["reference"][0]
    torch.testing.assert_close(back, spot, atol=1e-3, rtol=0)


def test_no_turn_and_no_shift_leave_the_reference(slices):
    torch.testing.assert_close(MisalignReferenced((0, 0), 0)(slices)["reference"], slices["reference"], atol=1e-6, rtol=0)


def spied(monkeypatch, twin):
    """Records the arguments with which the deterministic twin is made."""
    drawn = []
    monkeypatch.setattr(
        f"hftn_sr.training.transforms.augmentation.{twin.__name__}", lambda *options: drawn.append(options) or twin(*options)
    )
    return drawn


RANDOM = {
    "misalign": (lambda prob: RandMisalignReferenced(prob, voxels=0.7, degrees=0.4), MisalignReferenced),
    "gamma": (lambda prob: RandGammaContrastd(["label", "reference"], prob, gamma=(0.7, 1.4)), GammaContrastd),
    "drop": (RandDropReferenced, DropReferenced),
    "voxels": (lambda prob: RandVoxelSized(["label", "reference"], prob, factor=(0.5, 1.25), multiple=2, least=10), VoxelSized),
}


@pytest.mark.parametrize(("random", "twin"), RANDOM.values(), ids=RANDOM)
def test_a_random_transform_is_its_twin_with_what_was_drawn_and_repeats_with_its_seed(random, twin, slices, monkeypatch):
    drawn = spied(monkeypatch, twin)
    runs = []
    for _ in range(2):
        transform = random(0.5).set_random_state(seed=3)
        runs.append([])
        for _ in range(20):
            before = len(drawn)
            result = transform(slices)
            runs[-1].append(result)
            expected = twin(*drawn[-1])(slices) if len(drawn) > before else slices
            assert all(torch.equal(result[key], expected[key]) for key in slices)
    half = len(drawn) // 2
    assert 3 < half < 17
    assert drawn[:half] == drawn[half:]
    assert all(torch.equal(one[key], two[key]) for one, two in zip(*runs, strict=True) for key in slices)


@pytest.mark.parametrize(("random", "twin"), RANDOM.values(), ids=RANDOM)
def test_a_random_transform_acts_never_with_probability_0_and_always_with_1(random, twin, slices, monkeypatch):
    drawn = spied(monkeypatch, twin)
    for transform in (random(0.0), random(1.0)):
        transform.set_random_state(seed=0)
        for _ in range(30):
            transform(slices)
        assert len(drawn) == (0 if transform.prob == 0 else 30)


def test_drawn_offsets_angles_and_exponents_fill_their_bounds(slices, monkeypatch):
    moves, curves = spied(monkeypatch, MisalignReferenced), spied(monkeypatch, GammaContrastd)
    for transform in (RandMisalignReferenced(1.0, voxels=0.7, degrees=0.4), RandGammaContrastd("reference", 1.0, gamma=(0.5, 2.0))):
        transform.set_random_state(seed=0)
        for _ in range(60):
            transform(slices)
    offsets, angles = np.array([offset for offset, _ in moves]), np.array([angle for _, angle in moves])
    assert offsets.min() == pytest.approx(-0.7, abs=0.05) and offsets.max() == pytest.approx(0.7, abs=0.05)
    assert np.abs(offsets).max() <= 0.7 and np.abs(angles).max() <= 0.4
    assert angles.min() < -0.35 and angles.max() > 0.35
    exponents = np.array([gamma for _, gamma in curves])
    assert exponents.min() >= 0.5 and exponents.max() <= 2
    assert 20 < (exponents < 1).sum() < 40  # as often lighter as darker


def test_drawn_sizes_are_multiples_fill_their_bounds_and_hold_a_crop(monkeypatch):
    drawn = spied(monkeypatch, VoxelSized)
    pair = {"label": torch.rand(1, 96, 160), "reference": torch.rand(1, 96, 160)}
    transform = RandVoxelSized(["label", "reference"], 1.0, factor=(0.5, 1.25), multiple=8, least=60).set_random_state(seed=0)
    for _ in range(200):
        sized = transform(pair)
        assert sized["label"].shape == sized["reference"].shape
    rows, columns = np.array([shape for _, shape in drawn]).T
    assert (rows % 8 == 0).all() and (columns % 8 == 0).all()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (64, 120, 80, 200)
    assert 70 < (columns < 160 * (0.5 * 1.25) ** 0.5).sum() < 130
    tall = rows > 64
    np.testing.assert_allclose(columns[tall] / rows[tall], 160 / 96, rtol=0.1)  # voxels stay square
    small = {"label": torch.rand(1, 56, 160)}
    assert RandVoxelSized("label", 1.0, factor=(0.5, 1.25), multiple=8, least=64)(small)["label"] is small["label"]


def test_another_contrast_keeps_the_background_the_brightness_and_the_order(slices):
    image = torch.tensor([-0.1, 0.0, 0.25, 1.0, 1.2])
    curved = GammaContrastd("x", gamma=0.5)({"x": image, "y": 3})
    torch.testing.assert_close(curved["x"], torch.tensor([-(0.1**0.5), 0.0, 0.5, 1.0, 1.2**0.5]))
    assert curved["y"] == 3


def test_an_empty_reference_stays_empty_through_the_whole_augmentation():
    empty = {"label": torch.ones(1, 16, 20), "reference": torch.zeros(1, 16, 20)}
    for transform in (GammaContrastd(["reference"], 0.7), MisalignReferenced((0.3, -0.2), 0.4), DropReferenced()):
        empty = transform(empty)
        assert torch.equal(empty["reference"], torch.zeros(1, 16, 20))
    image = DegradePaird(2)(empty)["image"]
    assert torch.isfinite(image).all() and not image[1:].any()


def test_all_eight_symmetries_are_drawn_alike_and_for_both_images():
    chain = RandOrientd(["label", "reference"]).set_random_state(seed=0)
    image = torch.arange(12.0).reshape(1, 3, 4)
    symmetries = [turned for k in range(4) for turned in (image.rot90(k, (-2, -1)), image.flip(-1).rot90(k, (-2, -1)))]
    counts = [0] * 8
    for _ in range(240):
        drawn = chain({"label": image, "reference": image + 1})
        (index,) = [i for i, symmetry in enumerate(symmetries) if torch.equal(torch.as_tensor(drawn["label"]), symmetry)]
        counts[index] += 1
        torch.testing.assert_close(drawn["reference"], drawn["label"] + 1)
    assert min(counts) > 15 and max(counts) < 50


def test_a_loaded_volume_holds_each_slice_in_one_piece(loaded):
    assert all(loaded[key][..., 3].is_contiguous() for key in ("label", "reference"))


def test_slices_are_drawn_together_and_where_signal_is():
    label = torch.zeros(1, 8, 8, 5)
    label[..., 3] = 1
    index = torch.arange(5.0).expand(1, 8, 8, 5)
    drawn = RandSliced(["label", "reference"])(SliceSignald("label")({"label": label, "reference": index, "case": "a"}))
    assert set(drawn) == {"label", "reference", "case"}
    assert drawn["label"].shape == (1, 8, 8)
    assert drawn["reference"].unique().tolist() == [3]
    assert drawn["case"] == "a"
    twin = Sliced(["label", "reference"], 3)({"label": label, "reference": index})
    assert all(torch.equal(drawn[key], twin[key]) for key in twin)


def test_slices_of_a_volume_without_signal_are_drawn_alike():
    empty = {"label": torch.zeros(1, 8, 8, 3), "index": torch.arange(3.0).expand(1, 8, 8, 3)}
    transform = RandSliced(["label", "index"]).set_random_state(seed=0)
    assert {float(transform(SliceSignald("label")(empty))["index"][0, 0, 0]) for _ in range(30)} == {0, 1, 2}


def test_separate_slices_are_all_slices_of_all_cases_in_order_without_a_copy():
    volumes = [
        {"case": name, **{key: torch.rand(1, 4, 6, depth) for key in ("label", "reference")}} for name, depth in (("a", 3), ("b", 2))
    ]
    separate = separate_slices(volumes)
    assert [case["case"] for case in separate] == ["a"] * 3 + ["b"] * 2
    for key in ("label", "reference"):
        torch.testing.assert_close(torch.cat([case[key] for case in separate[:3]], -1), volumes[0][key])
        assert separate[4][key].untyped_storage().data_ptr() == volumes[1][key].untyped_storage().data_ptr()


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
    case = {"label": label, "image": torch.stack([rows, columns])}
    torch.testing.assert_close(crops[0], Cropd(["label", "image"], tuple(starts[0].astype(int)), 16)(case))
    again = RandCropSamplesd(["label", "image"], size=16, step=8, num_samples=50).set_random_state(seed=0)
    torch.testing.assert_close(again(case), crops)


def test_a_crop_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="a multiple of 8, got 20"):
        RandCropSamplesd(["label"], size=20, step=8, num_samples=1)
    case = {"label": torch.ones(1, 44, 80), "case": "p1"}
    with pytest.raises(
        Fault, match=r"^p1: slices of 44 x 80 voxels are smaller than a crop of 64 x 64\. Fix: --crop_size 40, or take the case"
    ):
        RandCropSamplesd(["label"], size=64, step=8, num_samples=1)(case)


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


@pytest.mark.parametrize("protocol", ["corrected", "sanet"])
def test_crops_follow_the_signal_under_either_protocol(protocol):
    label = torch.zeros(1, 64, 64)
    label[:, 40:56, 40:56] = 1 + torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    degrade = DegradePaird(2, protocol=protocol, crop=64 if protocol == "sanet" else None)
    data = degrade({"label": label, "reference": label})
    crops = RandCropSamplesd(["label", "image"], size=16, step=8, num_samples=40).set_random_state(seed=0)(data)
    brightest = [float((crop["label"] * crop["std"] + crop["mean"]).max()) for crop in crops]
    assert min(brightest) > 0.9  # all of them show the bright square, which a tenth of all crops does
    assert all(crop["image"].shape == (3, 16, 16) for crop in crops)


def test_a_batch_comes_back_in_intensities_but_for_the_reference():
    random = torch.Generator().manual_seed(0)
    pair = {key: torch.rand(1, 32, 32, 3, generator=random) for key in ("label", "reference")}
    degraded = DegradePaird(2, protocol="sanet", crop=32)(pair)
    batch = {key: torch.stack([degraded[key]] * 2) for key in ("image", "label", "mean", "std")}
    restored = RestoreIntensityd(["label", "image"])(batch)
    torch.testing.assert_close(restored["label"], torch.stack([pair["label"]] * 2), atol=1e-5, rtol=0)
    assert restored["image"][:, 0].mean() == pytest.approx(2 * float(pair["label"].mean()), rel=0.02)
    assert torch.equal(restored["image"][:, 1:], batch["image"][:, 1:])


def test_the_protocol_of_a_degraded_pair_brings_intensities_back(slices):
    degraded = DegradePaird(2, protocol="sanet", crop=32)(slices)
    assert degraded["image"].shape == (3, 32, 32)
    restored = degraded["label"] * degraded["std"] + degraded["mean"]
    torch.testing.assert_close(restored, slices["label"][..., 8:40], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="expected a protocol of corrected, sanet, got 'sanett'"):
        DegradePaird(2, protocol="sanett")
    with pytest.raises(ValueError, match="no crop for the protocol 'corrected'"):
        DegradePaird(2, crop=32)
