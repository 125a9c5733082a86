"""The start of a training: initial weights, and memory of the process."""

from __future__ import annotations

import ctypes
import platform
from typing import Any, TypeVar

from torch import nn

from hftn_sr.errors import end_in_one_line
from hftn_sr.networks.weights import load_model, load_weights

__all__ = ["initial_network", "keep_freed_memory", "initial_record"]

Network = TypeVar("Network", bound=nn.Module)


def initial_network(network: Network, initial_weights: str | None, scale: int) -> Network:
    """The network at the start of a training. Weights that cannot be used end the process with one line.

    Args:
        network: untrained network.
        initial_weights: name of shipped weights, or a .safetensors file of the same network; None for the random weights of `network`.
        scale: 2 or 4.
    """
    if initial_weights is None:
        return network
    with end_in_one_line():
        return load_weights(network, load_model(initial_weights, scale, option="initial_weights").path)


def initial_record(initial_weights: str | None, scale: int) -> dict[str, Any] | None:
    """SHA-256 and record of the initial weights, for the record of the trained ones; None for random weights."""
    if initial_weights is None:
        return None
    model = load_model(initial_weights, scale, option="initial_weights")
    return {"sha256": model.sha256, **model.record}


def keep_freed_memory() -> bool:
    """Keep freed memory in the process for its next tensors, instead of returning it to the system in every step.

    The system hands out new memory page by page, each filled with zeros. On a CPU that takes a tenth of a training's time
    (docs/design-log.md). The memory of the process stays at its peak.

    Returns:
        True with glibc (Linux); elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 100 * 2**20))
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in settings)
