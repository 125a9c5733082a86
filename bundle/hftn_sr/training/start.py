"""The start of a training: initial weights, and memory of the process."""

from __future__ import annotations

import ctypes
import platform
from typing import Any, TypeVar

from torch import nn

from hftn_sr.errors import UsageFault, end_in_one_line
from hftn_sr.networks.correspondence import Correspondence
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.weights import load_model, load_weights

__all__ = ["begun_with", "initial_network", "initial_record", "keep_freed_memory"]

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


def begun_with(network: Correspondence, unet: str | None, scale: int) -> Correspondence:
    """A network that searches, with the U-Net of trained weights, see `Correspondence.begin_with`. Weights that cannot be used end the
    process with one line.

    Args:
        network: untrained network.
        unet: name of shipped weights or a .safetensors file, of a `GatedUNet` with the same channels and levels; None for none.
        scale: 2 or 4.
    """
    if unet is None:
        return network
    with end_in_one_line():
        model = load_model(unet, scale, option="initial_unet")
        unet_options = getattr(model.network, "options", {})
        sizes = {name: network.options[name] for name in ("channels", "levels", "equivariant")}
        fits = isinstance(model.network, GatedUNet) and sizes == {name: unet_options.get(name) for name in sizes}
        if not (fits and network.searching and unet_options.get("gated")):
            raise UsageFault("initial_unet", f"{unet} holds no gated U-Net of {sizes}", "--method correspondence_small for small")
        assert isinstance(model.network, GatedUNet)
        network.begin_with(model.network)
    return network


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
