"""What all networks here are made of."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["channels_last", "check_image", "conv3x3", "output_convolution", "pad_far_edges", "sum_of_taps", "tap_by_tap"]

Network = TypeVar("Network", bound=nn.Module)
is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]


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


def check_image(image: Tensor, images: int = 3) -> None:
    """Refuse an input of a network that is not (B, 3, H, W): one slice without its batch axis would broadcast to nonsense.

    Args:
        image: the input.
        images: number of its channels, for parts of a network that more than three enter.

    Raises:
        ValueError: another shape.
    """
    if is_tracing():  # a trace would hold sizes as tensors and no check
        return
    if image.ndim != 4 or image.shape[1] != images:
        raise ValueError(f"expected (B, {images}, H, W), found {list(image.shape)}")


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """The convolution of the paper: 3x3, size kept, zeros beyond the border."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


def output_convolution(channels: int, kernel: int = 3) -> nn.Conv2d:
    """Convolution of (B, C, H, W) to one image, zero at the start."""
    convolution = nn.Conv2d(channels, 1, kernel, padding=kernel // 2)
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return convolution


def tap_by_tap(first: nn.Conv2d, last: nn.Conv2d) -> tuple[Tensor, Tensor]:
    r"""Weight and bias of what each of the nine taps of `last` makes of the features of `first`, both 3x3.

    .. math:: last(first(x))_{ij} = b + \sum_{t} m_t(x)_{(i, j) + t}, \qquad m_t = \sum_c w_{last, c, t} \, first_c

    With no nonlinearity between them, the C channels of `first` need not exist on the high-resolution grid: nine maps do, one for each tap,
    and zeros beyond their borders stand for the zeros that `last` sees beyond those of the features (`sum_of_taps`). So the result is the
    same to rounding, borders included, for 9 / C of the MACs of `first`; below 9 channels that is more.

    Args:
        first: C_in to C channels.
        last: C channels to one.

    Returns:
        weight (9, C_in, 3, 3) and bias (9,), for a convolution with padding 1.
    """
    taps = last.weight[0].flatten(1)
    assert first.bias is not None
    with torch.autocast(taps.device.type, enabled=False):  # rounded once, by the convolution
        return torch.einsum("ct,cikl->tikl", taps, first.weight), torch.mv(taps.t(), first.bias)


def sum_of_taps(maps: Tensor, last: nn.Conv2d) -> Tensor:
    """The image (B, 1, H, W) that `last` gives, from the maps (B, 9, H, W) of its taps, see `tap_by_tap`."""
    assert last.bias is not None
    padded = functional.pad(maps.to(torch.promote_types(maps.dtype, torch.float32)), (1, 1, 1, 1))
    image = last.bias.view(1, 1, 1, 1)
    for tap, (row, column) in enumerate(product(range(3), range(3))):
        image = image + padded[:, tap : tap + 1, row : row - 2 or None, column : column - 2 or None]
    return image


def pad_far_edges(image: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with its last row and column repeated until `multiple` divides both sizes."""
    height, width = image.shape[-2:]
    return functional.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
