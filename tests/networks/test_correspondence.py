"""Correspondence: untrained zero-filling, any size, gradients, equivariance, what it costs without the search, and exports."""

import importlib.util
import io

import pytest
import torch
from torch.nn import functional

from hftn_sr.networks import build_network, channels_last
from hftn_sr.networks.correspondence import Correspondence
from hftn_sr.networks.export import exported_bytes, largest_voxels
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.p4 import tie

SMALL = {"channels": 8, "levels": 3, "embedding": 8, "radius": 2}
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="needs the extra [export]"
)


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.avg_pool2d(torch.rand(shape[0], 3, *shape[1:], generator=generator), 5, 1, 2, count_include_pad=False)


def shaken(scale=4, **options):
    """A network in which nothing that starts at zero hides what the rest does."""
    torch.manual_seed(2)
    network = Correspondence(scale, **{**SMALL, **options}).eval()
    ends = [(network.synthesis.output, False)]
    if network.searching:
        ends += [(network.attend.remainder, True), (network.attend.trust, False)]
    for layer, leaving in ends:
        torch.nn.init.normal_(layer.weight, std=1.0)
        tie(layer, leaving=leaving)
    return network


@pytest.mark.parametrize("searching", [True, False])
def test_untrained_it_is_zero_filling(searching):
    image = images(2, 24, 32)
    assert torch.equal(Correspondence(4, **SMALL, searching=searching)(image), image[:, :1])


@torch.no_grad()
@pytest.mark.parametrize("size", [(24, 32), (25, 31), (6, 9)])
def test_any_size_comes_back_and_is_padded_at_the_far_edges(size):
    network, image = shaken(), images(1, *size)
    far = functional.pad(image, (0, -size[1] % 4, 0, -size[0] % 4), mode="replicate")
    assert network(image).shape == (1, 1, *size)
    torch.testing.assert_close(network(image), network(far)[..., : size[0], : size[1]])


def test_every_parameter_learns_from_the_second_step_on():
    torch.manual_seed(0)
    network = Correspondence(2, **{**SMALL, "channels": 16})
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    image, truth = images(2, 32, 32), images(2, 32, 32, seed=1)[:, :1]
    for _ in range(3):
        optimizer.zero_grad()
        (network(image) - truth).abs().mean().backward()
        optimizer.step()
    del network.attend.remainder.bias  # four biases that are tied alike cancel in a vector, but for rounding
    assert [name for name, parameter in network.named_parameters() if not (parameter.grad.any() and parameter.grad.isfinite().all())] == []


@torch.no_grad()
def test_a_turned_slice_gives_the_turned_result():
    network, image = shaken(), images(1, 32, 40)
    detail = network(image) - image[:, :1]
    assert detail.std() > 1e-3
    turned = torch.rot90(image, 1, (-2, -1))
    expected = torch.rot90(detail, 1, (-2, -1))
    torch.testing.assert_close(network(turned) - turned[:, :1], expected, atol=1e-4 * float(detail.abs().max()), rtol=0)


@torch.no_grad()
def test_without_the_search_it_is_the_gated_unet():
    twin, unet = Correspondence(4, **SMALL, searching=False).eval(), GatedUNet(4, channels=8, levels=3).eval()
    torch.nn.init.normal_(unet.output.weight, std=0.1)
    twin.synthesis.load_state_dict(unet.state_dict())
    assert sum(each.numel() for each in twin.parameters()) == sum(each.numel() for each in unet.parameters())
    torch.testing.assert_close(twin(images(1, 24, 24)), unet(images(1, 24, 24)))


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_begun_with_a_unet_it_gives_its_result_where_nothing_is_moved(share):
    network, unet = shaken(), GatedUNet(4, channels=8, levels=3).eval()
    torch.nn.init.normal_(unet.output.weight, std=1.0)
    network.begin_with(unet, share)
    image = images(1, 24, 24)
    found = network.search(image)
    torch.testing.assert_close(
        network.fuse(image, found._replace(displacement=torch.zeros_like(found.displacement))), unet(image), atol=1e-4, rtol=0
    )
    assert torch.allclose(network(image), unet(image), atol=1e-4) == (share == 0)


def test_the_search_adds_a_tenth_of_the_parameters_of_its_smaller_twin():
    whole, twin = (sum(each.numel() for each in build_network(name, 4).parameters()) for name in ("correspondence_small", "small"))
    assert 1 < whole / twin < 1.12


@torch.no_grad()
def test_the_search_and_the_bands_it_moves_do_not_see_the_high_band_but_the_result_does():
    network, image = shaken(), images(1, 32, 32)
    other = image.clone()
    other[:, 2] = images(1, 32, 32, seed=5)[:, 0]
    assert all(torch.equal(one, two) for one, two in zip(network.search(image), network.search(other), strict=True))
    assert not torch.allclose(network(image), network(other), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("reference", ["zero", "one intensity"])
def test_a_reference_that_shows_nothing_gives_finite_voxels(reference):
    network, image = shaken(), images(1, 32, 32)
    image[:, 1:] = 0.0 if reference == "zero" else 0.4
    assert network(image).isfinite().all()


@torch.inference_mode()
def test_it_is_deterministic_and_computes_alike_channels_last():
    network, image = shaken(), images(2, 24, 32)
    first = network(image)
    assert torch.equal(first, network(image))
    torch.testing.assert_close(channels_last(network)(image), first, atol=1e-5, rtol=0)


def test_a_search_learns_the_displacement_of_a_shifted_reference():
    """Of toy pairs of reversed contrast, in a few steps of supervision."""
    from hftn_sr.training.correspondence import search_losses

    torch.manual_seed(0)
    network = Correspondence(2, **{**SMALL, "radius": 2, "embedding": 16})
    optimizer = torch.optim.Adam([*network.embed.parameters(), *network.attend.parameters()], 4e-3)

    def case(seed):
        generator = torch.Generator().manual_seed(seed)
        target = functional.interpolate(torch.rand(4, 1, 12, 12, generator=generator), scale_factor=4.0, mode="bicubic")
        offsets = torch.randint(-3, 4, (4, 2), generator=generator)
        low = torch.stack([(1 - each).roll(tuple(offset.tolist()), (-2, -1)) for each, offset in zip(target, offsets, strict=True)])
        return torch.cat([target, low, low], 1), offsets.float().view(4, 2, 1, 1).expand(-1, -1, 48, 48)

    def error(found, displacement):
        truth = functional.avg_pool2d(displacement, 2) / 2
        return float(2 * (found.displacement - truth).norm(dim=1)[..., 3:-3, 3:-3].mean())

    for step in range(60):
        image, displacement = case(step)
        optimizer.zero_grad()
        losses = search_losses(network.search(image), displacement, torch.ones(4, 1, 48, 48))
        sum(losses.values()).backward()
        optimizer.step()
    with torch.no_grad():
        image, displacement = case(1000)
        assert error(network.search(image), displacement) < 0.35 * float(displacement[..., 0, 0].norm(dim=1).mean())


@torch.no_grad()
def test_a_torchscript_file_of_it_serves_all_sizes():
    network = shaken(levels=2)
    assert largest_voxels(network) is None
    exported = torch.jit.load(io.BytesIO(exported_bytes(network, "torchscript", {})))
    for size in ((96, 80), (61, 75)):
        torch.testing.assert_close(exported(images(1, *size)), network(images(1, *size)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_can_be_scripted_as_commands_of_monai_do():
    network = shaken()
    scripted = torch.jit.script(network)
    for size in ((24, 32), (25, 31)):
        image = images(1, *size)
        torch.testing.assert_close(scripted(image), network(image), atol=1e-6, rtol=0)


@needs_onnx
@torch.no_grad()
def test_an_onnx_file_of_it_serves_all_sizes():
    import onnxruntime

    network = shaken(levels=2, radius=1, embedding=4)
    session = onnxruntime.InferenceSession(exported_bytes(network, "onnx", {}))
    for size in ((96, 80), (61, 75)):
        image = images(1, *size)
        (pred,) = session.run(None, {"image": image.numpy()})
        torch.testing.assert_close(torch.from_numpy(pred), network(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{"scale": 3}, {"scale": 2, "embedding": 6}, {"scale": 2, "radius": 0}, {"scale": 2, "channels": 6}, {"scale": 2, "levels": 1}],
)
def test_other_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        Correspondence(**options)
