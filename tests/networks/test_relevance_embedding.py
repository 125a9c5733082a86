"""Relevance embedding: blind to contrast, cosines within a window, and the same in a turned slice."""

import pytest
import torch
from torch.nn import functional

from hftn_sr.networks import relevance_embedding
from hftn_sr.networks.relevance_embedding import DESCRIBED, RelevanceEmbedding, contrast_free, similarities


def texture(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.interpolate(torch.rand(*shape[:2], shape[2] // 4, shape[3] // 4, generator=generator), shape[2:], mode="bicubic")


def test_the_description_has_four_maps_of_four_things_on_half_the_grid():
    assert contrast_free(texture(2, 1, 32, 48)).shape == (2, DESCRIBED, 16, 24)


def test_a_reversed_contrast_changes_only_the_normalised_intensity():
    image = texture(1, 1, 48, 48)
    one, other = contrast_free(image), contrast_free(1.5 - image)
    torch.testing.assert_close(one[:, :4], -other[:, :4], atol=1e-4, rtol=0)
    torch.testing.assert_close(one[:, 4:], other[:, 4:], atol=1e-4, rtol=0)


def test_another_brightness_and_offset_change_little():
    image = texture(1, 1, 48, 48)
    one, other = contrast_free(image), contrast_free(0.5 * image + 0.2)
    assert float((one - other).abs().mean()) < 0.02 * float(one.abs().mean())


def test_an_empty_image_is_described_by_zeros():
    assert not contrast_free(torch.full((1, 1, 32, 32), 0.3)).abs().gt(1e-4).any()


def test_a_ramp_has_its_direction_modulo_180_degrees():
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    inside = (slice(None), slice(None), slice(8, 12), slice(8, 12))
    for ramp, along_w, diagonal in ((columns, 1, 0), (-columns, 1, 0), (rows, -1, 0), (rows + columns, 0, 1), (rows - columns, 0, -1)):
        found = contrast_free(0.05 * ramp[None, None])[inside]
        assert float(found[:, 8].mean()) == pytest.approx(along_w / 2, abs=0.02)  # half: compressed by the local energy
        assert float(found[:, 12].mean()) == pytest.approx(diagonal / 2, abs=0.02)


@pytest.mark.parametrize("radius", [1, 3])
def test_similarities_are_the_cosines_with_the_keys_around(radius):
    query, key = (torch.randn(2, 5, 7, 9, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    found = similarities(query, key, radius)
    side = 2 * radius + 1
    assert found.shape == (2, side**2, 7, 9)
    for row, column, down, right in ((3, 4, 0, 0), (3, 4, 1, -1), (0, 0, -1, 0), (6, 8, 0, 1), (2, 5, -1, 1)):
        place = (row + down, column + right)
        there = 0 <= place[0] < 7 and 0 <= place[1] < 9
        expected = functional.cosine_similarity(query[:, :, row, column], key[:, :, place[0], place[1]]) if there else torch.zeros(2)
        torch.testing.assert_close(found[:, (down + radius) * side + right + radius, row, column], expected)


def test_similarities_have_the_gradients_of_autograd():
    query, key = (torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (0, 1))
    weight = torch.randn(2, 9, 5, 6, generator=torch.Generator().manual_seed(2)).double()
    found = []
    for plain in (False, True):
        leaves = query.clone().requires_grad_(), key.clone().requires_grad_()
        if plain:
            one, other = (functional.normalize(each.float(), dim=1) for each in leaves)
            maps = relevance_embedding._windowed_products(one, functional.pad(other, (1, 1, 1, 1)))
        else:
            maps = similarities(*leaves, 1)
        (maps * weight).sum().backward()
        found.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


def test_similarities_stay_in_float32_under_autocast():
    query = torch.randn(1, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = similarities(query, query, 1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, 4], torch.ones(1, 6, 6))


@torch.no_grad()
def test_a_turned_pair_has_the_turned_relevance_at_turned_offsets():
    torch.manual_seed(0)
    embed = RelevanceEmbedding(8, radius=2)
    target, low = texture(1, 1, 32, 32), texture(1, 1, 32, 32, seed=1)
    _, relevance = embed(target, low)
    _, turned = embed(torch.rot90(target, 1, (-2, -1)), torch.rot90(low, 1, (-2, -1)))
    by_offset = relevance.unflatten(1, (5, 5)).rot90(1, (-2, -1)).rot90(1, (1, 2))
    torch.testing.assert_close(turned.unflatten(1, (5, 5)), by_offset, atol=1e-5, rtol=0)
