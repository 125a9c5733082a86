"""MONAI dictionary transforms around `volumes` and `degradation`.

A random transform draws its parameters and calls its deterministic twin. Slices are (1, H, W), volumes (1, H, W, D) with D through-plane.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform
from torch import Tensor
from torch.nn import functional

from hftn_sr.degradation import brightness, crop_to_multiple, degrade, stack_channels
from hftn_sr.errors import Fault
from hftn_sr.kspace import Decomposition, shift, truncate
from hftn_sr.volumes.nifti import read_nifti
from hftn_sr.volumes.placement import read_transform
from hftn_sr.volumes.resampling import resample

__all__ = [
    "DegradePaird",
    "LoadPaird",
    "RandCropSamplesd",
    "RandDegradePaird",
    "RandDropReferenced",
    "RandShiftReferenced",
    "RandSliced",
    "ShiftReferenced",
]

Case = Mapping[Hashable, Any]


class LoadPaird(Transform):
    """Read a high-resolution target and its reference, the reference on the target's grid, both with intensities around 0 to 1.

    A case is `target` and `reference` (paths of NIfTI files) and optionally `transform`, an ITK file that maps target points to reference
    points. It comes back with `label` and `reference` (1, H, W, D), float32, through-plane last, H and W cropped to multiples of scale;
    the label is divided by the brightness of its own low-resolution image, the reference by that of its own voxels.

    Args:
        scale: upscaling factor s that the images will be used for.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Raises Fault where a file cannot be used."""
        target, reference = read_nifti(data["target"]), read_nifti(data["reference"])
        if data.get("transform"):
            reference = reference.moved(read_transform(Path(data["transform"])))
        through_plane = target.grid.through_plane()
        target = crop_to_multiple(target, self.scale, through_plane)
        on_grid = resample(reference, target.grid)
        if not on_grid.any():
            raise Fault(reference.path, "lies wholly outside the target", "check that both files belong to one patient and visit")
        label = target.data / brightness(degrade(target, self.scale, through_plane).data)
        images = {"label": label, "reference": on_grid / brightness(on_grid)}
        through, *in_plane = target.grid.slice_axes(through_plane)
        volumes = {key: image.transpose(*in_plane, through)[np.newaxis].copy() for key, image in images.items()}
        return {**data, **{key: torch.from_numpy(volume) for key, volume in volumes.items()}}


class DegradePaird(Transform):
    """Make the network's `image` (3, H, W) or (3, H, W, D) from whole high-resolution `label` and `reference`.

    Args:
        scale: loss of in-plane resolution s.
        decomposition: see `kspace.decompose`.
        magnitude: the low-resolution target is stored as a magnitude.
    """

    def __init__(self, scale: int, decomposition: Decomposition = "band", magnitude: bool = False) -> None:
        self.scale, self.decomposition, self.magnitude = scale, decomposition, magnitude

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Adds `image`, drops `reference`."""
        label, reference = (torch.as_tensor(data[key])[0] for key in ("label", "reference"))
        if label.ndim == 3:
            label, reference = label.movedim(-1, 0), reference.movedim(-1, 0)
        low_resolution = truncate(label, self.scale)
        image = stack_channels(low_resolution.abs() if self.magnitude else low_resolution, reference, self.scale, self.decomposition)
        kept = {key: value for key, value in data.items() if key != "reference"}
        return {**kept, "image": image.movedim(1, -1) if image.ndim == 4 else image}


class RandDegradePaird(RandomizableTransform):
    """`DegradePaird`, the low-resolution target being a magnitude with probability `magnitude_prob`."""

    def __init__(self, scale: int, decomposition: Decomposition = "band", magnitude_prob: float = 0.5) -> None:
        super().__init__(prob=magnitude_prob)
        self.signed = DegradePaird(scale, decomposition, magnitude=False)
        self.magnitude = DegradePaird(scale, decomposition, magnitude=True)

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """As `DegradePaird`."""
        self.randomize(None)
        return self.magnitude(data) if self._do_transform else self.signed(data)


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
