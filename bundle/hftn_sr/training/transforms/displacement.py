"""References out of place by a known displacement, and references that do not belong to their target."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import RandomizableTransform, Transform
from torch import Tensor
from torch.nn import functional

from hftn_sr.kspace import resize

__all__ = ["DisplaceReferenced", "ForeignReferenced", "NoiseReferenced", "RandDisplaceReferenced", "RandForeignReferenced", "inverse_field"]

Case = Mapping[Hashable, Any]

ITERATIONS = 10
SIGNAL = 0.05  # mean intensity around a voxel from which on it has a place


class DisplaceReferenced(Transform):
    """Bend `reference` (1, H, W) and note where everything has gone.

    The bent reference at p is the reference at p + bend(p), from cubic interpolation of twice the samples, which loses next to nothing.

    Args:
        bend: (2, H, W) along H and W in voxels, so smooth that neighbours keep their order; None leaves the reference as it is.
    """

    def __init__(self, bend: Tensor | None) -> None:
        self.bend = bend

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Change `reference`; add `displacement` (2, H, W) and `placed` (1, H, W).

        What a voxel p of the label shows lies at p + displacement(p) of the reference, in voxels. `placed` is 1 where there is such a
        place: where the label has signal, unless the reference is `foreign` or zero.
        """
        reference, label = torch.as_tensor(data["reference"]), torch.as_tensor(data["label"])
        height, width = reference.shape[-2:]
        placed = (functional.avg_pool2d(label, 9, stride=1, padding=4) > SIGNAL).float()
        if data.get("foreign") or not reference.any():
            placed.zero_()
        if self.bend is None:
            return {**data, "displacement": torch.zeros(2, height, width), "placed": placed}
        fine = resize(reference, (2 * height, 2 * width))
        rows, columns = torch.arange(height)[:, None] + self.bend[0], torch.arange(width) + self.bend[1]
        # Sample j of the fine grid lies at j / 2.
        places = torch.stack([(4 * columns + 1) / (2 * width) - 1, (4 * rows + 1) / (2 * height) - 1], -1)[None]
        bent = functional.grid_sample(fine[None], places, mode="bicubic", padding_mode="zeros", align_corners=False)[0]
        return {**data, "reference": bent, "displacement": inverse_field(self.bend), "placed": placed}


class RandDisplaceReferenced(RandomizableTransform):
    """`DisplaceReferenced` by a random shift, rotation about the centre and smooth field: far out of place, or as after registration.

    Far: a shift by up to `voxels` in any direction, a rotation by up to `degrees`, and a normal random field on nodes 16 to 64 voxels
    apart whose 95th percentile is at most `bend`; each up to a random share of that. Near: a shift along H and W and a rotation of at most
    `near_voxels` and `near_degrees`.

    Args:
        prob: probability of far.
        near_prob: probability of near among the others; the rest stays as it is.
        voxels: largest shift.
        degrees: largest rotation.
        bend: largest field, in voxels.
        cells: least and largest distance of the field's nodes, in voxels.
        near_voxels: largest shift.
        near_degrees: largest rotation.
    """

    def __init__(
        self,
        prob: float = 0.3,
        near_prob: float = 0.3,
        voxels: float = 6.0,
        degrees: float = 2.5,
        bend: float = 4.0,
        cells: tuple[float, float] = (16.0, 64.0),
        near_voxels: float = 0.7,
        near_degrees: float = 0.4,
    ) -> None:
        super().__init__(prob=prob)
        self.near_prob, self.voxels, self.degrees, self.bend, self.cells = near_prob, voxels, degrees, bend, cells
        self.near_voxels, self.near_degrees = near_voxels, near_degrees

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """As `DisplaceReferenced`."""
        self.randomize(None)
        height, width = torch.as_tensor(data["reference"]).shape[-2:]
        if self._do_transform:
            return DisplaceReferenced(self._far(height, width))(data)
        if self.R.uniform() >= self.near_prob:
            return DisplaceReferenced(None)(data)
        offset = self.R.uniform(-self.near_voxels, self.near_voxels, size=2)
        angle = self.R.uniform(-self.near_degrees, self.near_degrees)
        return DisplaceReferenced(_rigid(height, width, (float(offset[0]), float(offset[1])), float(angle)))(data)

    def _far(self, height: int, width: int) -> Tensor:
        distance, direction = self.R.uniform(0, self.voxels), self.R.uniform(0, 2 * math.pi)
        rigid = _rigid(
            height, width, (distance * math.cos(direction), distance * math.sin(direction)), self.R.uniform(-self.degrees, self.degrees)
        )
        cell = math.exp(self.R.uniform(math.log(self.cells[0]), math.log(self.cells[1])))
        nodes = torch.from_numpy(self.R.normal(size=(1, 2, round(height / cell) + 3, round(width / cell) + 3))).float()
        field = functional.interpolate(nodes, size=(height, width), mode="bicubic", align_corners=True)[0]
        # The length of two normal components exceeds 2.45 standard deviations in 5 % of places.
        return rigid + field * (self.R.uniform(0, self.bend) / 2.45 / float(field.std()))


class ForeignReferenced(Transform):
    """Exchange the reference volume (1, H, W, D) for one that shows another place: mirrored, and taken from further on in the volume.

    Args:
        axes: in-plane axes to mirror, of 1 and 2.
        slices: how many slices further on, modulo their number.
    """

    def __init__(self, axes: tuple[int, ...], slices: int) -> None:
        self.axes, self.slices = axes, slices

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Change `reference`; set `foreign`."""
        return {**data, "reference": torch.as_tensor(data["reference"]).flip(self.axes).roll(-self.slices, -1), "foreign": True}


class NoiseReferenced(Transform):
    """Exchange the reference volume (1, H, W, D) for noise of the same mean: magnitudes of a normal field that is smooth in-plane.

    Args:
        width: side of the square over which each voxel is averaged, an odd number of voxels.
        seed: of the noise.
    """

    def __init__(self, width: int, seed: int) -> None:
        self.width, self.seed = width, seed

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Change `reference`; set `foreign`."""
        reference = torch.as_tensor(data["reference"])
        depth = reference.shape[-1]
        white = torch.randn((depth, *reference.shape[1:3]), generator=torch.Generator().manual_seed(self.seed))
        smooth = functional.avg_pool2d(white, self.width, stride=1, padding=self.width // 2, count_include_pad=False).abs()
        noise = smooth * (reference.mean() / smooth.mean())
        return {**data, "reference": noise.movedim(0, -1)[None].to(reference), "foreign": True}


class RandForeignReferenced(RandomizableTransform):
    """With probability `prob`, `ForeignReferenced` from a quarter to three quarters of the volume further on, or `NoiseReferenced`.

    Place it before the slice is drawn.

    Args:
        prob: probability of either.
        noise: probability of noise among them.
    """

    def __init__(self, prob: float, noise: float = 0.2) -> None:
        super().__init__(prob=prob)
        self.noise = noise

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """As either; else only `foreign` is added, False."""
        self.randomize(None)
        if not self._do_transform:
            return {**data, "foreign": False}
        if self.R.uniform() < self.noise:
            return NoiseReferenced(2 * int(self.R.randint(4)) + 1, int(self.R.randint(2**31)))(data)
        depth = data["reference"].shape[-1]
        axes = tuple(axis for axis in (1, 2) if self.R.uniform() < 0.5)
        return ForeignReferenced(axes, max(1, round(depth * self.R.uniform(0.25, 0.75))))(data)


def inverse_field(bend: Tensor) -> Tensor:
    """The field d (2, H, W) with p + d(p) + bend(p + d(p)) = p, by fixed-point iteration, linear between voxels."""
    found = -bend
    for _ in range(ITERATIONS):
        found = -_sampled(bend, found)
    return found


def _sampled(field: Tensor, displacement: Tensor) -> Tensor:
    height, width = field.shape[-2:]
    rows, columns = torch.arange(height)[:, None] + displacement[0], torch.arange(width) + displacement[1]
    places = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)[None]
    return functional.grid_sample(field[None], places, mode="bilinear", padding_mode="border", align_corners=False)[0]


def _rigid(height: int, width: int, offset: tuple[float, float], angle: float) -> Tensor:
    """Shift in voxels and rotation in degrees about the centre as a field (2, H, W)."""
    radians = math.radians(angle)
    rows, columns = torch.arange(height)[:, None] - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    cosine, sine = math.cos(radians) - 1, math.sin(radians)
    return torch.stack([cosine * rows - sine * columns + offset[0], sine * rows + cosine * columns + offset[1]])
