"""Training of `UncertaintyHead` on the results of networks that stay as they are."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hftn_sr.acquisition import Acquisition
from hftn_sr.errors import SCALES, Fault
from hftn_sr.networks.uncertainty import head_input
from hftn_sr.networks.weights import load_model, stand_in
from hftn_sr.training.dataset import CachedCases
from hftn_sr.training.transforms import RandAcquirePaird
from hftn_sr.volumes.files import write_bytes

__all__ = ["DrawnResults", "LaplaceLoss", "RandResultErrord", "restored"]


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


class DrawnResults(Dataset[Any]):
    """Results of networks on drawn slices, made once and kept in a file, since they take far longer than the head. An item is crops of one.

    Args:
        data: cases with `weight`, by which their numbers of slices go.
        transform: from a case to `image` (8, H, W) and `label` (1, H, W) of a drawn slice, see `RandResultErrord`.
        crops: random transform from such a slice to crops.
        count: number of slices.
        file: where they are kept; made where it is missing.
        seed: of the draws.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Any,
        crops: Callable[[Mapping[Hashable, Any]], Any],
        count: int,
        file: Path | str,
        seed: int = 0,
    ) -> None:
        self.data, self.transform, self.crops, self.count, self.file, self.seed = data, transform, crops, count, Path(file), seed
        self._items: list[dict[Hashable, Any]] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.draw()
        item = self._items[index]
        return self.crops({**item, "image": item["image"].float(), "label": item["label"].float()})

    def draw(self) -> None:
        """Make the results, unless they are there.

        Raises:
            Fault: the file holds something else, or results of another number of slices.
        """
        if self._items:
            return
        if not self.file.is_file():
            self._make()
        try:
            self._items = torch.load(self.file, weights_only=True)
            if len(self._items) != self.count or {"image", "label"} - self._items[0].keys():
                raise ValueError("other results")
        except Exception as error:
            raise Fault(
                self.file, f"does not hold {self.count} results ({type(error).__name__})", "move it away, or name another"
            ) from error

    def _make(self) -> None:
        weights = np.array([case["weight"] for case in self.data], float)
        counts = np.bincount(np.random.default_rng(self.seed).choice(len(weights), self.count, p=weights / weights.sum()))
        made: list[dict[str, Any]] = []
        for place, count in enumerate(counts):
            if count:
                one = CachedCases([self.data[place]], self.transform, copy_cache=False)
                self.transform.set_random_state(seed=self.seed * 1_000_003 + place)
                for item in (one[0] for _ in range(count)):
                    made.append({"image": item["image"].half(), "label": item["label"].half(), "case": item["case"]})
        self.file.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(made, buffer)
        write_bytes(self.file, buffer.getvalue())
