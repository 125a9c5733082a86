"""What all networks here are made of."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["channels_last", "conv3x3", "output_convolution", "pad_far_edges"]


Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network) -> Network:
    """`network` with the weights of its 2D convolutions channels last in memory, a fifth faster on a CPU.

    `network.to(memory_format=torch.channels_last)` does the same, but refuses a network that has a 3D convolution, too. `contiguous` would
    not do: a weight of one input channel counts as contiguous in both formats, keeps the strides of the other, and the convolution that it
    belongs to then starts a network off in the wrong one.
    """
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return network


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """The convolution of the paper: 3x3, size kept, zeros beyond the border."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


def output_convolution(channels: int, kernel: int = 3) -> nn.Conv2d:
    """Convolution of (B, C, H, W) to one image, zero at the start."""
    convolution = nn.Conv2d(channels, 1, kernel, padding=kernel // 2)
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def pad_far_edges(image: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with its last row and column repeated until `multiple` divides both sizes."""
    height, width = image.shape[-2:]
    return functional.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
