"""Does every network of its published size run, and does all of it learn?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from comparison.cost import SIDE, Cost, method_cost
from hftn_sr.networks import build_network

__all__ = ["Check", "check_network"]

STEPS = 3  # behind a layer that starts at zero there is no gradient in the first step, behind two of them none in the second
SMALL = 64  # voxels of a side in those steps


@dataclass(frozen=True)
class Check:
    """What one forward and backward pass showed.

    Args:
        cost: of the network.
        without_gradient: parameters whose gradient is missing, zero throughout or not finite.
        seconds: of that pass.
    """

    cost: Cost
    without_gradient: list[str]
    seconds: float


def check_network(method: str, scale: int, options: Mapping[str, Any] | None = None, side: int = SIDE) -> Check:
    """One forward and backward pass of a slice of side x side voxels, after a few steps of Adam on smaller ones.

    Args:
        method: key of METHODS, with weights.
        scale: upscaling factor s.
        options: what differs from the method's own.
        side: of the slice, in voxels.

    Raises:
        ValueError: see `build_network`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(method, scale, options).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(STEPS):
            optimizer.zero_grad()
            _loss(network, torch.randn(1, 3, SMALL, SMALL)).backward()
            optimizer.step()
        optimizer.zero_grad()
        image = torch.randn(1, 3, side, side)
        started = time.monotonic()
        _loss(network, image).backward()
        seconds = time.monotonic() - started
    without = [name for name, parameter in network.named_parameters() if not _learns(parameter)]
    return Check(method_cost(method, scale, options), without, seconds)


def _loss(network: nn.Module, image: Tensor) -> Tensor:
    return functional.l1_loss(network(image), image[:, :1] + image[:, 2:])


def _learns(parameter: nn.Parameter) -> bool:
    gradient = parameter.grad
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())
