"""The main job with the shipped weights: on the synthetic sample, and on a few slices of real pairs where the data are at hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hftn_sr
from hftn_sr.kspace import shift, truncate
from hftn_sr.networks.weights import load_model
from hftn_sr.scoring.evaluation import evaluate_volumes
from hftn_sr.scoring.metrics import psnr
from hftn_sr.volumes.nifti import read_nifti, save_nifti
from hftn_sr.volumes.resampling import resample
from hftn_sr.volumes.simulation import crop_to_multiple, intensity_unit, stack_channels, zero_filled

SAMPLE = Path(hftn_sr.__file__).parent / "sample"
NATIVE = "longitudinal/raw/{}/{}_{}.nii.gz"
MNI = "cross_sectional/MNI/patient19/{}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI.nii.gz"
PAIRS = {
    "patient03 study1, 306 x 384": (NATIVE.format("patient03", "study1", "FLAIR"), NATIVE.format("patient03", "study1", "T2W")),
    "patient04": (NATIVE.format("patient04", "study1", "FLAIR"), NATIVE.format("patient04", "study1", "T2W")),
    "MNI patient19, 182 x 218": (MNI.format("FLAIR"), MNI.format("T2")),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_real_pair_at_x4_beats_zero_filling_on_the_truth_s_own_grid(pair, mirror, tmp_path):
    target, reference = (mirror / path for path in PAIRS[pair])
    whole = read_nifti(target)
    middle = whole.data.shape[2] // 2
    part = whole.grid.cropped((0, 0, middle), (*whole.data.shape[:2], 3))
    save_nifti(tmp_path / "truth.nii.gz", whole.on(part, np.ascontiguousarray(whole.data[:, :, middle : middle + 3])), "")
    hftn_sr.degrade(tmp_path / "truth.nii.gz", tmp_path / "low.nii.gz", scale=4, through_plane=2)  # of one voxel size, some of them
    outcome = hftn_sr.super_resolve(tmp_path / "low.nii.gz", reference, tmp_path / "result.nii.gz", scale=4, through_plane=2)
    truth, low, result = (read_nifti(tmp_path / f"{name}.nii.gz") for name in ("truth", "low", "result"))
    cropped = crop_to_multiple(truth, 4, 2)
    np.testing.assert_allclose(result.affine, cropped.affine, atol=1e-4)
    assert result.data.shape == cropped.data.shape
    scores = {name: evaluate_volumes(volume, truth)["psnr"] for name, volume in (("ours", result), ("zero", zero_filled(low, 4, 2)))}
    assert scores["ours"] > scores["zero"] + 0.7
    # A result that lay a voxel off would fit a moved truth better than the truth where it is.
    for offset in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        moved = np.roll(cropped.data, offset, (0, 1))
        assert psnr(torch.from_numpy(result.data), torch.from_numpy(moved)) < scores["ours"] - 1
    assert outcome.record["similarity"]["value"] > 1.05
    assert outcome.record["data_consistency"]["residual"] < 0.05


@pytest.fixture(scope="module")
def sample():
    """Slices (8, X, Y) of the synthetic target and of its reference on the same grid."""
    target = read_nifti(SAMPLE / "synthetic_target.nii.gz")
    reference = resample(read_nifti(SAMPLE / "synthetic_reference.nii.gz"), target.grid)
    return [torch.from_numpy(data).movedim(2, 0) for data in (target.data, reference)]


def gain(scale, target, reference):
    """dB over zero-filling of the shipped network on the middle slices, its output and the zero-filled target."""
    middle = slice(6, 8)
    low = truncate(target, scale)
    unit, unit_reference = intensity_unit(low.numpy()), intensity_unit(reference.numpy()) if reference.any() else 1
    image = stack_channels(low / unit, reference / unit_reference, scale).movedim(0, 1)[middle]
    with torch.inference_mode():
        result = load_model("base", scale).network(image)[:, 0] * unit
    zero = image[:, 0] * unit
    return psnr(result, target[middle]) - psnr(zero, target[middle]), result, zero


@pytest.mark.parametrize("scale", [2, 4])
def test_a_wrong_reference_hardly_makes_the_result_worse_than_zero_filling(scale, sample):
    target, reference = sample
    wrong = {
        "shifted": shift(reference, (3, -2)), "empty": torch.zeros_like(reference), "of another slice": reference.roll(4, 0),
        "of another head": reference.flip(-1),
    }  # fmt: skip
    gains = {name: gain(scale, target, each)[0] for name, each in wrong.items()}
    assert gains.pop("shifted") > (0 if scale == 2 else -0.8)  # the loss that the model card states
    assert min(gains.values()) > 0, gains
    noise = torch.rand(reference.shape, generator=torch.Generator().manual_seed(0)) * intensity_unit(reference.numpy())
    assert gain(scale, target, noise)[0] > (-0.7 if scale == 2 else -2.2)  # the margin that the model card states


@pytest.mark.parametrize("scale", [2, 4])
def test_a_lesion_of_the_target_alone_stays_and_one_of_the_reference_alone_is_not_copied(scale, sample):
    target, reference = sample
    _, result, _ = gain(scale, target, reference)
    truth = target[6:8]
    for slice_index, rows, columns in ((0, slice(143, 150), slice(156, 163)), (1, slice(76, 83), slice(136, 143))):
        ours, true = (float(each[slice_index, rows, columns].mean()) for each in (result, truth))
        # Lesions differ from their surroundings by a fifth or more: one that was erased or copied over would show.
        assert ours == pytest.approx(true, rel=0.05)
