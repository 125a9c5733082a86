"""The precision of a network in training."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

__all__ = ["MixedPrecisionInferer"]


class MixedPrecisionInferer(Inferer):
    """Another inferer under autocast, on the device of the input; MONAI's own `amp` option knows only CUDA.

    Args:
        inferer: SimpleInferer, SliceInferer, ...
        enabled: False for plain float32.
        dtype: precision under autocast; bfloat16 needs no loss scaling.
    """

    def __init__(self, inferer: Inferer, enabled: bool = True, dtype: torch.dtype = torch.bfloat16) -> None:
        self.inferer, self.enabled, self.dtype = inferer, enabled, dtype

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Output of the network, float32."""
        with torch.autocast(inputs.device.type, self.dtype, enabled=self.enabled):
            output = self.inferer(inputs, network, *args, **kwargs)
        return output.float()
