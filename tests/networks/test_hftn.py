"""The whole network: start, gradients, correspondence, sizes, cost, export. Features are few; the numbers are not."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import hftn_sr
from hftn_sr.kspace import zero_fill
from hftn_sr.networks import HFTNSR, feature_transfer

SMALL = {"channels": 16, "stages": 2, "blocks": 1, "embedding": 8}
PATCH = 2
OPTIONS = [
    {},
    {"blocks": 2},
    {"transfer": "mask"},
    {"transfer": "gather_and_keep"},
    {"fusion": "parallel_sum"},
    {"separate": True},
    {"stat": "var"},
    {"literal_up": True},
    {"patch": 1},
    {"transfer": "none"},
    {"scrfm": False},
]
each_option = pytest.mark.parametrize("options", OPTIONS, ids=str)
each_scale = pytest.mark.parametrize("scale", [2, 4])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def untrained(scale, **options):
    torch.manual_seed(6)
    return HFTNSR(scale, **{**SMALL, **options}).eval()


def shaken(scale, **options):
    """A network whose last convolution does not hide what the others do."""
    network = untrained(scale, **options)
    nn.init.normal_(network.output.weight, std=0.1)
    return network


@pytest.fixture
def searches(monkeypatch):
    """Positions of every search of the network."""
    positions = []
    best_match = feature_transfer.best_match

    def spy(query, key):
        found = best_match(query, key)
        positions.append(found[0])
        return found

    monkeypatch.setattr(feature_transfer, "best_match", spy)
    return positions


@each_scale
@each_option
@torch.no_grad()
def test_the_untrained_network_is_exactly_zero_filling(scale, options):
    image = noise(2, 3, 16, 24)
    assert torch.equal(untrained(scale, **options)(image), image[:, :1])


@each_scale
@each_option
def test_every_parameter_learns_after_the_first_steps(scale, options):
    network = untrained(scale, **options).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    image, label = noise(2, 3, 16, 16), noise(2, 1, 16, 16, seed=1)
    for _ in range(3):
        optimizer.zero_grad()
        functional.l1_loss(network(image), label).backward()
        optimizer.step()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    assert [name for name, gradient in gradients.items() if not gradient.any()] == []


def test_only_the_last_convolution_learns_in_the_first_step():
    network = untrained(2)
    functional.l1_loss(network(noise(1, 3, 16, 16)), noise(1, 1, 16, 16, seed=1)).backward()
    assert {name for name, parameter in network.named_parameters() if parameter.grad.any()} == {"output.weight", "output.bias"}


@torch.no_grad()
def chained_by_hand(network, image, scale, fusion):
    """Equations (1) to (7) and the output, from the network's own blocks."""
    target, low, high = image.split(1, 1)
    shallow = network.head_target(target[..., ::scale, ::scale])
    features_low = network.head_low(low[..., ::scale, ::scale])
    phases = [high[..., row::scale, column::scale] for row in range(scale) for column in range(scale)]
    features_high = network.head_high(torch.cat(phases, 1))
    fused, entering = [shallow], shallow
    for i in range(len(network.transfer)):
        own = network.target[i](entering)
        features_low, features_high = network.low[i](features_low), network.high[i](features_high)
        fused.append(network.transfer[i](features_low, features_high, own))
        entering = fused[-1] if fusion == "chain" else own
    deep = fused[-1] if fusion == "chain" else sum(fused)
    return target + network.output(network.scrfm(deep, shallow) + network.residual_high(high))


@each_scale
@pytest.mark.parametrize("fusion", ["chain", "parallel_sum"])
@torch.no_grad()
def test_the_three_branches_are_chained_as_in_equations_1_to_7(scale, fusion):
    network, image = shaken(scale, fusion=fusion), noise(2, 3, 16, 24)
    expected = chained_by_hand(network, image, scale, fusion)
    assert (expected - image[:, :1]).abs().max() > 0.1
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


@each_scale
@each_option
@pytest.mark.parametrize("size", [(16, 24), (17, 23), (9, 33)])
def test_the_fast_computation_is_the_equations_in_value_and_gradient(scale, options, size):
    network, image = shaken(scale, **options).double(), noise(2, 3, *size).double()
    nn.init.normal_(network.output.bias)

    def gradients(training):
        result = network.train(training)(image)
        return result, torch.autograd.grad((result * noise(*result.shape, seed=2)).sum(), list(network.parameters()))

    torch.testing.assert_close(gradients(False), gradients(True), rtol=1e-9, atol=1e-9)


def test_the_fast_computation_takes_fewer_operations():
    with FakeTensorMode(), torch.no_grad():
        network, image, counts = HFTNSR(2), torch.empty(1, 3, 64, 64), []
        for training in (False, True):
            with FlopCounterMode(display=False) as counter:
                network.train(training)(image)
            counts.append(counter.get_total_flops())
    merging = 64**2 * 9 * (2 * 64 * 64 - 2 * 64 * 9)  # of (18), with the C channels of F_f and with the nine taps that follow it
    assert counts[1] - counts[0] > 0.9 * 2 * merging


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_the_result_has_the_type_of_the_image(dtype):
    assert shaken(2).to(dtype)(noise(1, 3, 16, 16).to(dtype)).dtype == dtype


@torch.no_grad()
def test_the_network_knows_the_zero_filled_target_and_the_low_band_only_at_the_low_resolution_samples():
    network, image = shaken(2), noise(1, 3, 16, 16)
    between = image.clone()
    between[:, :2] += 1
    between[:, :2, ::2, ::2] = image[:, :2, ::2, ::2]
    torch.testing.assert_close(network(between) - between[:, :1], network(image) - image[:, :1])


def twin_branches(scale):
    """A network of one stage whose low-frequency branch sees as the target branch does."""
    network = untrained(scale, stages=1, embedding=16)
    network.head_low.load_state_dict(network.head_target.state_dict())
    network.low.load_state_dict(network.target.state_dict())
    return network


@each_scale
@torch.no_grad()
def test_a_low_band_equal_to_the_target_is_matched_in_place(scale, searches):
    target = zero_fill(noise(2, 1, 16, 24), scale)
    twin_branches(scale)(torch.cat([target, target, noise(*target.shape, seed=1)], 1))
    assert torch.equal(searches[0], torch.arange(8 * 12).expand(2, -1))


@each_scale
@torch.no_grad()
def test_a_reference_shifted_by_whole_patches_is_matched_where_it_went_away_from_the_borders(scale, searches):
    target = zero_fill(noise(1, 1, 24, 24), scale)
    reference = target.roll((2 * PATCH * scale, -PATCH * scale), (-2, -1))
    twin_branches(scale)(torch.cat([target, reference, noise(*target.shape, seed=1)], 1))
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    expected = (rows + 2) * 12 + columns - 1
    inside = (slice(2, 8), slice(3, 10))
    assert torch.equal(searches[0].view(12, 12)[inside], expected[inside])


@each_scale
@pytest.mark.parametrize("size", [(17, 16), (19, 22), (25, 31)])
@torch.no_grad()
def test_any_size_is_padded_at_the_far_edges_and_cropped_again(scale, size):
    image, step = noise(1, 3, *size), scale * PATCH
    network = shaken(scale)
    padded = image[..., [min(row, size[0] - 1) for row in range(-(-size[0] // step) * step)], :]
    padded = padded[..., [min(column, size[1] - 1) for column in range(-(-size[1] // step) * step)]]
    torch.testing.assert_close(network(image), network(padded)[..., : size[0], : size[1]])
    assert torch.equal(untrained(scale)(image), image[:, :1])


@each_scale
@torch.no_grad()
def test_the_detail_of_a_point_stays_at_the_point_whatever_the_size(scale):
    network = shaken(scale)
    for parameter in (network.output.bias, network.residual_high.bias):
        nn.init.zeros_(parameter)
    points = []
    for size in [(24, 24), (25, 27)]:
        flat = torch.zeros(1, 3, *size)
        image = flat.clone()
        image[0, 2, 11, 13] = 100.0
        change = (network(image) - network(flat)).abs()[0, 0]
        points.append(divmod(int(change.argmax()), size[1]))
    assert all(abs(row - 11) <= 2 and abs(column - 13) <= 2 for row, column in points)
    assert points[0] == points[1]


@torch.no_grad()
def test_the_same_input_gives_the_same_bits_and_images_of_a_batch_do_not_meet():
    network, image = shaken(2, fusion="parallel_sum"), noise(2, 3, 16, 16)
    together = network(image)
    assert torch.equal(together, network(image.clone()))
    torch.testing.assert_close(together, torch.cat([network(image[:1]), network(image[1:])]), rtol=1e-4, atol=1e-5)


@each_scale
@torch.no_grad()
def test_bfloat16_autocast_changes_the_added_detail_by_less_than_five_percent(scale):
    network, image = shaken(scale), noise(1, 3, 32, 32).abs()
    exact = network(image) - image[:, :1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(image) - image[:, :1]
    assert rounded.dtype == torch.float32  # the zero-filled target is added unrounded
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


@each_scale
@each_option
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_a_traced_network_works_at_other_sizes_and_batches(scale, options):
    network = shaken(scale, **options)
    traced = torch.jit.trace(network, noise(1, 3, 16, 24), check_trace=False)
    for shape in [(2, 3, 32, 16), (1, 3, 21, 27)]:
        image = noise(*shape, seed=1)
        torch.testing.assert_close(traced(image), network(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("blocks", "millions"), [(2, 5.7), (1, 3.9)])
def test_the_size_of_the_paper_has_the_expected_number_of_parameters(blocks, millions):
    with torch.device("meta"):
        counts = [sum(parameter.numel() for parameter in HFTNSR(scale, blocks=blocks).parameters()) for scale in (2, 4)]
    assert [count / 1e6 for count in counts] == pytest.approx([millions, millions], rel=0.05)


@pytest.mark.parametrize(("scale", "expected"), [(2, 161), (4, 40.6)])
@torch.no_grad()
def test_the_size_of_the_paper_costs_the_expected_multiplications_for_320_x_320_voxels(scale, expected):
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        HFTNSR(scale).eval()(torch.empty(1, 3, 320, 320))
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(expected, rel=0.01)


def test_the_loss_of_the_training_workflow_is_the_mean_absolute_error():
    workflow = yaml.safe_load((Path(hftn_sr.__file__).parents[1] / "configs" / "train.yaml").read_text(encoding="utf-8"))
    loss = getattr(nn, workflow["loss"].pop("_target_").removeprefix("torch.nn."))(**workflow["loss"])
    label = torch.zeros(2, 1, 2, 2)
    label[0, 0, 1] = torch.tensor([3.0, -5.0])
    assert loss(torch.zeros_like(label), label).item() == pytest.approx((3 + 5) / 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 3}, "expected a scale of 2 or 4, got 3"),
        ({"scale": 2, "fusion": "sum"}, "expected fusion to be 'chain' or 'parallel_sum', got 'sum'"),
        ({"scale": 2, "transfer": "copy"}, r"expected transfer to be one of .*, got 'copy'"),
        ({"scale": 2, "stat": "mean"}, "expected stat to be 'std' or 'var', got 'mean'"),
    ],
)
def test_an_option_that_does_not_exist_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        HFTNSR(**{**SMALL, **options})


def test_the_options_of_a_network_build_it_again():
    network = shaken(4, transfer="gather_and_keep", fusion="parallel_sum", separate=True, stat="var", literal_up=True)
    again = HFTNSR(**network.options).eval()
    again.load_state_dict(network.state_dict())
    image = noise(1, 3, 16, 16)
    assert torch.equal(again(image), network(image))
