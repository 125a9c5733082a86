"""At which precision a network is applied."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

__all__ = ["MixedPrecisionInferer"]


class MixedPrecisionInferer(Inferer):
    """Another inferer under autocast on whatever device the input is on; MONAI's own `amp` option knows only CUDA.

    Args:
        inferer: how the network is applied, for example SimpleInferer or SliceInferer.
        enabled: False for plain float32.
        dtype: bfloat16 needs no loss scaling.
    """

    def __init__(self, inferer: Inferer, enabled: bool = True, dtype: torch.dtype = torch.bfloat16) -> None:
        self.inferer, self.enabled, self.dtype = inferer, enabled, dtype

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Network output, float32."""
        with torch.autocast(inputs.device.type, self.dtype, enabled=self.enabled):
            output = self.inferer(inputs, network, *args, **kwargs)
        return output.float()
