"""How a training starts: its initial weights, and the memory of its process."""

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
    """The network that a training begins with; what cannot be used ends the process with one line.

    Args:
        network: untrained.
        initial_weights: a shipped model or a .safetensors file of the same network; None leaves `network` as it is.
        scale: 2 or 4.
    """
    if initial_weights is None:
        return network
    with end_in_one_line():
        return load_weights(network, load_model(initial_weights, scale, option="initial_weights").path)


def initial_record(initial_weights: str | None, scale: int) -> dict[str, Any] | None:
    """What the record of trained weights says of the initial ones, see `initial_network`: SHA-256 and their own record."""
    if initial_weights is None:
        return None
    model = load_model(initial_weights, scale, option="initial_weights")
    return {"sha256": model.sha256, **model.record}


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next tensors, instead of giving it back to the system and asking anew in every step.

    The system hands out new memory page by page, each filled with zeros, which takes a training on a CPU a tenth of its time
    (docs/design-log.md). The process holds on to its peak.

    Returns:
        Whether it was done: it is glibc's, that is Linux's; elsewhere nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    settings = ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 100 * 2**20))
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) for name, value in settings)
