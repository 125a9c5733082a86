"""Augmentation of whole slices before they lose resolution, and crops of what the network is trained on.

A random transform draws its parameters and calls its deterministic twin. Slices are (1, H, W), volumes (1, H, W, D) with D through-plane.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform
from torch import Tensor
from torch.nn import functional

from hftn_sr.kspace import shift

__all__ = ["RandCropSamplesd", "RandDropReferenced", "RandShiftReferenced", "RandSliced", "ShiftReferenced"]

Case = Mapping[Hashable, Any]


class ShiftReferenced(Transform):
    """Move `reference` (1, H, W) by `offset` voxels along H and W; fractions by sinc interpolation."""

    def __init__(self, offset: tuple[float, float]) -> None:
        self.offset = offset

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        return {**data, "reference": shift(torch.as_tensor(data["reference"]), self.offset)}


class RandShiftReferenced(RandomizableTransform):
    """With probability `prob`, move the reference as if it were misregistered by up to `voxels` in each in-plane direction."""

    def __init__(self, prob: float, voxels: float) -> None:
        super().__init__(prob=prob)
        self.voxels = voxels

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        x, y = self.R.uniform(-self.voxels, self.voxels, size=2)
        return ShiftReferenced((float(x), float(y)))(data)


class RandDropReferenced(RandomizableTransform):
    """With probability `prob`, a reference without signal: the network must do without it."""

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        self.randomize(None)
        return {**data, "reference": torch.zeros_like(torch.as_tensor(data["reference"]))} if self._do_transform else dict(data)


class RandSliced(Randomizable, MapTransform):
    """One slice (1, H, W) of volumes (1, H, W, D), drawn in proportion to the signal of the first key; the same one for all keys."""

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Volumes become slices."""
        signal = torch.as_tensor(data[self.keys[0]]).clamp_min(0).mean((0, 1, 2)).numpy().astype(float)
        index = self.R.choice(signal.size, p=signal / signal.sum())
        return {**data, **{key: data[key][..., index] for key in self.keys}}


class RandCropSamplesd(Randomizable, MapTransform):
    """Square crops of slices (C, H, W), drawn in proportion to the signal of the first key.

    Crops start at multiples of `step`, so that a low-resolution sample stays the first of its s x s block and a patch stays whole.

    Args:
        keys: slices of one in-plane size.
        size: side of a crop in voxels, a multiple of step and at most the slice's size.
        step: s*p for a network of scale s and patch p.
        num_samples: how many crops a slice gives, as a list of cases.
    """

    def __init__(self, keys: KeysCollection, size: int, step: int, num_samples: int) -> None:
        super().__init__(keys)
        if size % step:
            raise ValueError(f"expected a crop size that is a multiple of {step}, got {size}")
        self.size, self.step, self.num_samples = size, step, num_samples

    def __call__(self, data: Case) -> list[dict[Hashable, Any]]:
        """One case per crop."""
        first: Tensor = torch.as_tensor(data[self.keys[0]])
        if min(first.shape[-2:]) < self.size:
            raise ValueError(f"expected slices of at least {self.size} x {self.size}, got {tuple(first.shape[-2:])}; lower the crop size")
        signal = functional.avg_pool2d(first[:1].clamp_min(0), self.size, stride=self.step)[0].double() + 1e-6
        chosen = self.R.choice(signal.numel(), size=self.num_samples, p=(signal / signal.sum()).flatten().numpy())
        return [self._crop(data, *np.unravel_index(index, signal.shape)) for index in chosen]

    def _crop(self, data: Case, row: int, column: int) -> dict[Hashable, Any]:
        rows, columns = (slice(start * self.step, start * self.step + self.size) for start in (row, column))
        return {**data, **{key: data[key][..., rows, columns] for key in self.keys}}
