"""Gated fusion: what it is untrained, what reaches its parts, and that nothing moves."""

import pytest
import torch

from hftn_sr.kspace import shift, zero_fill
from hftn_sr.networks import build_network, channels_last
from hftn_sr.networks.gated_fusion import GatedDetail, GatedFusion

SMALL = {"channels": 8, "groups": 2, "blocks": 1, "fine_channels": 6}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(scale, **options):
    torch.manual_seed(3)
    network = GatedFusion(scale, **{**SMALL, **options}).eval()
    torch.nn.init.normal_(network.output.weight, std=0.1)
    return network


@pytest.mark.parametrize("scale", [2, 4])
def test_untrained_it_is_zero_filling(scale):
    image = noise(2, 3, 24, 32)
    assert torch.equal(GatedFusion(scale, **SMALL)(image), image[:, :1])


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(24, 32), (25, 31), (17, 18)])
def test_any_size_comes_back_and_what_the_scale_does_not_divide_is_padded_at_the_far_edges(scale, size):
    network, image = shaken(scale), noise(1, 3, *size)
    pred = network(image)
    assert pred.shape == (1, 1, *size)
    far = torch.nn.functional.pad(image, (0, -size[1] % scale, 0, -size[0] % scale), mode="replicate")
    torch.testing.assert_close(pred, network(far)[..., : size[0], : size[1]])


@torch.no_grad()
@pytest.mark.parametrize("scale", [2, 4])
def test_an_image_moved_by_whole_low_resolution_samples_gives_the_moved_result(scale):
    network, image = shaken(scale), noise(1, 3, 128, 128)
    moved = network(image.roll((scale, 2 * scale), (-2, -1)))
    inside = slice(60, 68)  # convolutions do not see the borders from here, channel attention does, a little
    back = moved.roll((-scale, -2 * scale), (-2, -1))
    torch.testing.assert_close(back[..., inside, inside], network(image)[..., inside, inside], atol=1e-3, rtol=0)


@torch.no_grad()
def test_target_and_both_bands_of_the_reference_matter():
    network, image = shaken(2), noise(1, 3, 32, 32)
    image[:, :1] = zero_fill(image[:, :1, ::2, ::2], 2)
    pred = network(image)
    for channel in range(3):
        changed = image.clone()
        changed[:, channel : channel + 1] = shift(changed[:, channel : channel + 1], (2.0, 0.0))
        assert not torch.allclose(network(changed) - changed[:, :1], pred - image[:, :1], atol=1e-4)


def test_closed_gates_let_no_reference_in():
    torch.manual_seed(0)
    block, features = GatedDetail(4), noise(1, 4, 8, 8)
    torch.nn.init.zeros_(block.gate.weight)
    torch.nn.init.zeros_(block.gate.bias)
    assert torch.equal(block(features, noise(1, 4, 8, 8, seed=1)), block(features, noise(1, 4, 8, 8, seed=2)))
    torch.nn.init.ones_(block.gate.bias)
    assert not torch.allclose(block(features, noise(1, 4, 8, 8, seed=1)), block(features, noise(1, 4, 8, 8, seed=2)))


@pytest.mark.parametrize("scale", [2, 4])
def test_every_parameter_learns_from_the_second_step_on(scale):
    torch.manual_seed(0)
    network = GatedFusion(scale, **SMALL)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    image = noise(2, 3, 32, 32)
    for _ in range(2):
        optimizer.zero_grad()
        (network(image) - noise(2, 1, 32, 32, seed=1)).abs().mean().backward()
        optimizer.step()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@torch.no_grad()
def test_a_trace_of_one_size_serves_all():
    network = shaken(4)
    traced = torch.jit.trace(network, noise(1, 3, 32, 32))
    for size in ((48, 40), (30, 21)):
        torch.testing.assert_close(traced(noise(1, 3, *size)), network(noise(1, 3, *size)))


@torch.no_grad()
@pytest.mark.parametrize("network", ["gated_fusion", "hftn", "edsr"])
def test_channels_last_holds_from_the_first_convolution_on(network):
    """A single change of format doubles the cost of all additions after it."""
    built = channels_last(build_network({"gated_fusion": "small", "hftn": "hftn", "edsr": "edsr"}[network], 2)).eval()
    formats = []
    for layer in built.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.out_channels > 1:
            layer.register_forward_hook(lambda layer, given, pred: formats.append(pred.is_contiguous(memory_format=torch.channels_last)))
    built(noise(1, 3, 16, 16))
    assert len(formats) > 20 and all(formats)


@pytest.mark.parametrize("options", [{"scale": 3}, {"scale": 2, "channels": 0}, {"scale": 2, "gates": -1}])
def test_other_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        GatedFusion(**options)
