"""All baselines alike, then their blocks against loops. Features are few; what is counted is of full size."""

import functools
import inspect
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import hftn_sr
from comparison.cost import network_cost
from hftn_sr.kspace import shift, zero_fill
from hftn_sr.networks import NETWORKS
from hftn_sr.networks.baselines.blocks import CSAM, LAM, ResBlock, Up
from hftn_sr.networks.baselines.msdt import DeformableAttention
from hftn_sr.networks.baselines.sanet import SeparableAttention

SMALL = {
    "edsr": {"channels": 8, "blocks": 2},
    "mcsr": {"channels": 8},
    "neu": {"channels": 4},
    "minet": {"channels": 8},
    "msdt": {"channels": 8},
    "sanet": {"channels": 8},
    "early_fusion": {"channels": 8, "groups": 2, "blocks": 2},
}
WITHOUT_WEIGHTS = ["zero_filling", "cubic"]
MULTIPLE = {"neu": 8, "msdt": 32}  # of the voxels of a side; the scale elsewhere

each_network = pytest.mark.parametrize("name", SMALL)
each_scale = pytest.mark.parametrize("scale", [2, 4])


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def untrained(name, scale=2, **options):
    torch.manual_seed(6)
    return NETWORKS[name](scale, **{**SMALL[name], **options}).eval()


@torch.no_grad()
def shaken(name, scale=2, **options):
    """A network in which nothing that starts at zero hides what the rest does."""
    network = untrained(name, scale, **options)
    generator = torch.Generator().manual_seed(7)
    for key, parameter in network.named_parameters():
        if not parameter.any() and not key.endswith("bias"):
            parameter.normal_(0, 0.1, generator=generator)
    return network


def test_every_baseline_and_hftn_have_a_name():
    assert set(NETWORKS) == {"hftn", "gated_unet", "correspondence", *SMALL, *WITHOUT_WEIGHTS}


# Size and cost, for 320 x 320 voxels: parameters in millions, multiplications in thousand millions.


@functools.cache
def measured(name, scale):
    cost = network_cost(functools.partial(NETWORKS[name], scale))
    return cost.parameters / 1e6, cost.gmac


@pytest.mark.parametrize(
    ("name", "scale", "parameters", "macs"),
    [
        ("edsr", 2, 1.368, 35.0),
        ("edsr", 4, 1.515, 12.6),
        ("mcsr", 2, 1.41, 84),
        ("mcsr", 4, 1.55, 73),
        ("neu", 2, 1.93, 14.4),
        ("neu", 4, 1.93, 14.4),
        ("minet", 2, 6.748, 677),  # of the public code, with the auxiliary head
        ("minet", 4, 6.896, 678),
        ("msdt", 2, 0.53, 14.2),
        ("msdt", 4, 0.74, 7.8),
        ("sanet", 2, 4.637, 461),  # as minet
        ("sanet", 4, 4.785, 462),
    ],
)
def test_the_full_size_has_the_expected_parameters_and_cost(name, scale, parameters, macs):
    assert measured(name, scale) == pytest.approx((parameters, macs), rel=0.05)


@pytest.mark.parametrize(
    ("name", "options", "thousands"),
    [
        ("minet", {}, (6748, 6896)),
        ("sanet", {}, (4637, 4785)),
        ("sanet", {"stages": 7}, (6998, 7146)),
    ],
)
def test_with_the_auxiliary_head_the_parameters_are_those_of_the_public_code(name, options, thousands):
    with torch.device("meta"):
        networks = [NETWORKS[name](scale, auxiliary=True, **options) for scale in (2, 4)]
    assert tuple(round(sum(parameter.numel() for parameter in network.parameters()) / 1e3) for network in networks) == thousands


@each_scale
def test_the_control_is_of_the_size_of_hftn(scale):
    assert measured("early_fusion", scale) == pytest.approx(measured("hftn", scale), rel=0.12)


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_interpolation_has_nothing_to_learn_or_to_store(name):
    assert not NETWORKS[name](2).state_dict()


DOCUMENTED = re.findall(
    r"^\| `(\w+)` .*\| ([\d.]+) / ([\d.]+) \| ([\d.]+) / ([\d.]+) \|",
    (Path(hftn_sr.__file__).parents[1] / "docs" / "baselines.md").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)


def test_the_document_has_a_row_for_each_network_with_weights():
    assert [row[0] for row in DOCUMENTED] == [*SMALL, "hftn", "gated_unet"]


@pytest.mark.parametrize("row", DOCUMENTED, ids=lambda row: row[0])
def test_the_document_gives_the_measured_parameters_and_cost(row):
    name, *numbers = row
    found = [measured(name, scale) for scale in (2, 4)]
    assert [float(number) for number in numbers] == pytest.approx([found[0][0], found[1][0], found[0][1], found[1][1]], rel=0.005)


# What all networks do alike.


@each_scale
@each_network
@torch.no_grad()
def test_the_untrained_network_is_exactly_zero_filling(name, scale):
    image = noise(2, 3, 17, 22)
    network = untrained(name, scale)
    assert torch.equal(network(image), image[:, :1])
    assert torch.equal(network.train()(image), image[:, :1])


def without_effect(key):
    """A bias of all keys moves all weights of a softmax alike, and batch normalisation takes the bias before it away."""
    return re.search(r"key\.bias$|join\.\d+\.(forward_region|reverse_region|merge\.0)\.0\.bias$", key)


@each_scale
@each_network
def test_every_parameter_learns_after_the_first_steps(name, scale):
    network = untrained(name, scale).train()
    side = 64 if name == "msdt" else 16  # a single sample point gets all attention whatever its key
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    image, label = noise(1, 3, side, side), noise(1, 1, side, side, seed=1)
    for _ in range(3):  # first the last convolution, then what it hides, then what is behind a gamma or offset of zero
        optimizer.zero_grad()
        functional.l1_loss(network(image), label).backward()
        optimizer.step()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert [key for key, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    assert [key for key, gradient in gradients.items() if not gradient.any() and not without_effect(key)] == []


@pytest.mark.parametrize("name", ["mcsr", "minet", "sanet"])
def test_the_auxiliary_image_teaches_its_own_layers(name):
    network = untrained(name, auxiliary=True).train()
    image = noise(1, 3, 17, 14)
    pred, auxiliary = network(image)
    assert torch.equal(pred, image[:, :1])
    assert auxiliary.shape == pred.shape
    functional.l1_loss(auxiliary, noise(1, 1, 17, 14, seed=1)).backward()
    learning = {key.split(".")[0] for key, parameter in network.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    of_reference = {"head_reference", "reference", "attend_reference", "merge_reference", "output_reference"}
    assert learning == ({"single"} if name == "mcsr" else of_reference)


@each_scale
@each_network
@torch.no_grad()
def test_all_but_edsr_use_both_bands_of_the_reference(name, scale):
    network, image = shaken(name, scale).double(), noise(1, 3, 32, 32).double()
    for band in (1, 2):
        other = image.clone()
        other[:, band] += noise(32, 32, seed=2)
        assert torch.equal(network(other), network(image)) == (name == "edsr")


@each_scale
@each_network
@torch.no_grad()
def test_any_size_is_padded_at_the_far_edges_and_cropped_again(name, scale):
    network, multiple = shaken(name, scale).double(), MULTIPLE.get(name, scale)
    for size in [(17, 16), (19, 22)]:
        image = noise(1, 3, *size).double()
        rows, columns = ([min(i, n - 1) for i in range(-(-n // multiple) * multiple)] for n in size)
        expected = network(image[..., rows, :][..., columns])[..., : size[0], : size[1]]
        assert (expected - image[:, :1]).abs().max() > 1e-3
        torch.testing.assert_close(network(image), expected)


@each_network
@torch.no_grad()
def test_images_of_a_batch_do_not_meet(name):
    network, image = shaken(name).double(), noise(3, 3, 16, 24).double()
    torch.testing.assert_close(network(image), torch.cat([network(each) for each in image.split(1)]))


@each_network
@torch.no_grad()
def test_under_bfloat16_autocast_the_zero_filled_target_is_added_unrounded(name):
    image = noise(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert shaken(name)(image).dtype == torch.float32
        assert torch.equal(untrained(name)(image), image[:, :1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", [*SMALL, *WITHOUT_WEIGHTS])
@torch.no_grad()
def test_a_traced_network_works_at_other_sizes_and_batches(name):
    network = (shaken(name) if name in SMALL else NETWORKS[name](2)).double()
    traced = torch.jit.trace(network, noise(1, 3, 16, 24).double(), check_trace=False)
    for shape in [(2, 3, 48, 16), (1, 3, 21, 70)]:
        image = noise(*shape, seed=1).double()
        torch.testing.assert_close(traced(image), network(image))


@pytest.mark.parametrize("name", [*SMALL, *WITHOUT_WEIGHTS])
def test_the_options_of_a_network_are_all_arguments_and_build_it_again(name):
    network = shaken(name, 4) if name in SMALL else NETWORKS[name](4)
    assert list(network.options) == list(inspect.signature(NETWORKS[name]).parameters)
    again = NETWORKS[name](**network.options).eval()
    again.load_state_dict(network.state_dict())
    image = noise(1, 3, 16, 16)
    assert torch.equal(again(image), network(image))


@pytest.mark.parametrize("name", [*SMALL, *WITHOUT_WEIGHTS])
def test_a_scale_that_does_not_exist_is_refused(name):
    with pytest.raises(ValueError, match="expected a scale of 2 or 4, got 3"):
        NETWORKS[name](3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("neu", {"channels": 1}, "expected at least 2 channels, got 1"),
        ("edsr", {"blocks": 0}, "expected at least 1 block, got 0"),
        ("msdt", {"channels": 30}, "expected channels divisible by the 4 heads, got 30"),
        ("sanet", {"stages": 5}, "expected 4 or 7 stages, got 5"),
        ("early_fusion", {"groups": 0}, "expected at least 1 group of at least 1 block, got 0 of 6"),
    ],
)
def test_an_option_that_does_not_exist_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        NETWORKS[name](2, **options)


# The layers of each network, from its own blocks.


@each_scale
@torch.no_grad()
def test_edsr_is_head_blocks_and_head_again_then_upsampling(scale):
    network, image = shaken("edsr", scale), noise(1, 3, 16, 24)
    head, (*blocks, after), up, output = network.layers
    shallow = deep = head(image[:, :1, ::scale, ::scale])
    for block in blocks:
        deep = deep + block[2](block[1](block[0](deep)))
    torch.testing.assert_close(network(image), image[:, :1] + output(up(after(deep) + shallow)))


@torch.no_grad()
def test_mcsr_refines_the_single_contrast_image_with_the_whole_reference():
    network, image = shaken("mcsr", auxiliary=True), noise(1, 3, 16, 24)
    single = image[:, :1] + network.single(image[:, :1, ::2, ::2])
    joint = network.joint(torch.cat([single, image[:, 1:2] + image[:, 2:]], 1))
    *blocks, after = network.multi
    expected = single + network.output(joint + after(nn.Sequential(*blocks)(joint)))
    assert (len(blocks), all(isinstance(block, ResBlock) for block in blocks)) == (8, True)
    torch.testing.assert_close(network(image), (expected, single))


@torch.no_grad()
def test_neu_goes_down_by_the_largest_of_four_and_up_beside_what_came_down():
    network, image = shaken("neu"), noise(1, 3, 16, 24)
    first = network.down[0](torch.cat([image[:, :1], image[:, 1:2] + image[:, 2:]], 1))
    second = network.down[1](functional.adaptive_max_pool2d(first, (8, 12)))
    third = network.down[2](functional.adaptive_max_pool2d(second, (4, 6)))
    fourth = network.down[3](functional.adaptive_max_pool2d(third, (2, 3)))
    for enlarge, level, beside in zip(network.enlarge, network.up, [third, second, first], strict=True):
        fourth = level(torch.cat([enlarge(fourth), beside], 1))
    assert [each.shape[1] for each in (first, second, third, fourth)] == [4, 8, 16, 4]
    torch.testing.assert_close(network(image), image[:, :1] + network.output(fourth))


def two_branches_by_hand(network, image, stages):
    reference = shallow_reference = network.head_reference(image[:, 1:2] + image[:, 2:])
    target = shallow_target = network.head_target(image[:, :1, ::2, ::2])
    references, targets = [], []
    for i in range(stages):
        reference, own = network.reference[i](reference), network.target[i](target)
        references.append(reference)
        targets.append(own)
        target = own + network.join[i](reference, own)
    layers = network.condense(network.layers(references + targets))
    merged = network.merge_target(torch.cat([network.attend_target(target), layers], 1)) + shallow_target
    again = network.merge_reference(network.attend_reference(reference)) + shallow_reference
    return image[:, :1] + network.output(merged), network.output_reference(again)


@pytest.mark.parametrize(("name", "options", "stages"), [("minet", {}, 7), ("sanet", {}, 4), ("sanet", {"stages": 7}, 7)])
@torch.no_grad()
def test_both_branches_meet_at_every_stage_and_once_more_in_the_layer_attention(name, options, stages):
    network, image = shaken(name, auxiliary=True, normalize_energy=True, **options).double(), noise(1, 3, 16, 24).double()
    assert len(network.join) == stages
    assert [isinstance(stage, nn.Conv2d) for stage in network.target] == [i == 6 for i in range(stages)]
    torch.testing.assert_close(network(image), two_branches_by_hand(network, image, stages))


@each_scale
@torch.no_grad()
def test_msdt_adds_the_embedded_target_before_upsampling(scale):
    network, image = shaken("msdt", scale), noise(1, 3, 32, 64)
    target = network.embed_target(image[:, :1, ::scale, ::scale])
    reference = image[:, 1:2] + image[:, 2:]
    phases = [reference[..., row::scale, column::scale] for row in range(scale) for column in range(scale)]
    deep = network.joint(torch.cat([target, network.embed_reference(torch.cat(phases, 1))], 1))
    for attention, feed_forward in network.blocks:
        deep = deep + attention[1](attention[0](deep))
        deep = deep + nn.Sequential(*list(feed_forward)[1:])(feed_forward[0](deep))
    assert attention[1].cell == 32 // scale
    torch.testing.assert_close(network(image), image[:, :1] + network.restore(network.deep(deep) + target))


# Blocks.


@torch.no_grad()
def test_upsampling_by_four_is_twice_by_two():
    up, features = Up(4, 4), noise(1, 4, 3, 5)
    twice = functional.pixel_shuffle(up[2](functional.pixel_shuffle(up[0](features), 2)), 2)
    assert torch.equal(up(features), twice)
    assert [layer.out_channels for layer in up if isinstance(layer, nn.Conv2d)] == [16, 16]


@torch.no_grad()
def test_channel_spatial_attention_is_a_convolution_over_channels_rows_and_columns():
    block, features = CSAM(), noise(2, 3, 4, 5)
    assert torch.equal(block(features), features)
    block.gamma.fill_(0.7)
    padded = functional.pad(features, (1, 1) * 3)
    kernel, bias = block.volume.weight[0, 0], block.volume.bias.item()
    for at in [(0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 2)]:
        b, c, i, j = at
        z = bias + sum(
            padded[b, c + dc, i + di, j + dj].item() * kernel[dc, di, dj].item() for dc in range(3) for di in range(3) for dj in range(3)
        )
        value = features[at].item()
        assert block(features)[at].item() == pytest.approx(value + 0.7 * value / (1 + math.exp(-z)), abs=1e-5)


def test_channel_spatial_attention_convolves_in_float32_under_autocast():
    # Its gradient in bfloat16 writes outside its memory, which a test of that could only show by being killed.
    block, features = CSAM(), noise(2, 3, 4, 5).bfloat16()
    seen = []
    block.volume.register_forward_hook(lambda _module, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        block(features)
    assert seen == [torch.float32, torch.float32]


@pytest.mark.parametrize("normalize_energy", [False, True])
@torch.no_grad()
def test_layer_attention_adds_the_most_unlike_maps(normalize_energy):
    block = LAM(normalize_energy)
    maps = [0.3 * noise(2, 2, 3, 2, seed=seed) for seed in range(3)]
    assert torch.equal(block(maps), torch.cat(maps, 1))
    block.gamma.fill_(0.5)
    expected = []
    for b in range(2):
        rows = [each[b].flatten().tolist() for each in maps]
        for own in rows:
            energy = [sum(p * q for p, q in zip(own, other, strict=True)) / (12 if normalize_energy else 1) for other in rows]
            weights = [math.exp(max(energy) - each) for each in energy]
            mixed = [sum(w * row[k] for w, row in zip(weights, rows, strict=True)) / sum(weights) for k in range(12)]
            expected.append([p + 0.5 * q for p, q in zip(own, mixed, strict=True)])
    torch.testing.assert_close(block(maps), torch.tensor(expected).view(2, 6, 3, 2))


@torch.no_grad()
def test_layer_attention_and_deformable_sampling_keep_float32_under_bfloat16_autocast():
    attention, deformable = LAM(), DeformableAttention(4, 2)
    attention.gamma.fill_(0.5)
    maps = [(0.3 * noise(1, 2, 3, 2, seed=seed)).bfloat16() for seed in range(3)]
    features, query = noise(1, 4, 4, 6).bfloat16(), noise(1, 4, 4, 6, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, points = attention(maps), deformable.points(query)
        sampled = deformable.sample(features, points)
    torch.testing.assert_close(mixed, attention([each.float() for each in maps]))
    assert points.dtype == torch.float32
    torch.testing.assert_close(sampled, deformable.sample(features.float(), points))


@torch.no_grad()
def test_separable_attention_looks_at_a_region_and_its_complement():
    torch.manual_seed(0)
    block = SeparableAttention(4).eval()
    for normalisation in (block.forward_region[1], block.reverse_region[1], block.merge[0][1]):
        nn.init.normal_(normalisation.running_mean, std=0.1)
    reference, target = noise(1, 4, 5, 6), noise(1, 4, 5, 6, seed=1)

    def normalized(layers, features):
        mean, variance = layers[1].running_mean.view(-1, 1, 1), layers[1].running_var.view(-1, 1, 1)
        return ((layers[0](features) - mean) / (variance + layers[1].eps).sqrt()).clamp_min(0)

    region = 1 / (1 + torch.exp(-block.region(reference)))
    joint = block.joint(torch.cat([reference, target], 1))
    inside, outside = normalized(block.forward_region, joint * region), normalized(block.reverse_region, joint * (1 - region))
    expected = block.merge[1](normalized(block.merge[0], torch.cat([inside, outside], 1)))
    assert (joint.shape[1], region.shape[1]) == (2, 1)
    torch.testing.assert_close(block(reference, target), expected)


def bilinear(plane, y, x):
    """Value of an (h, w) plane at a position in voxels, beyond the border as at it."""
    height, width = plane.shape
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    i, j = min(int(y), height - 2), min(int(x), width - 2)
    (a, b), (c, d) = plane[i : i + 2, j : j + 2].tolist()
    return (a * (j + 1 - x) + b * (x - j)) * (i + 1 - y) + (c * (j + 1 - x) + d * (x - j)) * (y - i)


def normalized_over_channels(features):
    mean, variance = features.mean(1, keepdim=True), features.var(1, correction=0, keepdim=True)
    return (features - mean) / (variance + 1e-5).sqrt()


def deformable_attention_by_loops(block, features, cell):
    """Sampling in voxels: the centre of cell (a, b) lies at voxel cell * (a + 1/2) - 1/2."""
    query = block.query(features)
    pooled = functional.avg_pool2d(query, cell)
    depthwise, _, _, last, _ = block.offset
    offsets = 2 * torch.tanh(last(functional.gelu(normalized_over_channels(depthwise(pooled)))))
    batch, channels, height, width = features.shape
    own = channels // 4
    samples = torch.empty(batch, channels, *pooled.shape[-2:])
    for b, c, i, j in torch.cartesian_prod(*map(torch.arange, samples.shape)).tolist():
        x_offset, y_offset = offsets[b, 2 * (c // own) : 2 * (c // own) + 2, i, j].tolist()
        samples[b, c, i, j] = bilinear(features[b, c], cell * (i + 0.5 + y_offset) - 0.5, cell * (j + 0.5 + x_offset) - 0.5)
    key, value = block.key(samples).flatten(2), block.value(samples).flatten(2)
    result = torch.empty_like(features)
    for b, head, i, j in torch.cartesian_prod(*map(torch.arange, (batch, 4, height, width))).tolist():
        span = slice(head * own, head * own + own)
        weights = torch.softmax((query[b, span, i, j, None] * key[b, span]).sum(0) / math.sqrt(own), 0)
        result[b, span, i, j] = (value[b, span] * weights).sum(-1)
    return block.project(result)


@torch.no_grad()
def test_deformable_attention_samples_each_head_where_its_offsets_lead():
    torch.manual_seed(0)
    block, features = DeformableAttention(8, 4), noise(2, 8, 8, 12)
    nn.init.normal_(block.offset[3].weight)
    nn.init.normal_(block.query.weight)
    torch.testing.assert_close(block(features), deformable_attention_by_loops(block, features, 4), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_offsets_the_sample_points_are_the_centres_of_the_cells():
    block, features = DeformableAttention(4, 4), noise(1, 4, 8, 8)
    samples = block.sample(features, block.points(block.query(features)))
    torch.testing.assert_close(samples, functional.avg_pool2d(features[..., 1:7, 1:7], 2, stride=4))


# Interpolation.


@each_scale
@torch.no_grad()
def test_interpolation_keeps_the_low_resolution_samples_where_they_are(scale):
    image = noise(2, 3, 17, 22)
    assert torch.equal(NETWORKS["zero_filling"](scale)(image), image[:, :1])
    cubic = NETWORKS["cubic"](scale)(image)
    assert cubic.shape == (2, 1, 17, 22)
    assert torch.equal(cubic[..., ::scale, ::scale], image[:, :1, ::scale, ::scale])


@each_scale
@torch.no_grad()
def test_cubic_interpolation_is_exact_for_polynomials_of_degree_two(scale):
    y, x = torch.meshgrid(torch.arange(40.0).double(), torch.arange(48.0).double(), indexing="ij")
    image = (3 - 0.2 * x + 0.1 * y + 0.05 * x * y - 0.03 * x**2 + 0.02 * y**2 + 0.001 * x**2 * y**2).expand(1, 3, -1, -1)
    inside = (..., slice(scale, 40 - 3 * scale), slice(scale, 48 - 3 * scale))
    found = NETWORKS["cubic"](scale).double()(image)
    torch.testing.assert_close(found[inside], image[:, :1][inside])


@each_scale
@torch.no_grad()
def test_cubic_interpolation_convolves_the_zero_inserted_samples_with_the_kernel_of_keys(scale):
    image = torch.zeros(1, 3, 8 * scale, 8 * scale)
    image[0, 0, 4 * scale, 4 * scale] = 1
    distance = (torch.arange(8 * scale) / scale - 4).abs()
    kernel = torch.zeros(8 * scale)
    near, far = distance < 1, (distance >= 1) & (distance < 2)
    kernel[near] = (1.5 * distance**3 - 2.5 * distance**2 + 1)[near]
    kernel[far] = (-0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2)[far]
    torch.testing.assert_close(NETWORKS["cubic"](scale)(image)[0, 0], kernel[:, None] * kernel)


@torch.no_grad()
def test_cubic_interpolation_and_zero_filling_lie_on_the_same_grid():
    target = zero_fill(functional.avg_pool2d(noise(1, 1, 36, 36), 5, stride=1), 2)
    cubic = NETWORKS["cubic"](2)(target.expand(-1, 3, -1, -1))
    inside = (..., slice(8, -8), slice(8, -8))
    shifts = [(row / 4, column / 4) for row in range(-4, 5) for column in range(-4, 5)]
    assert min(shifts, key=lambda offset: (cubic - shift(target, offset))[inside].norm()) == (0, 0)
