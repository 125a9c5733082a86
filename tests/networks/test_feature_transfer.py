"""FTB against equations (8) to (11) in explicit loops, and its search against the full correlation matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hftn_sr.networks import feature_transfer
from hftn_sr.networks.feature_transfer import FTB, best_match

CHANNELS, PATCH = 3, 2
TRANSFERS = ["gather", "mask", "gather_and_keep"]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def build():
    def build(**options):
        torch.manual_seed(4)
        return FTB(CHANNELS, **{"patch": PATCH, "embedding": 8, **options})

    return build


@pytest.fixture
def searches(monkeypatch):
    """Positions of every search, as the block's forward runs it."""
    positions = []

    def spy(query, key):
        position, similarity = best_match(query, key)
        positions.append(position)
        return position, similarity

    monkeypatch.setattr(feature_transfer, "best_match", spy)
    return positions


def full_matrix(query, key):
    similarity = functional.cosine_similarity(query.unsqueeze(2), key.unsqueeze(1), dim=-1)
    return similarity.argmax(-1), similarity.max(-1).values


def gradients(search, query, key, weight):
    query, key = query.clone().requires_grad_(), key.clone().requires_grad_()
    (search(query, key)[1] * weight).sum().backward()
    return query.grad, key.grad


def transferred_by_loops(ftb, low, high, target):
    """Equations (8) to (11) for a batch of one, patch by patch."""
    p = ftb.patch
    corners = [(row, column) for row in range(0, target.shape[-2], p) for column in range(0, target.shape[-1], p)]

    def cut(image):
        return {(row, column): image[0, :, row : row + p, column : column + p] for row, column in corners}

    low_patches, high_patches, target_patches = cut(low), cut(high), cut(target)

    def embed(layer, patch):
        return layer.weight.flatten(1) @ patch.reshape(-1) + layer.bias

    found, similarity = torch.zeros_like(high), torch.zeros_like(target[:, :1])
    for row, column in corners:
        query = embed(ftb.query, target_patches[row, column])
        correlations = []
        for corner in corners:
            key = embed(ftb.key or ftb.query, low_patches[corner])
            correlations.append(query @ key / (query.norm() * key.norm()))
        best = max(range(len(corners)), key=lambda position: correlations[position])
        similarity[..., row : row + p, column : column + p] = correlations[best]
        to = corners[best] if ftb.transfer == "mask" else (row, column)
        found[0, :, to[0] : to[0] + p, to[1] : to[1] + p] = high_patches[corners[best]]
    parts = [found, high, target] if ftb.transfer == "gather_and_keep" else [found, target]
    synthesis = functional.conv2d(torch.cat(parts, 1), ftb.synthesis.weight, ftb.synthesis.bias, padding=1)
    return target + synthesis * similarity


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("transfer", TRANSFERS)
@torch.no_grad()
def test_the_block_is_equations_8_to_11_patch_by_patch(build, transfer, separate):
    ftb = build(transfer=transfer, separate=separate)
    low, high, target = (noise(1, CHANNELS, 6, 8, seed=seed) for seed in range(3))
    torch.testing.assert_close(ftb(low, high, target), transferred_by_loops(ftb, low, high, target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 3])
@torch.no_grad()
def test_the_block_follows_the_equations_with_other_patch_sizes(build, patch):
    ftb = build(patch=patch)
    low, high, target = (noise(1, CHANNELS, 6, 3, seed=seed) for seed in range(3))
    torch.testing.assert_close(ftb(low, high, target), transferred_by_loops(ftb, low, high, target), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_image_of_a_batch_is_searched_by_itself(build):
    ftb = build()
    low, high, target = (noise(2, CHANNELS, 6, 8, seed=seed) for seed in range(3))
    alone = [ftb(low[i : i + 1], high[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(ftb(low, high, target), torch.cat(alone))


@torch.no_grad()
def test_a_reference_equal_to_the_target_is_matched_in_place(build, searches):
    target = noise(2, CHANNELS, 8, 12)
    build()(target, noise(2, CHANNELS, 8, 12, seed=1), target)
    assert torch.equal(searches[0], torch.arange(24).expand(2, 24))


@pytest.mark.parametrize("patches", [(1, 0), (0, -1), (2, 3)])
@torch.no_grad()
def test_a_reference_shifted_by_whole_patches_is_matched_where_it_went(build, searches, patches):
    target, high = noise(1, CHANNELS, 8, 12), noise(1, CHANNELS, 8, 12, seed=1)
    low, moved = (image.roll([PATCH * step for step in patches], (-2, -1)) for image in (target, high))
    ftb = build()
    shifted = ftb(low, moved, target)
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    expected = (rows + patches[0]) % 4 * 6 + (columns + patches[1]) % 6
    assert torch.equal(searches[0][0], expected.flatten())
    torch.testing.assert_close(shifted, ftb(target, high, target))


@torch.no_grad()
def test_the_mask_reading_keeps_the_reference_where_it_lies(build):
    ftb = build(transfer="mask")
    target, high = noise(1, CHANNELS, 8, 12), noise(1, CHANNELS, 8, 12, seed=1)
    low = target.roll((2, 4), (-2, -1))  # every patch of the reference is found once
    synthesis = ftb.synthesis(torch.cat([high, target], 1))
    torch.testing.assert_close(ftb(low, high, target), target + synthesis, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(1, 2), st.integers(1, 9), st.integers(1, 7), st.integers(1, 140))
def test_searching_in_blocks_of_any_size_is_searching_the_full_matrix(batch, queries, keys, at_once):
    query, key = noise(batch, queries, 5, seed=keys), noise(batch, keys, 5, seed=100 + queries)
    position, similarity = best_match(query, key, at_once)
    expected_position, expected_similarity = full_matrix(query, key)
    assert torch.equal(position, expected_position)
    torch.testing.assert_close(similarity, expected_similarity)


@pytest.mark.parametrize("at_once", [1, 7, 24, 35, 1000])
def test_the_search_has_the_gradients_of_the_full_matrix(at_once):
    query, key, weight = noise(2, 9, 5), noise(2, 6, 5, seed=1), noise(2, 9, seed=2)
    actual = gradients(lambda q, k: best_match(q, k, at_once), query, key, weight)
    expected = gradients(full_matrix, query, key, weight)
    assert expected[0].abs().sum() > 0.1
    torch.testing.assert_close(actual, expected)


def test_a_vector_of_zeros_matches_nothing_and_keeps_finite_gradients():
    query = torch.zeros(1, 2, 5, requires_grad=True)
    _, similarity = best_match(query, noise(1, 3, 5))
    similarity.sum().backward()
    assert torch.equal(similarity, torch.zeros(1, 2))
    assert query.grad.isfinite().all()


def test_the_search_stays_in_float32_under_bfloat16_autocast():
    query, key = noise(1, 400, 16), noise(1, 400, 16, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        position, similarity = best_match(query, key)
        rounded = torch.matmul(functional.normalize(query, dim=-1), functional.normalize(key, dim=-1).transpose(1, 2)).argmax(-1)
    expected_position, expected_similarity = full_matrix(query, key)
    assert (rounded != expected_position).any(), "expected bfloat16 to move some arg-maxima here, else this test tests nothing"
    assert similarity.dtype == torch.float32
    assert torch.equal(position, expected_position)
    torch.testing.assert_close(similarity, expected_similarity)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_search_is_not_fixed_to_the_number_of_blocks_it_was_traced_at():
    traced = torch.jit.trace(lambda query, key: best_match(query, key, 24), (noise(1, 8, 5), noise(1, 6, 5, seed=1)), check_trace=False)
    query, key = noise(2, 20, 5, seed=2), noise(2, 11, 5, seed=3)
    torch.testing.assert_close(traced(query, key), best_match(query, key, 24))


def test_an_unknown_transfer_is_refused():
    with pytest.raises(ValueError, match=r"expected transfer to be one of .*'gather_and_keep', 'mask'.*, got 'scatter'"):
        FTB(CHANNELS, transfer="scatter")


def test_the_ablation_without_transfer_is_one_convolution_of_the_three_branches():
    torch.manual_seed(0)
    block = feature_transfer.Concatenation(4)
    low, high, target = torch.randn(3, 2, 4, 5, 6).unbind()
    weight, bias = block.synthesis.weight, block.synthesis.bias
    by_hand = sum(functional.conv2d(x, part, padding=1) for x, part in zip((low, high, target), weight.split(4, 1), strict=True))
    torch.testing.assert_close(block(low, high, target), by_hand + bias[:, None, None], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("candidates", [1, 7, 97, 128, 131, 400, 1824])
def test_the_place_of_the_maximum_is_that_of_argmax_and_of_equals_the_first(candidates):
    torch.manual_seed(candidates)
    correlation = torch.randint(0, 50, (2, 30, candidates)).float()  # few values, many equals
    assert torch.equal(feature_transfer._place_of_maximum(correlation), correlation.argmax(-1))
