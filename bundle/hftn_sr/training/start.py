"""The start of a training: initial weights, and memory of the process."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from hftn_sr.errors import UsageFault, check_choice, end_in_one_line
from hftn_sr.networks import METHODS, NETWORKS
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.weights import Model, described_weights, load_model, load_weights, shipped_models

__all__ = ["initial_network", "initial_record", "keep_freed_memory", "network_scale"]

Network = TypeVar("Network", bound=nn.Module)


def network_scale(acquisition: str, scale: int, method: str, protocol: str = "corrected", decomposition: str = "band") -> int | None:
    """The scale of a network in training; None if it learns any acquisition. A setting that does not fit ends the process with one line.

    Args:
        acquisition: `paper` for k-space lost by `scale` alone, or `any`.
        scale: 2 or 4; of no consequence for `any`.
        method: key of METHODS.
        protocol: key of PROTOCOLS.
        decomposition: see `kspace.decompose`.
    """
    with end_in_one_line():
        check_choice("--acquisition", acquisition, ("paper", "any"))
        if acquisition == "paper":
            return scale
        if method in METHODS and NETWORKS[METHODS[method].network] is not GatedUNet:
            raise UsageFault(
                "--acquisition", f"the method {method} knows x2 and x4 alone", "--method base or small, or --acquisition paper"
            )
        for option, value, needed in (("--protocol", protocol, "corrected"), ("--decomposition", decomposition, "band")):
            if value != needed:
                raise UsageFault(option, f"{value} knows x2 and x4 alone", f"{option} {needed}, or --acquisition paper")
    return None


def initial_network(network: Network, initial_weights: str | None, scale: int | None) -> Network:
    """The network at the start of a training. Weights that cannot be used end the process with one line.

    Args:
        network: untrained network.
        initial_weights: name of shipped weights, or a .safetensors file of the same network; None for the random weights of `network`.
        scale: 2 or 4; None for any acquisition, which weights of a scale can begin, too: the layers are the same.
    """
    if initial_weights is None:
        return network
    with end_in_one_line():
        return load_weights(network, _initial_model(initial_weights, scale).path)


def initial_record(initial_weights: str | None, scale: int | None) -> dict[str, Any] | None:
    """SHA-256 and record of the initial weights, for the record of the trained ones; None for random weights.

    A training for any acquisition also records their scale.
    """
    if initial_weights is None:
        return None
    model = _initial_model(initial_weights, scale)
    return {"sha256": model.sha256, **({"scale": model.scale} if scale is None else {}), **model.record}


def _initial_model(initial_weights: str, scale: int | None) -> Model:
    """For any acquisition: weights for any, or a file of any scale; for a name without weights for any, those of scale 4."""
    if scale is None and initial_weights.endswith(".safetensors"):
        scale = described_weights(Path(initial_weights))[0].options["scale"]  # type: ignore[assignment,index]
    elif scale is None and f"{initial_weights}_any.safetensors" not in shipped_models():
        scale = 4
    return load_model(initial_weights, scale, option="initial_weights")


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
