"""Gated U-Net: what it is untrained, what reaches its parts, what a gate does, and that nothing moves."""

import pytest
import torch

from hftn_sr.kspace import shift, zero_fill
from hftn_sr.networks import build_network, channels_last
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.training.optimizers import Muon

SMALL = {"channels": 4, "levels": 3}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(scale, **options):
    torch.manual_seed(3)
    network = GatedUNet(scale, **{**SMALL, **options}).eval()
    torch.nn.init.normal_(network.output.weight, std=0.1)
    return network


@pytest.mark.parametrize("scale", [2, 4])
def test_untrained_it_is_zero_filling(scale):
    image = noise(2, 3, 24, 32)
    assert torch.equal(GatedUNet(scale, **SMALL)(image), image[:, :1])


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(24, 32), (25, 31), (5, 7)])
def test_any_size_comes_back_and_is_padded_at_the_far_edges(scale, size):
    network, image = shaken(scale), noise(1, 3, *size)
    pred = network(image)
    assert pred.shape == (1, 1, *size)
    far = torch.nn.functional.pad(image, (0, -size[1] % 4, 0, -size[0] % 4), mode="replicate")
    torch.testing.assert_close(pred, network(far)[..., : size[0], : size[1]])


@torch.no_grad()
def test_an_image_moved_by_whole_samples_of_the_lowest_level_gives_the_moved_result():
    network, image = shaken(4), noise(1, 3, 128, 128)
    moved = network(image.roll((4, 8), (-2, -1)))
    inside = slice(56, 72)  # what lies here sees no border
    torch.testing.assert_close(moved.roll((-4, -8), (-2, -1))[..., inside, inside], network(image)[..., inside, inside])


@torch.no_grad()
def test_target_and_both_bands_of_the_reference_matter():
    network, image = shaken(2), noise(1, 3, 32, 32)
    image[:, :1] = zero_fill(image[:, :1, ::2, ::2], 2)
    pred = network(image)
    for channel in range(3):
        changed = image.clone()
        changed[:, channel : channel + 1] = shift(changed[:, channel : channel + 1], (2.0, 0.0))
        assert not torch.allclose(network(changed) - changed[:, :1], pred - image[:, :1], atol=1e-4)


@torch.no_grad()
def test_closed_gates_leave_only_what_passed_the_lowest_level_and_half_open_ones_are_none():
    network, image = shaken(2), noise(1, 3, 16, 16)
    for gate in network.gates:
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, -1e4)  # sigma of that is 0
    lowest = []
    network.down[-1].register_forward_hook(lambda level, given, features: lowest.append(features) or torch.zeros_like(features))
    silent = network(image) - image[:, :1]
    assert lowest
    torch.testing.assert_close(silent, network(noise(1, 3, 16, 16, seed=1)) - noise(1, 3, 16, 16, seed=1)[:, :1])  # nothing of the image
    for gate in network.gates:
        torch.nn.init.zeros_(gate.bias)  # 2 sigma(0) = 1
    plain = GatedUNet(2, **SMALL, gated=False).eval()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if not name.startswith("gates")})
    network.down[-1]._forward_hooks.clear()
    torch.testing.assert_close(network(image), plain(image))


@pytest.mark.parametrize("gated", [True, False])
def test_every_parameter_learns_from_the_second_step_on(gated):
    torch.manual_seed(0)
    network = GatedUNet(2, channels=16, levels=3, gated=gated)  # with few channels one ReLU may be off everywhere
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    image = noise(2, 3, 32, 32)
    for _ in range(2):
        optimizer.zero_grad()
        (network(image) - noise(2, 1, 32, 32, seed=1)).abs().mean().backward()
        optimizer.step()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@torch.no_grad()
@pytest.mark.parametrize("gated", [True, False])
def test_a_trace_of_one_size_and_a_script_serve_all(gated):
    network = shaken(4, gated=gated)
    for exported in (torch.jit.trace(network, noise(1, 3, 32, 32)), torch.jit.script(network)):
        for size in ((48, 40), (30, 21)):
            torch.testing.assert_close(exported(noise(1, 3, *size)), network(noise(1, 3, *size)))


@torch.no_grad()
@pytest.mark.parametrize("method", ["small", "hftn_light", "edsr"])
def test_channels_last_holds_from_the_first_convolution_on(method):
    """A single change of format doubles the cost of all additions after it."""
    network = channels_last(build_network(method, 2)).eval()
    formats = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.out_channels > 1:
            layer.register_forward_hook(lambda layer, given, pred: formats.append(pred.is_contiguous(memory_format=torch.channels_last)))
    network(noise(1, 3, 16, 16))
    assert len(formats) >= 2 * 7 + 2 * 3 and all(formats)


@pytest.mark.parametrize("optimizer", [Muon, lambda network: torch.optim.Adam(network.parameters(), 1e-3)])
def test_a_turned_slice_gives_the_turned_result_also_after_training(optimizer):
    torch.manual_seed(0)
    network = GatedUNet(2, channels=8, levels=3)
    torch.nn.init.constant_(network.output.weight, 0.5)
    steps = optimizer(network)
    image, truth = noise(2, 3, 32, 32), noise(2, 1, 32, 32, seed=1)
    for _ in range(5):
        steps.zero_grad()
        (network(image) - truth).abs().mean().backward()
        steps.step()
    with torch.no_grad():
        detail = network(image) - image[:, :1]
        assert detail.std() > 0.01
        for turns in (1, 2, 3):
            turned = torch.rot90(image, turns, (-2, -1))
            torch.testing.assert_close(
                network(turned) - turned[:, :1], torch.rot90(detail, turns, (-2, -1)), atol=1e-4 * float(detail.abs().max()), rtol=0
            )


def test_without_it_a_turned_slice_gives_another_result():
    network, image = shaken(2, equivariant=False), noise(1, 3, 32, 32)
    assert not torch.allclose(network(torch.rot90(image, 1, (-2, -1))), torch.rot90(network(image), 1, (-2, -1)), atol=1e-2)


def test_features_start_as_large_as_those_of_free_convolutions():
    sizes = []
    for equivariant in (True, False):
        torch.manual_seed(0)
        network, found = GatedUNet(2, channels=32, levels=2, equivariant=equivariant), []
        network.down[1].register_forward_hook(lambda level, given, features, found=found: found.append(features.std().item()))
        network(noise(1, 3, 32, 32))
        sizes += found
    assert sizes[0] == pytest.approx(sizes[1], rel=0.2)


@pytest.mark.parametrize("options", [{"scale": 3}, {"scale": 2, "channels": 0}, {"scale": 2, "levels": 1}, {"scale": 2, "channels": 6}])
def test_other_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        GatedUNet(**options)
