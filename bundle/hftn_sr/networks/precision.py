"""How a network is computed: in float32 or, where the processor has that, in bfloat16; once for each slice, or in several orientations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hftn_sr.errors import check_choice
from hftn_sr.kspace import replace_band
from hftn_sr.networks.correspondence import Correspondence, Gathered
from hftn_sr.networks.weights import MODELS_FOLDER

__all__ = [
    "ChosenPrecision",
    "InBfloat16",
    "WithTTA",
    "Precision",
    "WithMeasuredBand",
    "choose_tta",
    "choose_precision",
    "has_bfloat16",
    "prepare_network",
]

TTA_COUNTS = (1, 2, 4, 8)
FLIPS = ((), (-1,), (-2,), (-2, -1))  # axes
TURNED = ("base", "correspondence")  # shipped weights that are computed in four orientations unless asked otherwise
ChosenPrecision = Literal["float32", "bfloat16"]
Precision = Literal["auto", "float32", "bfloat16"]


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers itself (AVX-512 BF16 or AMX); others imitate it and are slower than in float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def choose_precision(precision: str, device: torch.device | str, model: str) -> ChosenPrecision:
    """`float32` or `bfloat16` for `auto`, `float32` or `bfloat16`.

    `auto` takes bfloat16 where that is known to be both faster and as good: on a CPU that has it, with the shipped weights, whose loss was
    measured (`bundle/docs/benchmark.md`). Weights of the user's own are computed in float32 unless asked otherwise.

    Args:
        precision: what was asked for.
        device: where the network runs.
        model: name of shipped weights, or a file.

    Raises:
        UsageFault: another precision.
    """
    check_choice("--precision", precision, get_args(Precision))
    if precision != "auto":
        return "bfloat16" if precision == "bfloat16" else "float32"
    return "bfloat16" if _shipped(model) and torch.device(device).type == "cpu" and has_bfloat16() else "float32"


def choose_tta(tta: int | None, model: str) -> int:
    """In how many orientations each slice is computed, 1, 2, 4 or 8.

    None takes 4 for the shipped `base` and `correspondence` and 1 for all others. Four gain 0.05 to 0.17 dB and cost four times the
    network's time, without that of a search (`bundle/docs/benchmark.md`); `small` is there to be fast.

    Args:
        tta: what was asked for.
        model: name of shipped weights, or a file.

    Raises:
        UsageFault: another number.
    """
    if tta is not None:
        check_choice("--tta", tta, TTA_COUNTS)
        return tta
    return 4 if _shipped(model) and re.sub(r"_(x\d|any)(\.safetensors)?$", "", Path(model).name) in TURNED else 1


def prepare_network(network: nn.Module, precision: ChosenPrecision, tta: int = 1) -> nn.Module:
    """`network` computed as `precision` and `tta` say: takes and gives what it did, float32 at both ends."""

    def computed(part: nn.Module) -> nn.Module:
        return InBfloat16(part) if precision == "bfloat16" else part

    if tta == 1:
        return computed(network)
    if isinstance(network, Correspondence) and network.searching:  # four searches gain 0.004 dB over one (docs/benchmark.md)
        return WithTTA(computed(network.synthesis), tta, computed(Gathered(network)))
    return WithTTA(computed(network), tta)


def _shipped(model: str) -> bool:
    return Path(model).resolve().parent == MODELS_FOLDER.resolve() or not any(mark in model for mark in ("/", "\\", ".safetensors"))


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


class WithTTA(nn.Module):
    """The mean of a network over mirror images and quarter turns of the slice, each undone afterwards.

    A network that was trained on all of them alike errs differently in each; the mean errs less. A mirrored slice keeps its sample 0, which
    the scanner measured, at index 0, so that the low-resolution samples stay where the network expects them; the slice counts as periodic,
    as its discrete Fourier transform has it. Mirror images come first: convolutions that turn with the slice give the same for its turns.
    Sides must be multiples of the scale.

    Args:
        network: takes (B, 3, H, W), gives (B, 1, H, W).
        tta: 2, the slice and its mirror image; 4, all mirror images; 8, these and their transposes, which is all turns.
        before: what is done once, before the mirroring; the network then takes what it gives.

    Raises:
        ValueError: another number.
    """

    def __init__(self, network: nn.Module, tta: int, before: nn.Module | None = None) -> None:
        super().__init__()
        if tta not in TTA_COUNTS[1:]:
            raise ValueError(f"expected 2, 4 or 8 orientations, got {tta}")
        self.network, self.before = network, before
        self.turns = [(flipped, transposed) for transposed in (False, True) for flipped in FLIPS][:tta]

    def forward(self, image: Tensor) -> Tensor:
        """As the network's own; one orientation after another, so that memory stays that of one."""
        total = torch.zeros_like(image[:, :1])
        image = image if self.before is None else self.before(image)
        for flipped, transposed in self.turns:
            turned = _flip(image, flipped)
            pred = self.network(turned.transpose(-1, -2).contiguous() if transposed else turned)
            total += _flip(pred.transpose(-1, -2) if transposed else pred, flipped)
        return total / len(self.turns)


class WithMeasuredBand(nn.Module):
    """A network whose result holds the k-space that was measured, which is what `super-resolve` saves.

    Args:
        network: takes (B, 3, H, W), gives (B, 1, H, W).
        scale: upscaling factor s, which divides H and W.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, image: Tensor) -> Tensor:
        """As the network's own."""
        return replace_band(self.network(image), image[:, :1, :: self.scale, :: self.scale], self.scale)


def _flip(image: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Index i to -i, modulo the size: sample 0 stays."""
    return image.flip(axes).roll([1] * len(axes), axes) if axes else image
