"""Transfer attention: true displacements from perfect features, and images fetched from there with exact gradients."""

import pytest
import torch
from torch.nn import functional

from hftn_sr.kspace import shift, zero_fill
from hftn_sr.networks.relevance_embedding import similarities
from hftn_sr.networks.transfer_attention import TransferAttention, expected_offset, moved


def smooth(*shape, seed=0):
    """Band-limited noise, periodic."""
    return zero_fill(torch.randn(*shape[:2], shape[2] // 4, shape[3] // 4, generator=torch.Generator().manual_seed(seed)), 4)


@pytest.mark.parametrize("offset", [(0, 0), (2, -3), (-4, 4), (1, 0)])
def test_perfect_features_are_found_at_their_true_displacement(offset):
    query = torch.randn(1, 32, 24, 24, generator=torch.Generator().manual_seed(0))
    relevance = similarities(query, query.roll(offset, (-2, -1)), 4)
    attend = TransferAttention(32)
    found = attend(query, relevance)
    inside = found.displacement[..., 4:-4, 4:-4]
    expected = torch.tensor(offset, dtype=torch.float32).view(1, 2, 1, 1).expand_as(inside)
    torch.testing.assert_close(inside, expected, atol=0.02, rtol=0)


def test_the_soft_arg_max_is_the_mean_offset_and_of_a_place_between_two_the_fraction():
    probabilities = torch.zeros(1, 9, 1, 2)
    probabilities[0, 1, 0, 0], probabilities[0, 4, 0, 0] = 0.25, 0.75  # one row up, in place
    probabilities[0, 4, 0, 1], probabilities[0, 5, 0, 1] = 0.5, 0.5  # in place, one column on
    torch.testing.assert_close(expected_offset(probabilities)[0, :, 0], torch.tensor([[-0.25, 0.0], [0.0, 0.5]]))


def test_a_displacement_of_zero_and_of_whole_voxels_copies():
    images = torch.randn(2, 3, 12, 20)
    torch.testing.assert_close(moved(images, torch.zeros(2, 2, 12, 20)), images, atol=1e-4, rtol=0)
    by = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(2, 2, 12, 20)
    torch.testing.assert_close(moved(images, by)[..., :-3, 2:], images[..., 3:, :-2], atol=1e-4, rtol=0)


def test_a_fraction_of_a_voxel_is_what_fourier_interpolation_gives_for_smooth_images():
    images = smooth(1, 2, 32, 32)
    by = torch.tensor([0.4, -0.7]).view(1, 2, 1, 1).expand(1, 2, 32, 32)
    error = (moved(images, by) - shift(images, (-0.4, 0.7)))[..., 4:-4, 4:-4]
    assert float(error.abs().max()) < 0.03 * float(images.abs().max())


def test_beyond_the_borders_the_border_continues():
    images = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 5, 6).contiguous()
    far = torch.tensor([0.0, 50.0]).view(1, 2, 1, 1).expand(1, 2, 5, 6)
    torch.testing.assert_close(moved(images, far), torch.full((1, 1, 5, 6), 5.0))


def test_the_gradient_to_the_displacement_is_that_of_the_interpolation():
    images = smooth(1, 1, 16, 16)
    place = 0.3 * torch.randn(1, 2, 16, 16, generator=torch.Generator().manual_seed(1)) + 0.25
    place.requires_grad_()
    inside = torch.zeros(1, 1, 16, 16)
    inside[..., 4:-4, 4:-4] = 1
    (moved(images, place) * inside).sum().backward()
    step = 1e-2
    for axis in (0, 1):
        by = torch.zeros(1, 2, 1, 1)
        by[:, axis] = step
        slope = (moved(images, place.detach() + by) - moved(images, place.detach() - by)) / (2 * step) * inside
        torch.testing.assert_close(place.grad[:, axis : axis + 1], slope, atol=5e-3, rtol=0)


def test_images_are_moved_in_float32_under_autocast():
    images = torch.randn(1, 2, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = moved(images, torch.zeros(1, 2, 16, 16, dtype=torch.bfloat16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images, atol=1e-4, rtol=0)


@torch.no_grad()
def test_displacement_turns_as_a_vector_and_trust_as_an_image():
    torch.manual_seed(1)
    attend = TransferAttention(8)
    for parameter in attend.context.parameters():
        parameter *= 2
    given = torch.randn(1, 81, 10, 12)
    found = attend(torch.zeros(1, 8, 10, 12), given)
    turned = attend(torch.zeros(1, 8, 12, 10), given.unflatten(1, (9, 9)).rot90(1, (-2, -1)).rot90(1, (1, 2)).flatten(1, 2))
    along_h, along_w = found.displacement.rot90(1, (-2, -1)).unbind(1)
    torch.testing.assert_close(turned.displacement, torch.stack([-along_w, along_h], 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned.relevance, found.relevance.rot90(1, (-2, -1)), atol=1e-4, rtol=0)


def test_untrained_there_is_no_remainder_and_no_opinion():
    attend = TransferAttention(8)
    relevance = torch.rand(1, 25, 6, 6)
    found = attend(torch.randn(1, 8, 6, 6), relevance)
    torch.testing.assert_close(found.displacement, expected_offset((20 * relevance).softmax(1)))
    assert not found.relevance.any()
    assert functional.sigmoid(found.relevance).unique().tolist() == [0.5]
