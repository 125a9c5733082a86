"""Training of `UncertaintyHead` on the results of networks that stay as they are."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hftn_sr.acquisition import Acquisition
from hftn_sr.errors import SCALES
from hftn_sr.networks.uncertainty import head_input
from hftn_sr.networks.weights import load_model, stand_in
from hftn_sr.training.transforms import RandAcquirePaird

__all__ = ["LaplaceLoss", "RandResultErrord", "restored"]


class LaplaceLoss(nn.Module):
    r"""Negative log-likelihood of errors under a Laplace distribution, less the constant :math:`\log 2`.

    .. math:: \log b + |x - \hat x| / b
    """

    def forward(self, log_scale: Tensor, error: Tensor) -> Tensor:
        """Mean over `log_scale` and absolute errors of the same shape."""
        loss: Tensor = (log_scale + error * (-log_scale).exp()).mean()
        return loss


class RandResultErrord(RandAcquirePaird):
    """A target of a drawn acquisition, the result of a trained network for it, and how far that is from the truth.

    Slices (1, H, W) of `label` and `reference` become `image` (8, H, W), see `head_input`, and `label` (1, H, W), the absolute error. The
    network sees the whole slice, and what was measured is put back, as in `super-resolve`.

    Args:
        model: `base`, `small` or a .safetensors file; for each acquisition the weights that `super-resolve` would take.
        options: of `RandAcquirePaird`.
    """

    def __init__(self, model: str = "small", **options: Any) -> None:
        super().__init__(**options)
        self.model = model
        self._networks: dict[int | None, nn.Module] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Raise Fault where there are no weights for the acquisition drawn."""
        made = self.draw(torch.as_tensor(data["label"]).shape[-2:])
        acquired = made(data)
        image, measured = acquired["image"], acquired["measured"][0]
        result = restored(self._network(made.acquisition, image.shape[-2:]), image, measured, made.acquisition)
        kept = {key: value for key, value in acquired.items() if key != "measured"}
        return {**kept, "image": head_input(image, result, made.acquisition), "label": (acquired["label"] - result).abs()}

    def _network(self, acquisition: Acquisition, shape: Any) -> nn.Module:
        try:
            factor: int | None = acquisition.factor(shape)
        except ValueError:
            factor = None
        scale = factor if factor in SCALES else None
        if scale not in self._networks:
            self._networks[scale] = load_model(stand_in(self.model, scale), scale).network
        return self._networks[scale]


def restored(network: nn.Module, image: Tensor, measured: Tensor, acquisition: Acquisition) -> Tensor:
    """(H, W), the result of a network for a whole slice, with what was measured put back.

    Args:
        network: takes (B, 3, H, W), gives (B, 1, H, W).
        image: (3, H, W), its input.
        measured: (h, w), the target.
        acquisition: what the target kept.
    """
    with torch.no_grad():
        pred = network(image[None])[0, 0]
        return acquisition.project(pred.double(), measured.double()).float()
