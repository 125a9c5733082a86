"""The acquisition model as laws: k-space of any size, slices of any thickness and spacing, and both, on planes, volumes and batches."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hftn_sr.acquisition import Acquisition, Full, KSpace, Slices, parse_sizes
from hftn_sr.errors import UsageFault
from hftn_sr.kspace import FWHM_TO_SIGMA, band_residual, replace_band, resize, split_bands, truncate, zero_fill

TOLERANCE = {torch.float32: 4e-6, torch.float64: 1e-13}  # images are within 0.5..1.5
RESIDUAL = {torch.float32: 1e-6, torch.float64: 1e-14}
CONSISTENT = 1e-3  # of the signal, to which slices are back-projected
quick = settings(deadline=None, max_examples=60, derandomize=True)
dtypes = st.sampled_from([torch.float32, torch.float64])
profiles = st.sampled_from(["gaussian", "box"])


def slices(count, size, gap=1.0, profile="gaussian"):
    """`count` slices over `size` voxels, of a thickness of `gap` times their spacing."""
    return Slices(gap * size / count, size / count, profile)


@st.composite
def axes(draw, kinds=("full", "kspace", "slices")):
    """The size of an axis and what is kept of it."""
    size, kind = draw(st.integers(1, 21)), draw(st.sampled_from(kinds))
    if kind == "full":
        return size, Full()
    kept = draw(st.integers(1, size))
    return size, KSpace(kept) if kind == "kspace" else slices(kept, size, draw(st.floats(0.3, 1.5)), draw(profiles))


@st.composite
def acquisitions(draw, kinds=("full", "kspace", "slices")):
    """An acquisition of one to three axes, and the sizes of its result."""
    drawn = [draw(axes(kinds)) for _ in range(draw(st.integers(1, 3)))]
    across = [place for place, (_, axis) in enumerate(drawn) if isinstance(axis, Slices)]
    for place in across[1:]:
        drawn[place] = (drawn[place][0], KSpace(max(1, drawn[place][0] // 2)))
    return Acquisition(tuple(axis for _, axis in drawn)), tuple(size for size, _ in drawn)


def image(shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.5


def matrix_of(act, size):
    """A linear function of one axis as a matrix (out, size), float64."""
    return act(torch.eye(size, dtype=torch.float64)).T


def head(shape):
    """A plane with edges, as an image of a head has them: ellipses of different intensities on nothing, plus fine texture."""
    rows, columns = (torch.linspace(-1, 1, size, dtype=torch.float64) for size in shape)
    inside = [((rows[:, None] / a) ** 2 + (columns / b) ** 2 < 1).double() for a, b in ((0.9, 0.7), (0.75, 0.55), (0.3, 0.2))]
    return (0.4 + 0.05 * image(shape)) * inside[0] + 0.5 * inside[1] - 0.6 * inside[2]


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE[expected.dtype])


# What there was before: k-space smaller by 2 or 4 along both axes.


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("low_shape", [(12, 16), (13, 9), (1, 6), (31, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_and_quarter_k_space_are_truncation_and_zero_filling(factor, low_shape, dtype):
    shape = tuple(factor * size for size in low_shape)
    acquisition = Acquisition.from_scale(factor, shape)
    for high in (image((2, *shape), dtype=dtype), head(shape).to(dtype)):
        low = acquisition.simulate(high)
        assert_same(low, truncate(high, factor))
        assert_same(acquisition.interpolate(low, shape), zero_fill(low, factor))
        for ours, before in zip(acquisition.split(high), split_bands(high, factor), strict=True):
            assert_same(ours, before)
        measured = image(low.shape, 1, dtype)
        assert_same(acquisition.project(high, measured), replace_band(high, measured, factor))
        assert acquisition.residual(high, measured) == pytest.approx(band_residual(high, measured, factor), rel=1e-5)
    assert acquisition.factor(shape) == factor


@quick
@given(acquisitions(("kspace",)), dtypes)
def test_any_size_of_k_space_is_what_resizing_gives(drawn, dtype):
    acquisition, shape = drawn
    high = image((1, 1, 1, *shape), dtype=dtype)
    planes = high if len(shape) != 1 else high.transpose(-1, -2)  # resize knows planes
    for dim, axis in zip(range(-len(shape), 0), acquisition.axes, strict=True):
        moved = planes.movedim(dim if len(shape) > 1 else -2, -1)
        planes = resize(moved, (moved.shape[-2], axis.samples)).movedim(-1, dim if len(shape) > 1 else -2)
    assert_same(acquisition.simulate(high), planes if len(shape) != 1 else planes.transpose(-1, -2))


# Laws of every acquisition.


@quick
@given(acquisitions(), dtypes)
def test_low_and_high_component_of_a_reference_add_up_to_it(drawn, dtype):
    acquisition, shape = drawn
    reference = image((2, *shape), dtype=dtype)
    low, high = acquisition.split(reference)
    assert low.shape == high.shape == reference.shape
    assert low.dtype == high.dtype == dtype
    assert_same(low + high, reference)
    assert torch.equal(low, acquisition.interpolate(acquisition.simulate(reference), shape))


@quick
@given(acquisitions(("full", "kspace")), dtypes)
def test_k_space_that_was_put_back_is_measured_again(drawn, dtype):
    acquisition, shape = drawn
    measured = image((2, *acquisition.measured_shape(shape)), dtype=dtype)
    assert_same(acquisition.simulate(acquisition.interpolate(measured, shape)), measured)


@quick
@given(acquisitions(("full", "kspace")), dtypes)
def test_the_high_component_is_what_the_scan_did_not_see(drawn, dtype):
    acquisition, shape = drawn
    unseen = acquisition.simulate(acquisition.split(image(shape, dtype=dtype))[1])
    assert_same(unseen, torch.zeros_like(unseen))


@quick
@given(acquisitions(), st.floats(-3, 3), dtypes)
def test_a_constant_stays_the_same_constant(drawn, value, dtype):
    acquisition, shape = drawn
    high = torch.full(shape, value, dtype=dtype)
    low = torch.full(acquisition.measured_shape(shape), value, dtype=dtype)
    assert_same(acquisition.simulate(high), low)
    assert_same(acquisition.interpolate(low, shape), high)


@quick
@given(acquisitions(("full", "kspace")))
def test_k_space_keeps_the_mean_of_any_image(drawn):
    acquisition, shape = drawn
    high = image(shape)
    assert acquisition.simulate(high).mean() == pytest.approx(float(high.mean()), rel=1e-12)


@quick
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 99))
def test_slices_without_gap_keep_the_mean_of_any_image(count, thickness, seed):
    high = image((count * thickness,), seed)
    acquisition = Acquisition((Slices(thickness, thickness, "box"),))
    assert acquisition.simulate(high).mean() == pytest.approx(float(high.mean()), rel=1e-12)


@quick
@given(acquisitions(("full", "kspace")))
def test_zero_filling_is_the_adjoint_of_measuring_but_for_the_voxel_s_size(drawn):
    acquisition, shape = drawn
    high, low = image(shape), image(acquisition.measured_shape(shape), 1)
    adjoint = acquisition.interpolate(low, shape)
    if all(axis == Full() or axis.samples % 2 or axis.samples == size for axis, size in zip(acquisition.axes, shape, strict=True)):
        voxels = math.prod(acquisition.ratios(shape))  # (an even size's Nyquist bin is summed down and halved up)
        assert (acquisition.simulate(high) * low).sum() * voxels == pytest.approx(float((high * adjoint).sum()), rel=1e-10)


@quick
@given(acquisitions(), st.floats(-2, 2), dtypes)
def test_all_steps_are_linear(drawn, weight, dtype):
    acquisition, shape = drawn
    one, other = image(shape, 0, dtype), image(shape, 1, dtype)
    for act in (acquisition.simulate, lambda x: acquisition.interpolate(acquisition.simulate(x), shape)):
        torch.testing.assert_close(act(one + weight * other), act(one) + weight * act(other), rtol=0, atol=20 * TOLERANCE[dtype])


@quick
@given(acquisitions())
def test_every_image_of_a_batch_is_treated_alone(drawn):
    acquisition, shape = drawn
    high = image((3, 2, *shape))
    low = acquisition.simulate(high)
    measured = image(low.shape, 1) * torch.tensor([1.0, 1e-3, 1e3], dtype=torch.float64).view(3, *[1] * (low.ndim - 1))
    projected = acquisition.project(high, measured)
    for one, other in itertools.product(range(3), range(2)):
        assert_same(low[one, other], acquisition.simulate(high[one, other]))
        assert acquisition.residual(projected[one, other], measured[one, other]) <= 1.01 * CONSISTENT


@quick
@given(acquisitions(), dtypes)
def test_strides_do_not_matter(drawn, dtype):
    acquisition, shape = drawn
    high = image((2, *shape), dtype=dtype)
    strange = high.movedim(0, -1).contiguous().movedim(-1, 0).flip(-1).clone().flip(-1)
    spread = high.new_empty((2, *(2 * size for size in shape)))[(slice(None), *[slice(None, None, 2)] * len(shape))].copy_(high)
    low = acquisition.simulate(high)
    for other in (strange, spread):
        assert_same(acquisition.simulate(other), low)
        assert_same(acquisition.project(other, low), acquisition.project(high, low))


@quick
@given(acquisitions(), st.randoms(use_true_random=False))
def test_axes_in_another_order_give_the_same_image(drawn, random):
    acquisition, shape = drawn
    order = random.sample(range(len(shape)), len(shape))
    high = image(shape)
    other = acquisition.select(order).simulate(high.permute(order))
    assert_same(other, acquisition.simulate(high).permute(order))


def test_planes_of_a_volume_know_its_acquisition():
    volume = Acquisition((KSpace(20), KSpace(11), Slices(4, 5)))
    high = image((30, 24, 25))
    acquisition = volume.select((1, 2))
    assert acquisition == Acquisition((KSpace(11), Slices(4, 5)))
    assert_same(volume.simulate(high), Acquisition((KSpace(20), Full(), Full())).simulate(acquisition.simulate(high)))


@pytest.mark.parametrize("acquisition", [(KSpace(4), KSpace(5)), (KSpace(3), Slices(2.5, 2)), (Slices(3, 4, "box"), Full())])
def test_gradients_are_right(acquisition):
    acquisition, shape = Acquisition(acquisition), (8, 6)
    high = image((2, *shape)).requires_grad_()
    low = image((2, *acquisition.measured_shape(shape)), 1).requires_grad_()
    assert torch.autograd.gradcheck(acquisition.simulate, high)
    assert torch.autograd.gradcheck(lambda y: acquisition.interpolate(y, shape), low)
    assert torch.autograd.gradcheck(lambda x: acquisition.split(x), high)
    assert torch.autograd.gradcheck(lambda x, y: acquisition.project(x, y), (high, low))


def test_gradients_flow_after_a_first_use_without_them():
    acquisition = Acquisition((Full(), Slices(3.7, 3)))
    with torch.inference_mode():
        acquisition.project(image((5, 12)), image((5, 4)))
    high = image((5, 12)).requires_grad_()
    acquisition.project(high, acquisition.simulate(high) + image((5, 4))).sum().backward()
    assert torch.isfinite(high.grad).all()


# Data consistency.


@quick
@given(acquisitions(("full", "kspace")), dtypes)
def test_the_projected_image_has_the_measured_k_space_and_keeps_the_rest(drawn, dtype):
    acquisition, shape = drawn
    high, measured = image(shape, dtype=dtype), image(acquisition.measured_shape(shape), 1, dtype)
    projected = acquisition.project(high, measured)
    assert acquisition.residual(projected, measured) < RESIDUAL[dtype]
    assert_same(acquisition.split(projected)[1], acquisition.split(high)[1])
    assert_same(acquisition.project(projected, measured), projected)


@quick
@given(acquisitions(), dtypes)
def test_the_projected_image_has_the_measured_slices(drawn, dtype):
    acquisition, shape = drawn
    measured = acquisition.simulate(image(shape, 1, dtype))
    assert acquisition.residual(acquisition.project(image(shape, dtype=dtype), measured), measured) <= 1.001 * CONSISTENT


@quick
@given(acquisitions())
def test_the_residual_falls_with_every_step_and_a_consistent_image_stays(drawn):
    acquisition, shape = drawn
    high, truth = image(shape), image(shape, 1)
    measured = acquisition.simulate(truth)
    residuals = [acquisition.residual(acquisition.project(high, measured, 1e-9, steps), measured) for steps in range(1, 8)]
    for before, after in itertools.pairwise([acquisition.residual(high, measured), *residuals]):
        assert after < before or after <= 1e-9
    assert torch.equal(acquisition.project(truth, measured), truth)


@pytest.mark.parametrize("profile", ["gaussian", "box"])
@pytest.mark.parametrize(("thickness", "spacing"), [(4, 4), (4, 5), (4, 6), (5, 6.25)])
def test_slices_without_overlap_agree_after_three_steps(thickness, spacing, profile):
    acquisition = Acquisition((Full(), Slices(thickness, spacing, profile)))
    measured = acquisition.simulate(image((40, 300)))
    assert acquisition.residual(acquisition.project(torch.zeros(40, 300).double(), measured, steps=3), measured) < CONSISTENT


@pytest.mark.parametrize("profile", ["gaussian", "box"])
def test_slices_that_overlap_by_half_agree_with_noise_too(profile):
    acquisition = Acquisition((Full(), Slices(8, 5, profile)))
    truth = image((40, 300))
    measured = acquisition.simulate(truth) + 0.02 * torch.randn(40, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    projected = acquisition.project(acquisition.interpolate(measured, (40, 300)), measured)
    assert acquisition.residual(projected, measured) < CONSISTENT
    assert projected.std() < 2 * truth.std()


def test_projection_never_moves_an_image_away_from_the_truth():
    for axes_of in ((KSpace(9), KSpace(20)), (Full(), Slices(6, 6)), (KSpace(15), Slices(4, 5, "box"))):
        acquisition, truth = Acquisition(axes_of), head((30, 60)).clone()
        measured = acquisition.simulate(truth)
        start = acquisition.interpolate(measured, (30, 60)) + 0.1 * image((30, 60))
        assert (acquisition.project(start, measured) - truth).norm() < (start - truth).norm()


# Places: the two grids and what lies on them.


def affine_of(spacing, origin=(-80.0, 30.0, 12.5)):
    """Oblique: turned by 25 degrees about one axis and 10 about another."""
    turns = []
    for degrees, (a, b) in ((25, (0, 1)), (10, (1, 2))):
        turn, angle = np.eye(3), math.radians(degrees)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        turns.append(turn)
    affine = np.eye(4)
    affine[:3, :3] = turns[0] @ turns[1] @ np.diag(spacing)
    affine[:3, 3] = origin
    return affine


def centroid(data, affine):
    """In mm, of a non-negative volume (X, Y, Z)."""
    places = np.stack(np.meshgrid(*map(np.arange, data.shape), indexing="ij"), -1)
    index = (data[..., None] * places).reshape(-1, 3).sum(0) / data.sum()
    return affine[:3, :3] @ index + affine[:3, 3]


def blob(shape, centre, fwhm):
    """Gaussian of the given widths in voxels."""
    along = [
        torch.exp(-(((torch.arange(size, dtype=torch.float64) - place) / (width * FWHM_TO_SIGMA)) ** 2) / 2)
        for size, place, width in zip(shape, centre, fwhm, strict=True)
    ]
    return torch.einsum("i,j,k->ijk", *along)


@pytest.mark.parametrize(
    "acquisition",
    [
        Acquisition((KSpace(25), KSpace(20), Full())),
        Acquisition((KSpace(24), KSpace(31), Slices(5, 5))),
        Acquisition((Slices(4, 6), KSpace(20), Full())),
        Acquisition((Full(), Slices(6, 4, "box"), KSpace(33))),
    ],
)
@pytest.mark.parametrize("move", [(0, 0, 0), (3, -2, 1.4), (-2.3, 4, -5)])
def test_a_blob_stays_at_its_place_in_millimetres(acquisition, move):
    shape, affine = (48, 40, 60), affine_of((0.9, 0.8, 1.1))
    centre = [size / 2 + by for size, by in zip(shape, move, strict=True)]
    high = blob(shape, centre, (9, 9, 9))
    low = acquisition.simulate(high)
    there = affine[:3, :3] @ centre + affine[:3, 3]
    measured_affine = acquisition.measured_affine(affine, shape)
    assert centroid(high.numpy(), affine) == pytest.approx(there, abs=2e-3)
    assert centroid(low.numpy(), measured_affine) == pytest.approx(there, abs=2e-2)
    assert centroid(acquisition.interpolate(low, shape).numpy(), affine) == pytest.approx(there, abs=2e-2)
    assert acquisition.result_affine(measured_affine, shape) == pytest.approx(affine, abs=1e-10)


@pytest.mark.parametrize(("size", "kept"), [(320, 160), (320, 205), (321, 200), (64, 63), (15, 4)])
def test_a_moved_impulse_stays_in_place_along_k_space(size, kept):
    acquisition = Acquisition((KSpace(kept),))
    for place in (0, 1, size // 3, size - 1):
        impulse = torch.zeros(size, dtype=torch.float64)
        impulse[place] = 1
        peak = acquisition.interpolate(acquisition.simulate(impulse), (size,))
        below = (kept - 1) // 2 + 1  # bins, in amplitude and phase; of the one at the Nyquist frequency only the real part is measured
        assert_same(torch.fft.rfft(peak)[:below].abs(), torch.ones(below, dtype=torch.float64))
        assert_same(torch.view_as_real(torch.fft.rfft(peak)[:below]), torch.view_as_real(torch.fft.rfft(impulse)[:below]))
        if kept % 2:
            assert int(peak.argmax()) == place
            assert_same(peak.roll(-place), peak.roll(-place).flip(0).roll(1))  # even about its place


@pytest.mark.parametrize(("size", "count", "voxels"), [(24, 6, (8, 11)), (25, 5, (10, 14)), (10, 4, (5, 7))])
def test_a_slice_lies_over_its_own_voxels(size, count, voxels):
    across = slices(count, size)
    weights = matrix_of(Acquisition((across,)).simulate, size)
    centres = across.first(size) + across.spacing * torch.arange(count)
    assert (weights @ torch.arange(size).double())[1:-1] == pytest.approx(centres.double()[1:-1], abs=1e-3)
    assert voxels[0] <= int(weights[2].argmax()) <= voxels[1]
    assert_same(weights, weights.flip(0, 1))  # and both ends of the stack are alike


# Slices.


@pytest.mark.parametrize("thickness", [2, 4, 7.3])
@pytest.mark.parametrize("spacing", [1, 3, 5])
def test_a_gaussian_profile_has_the_given_full_width_at_half_maximum(thickness, spacing):
    weights = matrix_of(Acquisition((Slices(thickness, spacing),)).simulate, 60 * spacing)
    places = torch.arange(60 * spacing)
    middle = weights[30]
    mean = (middle * places).sum()
    sigma = float((middle * (places - mean) ** 2).sum().sqrt())
    assert sigma / FWHM_TO_SIGMA == pytest.approx(thickness, rel=2e-3)


@pytest.mark.parametrize(
    ("thickness", "weights"), [(4, [0, 0, 0.25, 0.25, 0.25, 0.25, 0, 0]), (3, [0, 0, 1 / 6, 1 / 3, 1 / 3, 1 / 6, 0, 0])]
)
def test_a_box_is_the_mean_of_the_voxels_that_it_covers(thickness, weights):
    assert_same(matrix_of(Acquisition((Slices(thickness, 8, "box"),)).simulate, 8)[0], torch.tensor(weights, dtype=torch.float64))


def test_a_gap_leaves_voxels_out_and_an_overlap_counts_them_twice():
    gap, touching, overlap = (matrix_of(Acquisition((Slices(thickness, 4, "box"),)).simulate, 24) * thickness for thickness in (2, 4, 6))
    assert_same(gap.sum(0), torch.tensor([0, 1, 1, 0] * 6, dtype=torch.float64))
    assert_same(touching.sum(0), torch.ones(24, dtype=torch.float64))
    assert_same(overlap.sum(0), torch.tensor([2, 1, 1, 2] * 6, dtype=torch.float64))  # the outer ones by reflection


def test_slices_as_thin_as_the_voxels_lose_nothing():
    high = image((3, 17))
    assert_same(Acquisition((Full(), Slices(1, 1, "box"))).simulate(high), high)


@pytest.mark.parametrize("profile", ["gaussian", "box"])
def test_a_slice_thicker_than_the_stack_is_still_a_mean(profile):
    high = image((7,))
    low = Acquisition((Slices(60, 7, profile),)).simulate(high)
    assert low.item() == pytest.approx(float(high.mean()), rel=0.02)


def test_a_smooth_image_is_interpolated_between_its_slices_to_a_percent():
    fine, centres = ((torch.arange(count, dtype=torch.float64) + 0.5) / count for count in (120, 24))
    smooth, low = (1 + 0.5 * torch.cos(math.pi * 7 * places) for places in (fine, centres))  # even about both outer faces
    between = Acquisition((Slices(4, 5),)).interpolate(low, (120,))
    assert (between - smooth).abs().max() < 0.01
    assert_same(Acquisition((Slices(4, 5),)).interpolate(low.flip(0), (120,)), between.flip(0))


def test_slices_that_lie_on_the_grid_are_interpolated_to_themselves():
    low = image((2, 9))
    fine = Acquisition((Full(), Slices(3, 3))).interpolate(low, (2, 27))
    assert_same(fine[:, 1::3], low)


# Words, records and refusals.


@pytest.mark.parametrize(
    ("acquisition", "shape", "voxel", "words"),
    [
        (Acquisition.from_matrix((256, 205), (512, 512)), (512, 512), None, "measured 256 x 205 of 512 x 512"),
        (Acquisition.from_scale((1, 2), (320, 256)), (320, 256), None, "measured 320 x 128 of 320 x 256"),
        (Acquisition.from_scale((1, 2), (320, 256)), None, None, "measured all x 128"),
        (Acquisition((Full(), Full(), Slices(4, 5))), (256, 256, 150), 1.0, "4 mm slices every 5 mm"),
        (Acquisition((Full(), Full(), Slices(8, 10))), (256, 256, 150), 0.5, "4 mm slices every 5 mm"),
        (Acquisition((Full(), Slices(4, 5))), None, None, "4-voxel slices every 5 voxels"),
        (Acquisition((KSpace(8), KSpace(9), Slices(4, 5))), (9, 9, 5), 1, "measured 8 x 9 of 9 x 9, 4 mm slices every 5 mm"),
        (Acquisition((Full(), Full())), (8, 8), None, "nothing lost"),
    ],
)
def test_an_acquisition_says_in_words_what_was_kept(acquisition, shape, voxel, words):
    assert acquisition.describe(shape, voxel) == words


@quick
@given(acquisitions())
def test_an_acquisition_survives_a_json_record(drawn):
    acquisition, _ = drawn
    again = Acquisition.from_dict(json.loads(json.dumps(acquisition.as_dict())))
    assert again == acquisition
    assert hash(again) == hash(acquisition)
    assert {again: 1}[acquisition] == 1


@pytest.mark.parametrize(
    "record", [None, {}, {"axes": 3}, {"axes": [{"kind": "spiral"}]}, {"axes": [{"kind": "kspace", "lines": 3}]}, {"axes": []}]
)
def test_a_record_of_something_else_is_refused(record):
    with pytest.raises(ValueError, match="expected"):
        Acquisition.from_dict(record)


@pytest.mark.parametrize(
    ("scale", "shape", "kept"),
    [
        (2, (320, 256), (160, 128)),
        ((1, 2), (320, 256), (320, 128)),
        (1.6, (512, 328), (320, 205)),
        (3, (384, 384, 3), (128, 128, 1)),
        (1, (9,), (9,)),
    ],
)
def test_a_scale_is_the_whole_number_of_samples_next_to_it(scale, shape, kept):
    acquisition = Acquisition.from_scale(scale, shape)
    assert acquisition.measured_shape(shape) == kept
    assert acquisition.ratios(shape) == tuple(size / low for size, low in zip(shape, kept, strict=True))
    assert acquisition == Acquisition.from_matrix(kept, shape)
    assert [isinstance(axis, Full) for axis in acquisition.axes] == [size == low for size, low in zip(shape, kept, strict=True)]


@pytest.mark.parametrize("scale", [0.5, 0, -2, math.nan, math.inf, (2,), (2, 2, 2), (2, math.nan)])
def test_a_scale_that_is_none_is_refused(scale):
    with pytest.raises(ValueError, match="expected a scale of at least 1 for each of 2 axes, got"):
        Acquisition.from_scale(scale, (320, 320))


@pytest.mark.parametrize(
    ("matrix", "message"), [((513, 10), "within 512 x 512, got 513 x 10"), ((5,), "within 512 x 512"), ((0, 5), "at least 1, got 0")]
)
def test_a_matrix_that_is_larger_than_the_image_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        Acquisition.from_matrix(matrix, (512, 512))


@pytest.mark.parametrize("samples", [0, -3, 2.5, math.nan, True, "8", None])
def test_k_space_of_no_whole_number_of_samples_is_refused(samples):
    with pytest.raises(ValueError, match="expected a number of k-space samples of at least 1, got"):
        KSpace(samples)


def test_numbers_of_numpy_are_taken_as_plain_ones():
    assert KSpace(np.int64(8)) == KSpace(8)
    assert Acquisition.from_scale(np.float64(2), np.array([8, 8])) == Acquisition.from_scale(2, (8, 8))
    assert Slices(np.float32(4), np.int64(5)) == Slices(4, 5)
    json.dumps(Acquisition((KSpace(np.int64(8)), Slices(np.float32(4), 5))).as_dict())


@pytest.mark.parametrize(
    ("thickness", "spacing", "message"),
    [
        (0, 5, "expected a positive slice thickness, got 0"),
        (-4, 5, "expected a positive slice thickness, got -4"),
        (math.nan, 5, "expected a positive slice thickness, got nan"),
        (4, math.inf, "expected a positive slice spacing, got inf"),
        (4, 0.5, "expected a slice spacing of at least one voxel of the result, got 0.5"),
        ("4", 5, "expected a positive slice thickness, got '4'"),
        (4, None, "expected a positive slice spacing, got None"),
    ],
)
def test_slices_of_no_size_are_refused(thickness, spacing, message):
    with pytest.raises(ValueError, match=message):
        Slices(thickness, spacing)


def test_an_unknown_profile_and_a_second_slice_axis_are_refused():
    with pytest.raises(ValueError, match="expected a slice profile 'gaussian' or 'box', got 'sinc'"):
        Slices(4, 5, "sinc")
    with pytest.raises(ValueError, match="expected slices along one axis at most"):
        Acquisition((Slices(4, 5), Slices(4, 5)))
    with pytest.raises(ValueError, match="expected at least one axis, each Full, KSpace or Slices, got"):
        Acquisition(())


def test_images_that_do_not_fit_are_refused():
    acquisition = Acquisition((KSpace(9), Slices(4, 5)))
    for message, act in (
        ("expected at most 8 samples of k-space, as many as the image has, got 9", lambda: acquisition.simulate(image((8, 20)))),
        ("expected a whole number of slices every 5 voxels, got 21 voxels", lambda: acquisition.simulate(image((9, 21)))),
        ("expected an image of at least 2 axes, got 1", lambda: acquisition.simulate(image((20,)))),
        ("expected a real image in float32 or float64, got torch.int16", lambda: acquisition.simulate(image((9, 20)).short())),
        ("expected a target of 9 x 4, got 9 x 5", lambda: acquisition.interpolate(image((9, 5)), (10, 20))),
        ("expected a target of 9 x 4, got 9 x 3", lambda: acquisition.project(image((10, 20)), image((9, 3)))),
        ("expected 2 sizes, got 10", lambda: acquisition.interpolate(image((9, 4)), (10,))),
    ):
        with pytest.raises(ValueError, match=message):
            act()


@pytest.mark.parametrize(
    ("axes_of", "shape"),
    [
        ((KSpace(256), KSpace(205)), (512, 512)),
        ((Full(), KSpace(8)), (16, 16)),
        ((KSpace(4), Slices(2, 2)), (8, 8)),
        ((KSpace(8), KSpace(8)), (8, 8)),
    ],
)
def test_an_acquisition_without_a_whole_factor_says_so(axes_of, shape):
    with pytest.raises(ValueError, match="expected k-space smaller by the same whole factor along every axis, got "):
        Acquisition(axes_of).factor(shape)


@pytest.mark.parametrize(
    ("text", "sizes"), [("2", (2,)), ("1x2", (1, 2)), ("1.6", (1.6,)), ("256 x 205", (256, 205)), ("0.5×0.5X1", (0.5, 0.5, 1))]
)
def test_sizes_are_read_from_an_option(text, sizes):
    assert parse_sizes("--scale", text) == sizes


@pytest.mark.parametrize("text", ["", "x", "2x", "0", "-1x2", "nan", "inf", "1x2x3x4", "two", "1,2"])
def test_an_option_without_sizes_is_refused(text):
    with pytest.raises(UsageFault, match=r"--scale: .*need one to three positive numbers"):
        parse_sizes("--scale", text)
