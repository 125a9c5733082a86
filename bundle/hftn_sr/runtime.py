"""How a network is computed: in float32 as it stands, or its convolutions in bfloat16 where the processor has that."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hftn_sr.errors import check_choice
from hftn_sr.weights import MODELS_FOLDER

__all__ = ["ChosenRuntime", "InBfloat16", "Runtime", "choose_runtime", "has_bfloat16", "prepare_network"]

ChosenRuntime = Literal["eager", "bf16"]
Runtime = Literal["auto", "eager", "bf16"]


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself (AVX-512 BF16 or AMX); others imitate it and are slower than in float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_runtime(runtime: str, device: torch.device | str, model: str) -> ChosenRuntime:
    """`eager` or `bf16` for `auto`, `eager` or `bf16`.

    `auto` takes bfloat16 where that is known to be both faster and as good: on a CPU that has it, with the shipped weights, whose loss was
    measured (`bundle/docs/benchmark.md`). Weights of the user's own are computed in float32 unless asked otherwise.

    Args:
        runtime: what was asked for.
        device: where the network runs.
        model: name of shipped weights, or a file.

    Raises:
        UsageFault: another runtime.
    """
    check_choice("--runtime", runtime, get_args(Runtime))
    if runtime != "auto":
        return "bf16" if runtime == "bf16" else "eager"
    shipped = Path(model).parent == MODELS_FOLDER or not any(mark in model for mark in ("/", "\\", ".safetensors"))
    return "bf16" if shipped and torch.device(device).type == "cpu" and has_bfloat16() else "eager"


def prepare_network(network: nn.Module, runtime: ChosenRuntime) -> nn.Module:
    """`network` computed as `runtime` says: takes and gives what it did, float32 at both ends."""
    return InBfloat16(network) if runtime == "bf16" else network


class InBfloat16(nn.Module):
    """A network under autocast.

    Convolutions multiply in bfloat16; the search of HFTN-SR and the sum of the zero-filled image and the network's detail stay in float32,
    so that only the detail is rounded.

    Args:
        network: takes (B, 3, H, W), gives (B, 1, H, W).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """As the network's own, float32."""
        with torch.autocast(image.device.type, torch.bfloat16):
            pred: Tensor = self.network(image)
        return pred.float()
