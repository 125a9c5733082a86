"""Simulate a target of any acquisition, and put what it measured back into a result: MONAI dictionary transforms around `acquisition`.

Slices are (1, H, W), volumes (1, H, W, D) with D through-plane.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from monai.transforms import MapTransform, Randomizable, Transform

from hftn_sr.acquisition import Acquisition, Axis, Full, KSpace, Profile
from hftn_sr.training.acquisitions import VALIDATED, thick_slices
from hftn_sr.volumes.simulation import stack_channels

__all__ = ["AcquirePaird", "ProjectMeasuredd", "RandAcquirePaird"]

Case = Mapping[Hashable, Any]


class AcquirePaird(Transform):
    """Make the network's `image` (3, H, W) or (3, H, W, D) from whole `label` and `reference`, for a target of any acquisition.

    Args:
        acquisition: what the target keeps of the two in-plane axes.
        magnitude: store the target as a magnitude.
        noise: standard deviation of the target's noise, in the label's unit; Rician in a magnitude, else Gaussian.
        seed: of the noise.
        unit: intensity that counts as 1 afterwards, in the label's unit; that of a target is mostly below its label's.
    """

    def __init__(self, acquisition: Acquisition, magnitude: bool = False, noise: float = 0.0, seed: int = 0, unit: float = 1.0) -> None:
        self.acquisition, self.magnitude, self.noise, self.seed, self.unit = acquisition, magnitude, noise, seed, unit

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Add `image`, `measured` (1, h, w) or (1, h, w, D), `mean` and `std` that restore the label's unit; drop `reference`."""
        label, reference = (torch.as_tensor(data[key]) for key in ("label", "reference"))
        volumetric = label.ndim == 4
        slices, references = (image[0].movedim(-1, 0) if volumetric else image for image in (label, reference))
        measured = self.acquisition.simulate(slices)
        if self.noise:
            real, imaginary = torch.randn((2, *measured.shape), generator=torch.Generator().manual_seed(self.seed)) * self.noise
            measured = torch.hypot(measured + real, imaginary) if self.magnitude else measured + real
        elif self.magnitude:
            measured = measured.abs()
        measured = measured / self.unit
        image = stack_channels(measured, references, self.acquisition)
        std = label.new_full((len(slices), 1, 1), self.unit)
        made: dict[Hashable, Any] = {"measured": measured, "mean": torch.zeros_like(std), "std": std}
        made = {key: each.movedim(0, -1)[None] if volumetric else each for key, each in made.items()}
        kept = {key: value for key, value in data.items() if key != "reference"}
        return {**kept, **made, "image": image.movedim(1, -1) if volumetric else image[:, 0], "label": label / self.unit}


class RandAcquirePaird(Randomizable, Transform):
    """`AcquirePaird` of slices (1, H, W) with an acquisition drawn for each, without `measured`.

    A draw is x2 or x4 exactly, thick slices along one of the axes, or else k-space with log-uniform factors: one for both axes, one for a
    single axis, or one for each.

    Args:
        x2: probability of half the k-space along both axes.
        x4: probability of a quarter.
        slices: probability of thick slices.
        factor: bounds of the factor by which k-space loses samples along an axis.
        isotropic: probability, where k-space is drawn, of one factor for both axes.
        one_axis: probability, where k-space is drawn, of a single axis that loses samples.
        slice_factor: bounds of the voxels from one thick slice to the next, log-uniform.
        thickness: bounds of a slice's full width at half maximum, as a share of that spacing, uniform.
        box: probability, where slices are drawn, of a box profile; else Gaussian.
        both: probability, where slices are drawn, that the other axis loses k-space.
        magnitude: probability of a magnitude image.
        noise: largest standard deviation of the noise, times the cube of a uniform number: half of the draws have less than an eighth.
        unit: bounds of the target's intensity unit in the label's, uniform.
    """

    acquisition: ClassVar[str] = "any"  # for the record
    decomposition: ClassVar[str] = "band"
    protocol: ClassVar[str] = "corrected"

    def __init__(
        self,
        x2: float = 0.12,
        x4: float = 0.15,
        slices: float = 0.25,
        factor: tuple[float, float] = (1.2, 4.5),
        isotropic: float = 0.35,
        one_axis: float = 0.3,
        slice_factor: tuple[float, float] = (2.0, 6.0),
        thickness: tuple[float, float] = (0.7, 1.3),
        box: float = 0.25,
        both: float = 0.2,
        magnitude: float = 0.5,
        noise: float = 0.05,
        unit: tuple[float, float] = (0.85, 1.0),
    ) -> None:
        self.x2, self.x4, self.slices, self.factor, self.isotropic, self.one_axis = x2, x4, slices, factor, isotropic, one_axis
        self.slice_factor, self.thickness, self.box, self.both = slice_factor, thickness, box, both
        self.magnitude, self.noise, self.unit = magnitude, noise, unit

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """As `AcquirePaird`."""
        acquired = self.draw(torch.as_tensor(data["label"]).shape[-2:])(data)
        return {key: value for key, value in acquired.items() if key != "measured"}

    def draw(self, shape: Sequence[int]) -> AcquirePaird:
        """The deterministic twin for slices of `shape`."""
        acquisition = self._acquisition(shape)
        magnitude, noise = bool(self.R.uniform() < self.magnitude), self.noise * self.R.uniform() ** 3
        return AcquirePaird(acquisition, magnitude, float(noise), int(self.R.randint(2**31)), float(self.R.uniform(*self.unit)))

    def _acquisition(self, shape: Sequence[int]) -> Acquisition:
        kind, axis = self.R.uniform(), int(self.R.randint(2))
        if kind < self.x2 + self.x4:
            return Acquisition.from_scale(2 if kind < self.x2 else 4, shape)
        if kind < self.x2 + self.x4 + self.slices:
            across = self._kspace(shape[1 - axis]) if self.R.uniform() < self.both else Full()
            profile: Profile = "box" if self.R.uniform() < self.box else "gaussian"
            return thick_slices(axis, self._log_uniform(self.slice_factor), shape, self.R.uniform(*self.thickness), profile, across)
        form = self.R.uniform()
        if form < self.isotropic:
            return Acquisition.from_scale(self._log_uniform(self.factor), shape)
        if form < self.isotropic + self.one_axis:
            return Acquisition(tuple(self._kspace(size) if dim == axis else Full() for dim, size in enumerate(shape)))
        return Acquisition(tuple(self._kspace(size) for size in shape))

    def _kspace(self, size: int) -> Axis:
        return KSpace(max(round(size / self._log_uniform(self.factor)), 1))

    def _log_uniform(self, bounds: tuple[float, float]) -> float:
        return math.exp(self.R.uniform(math.log(bounds[0]), math.log(bounds[1])))


class ProjectMeasuredd(MapTransform):
    """Data consistency of results before they are scored: the least change after which they agree with `measured`.

    Args:
        keys: batches (B, 1, H, W, D) of cases that `CachedCases` gives for each acquisition.
    """

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Only the keys change."""
        return {**data, **{key: self._projected(data[key], data["measured"], data["acquisition"]) for key in self.keys}}

    def _projected(self, images: torch.Tensor, measured: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        slices = torch.as_tensor(images).movedim(-1, 2)
        target = torch.as_tensor(measured).to(slices).movedim(-1, 2)
        found = [VALIDATED[name](slices.shape[-2:]).project(*pair) for name, *pair in zip(names, slices, target, strict=True)]
        return torch.stack(found).movedim(2, -1)
