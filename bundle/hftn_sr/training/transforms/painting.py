"""Structures that only one of the two images shows: a network that never saw one learns that edges always agree, and copies them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from monai.transforms import RandomizableTransform, Transform
from torch import Tensor

__all__ = ["PaintSpots", "RandPaintSpots", "Spot"]

Case = Mapping[Hashable, Any]

SURROUNDINGS = 3.0  # voxels around a spot that count as its own: low resolution spreads it


class Spot(NamedTuple):
    """A disc or a ring that one image shows and the other does not.

    Args:
        image: `label` or `reference`.
        row: centre along H, in voxels of the label.
        column: centre along W.
        diameter: outer, in voxels.
        contrast: what is added, in the image's unit; may be negative.
        hole: diameter of the hole as a share of the outer one; 0 for a disc.
    """

    image: Literal["label", "reference"]
    row: float
    column: float
    diameter: float
    contrast: float
    hole: float = 0.0


class PaintSpots(Transform):
    """Paint spots into `label` or `reference` (1, H, W), and note where.

    Place it after `DisplaceReferenced`: a spot of the reference is painted at the place that its `displacement` leads to.

    Args:
        spots: what to paint.
    """

    def __init__(self, spots: Sequence[Spot]) -> None:
        self.spots = spots

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """Change `label` and `reference`; add `painted` (1, H, W), 1 at and around spots; there, `placed` becomes 0."""
        images: dict[Hashable, Any] = {key: torch.as_tensor(data[key]).clone() for key in ("label", "reference")}
        displacement, placed = torch.as_tensor(data["displacement"]), torch.as_tensor(data["placed"])
        painted = torch.zeros_like(placed)
        for spot in self.spots:
            row, column = spot.row, spot.column
            if spot.image == "reference":
                along = displacement[:, round(row), round(column)]
                row, column = row + float(along[0]), column + float(along[1])
            image = images[spot.image]
            image += spot.contrast * (_disc(image, row, column, spot.diameter) - _disc(image, row, column, spot.hole * spot.diameter))
            painted = torch.maximum(painted, _disc(painted, spot.row, spot.column, spot.diameter + 2 * SURROUNDINGS))
        return {**data, **images, "painted": painted, "placed": placed * (painted < 0.5)}


class RandPaintSpots(RandomizableTransform):
    """With probability `prob`, `PaintSpots` at places with signal, each in one image at random, brighter or darker.

    A reference that shows nothing of the target is left alone.

    Args:
        prob: probability of spots.
        count: bounds of their number.
        diameter: bounds in voxels, log-uniform.
        contrast: bounds of the amount, uniform; an intensity of 1 is the brightest of the image.
        ring: probability that a spot has a hole of half its diameter.
    """

    def __init__(
        self,
        prob: float = 0.4,
        count: tuple[int, int] = (4, 20),
        diameter: tuple[float, float] = (2.0, 12.0),
        contrast: tuple[float, float] = (0.1, 0.6),
        ring: float = 0.2,
    ) -> None:
        super().__init__(prob=prob)
        self.count, self.diameter, self.contrast, self.ring = count, diameter, contrast, ring

    def __call__(self, data: Case) -> dict[Hashable, Any]:
        """As `PaintSpots`; without spots, `painted` is 0."""
        self.randomize(None)
        places = torch.as_tensor(data["placed"])[0].nonzero()
        if not self._do_transform or not len(places):
            return PaintSpots(())(data)
        return PaintSpots([self._spot(places) for _ in range(int(self.R.randint(self.count[0], self.count[1] + 1)))])(data)

    def _spot(self, places: Tensor) -> Spot:
        row, column = places[int(self.R.randint(len(places)))].tolist()
        diameter = math.exp(self.R.uniform(math.log(self.diameter[0]), math.log(self.diameter[1])))
        contrast = self.R.uniform(*self.contrast) * (1 if self.R.uniform() < 0.5 else -1)
        image: Literal["label", "reference"] = "label" if self.R.uniform() < 0.5 else "reference"
        return Spot(image, row, column, diameter, contrast, 0.5 if self.R.uniform() < self.ring else 0.0)


def _disc(image: Tensor, row: float, column: float, diameter: float) -> Tensor:
    """1 within a disc, falling to 0 over a voxel at its edge: (1, H, W)."""
    if not diameter:
        return torch.zeros_like(image)
    height, width = image.shape[-2:]
    rows, columns = torch.arange(height)[:, None] - float(row), torch.arange(width) - float(column)
    return (diameter / 2 + 0.5 - torch.hypot(rows, columns)).clamp(0, 1)[None].to(image)
