"""Training of `UncertaintyHead` on the results of networks that stay as they are."""

from __future__ import annotations

import io
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from hftn_sr.acquisition import Acquisition
from hftn_sr.errors import SCALES, Fault
from hftn_sr.networks.uncertainty import UncertaintyHead, head_input
from hftn_sr.networks.weights import load_model, stand_in
from hftn_sr.training.dataset import CachedCases
from hftn_sr.training.transforms import RandAcquirePaird
from hftn_sr.volumes.files import write_bytes

__all__ = ["DrawnResults", "LaplaceLoss", "RandResultErrord", "fit_head", "restored"]


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


class DrawnResults:
    """Results of networks on drawn slices, made once and kept in a file: they take far longer than a head.

    Args:
        data: cases with `weight`, by which their numbers of slices go.
        transform: from a case to `image` (8, H, W) and `label` (1, H, W) of a drawn slice, see `RandResultErrord`.
        count: number of slices.
        file: where they are kept; made where it is missing.
        seed: of the draws.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Any, count: int, file: Path | str, seed: int = 0) -> None:
        self.data, self.transform, self.count, self.file, self.seed = data, transform, count, Path(file), seed

    def draw(self) -> list[dict[str, Any]]:
        """The results, in float16, each with `image`, `label` and `case`.

        Raises:
            Fault: the file holds something else, or results of another number of slices.
        """
        if not self.file.is_file():
            self._make()
        try:
            items: list[dict[str, Any]] = torch.load(self.file, weights_only=True)
            if len(items) != self.count or {"image", "label", "case"} - items[0].keys():
                raise ValueError("other results")
        except Exception as error:
            raise Fault(
                self.file, f"does not hold {self.count} results ({type(error).__name__})", "move it away, or name another"
            ) from error
        return items

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


def fit_head(results: Sequence[Mapping[str, Any]], file: Path | str, record: Mapping[str, Any], voxels: int = 4000) -> UncertaintyHead:
    """Fit a head to results, and write it. Its log-scale is linear, so that the likelihood has one optimum, which L-BFGS finds in seconds.

    Args:
        results: with `image` (8, H, W), `label` (1, H, W) and `case`.
        file: .safetensors file to write.
        record: additions to what its header says.
        voxels: drawn of each result.
    """
    head, generator = UncertaintyHead(), torch.Generator().manual_seed(0)
    features, errors = [], []
    for result in results:
        with torch.no_grad():
            every = head.features(result["image"][None].float())[0].flatten(1)
        drawn = torch.randperm(every.shape[1], generator=generator)[:voxels]
        features.append(every[:, drawn].T)
        errors.append(result["label"].float().flatten()[drawn])
    inputs, error = torch.cat(features), torch.cat(errors)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")
    loss_of = LaplaceLoss()

    def loss() -> Tensor:
        optimizer.zero_grad()
        found: Tensor = loss_of(head.linear(inputs[:, :, None, None]).flatten(), error)
        found.backward()
        return found

    optimizer.step(loss)
    told = {
        **record,
        "slices": len(results),
        "training": sorted({str(result["case"]) for result in results}),
        "loss": float(loss().detach()),
    }
    state = {name: tensor.detach().contiguous() for name, tensor in head.state_dict().items()}
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(Path(file), safetensors.torch.save(state, {"record": json.dumps(told)}))
    return head.eval()
