"""What a network costs: parameters and MACs, counted without computing anything."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hftn_sr.networks.methods import build_network

__all__ = ["SIDE", "Cost", "method_cost", "network_cost"]

SIDE = 320  # voxels of a side of the slice that costs are given for, as in the paper


@dataclass(frozen=True)
class Cost:
    """Size and work of a network.

    Args:
        parameters: numbers that are trained.
        macs: multiply-accumulate operations of convolutions and matrix products for one slice.
    """

    parameters: int
    macs: int

    @property
    def gmac(self) -> float:
        """Multiplications in thousand millions."""
        return self.macs / 1e9


def network_cost(build: Callable[[], nn.Module], side: int = SIDE) -> Cost:
    """Cost of the network that `build` makes for one slice of side x side voxels on the high-resolution grid; no memory is taken."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = build().eval()  # as it is applied
        network(torch.empty(1, 3, side, side))
    return Cost(sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2)


def method_cost(method: str, scale: int, options: Mapping[str, Any] | None = None) -> Cost:
    """`network_cost` of `build_network`, remembered.

    Raises:
        ValueError: see `build_network`.
    """
    return _remembered(method, scale, json.dumps(dict(options or {}), sort_keys=True))


@functools.cache
def _remembered(method: str, scale: int, options: str) -> Cost:
    return network_cost(lambda: build_network(method, scale, json.loads(options)))
