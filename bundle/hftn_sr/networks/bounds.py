"""Networks from options that a file names: absurd ones are refused before they cost time or memory."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

__all__ = ["bounded_network"]

LARGEST_OPTION = 1024  # or the largest side of a tensor
SPARE_PARAMETERS, SPARE_WEIGHTS = 2000, 10_000_000  # beyond what the file holds, so that a wrong file still gets its own message


def bounded_network(kind: type[nn.Module], options: Mapping[str, Any], shapes: Collection[tuple[int, ...]]) -> nn.Module:
    """A network for tensors of these `shapes`. It is given up while it is built if it grows far larger than they are.

    Args:
        kind: class of the network.
        options: arguments of its constructor, numbers and words.
        shapes: of the tensors that are to fill it.

    Raises:
        ValueError: an option, or the whole network, is far beyond the tensors.
        TypeError: an option of another kind.
    """
    limit = max(LARGEST_OPTION, *(side for shape in shapes for side in shape), 0)
    for name, value in options.items():
        if not isinstance(value, bool | int | float | str | None):
            raise TypeError(f"{name} is a {type(value).__name__}")
        if isinstance(value, int | float) and not 0 <= value <= limit:
            raise ValueError(f"{name} is not between 0 and {limit}")
    with _AtMost(2 * len(shapes) + SPARE_PARAMETERS, 2 * sum(torch.Size(shape).numel() for shape in shapes) + SPARE_WEIGHTS):
        return kind(**options)


class _AtMost:
    """Within it, this thread makes no more parameters and no more weights. A parameter is counted before its memory is touched."""

    def __init__(self, parameters: int, weights: int) -> None:
        self.parameters, self.weights, self.thread = parameters, weights, threading.get_ident()

    def __enter__(self) -> None:
        self.handle = register_module_parameter_registration_hook(self._count)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _count(self, module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != self.thread:
            return
        self.parameters, self.weights = self.parameters - 1, self.weights - parameter.numel()
        if min(self.parameters, self.weights) < 0:
            raise ValueError("it is far larger than the tensors in the file")
