"""Lesions drawn into a phantom: what is measured of them is known."""

import numpy as np
import pytest
import torch

from comparison.lesions import Interval, agreement, find_lesions, lesions_in, load_lesions
from hftn_sr.errors import Fault
from hftn_sr.training.protocols import PROTOCOLS, Sanet
from phantoms import write

TISSUE, BRIGHT = 0.5, 0.9


def phantom():
    """Tissue with a stripped border; lesions of 4 x 4 x 2 voxels, 5 x 3 x 2 voxels, of one voxel, and one darker than the tissue."""
    truth, mask = torch.full((40, 40, 6), TISSUE), torch.zeros(40, 40, 6, dtype=torch.bool)
    truth[:8] = 0
    for rows, columns, slices, value in ((10, 10, 1, BRIGHT), (25, 12, 2, 0.8), (12, 28, 1, 0.2)):
        size = (5, 3) if value == 0.8 else (4, 4)
        place = slice(rows, rows + size[0]), slice(columns, columns + size[1]), slice(slices, slices + 2)
        truth[place], mask[place] = value, True
    truth[30, 30, 4], mask[30, 30, 4] = BRIGHT, True
    return truth, mask


def test_each_connected_part_is_a_lesion_unless_it_is_tiny_or_dark():
    truth, mask = phantom()
    lesions, left_out = find_lesions(mask, truth)
    assert sorted(len(lesion.inside) for lesion in lesions) == [30, 32]
    assert left_out == 2
    assert torch.equal(mask.flatten()[lesions[0].inside], torch.ones(len(lesions[0].inside), dtype=torch.bool))


def test_parts_that_touch_at_a_corner_are_one_lesion():
    truth, mask = torch.full((20, 20, 3), TISSUE), torch.zeros(20, 20, 3, dtype=torch.bool)
    mask[8:11, 8:11, 0], mask[11:14, 11:14, 1] = True, True
    truth[mask] = BRIGHT
    assert [len(lesion.inside) for lesion in find_lesions(mask, truth)[0]] == [18]


def test_contrast_and_volume_of_the_truth_are_what_was_drawn():
    truth, mask = phantom()
    lesions, _ = find_lesions(mask, truth)
    found = {len(lesion.inside): lesion for lesion in lesions}
    assert found[32].contrast(truth) == pytest.approx(BRIGHT - TISSUE, abs=1e-6)
    assert found[30].contrast(truth) == pytest.approx(0.8 - TISSUE, abs=1e-6)
    assert [lesion.volume(truth) for lesion in lesions] == [len(lesion.inside) for lesion in lesions]


def test_a_fainter_lesion_loses_contrast_and_a_shrunken_or_grown_one_changes_its_volume():
    truth, mask = phantom()
    lesion = next(each for each in find_lesions(mask, truth)[0] if len(each.inside) == 32)
    fainter = TISSUE + (truth - TISSUE) * 0.75
    assert lesion.contrast(fainter) == pytest.approx(0.75 * (BRIGHT - TISSUE), abs=1e-6)
    assert lesion.volume(fainter) == 32  # still above halfway
    assert lesion.volume(TISSUE + (truth - TISSUE) * 0.4) == 0
    shrunken, grown = truth.clone(), truth.clone()
    shrunken[10, 10:14, 1:3] = TISSUE
    grown[14, 10:14, 1:3] = BRIGHT
    assert (lesion.volume(shrunken), lesion.volume(grown)) == (24, 40)
    assert lesion.contrast(shrunken) < lesion.contrast(truth)


def test_the_surroundings_are_tissue_only():
    """Neither other lesions nor the zeros of a stripped skull nor the lesion's own blurred edge."""
    truth, mask = phantom()
    lesion = next(each for each in find_lesions(mask, truth)[0] if len(each.inside) == 32)
    before = lesion.contrast(truth)
    changed = truth.clone()
    changed[9, 9:15, 1:3] = 5  # one voxel off
    changed[:8] = 7
    assert lesion.contrast(changed) == pytest.approx(before)
    beside, mask_of_both = truth.clone(), mask.clone()
    beside[10:14, 15:19, 1:3], mask_of_both[10:14, 15:19, 1:3] = 2.0, True
    both, _ = find_lesions(mask_of_both, beside)
    assert len(both) == 3
    assert all(lesion.contrast(beside) > 0 for lesion in both)
    first = next(each for each in both if int(each.inside[0]) == int(lesion.inside[0]))
    assert first.contrast(beside) == pytest.approx(before, abs=1e-6)
    assert first.volume(beside) == 32  # the brighter neighbour is not counted as its growth


@pytest.fixture
def masked(tmp_path):
    """A case whose mask is in a file of its own, and stored with another axis order than its target."""
    truth, mask = phantom()
    generator = np.random.default_rng(0)
    data = (1000 * truth.numpy() * (1 + 0.01 * generator.normal(size=truth.shape))).astype(np.float32)
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    write(tmp_path / "target.nii.gz", data, affine)
    write(tmp_path / "reference.nii.gz", (2 * data.max() - data) * (data > 0), affine)
    turned = np.array([[0, 0.5, 0, 0], [0.5, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
    write(tmp_path / "mask.nii.gz", mask.numpy().transpose(1, 0, 2).astype(np.uint8), turned)
    return {
        "case": "drawn",
        **{key: str(tmp_path / f"{key}.nii.gz") for key in ("target", "reference")},
        "lesions": str(tmp_path / "mask.nii.gz"),
    }


def test_a_perfect_method_has_the_truth_and_zero_filling_loses_contrast(masked):
    pair = load_lesions(masked, 2)
    assert pair.label.shape[-1] == 4  # slices 1 to 4 have lesions
    assert pair.voxel == pytest.approx(0.75)
    truth, zero = (
        lesions_in(pair, predict, PROTOCOLS["corrected"], 2, "band") for predict in (lambda image: pair.label, lambda image: image[:1])
    )
    assert sorted(lesion["true_volume"] for lesion in truth) == pytest.approx([0.75 * 30, 0.75 * 32])
    assert all(lesion["contrast"] == lesion["true_contrast"] and lesion["volume"] == lesion["true_volume"] for lesion in truth)
    assert all(0 < lesion["contrast"] < 0.95 * lesion["true_contrast"] for lesion in zero)
    unit = float(pair.label.max()) / 1.05  # brightness 1 is near the brightest
    assert max(lesion["true_contrast"] for lesion in truth) == pytest.approx((BRIGHT - TISSUE) / BRIGHT * unit, rel=0.1)


@pytest.mark.parametrize("values", [(1, 5), (255, 255), (1, 1)])
def test_every_voxel_of_a_mask_counts_whatever_its_label(masked, tmp_path, values):
    _, mask = phantom()
    labels = mask.numpy().astype(np.int16)
    labels[:, :20] *= values[0]
    labels[:, 20:] *= values[1]
    write(tmp_path / "mask.nii.gz", labels, np.diag([0.5, 0.5, 3.0, 1.0]))
    pair = load_lesions(masked, 2)
    assert sorted(len(lesion.inside) for lesion in pair.lesions) == [30, 32]
    assert pair.left_out == 2


@pytest.mark.parametrize("shift", [0.3, 60.0])
def test_a_mask_that_is_not_of_the_targets_voxels_is_refused(masked, tmp_path, shift):
    _, mask = phantom()
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    affine[0, 3] = shift
    write(tmp_path / "mask.nii.gz", mask.numpy().astype(np.uint8), affine)
    with pytest.raises(Fault, match=r"mask.nii.gz: \d+ of its \d+ voxels above 0.5 lie on voxels of the target"):
        load_lesions(masked, 2)


def test_a_mask_without_a_voxel_that_can_be_measured_is_refused(masked, tmp_path):
    affine = np.diag([0.5, 0.5, 3.0, 1.0])
    truth, mask = phantom()
    write(tmp_path / "mask.nii.gz", 0.4 * mask.numpy().astype(np.float32), affine)
    with pytest.raises(Fault, match=r"mask.nii.gz: no voxel above 0.5"):
        load_lesions(masked, 2)
    at_the_edge = np.zeros((39, 40, 6), np.uint8)
    at_the_edge[38, 10:20, 2] = 1
    for name in ("target", "reference"):
        write(tmp_path / f"{name}.nii.gz", 1000 * truth.numpy()[:39], affine)
    write(tmp_path / "mask.nii.gz", at_the_edge, affine)
    with pytest.raises(Fault, match="beyond a multiple of 2"):
        load_lesions(masked, 2)


def test_a_protocol_that_crops_slices_is_refused(masked):
    with pytest.raises(ValueError, match="keeps whole slices"):
        lesions_in(load_lesions(masked, 2), lambda image: image[:1], Sanet(32), 2, "band")


def test_agreement_is_relative_to_each_lesion_and_ranked():
    found = agreement([5, 20, 90, 2000], [10, 20, 100, 1000])
    assert found.total == pytest.approx(2115 / 1130)
    assert found.bias.value == pytest.approx((-0.5 + 0 - 0.1 + 1) / 4)
    assert found.error.value == pytest.approx(1.6 / 4)
    assert found.bias.low < found.bias.value < found.bias.high
    assert found.correlation == pytest.approx(1)
    assert agreement([4, 3, 2, 1], [1, 2, 3, 4]).correlation == pytest.approx(-1)
    assert np.isnan(agreement([1, 1], [1, 2]).correlation)
    assert isinstance(found.bias, Interval)


def test_ranks_of_equal_values_are_those_of_an_independent_library():
    stats = pytest.importorskip("scipy.stats")
    found, truth = [3.0, 1.0, 1.0, 7.0, 2.0], [2.0, 2.0, 1.0, 5.0, 9.0]
    assert agreement(found, truth).correlation == pytest.approx(stats.spearmanr(found, truth).statistic)


@pytest.mark.parametrize(("found", "truth"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])])
def test_lists_that_cannot_be_compared_are_refused(found, truth):
    with pytest.raises(ValueError, match="positive truth"):
        agreement(found, truth)
