"""Cost of networks, against counting by hand, and the channels that follow from it."""

import pytest
import torch
from torch import nn

from comparison.cost import Cost, method_cost, network_cost
from comparison.sizes import NARROWEST, channels_step, fitted_options
from hftn_sr.networks import build_network


def test_a_convolution_costs_its_kernel_for_every_voxel():
    assert network_cost(lambda: nn.Conv2d(3, 5, 3, padding=1), side=10) == Cost(5 * (3 * 9 + 1), 100 * 5 * 3 * 9)


def test_the_cost_of_a_method_is_that_of_the_network_it_builds():
    network = build_network("edsr", 4, {"channels": 8})
    cost = method_cost("edsr", 4, {"channels": 8})
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())
    low = 80 * 80
    deep = low * 9 * (8 + 33 * 64)
    up = low * 9 * 8 * 32 + 4 * low * 9 * 8 * 32
    assert cost.macs == deep + up + 16 * low * 9 * 8


def test_counting_draws_nothing_from_the_random_state():
    before = torch.get_rng_state()
    network_cost(lambda: nn.Conv2d(3, 1, 3))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("method", "scale"), [("edsr", 2), ("msdt", 4), ("sanet", 4), ("base", 2)])
def test_matched_channels_are_the_most_within_the_bound(method, scale):
    bound = 12.0
    options = fitted_options(method, scale, bound)
    wider = {**options, "channels": options["channels"] + channels_step(method)}
    assert options["channels"] % channels_step(method) == 0
    assert method_cost(method, scale, options).gmac <= bound < method_cost(method, scale, wider).gmac


def test_no_network_gets_fewer_channels_than_the_narrowest():
    assert fitted_options("neu", 2, 0.01) == {"channels": NARROWEST}


def test_interpolation_has_no_channels_to_fit():
    assert fitted_options("cubic", 2, 1.0) == {}
