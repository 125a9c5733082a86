"""Augmentation of whole slices at full resolution, and crops for the network.

A random transform draws its parameters and calls its deterministic twin. Slices are (1, H, W), volumes (1, H, W, D) with D through-plane.
All take and give plain tensors: MONAI's record of each step (`MetaTensor`) would double their time.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform, Transform
from torch import Tensor
from torch.nn import functional

from hftn_sr.errors import Fault
from hftn_sr.kspace import resize, shift
from hftn_sr.training.protocols import restore

__all__ = [
    "CoverReferenced",
    "Cropd",
    "DropReferenced",
    "GammaContrastd",
    "MisalignReferenced",
    "Orientd",
    "RandCoverReferenced",
    "RandCropSamplesd",
    "RandDropReferenced",
    "RandGammaContrastd",
    "RandMisalignReferenced",
    "RandOrientd",
    "RandReverseReferenced",
    "RandSliced",
    "RandVoxelSized",
    "ReverseReferenced",
    "SliceSignald",
    "Sliced",
    "VoxelSized",
    "separate_slices",
]

Case = Mapping[Hashable, Any]


class Sliced(MapTransform):
    """Slice `index` (1, H, W) of volumes (1, H, W, D).

    Args:
        keys: volumes of one size.
        index: number of the slice, from 0.
    """

    def __init__(self, keys: KeysCollection, index: int) -> None:
        super().__init__(keys)
        self.index = index

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Volumes become slices."""
        return {**data, **{key: data[key][..., self.index] for key in self.keys}}


class SliceSignald(Transform):
    """Add `signal` (D,), the mean positive intensity of each slice of the volume `key` (1, H, W, D), for `RandSliced`.

    Place it before the random transforms: a dataset that caches then computes it once for each volume.

    Args:
        key: name of the volume.
    """

    def __init__(self, key: Hashable) -> None:
        self.key = key

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """The volumes stay."""
        return {**data, "signal": torch.as_tensor(data[self.key]).clamp_min(0).mean((0, 1, 2))}


class RandSliced(Randomizable, MapTransform):
    """`Sliced` with an index drawn in proportion to `signal`, see `SliceSignald`; uniformly if all slices are empty."""

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Volumes become slices; `signal` is dropped."""
        signal = data["signal"].numpy().astype(float)
        share = signal / signal.sum() if signal.any() else None
        kept = {key: value for key, value in data.items() if key != "signal"}
        return Sliced(self.keys, int(self.R.choice(signal.size, p=share)))(kept)


def separate_slices(volumes: Iterable[Case], keys: KeysCollection = ("label", "reference")) -> list[dict[Hashable, Any]]:
    """One case with volumes (1, H, W, 1) for each slice of each case, in order, as views without a copy."""
    return [
        {**volume, **{key: volume[key][..., index : index + 1] for key in keys}}
        for volume in volumes
        for index in range(volume[keys[0]].shape[-1])
    ]


class Orientd(MapTransform):
    """One of the eight flips and quarter turns of slices (1, H, W).

    Args:
        keys: slices.
        flips: flip along H, flip along W.
        transpose: exchange of H and W after the flips.
    """

    def __init__(self, keys: KeysCollection, flips: tuple[bool, bool], transpose: bool) -> None:
        super().__init__(keys)
        self.axes, self.transpose = [axis for axis, flip in zip((-2, -1), flips, strict=True) if flip], transpose

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        flipped = {key: torch.as_tensor(data[key]).flip(self.axes) for key in self.keys}
        return {**data, **{key: image.mT.contiguous() if self.transpose else image for key, image in flipped.items()}}


class RandOrientd(Randomizable, MapTransform):
    """`Orientd`, uniformly one of the eight."""

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        rows, columns, transpose = (bool(bit) for bit in self.R.randint(2, size=3))
        return Orientd(self.keys, (rows, columns), transpose)(data)


class VoxelSized(MapTransform):
    """The same field of view (1, H, W) on larger or smaller voxels, by truncating or zero-filling k-space.

    Args:
        keys: slices of one in-plane size.
        shape: number of voxels along H and W.
    """

    def __init__(self, keys: KeysCollection, shape: tuple[int, int]) -> None:
        super().__init__(keys)
        self.shape = shape

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        return {**data, **{key: resize(torch.as_tensor(data[key]), self.shape) for key in self.keys}}


class RandVoxelSized(RandomizableTransform, MapTransform):
    """With probability `prob`, `VoxelSized` with one log-uniform factor for both axes.

    Args:
        keys: slices of one in-plane size.
        prob: probability of a change.
        factor: bounds of the relative number of voxels along an axis; below 1 the voxels become larger.
        multiple: divisor of the new sizes.
        least: smallest new size; smaller slices stay unchanged.
    """

    def __init__(self, keys: KeysCollection, prob: float, factor: tuple[float, float], multiple: int, least: int) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.factor, self.multiple, self.least = factor, multiple, math.ceil(least / multiple) * multiple

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        self.randomize(None)
        height, width = torch.as_tensor(data[self.keys[0]]).shape[-2:]
        if not self._do_transform or min(height, width) < self.least:
            return dict(data)
        factor = math.exp(self.R.uniform(*np.log(self.factor)))
        rows, columns = (max(round(size * factor / self.multiple) * self.multiple, self.least) for size in (height, width))
        return VoxelSized(self.keys, (rows, columns))(data)


class GammaContrastd(MapTransform):
    """Gamma contrast, x -> sign(x) |x|^gamma: intensities 0 and 1 stay; a gamma below 1 brightens those between.

    MONAI's AdjustContrastd takes the darkest voxel for 0. Resampled images undershoot a little next to edges; from there, the empty
    background of real slices rises to 0.14 at a gamma of 0.7.

    Args:
        keys: images of any shape, intensities around 0 to 1.
        gamma: exponent; values far from 1 distort more.
    """

    def __init__(self, keys: KeysCollection, gamma: float) -> None:
        super().__init__(keys)
        self.gamma = gamma

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        images = {key: torch.as_tensor(data[key]) for key in self.keys}
        return {**data, **{key: image.sign() * image.abs() ** self.gamma for key, image in images.items()}}


class RandGammaContrastd(RandomizableTransform, MapTransform):
    """With probability `prob`, `GammaContrastd` with one log-uniform exponent for all keys.

    Args:
        keys: images, see `GammaContrastd`.
        prob: probability of a change.
        gamma: bounds of the exponent.
    """

    def __init__(self, keys: KeysCollection, prob: float, gamma: tuple[float, float]) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.gamma = gamma

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        return GammaContrastd(self.keys, math.exp(self.R.uniform(*np.log(self.gamma))))(data)


class ReverseReferenced(Transform):
    """Bright tissue of `reference` (1, H, W) becomes dark and dark bright, x -> 1 - x, where there is signal around."""

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        reference = torch.as_tensor(data["reference"])
        inside = (functional.avg_pool2d(reference, 9, stride=1, padding=4) / 0.1).clamp(0, 1)
        return {**data, "reference": (1 - reference).clamp_min(0) * inside}


class RandReverseReferenced(RandomizableTransform):
    """`ReverseReferenced` with probability `prob`: edges lie where they did, only contrast tells nothing."""

    def __init__(self, prob: float) -> None:
        super().__init__(prob=prob)

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        self.randomize(None)
        return ReverseReferenced()(data) if self._do_transform else dict(data)


class MisalignReferenced(Transform):
    """Rotate `reference` (1, H, W) about its centre, then shift it, by Fourier interpolation without loss; borders wrap around.

    The rotation is three shears: along W, along H, along W.

    Args:
        offset: shift along H and W in voxels, also fractional.
        angle: rotation in degrees, a few at most; positive from H towards W.
    """

    def __init__(self, offset: tuple[float, float], angle: float = 0.0) -> None:
        self.offset, self.angle = offset, angle

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        reference = torch.as_tensor(data["reference"])
        if self.angle:
            radians = math.radians(self.angle)
            for dim, slope in ((-1, math.tan(radians / 2)), (-2, -math.sin(radians)), (-1, math.tan(radians / 2))):
                reference = _shear(reference, slope, dim)
        return {**data, "reference": shift(reference, self.offset)}


class RandMisalignReferenced(RandomizableTransform):
    """With probability `prob`, `MisalignReferenced`, as after an imperfect registration.

    Args:
        prob: probability of a change.
        voxels: largest shift along H and W in voxels.
        degrees: largest rotation in degrees; 0.4 moves a point 100 voxels from the centre by 0.7 voxels.
    """

    def __init__(self, prob: float, voxels: float, degrees: float = 0.0) -> None:
        super().__init__(prob=prob)
        self.voxels, self.degrees = voxels, degrees

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        x, y = self.R.uniform(-self.voxels, self.voxels, size=2)
        return MisalignReferenced((float(x), float(y)), float(self.R.uniform(-self.degrees, self.degrees)))(data)


class DropReferenced(Transform):
    """Replace `reference` by zeros: the network must do without it."""

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        return {**data, "reference": torch.zeros_like(torch.as_tensor(data["reference"]))}


class RandDropReferenced(RandomizableTransform):
    """`DropReferenced` with probability `prob`."""

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        self.randomize(None)
        return DropReferenced()(data) if self._do_transform else dict(data)


class CoverReferenced(Transform):
    """Set `reference` (1, H, W) to 0 beyond a straight border, as where its scan ends within the target.

    Args:
        angle: direction that leads out of the reference, in degrees; 0 along H, 90 along W.
        missing: share of the slice's width in that direction that lies beyond the border, 0 to 1.
    """

    def __init__(self, angle: float, missing: float) -> None:
        self.angle, self.missing = angle, missing

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        reference = torch.as_tensor(data["reference"])
        ways = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        sides = [(torch.arange(size) - (size - 1) / 2) * way for size, way in zip(reference.shape[-2:], ways, strict=True)]
        place = sides[0][:, None] + sides[1]
        return {**data, "reference": reference * (place <= (1 - 2 * self.missing) * place.max())}


class RandCoverReferenced(RandomizableTransform):
    """With probability `prob`, `CoverReferenced` in any direction.

    Args:
        prob: probability of a border.
        missing: bounds of the share beyond it, uniform.
    """

    def __init__(self, prob: float, missing: tuple[float, float] = (0.1, 0.5)) -> None:
        super().__init__(prob=prob)
        self.missing = missing

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only `reference` changes."""
        self.randomize(None)
        if not self._do_transform:
            return dict(data)
        return CoverReferenced(float(self.R.uniform(0, 360)), float(self.R.uniform(*self.missing)))(data)


class Cropd(MapTransform):
    """Square crops of slices (C, H, W).

    Args:
        keys: slices of one in-plane size.
        start: first voxel along H and W, from 0.
        size: side in voxels.
    """

    def __init__(self, keys: KeysCollection, start: tuple[int, int], size: int) -> None:
        super().__init__(keys)
        self.rows, self.columns = (slice(first, first + size) for first in start)

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        return {**data, **{key: data[key][..., self.rows, self.columns] for key in self.keys}}


class RandCropSamplesd(Randomizable, MapTransform):
    """Several `Cropd` of each slice, drawn in proportion to the intensity of the first key (`mean` and `std` undone).

    Crops start at multiples of `step`: a low-resolution sample stays the first of its s x s block, and a patch stays whole.

    Args:
        keys: slices of one in-plane size.
        size: side of a crop in voxels, a multiple of step and at most the slice's size.
        step: s*p for a network of scale s and patch p.
        num_samples: number of crops of a slice.

    Raises:
        ValueError: a size that step does not divide.
        Fault: slices smaller than a crop.
    """

    def __init__(self, keys: KeysCollection, size: int, step: int, num_samples: int) -> None:
        super().__init__(keys)
        if size % step:
            raise ValueError(f"expected a crop size that is a multiple of {step}, got {size}")
        self.size, self.step, self.num_samples = size, step, num_samples

    def __call__(self, data: Case) -> list[dict[Hashable, Any]]:
        """List of one case per crop."""
        first: Tensor = torch.as_tensor(data[self.keys[0]])
        if min(first.shape[-2:]) < self.size:
            raise self._too_small(first.shape[-2], first.shape[-1], data.get("case"))
        intensity = restore(first[:1], data.get("mean"), data.get("std")).clamp_min(0)
        # Means of step x step blocks first: overlapping windows of voxels would add up each voxel dozens of times.
        blocks = functional.avg_pool2d(intensity, self.step)
        signal = functional.avg_pool2d(blocks, self.size // self.step, stride=1)[0].double() + 1e-6
        chosen = self.R.choice(signal.numel(), size=self.num_samples, p=(signal / signal.sum()).flatten().numpy())
        starts = (np.unravel_index(index, signal.shape) for index in chosen)
        return [Cropd(self.keys, (int(row) * self.step, int(column) * self.step), self.size)(data) for row, column in starts]

    def _too_small(self, height: int, width: int, case: object) -> Fault:
        largest = min(height, width) // self.step * self.step
        fix = "take the case out of datalist.json"
        sides = " x ".join(map(str, sorted((height, width))))  # they may be transposed
        finding = f"slices of {sides} voxels are smaller than a crop of {self.size} x {self.size}"
        return Fault("a slice" if case is None else str(case), finding, f"--crop_size {largest}, or {fix}" if largest else fix)


def _shear(image: Tensor, slope: float, dim: int) -> Tensor:
    """Shift each line along `dim`, one of the last two, by `slope` voxels per voxel of its distance from the centre."""
    across = -3 - dim
    frequency = torch.fft.rfftfreq(image.shape[dim], dtype=image.dtype)
    distance = torch.arange(image.shape[across], dtype=image.dtype) - (image.shape[across] - 1) / 2
    phase = slope * (distance[:, None] * frequency if dim == -1 else frequency[:, None] * distance)
    turn = torch.complex(torch.cos(phase.mul_(-2 * math.pi)), torch.sin(phase))  # ten times as fast as the complex exponential
    moved: Tensor = torch.fft.irfft(torch.fft.rfft(image, dim=dim).mul_(turn), n=image.shape[dim], dim=dim)
    return moved
