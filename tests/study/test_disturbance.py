"""What is wrong with a pair, one disturbance after another, on images that are known everywhere."""

import math

import pytest
import torch

from comparison import disturbance
from comparison.disturbance import ALIGNED, FOREIGN, Disturbance, Pair, disturbances, load_pair, prepare
from hftn_sr.kspace import truncate
from hftn_sr.pairs.datalist import load_datalist
from hftn_sr.training.protocols import PROTOCOLS, Sanet
from hftn_sr.training.transforms import LoadPaird

SIZE = (32, 48)


def blob(row, column, width=2.5, depth=4):
    """(1, H, W, depth) with a Gaussian around a point."""
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in SIZE)
    image = torch.exp(-((rows[:, None] - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
    return image[None, ..., None].repeat(1, 1, 1, depth).float()


@pytest.fixture
def pair():
    return Pair("case", blob(16, 24), blob(15, 30), blob(10, 10), blob(20, 20))


def reference(pair, step, scale=2):
    """Low and high component add up to the reference."""
    return prepare(pair, step, PROTOCOLS["corrected"], scale, "band").image[1:].sum(0)


def centre(image):
    """In-plane centre of mass of (H, W, D), in voxels."""
    mass = image.sum(-1) / image.sum()
    rows, columns = (torch.arange(size, dtype=mass.dtype) for size in SIZE)
    return torch.stack([(mass.sum(1) * rows).sum(), (mass.sum(0) * columns).sum()])


def test_the_pair_as_it_lies_comes_first_and_every_disturbance_has_a_name_of_its_own():
    steps = disturbances()
    assert steps[0] == ALIGNED
    assert len({step.name for step in steps}) == len(steps)
    assert [step.amount for step in steps if step.kind == "moved"] == [0.5, 1, 2, 3, 4]
    assert [step.amount for step in steps if step.kind == "turned"] == [0.5, 1, 2, 3]


@pytest.mark.parametrize("distance", [0.5, 3.0])
def test_a_displacement_is_a_distance_and_alike_along_both_axes(pair, distance):
    moved = centre(reference(pair, Disturbance("moved", distance))) - centre(reference(pair, ALIGNED))
    assert float(moved.norm()) == pytest.approx(distance, abs=1e-3)
    assert float(moved[0]) == pytest.approx(float(moved[1]), abs=1e-3)


def test_a_rotation_turns_about_the_centre_of_the_slice(pair):
    middle = torch.tensor([(size - 1) / 2 for size in SIZE])
    before, after = (centre(reference(pair, step)) - middle for step in (ALIGNED, Disturbance("turned", 3.0)))
    angle = torch.atan2(*after.flip(0)) - torch.atan2(*before.flip(0))
    assert abs(math.degrees(float(angle))) == pytest.approx(3.0, abs=0.05)
    assert float(after.norm()) == pytest.approx(float(before.norm()), abs=0.01)


def test_only_the_reference_changes_but_for_noise_of_the_target(pair):
    aligned = prepare(pair, ALIGNED, PROTOCOLS["corrected"], 2, "band")
    for step in disturbances()[1:]:
        found = prepare(pair, step, PROTOCOLS["corrected"], 2, "band")
        assert torch.equal(found.label, aligned.label), step.name
        assert torch.equal(found.image[0], aligned.image[0]) == step.of_reference, step.name
        assert torch.equal(found.image[1:], aligned.image[1:]) != step.of_reference, step.name


def test_other_references_are_those_of_the_pair(pair):
    for step, expected in ((FOREIGN, pair.foreign), (Disturbance("other slice", 3), pair.further), (Disturbance("zeroed"), 0 * pair.label)):
        torch.testing.assert_close(reference(pair, step), expected[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="case has none"):
        prepare(Pair("case", pair.label, pair.reference, pair.further, None), FOREIGN, PROTOCOLS["corrected"], 2, "band")


@pytest.mark.parametrize("scale", [2, 4])
def test_noise_has_its_level_in_the_image_it_is_added_to_and_is_the_same_every_time(pair, scale):
    of_reference, of_target = Disturbance("noisy reference", 0.05), Disturbance("noisy target", 0.05)
    noise = reference(pair, of_reference, scale) - reference(pair, ALIGNED, scale)
    assert float(noise.std()) == pytest.approx(0.05, rel=0.1)
    noisy, clean = (prepare(pair, step, PROTOCOLS["corrected"], scale, "band").image[0].movedim(-1, 0) for step in (of_target, ALIGNED))
    low = truncate(noisy, scale) - truncate(clean, scale)
    assert float(low.std()) == pytest.approx(0.05, rel=0.15)
    assert float(low.mean().abs()) < 0.01
    again = prepare(pair, of_target, PROTOCOLS["corrected"], scale, "band").image[0].movedim(-1, 0)
    assert torch.equal(again, noisy)
    weaker = prepare(pair, Disturbance("noisy target", 0.01), PROTOCOLS["corrected"], scale, "band").image[0].movedim(-1, 0)
    torch.testing.assert_close(truncate(weaker - clean, scale), low / 5, atol=1e-6, rtol=0)


def test_noise_of_the_target_is_in_intensities_where_the_protocol_has_another_unit(pair):
    protocol = Sanet(32)
    noisy, clean = (prepare(pair, step, protocol, 2, "band") for step in (Disturbance("noisy target", 0.05), ALIGNED))
    low = truncate(((noisy.image[:1] - clean.image[:1]) * clean.std)[0].movedim(-1, 0), 2)
    assert float(low.std()) == pytest.approx(0.05, rel=0.15)


def test_slices_further_on_and_those_of_another_patient_are_taken_by_place(synthetic):
    (case,) = load_datalist(synthetic, "testing")
    whole = LoadPaird(2)(case)["reference"]
    pair = load_pair(case, case, 2, None)
    assert torch.equal(pair.further, whole[..., [3, 0, 0, 0]])  # of four slices only the first has one three further on
    assert torch.equal(pair.foreign, whole)  # four slices of four, and of one size
    pair = load_pair(case, None, 2, 2)
    assert torch.equal(pair.reference, whole[..., 1:3])
    assert pair.foreign is None


def test_a_reference_of_another_size_is_cropped_or_filled_up_around_its_centre():
    image = torch.zeros(1, 9, 8, 2)
    image[:, 4, 4] = 1
    smaller, larger = disturbance._on_size(image, (5, 4)), disturbance._on_size(image, (13, 12))
    assert smaller.shape == (1, 5, 4, 2) and larger.shape == (1, 13, 12, 2)
    for found, place in ((smaller, (2, 2)), (larger, (6, 6))):
        assert found.sum() == 2 and found[0, place[0], place[1]].all()
