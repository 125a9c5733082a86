"""Methods by name: each builds the network that its row of a table promises."""

import re

import pytest
import torch

from hftn_sr.networks import METHODS, NETWORKS, build_network, network_name

SMALL = {
    "hftn": {"channels": 8, "stages": 1, "blocks": 1, "embedding": 4},
    "gated_unet": {"channels": 8},
    "correspondence": {"channels": 8, "embedding": 8, "radius": 2},
    "zero_filling": {},
    "cubic": {},
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [2, 4])
def test_every_method_builds_its_network_with_its_options_and_those_asked_for(name, scale):
    method = METHODS[name]
    asked = SMALL.get(method.network, {"channels": 4})
    network = build_network(name, scale, asked)
    assert network_name(network) == method.network
    assert {key: network.options[key] for key in {**method.options, **asked}} == {**method.options, **asked}
    assert network.options["scale"] == scale
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network.eval()(image).shape, torch.Size([1, 1, 32, 32]))


def test_the_ablations_take_one_part_away_after_the_other():
    full, parts = METHODS["hftn"], [METHODS[f"ablation_{number}"] for number in (3, 2, 1)]
    assert [{**full.options, **part.options} for part in parts] == [
        {"scrfm": False}, {"scrfm": False, "transfer": "none"}, {"scrfm": False, "transfer": "none"},
    ]  # fmt: skip
    assert [part.decomposition for part in (full, *parts)] == ["band", "band", "band", "none"]


def test_misspelt_methods_and_options_are_refused_by_name():
    with pytest.raises(ValueError, match=r"expected a method of zero_filling, .*got 'bsae'"):
        build_network("bsae", 2)
    with pytest.raises(ValueError, match=r"HFTNSR for method hftn.*chanels"):
        build_network("hftn", 2, {"chanels": 4})


def test_a_network_outside_the_registry_has_no_name():
    class Other(NETWORKS["edsr"]):
        pass

    with pytest.raises(ValueError, match="got Other"):
        network_name(Other(2, channels=4))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 32), (1, 3, 32, 32, 2), (32, 32)], ids=str)
def test_every_network_refuses_an_input_that_is_no_batch_of_three_channels(shape):
    for method in METHODS.values():
        network = NETWORKS[method.network](2, **{**method.options, **SMALL.get(method.network, {"channels": 4})}).eval()
        with pytest.raises(ValueError, match=re.escape(f"expected (B, 3, H, W), found {list(shape)}")):
            network(torch.zeros(shape))


@pytest.mark.parametrize("name", ["base", "zero_filling"])
def test_a_scripted_network_refuses_it_too(name):
    scripted = torch.jit.script(build_network(name, 2, SMALL[METHODS[name].network]))
    with pytest.raises(torch.jit.Error, match=r"expected \(B, 3, H, W\), found \[3, 32, 32\]"):
        scripted(torch.zeros(3, 32, 32))
