r"""Whether two contrasts show the same anatomy in the same place, from the directions of their edges.

Contrasts differ in which tissue is bright, hardly in where tissues meet. With the gradient :math:`g = g_x + i g_y` of a slice, its edge
field is

.. math:: z = \frac{g^2}{|g|^2 + \overline{|g|^2}}

whose angle is twice that of the edge, so that an edge counts the same from dark to bright and from bright to dark. The correlation of two
such fields, :math:`Re \sum_x z_a(x + d) \overline{z_b(x)}`, is known for all displacements d from one pair of Fourier transforms. Where
the pair fits, it has a sharp peak at d = 0; where it is moved, the peak moves along; with another patient or slice, there is no peak.

Source: orientation correlation (Fitch et al. 2002, doi 10.5244/C.16.11), with doubled angles, which make it indifferent to reversed
contrast as the normalised gradient fields of Haber and Modersitzki 2006 (doi 10.1007/11866763_89) are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["FARTHEST_OF_RESULT", "LOST", "Alignment", "displacement_across", "edge_alignment"]

SMALLEST = 32  # voxels of a side, below which there is no room for a peak and its background
BLOCK_SEEN = 0.1  # prominence from which the place of a block's peak means something
# Measured on native and research pairs at both scales, bundle/docs/design-log.md: in place 0.24 to 0.68, other patients and other slices
# 0.01 to 0.12.
LEAST = 0.13
# From x2 on: measured voxels up to which a reference counts as in place (in place at most 0.115 off at x2, half a voxel of the result off
# at least 0.125). Where less was lost in-plane, as of thick slices, the check sees finer than it matters: pairs that their registration
# left 0.3 to 0.45 voxels of the result apart are seen so, and half a voxel costs 2 to 5 % of the gain (bundle/docs/design-log.md).
FARTHEST, FARTHEST_OF_RESULT, LOST = 0.12, 0.5, 2.0
# In slabs of 3 to 12 slices of 1 mm (two MNI patients), a neighbour of the slice in place reaches at most 1.03 of its prominence at x2 and
# 1.06 at x4. The neighbour exceeds 1.07 in 84 % (x2) and 62 % (x4) of slabs that lie 1 mm out of place, and in 97 % of those 2 mm out.
BESIDE = 1.07  # ratio of prominences from which a neighbouring slice fits better


@dataclass(frozen=True)
class Alignment:
    """How a reference lies on a target.

    Args:
        prominence: correlation at its peak less that around it, 0 (nothing in common) to 1 (the same edges).
        displacement: how far apart the two are in-plane, in voxels of the result; the mean over the middle and the four sides of the
            slice, so that a rotation counts, too.
        slice_offset: slice of the reference, counted from the one in place, whose edges fit best: -1, 0 or 1.
        factor: voxels of the result for each measured one along an in-plane axis; the geometric mean of both axes.
        across: how far apart the two are across thick slices, in voxels of the result, see `displacement_across`; None where that was not
            measured, as of slices that stay as they are.
    """

    prominence: float
    displacement: float
    slice_offset: int
    factor: float
    across: float | None = None

    @property
    def farthest(self) -> float:
        """Displacement up to which the reference counts as in place, in voxels of the result."""
        return FARTHEST * self.factor if self.factor >= LOST else FARTHEST_OF_RESULT

    @property
    def fits(self) -> bool:
        """Whether both show the same anatomy, if not quite in the same place."""
        return self.prominence >= LEAST

    @property
    def in_place(self) -> bool:
        """Whether the reference lies where it belongs."""
        return self.fits and self.displacement <= self.farthest and self.slice_offset == 0 and not self.off_across

    @property
    def off_across(self) -> bool:
        """Whether the reference lies out of place across thick slices."""
        return abs(self.across or 0.0) > FARTHEST_OF_RESULT

    def better_than(self, other: Alignment) -> bool:
        """Whether this placement of a reference is to be preferred to another one of the same reference."""
        return self._order > other._order

    @property
    def _order(self) -> tuple[float, ...]:
        """Displacements mean something only where there is a peak; where there is none, what has more in common is better."""
        return (1.0, -abs(self.slice_offset), -math.hypot(self.displacement, self.across or 0.0)) if self.fits else (0.0, self.prominence)


def edge_alignment(target: Tensor, reference: Tensor, reach: int, ratios: tuple[float, float]) -> Alignment | None:
    """Compare the edges of two volumes on one grid, slice by slice.

    Args:
        target: (D, h, w), any unit.
        reference: (D, h, w), any unit, at the target's resolution.
        reach: voxels from no displacement within which the peak is looked for; the correlation there counts as background.
        ratios: samples of the result for each of these images' along rows and columns.

    Returns:
        None where slices are too small, below 32 voxels, or either image has no edges.

    Raises:
        ValueError: shapes that differ.
    """
    if target.shape != reference.shape:
        raise ValueError(f"expected two volumes of one shape, got {tuple(target.shape)} and {tuple(reference.shape)}")
    if min(target.shape[-2:]) < SMALLEST or not len(target):
        return None
    a, b = _edges(target), _edges(reference)
    if not a.any() or not b.any():
        return None
    prominence, *_ = _peak(_correlation(a, b), reach)
    if len(a) > 2:
        beside = {offset: _peak(_correlation(*_offset(a, b, offset)), reach)[0] for offset in (-1, 1)}
        best = max(beside, key=lambda offset: beside[offset])
        slice_offset = best if beside[best] > BESIDE * prominence else 0
    else:
        slice_offset = 0
    return Alignment(prominence, _displacement(a, b, reach, ratios), slice_offset, math.sqrt(math.prod(ratios)))


def displacement_across(target: Tensor, beside: tuple[Tensor, Tensor, Tensor], step: float, reach: int) -> float:
    """How far a reference lies out of place across thick slices, by how well the edges of displaced slices of it match the target's.

    Args:
        target: (D, h, w), any unit.
        beside: three volumes of slices of the reference (D, h, w), a step before the target's, in their place, and a step behind.
        step: distance of those, in whatever unit; about half a slice, so that all three still match.
        reach: as for `edge_alignment`.

    Returns:
        the displacement in the unit of `step`, at most one step; by a parabola through the three prominences.
    """
    edges = _edges(target)
    prominences = [_peak(_correlation(edges, _edges(each)), reach)[0] for each in beside]
    place = int(torch.tensor(prominences).argmax()) - 1
    return step * (_vertex(torch.tensor(prominences)) if place == 0 else place)


def _edges(volume: Tensor) -> Tensor:
    """(D, h, w) complex edge field, at most 1 in magnitude; 0 where there is no edge."""
    padded = functional.pad(volume.float(), (1, 1, 1, 1), mode="replicate")
    along_rows = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    along_columns = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    gradient = torch.complex(along_columns, along_rows)
    power = gradient.abs().square()
    return gradient.square() / (power + power.mean()).clamp_min(torch.finfo(power.dtype).tiny)


def _offset(a: Tensor, b: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """Slices k of a and k + offset of b."""
    return (a[:-1], b[1:]) if offset == 1 else (a[1:], b[:-1])


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """(h, w) correlation of two edge fields (D, h, w) over in-plane displacement, at most 1; periodic."""
    spectrum = (torch.fft.fft2(a) * torch.fft.fft2(b).conj()).sum(0)
    energy = (a.abs().square().sum() * b.abs().square().sum()).sqrt()
    return torch.fft.ifft2(spectrum).real / energy.clamp_min(torch.finfo(energy.dtype).tiny)


def _peak(correlation: Tensor, reach: int) -> tuple[float, float, float]:
    """Prominence, and where the peak is within `reach` of no displacement, in rows and columns, by a parabola through its neighbours."""
    near = correlation.roll((reach + 1, reach + 1), (0, 1))[: 2 * reach + 3, : 2 * reach + 3]
    inner = near[1:-1, 1:-1]
    around = torch.cat([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]]).mean()
    row, column = divmod(int(inner.argmax()), inner.shape[1])
    rows, columns = near[row : row + 3, column + 1], near[row + 1, column : column + 3]
    prominence = float(inner.max() - around)
    return prominence, row - reach + _vertex(rows), column - reach + _vertex(columns)


def _vertex(values: Tensor) -> float:
    """Where the parabola through three values is highest, from the middle one; it stays within half a step."""
    left, middle, right = values.tolist()
    bend = left - 2 * middle + right
    return max(-0.5, min(0.5, (left - right) / (2 * bend))) if bend < 0 else 0.0


def _displacement(a: Tensor, b: Tensor, reach: int, ratios: tuple[float, float]) -> float:
    """Mean distance in the middle and at the four sides, each weighed by its prominence; the whole slice's where these say nothing."""
    height, width = (size // 2 for size in a.shape[-2:])
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)
    corners = [(height // 2, width // 2), (0, width // 2), (height, width // 2), (height // 2, 0), (height // 2, width)]
    weights, distances = [], []
    for top, left in corners:
        place = (slice(None), slice(top, top + height), slice(left, left + width))
        prominence, rows, columns = _peak(_correlation(a[place] * window, b[place] * window), reach)
        if prominence >= BLOCK_SEEN:
            weights.append(prominence)
            distances.append(math.hypot(rows * ratios[0], columns * ratios[1]))
    if weights:
        return sum(weight * distance for weight, distance in zip(weights, distances, strict=True)) / sum(weights)
    _, rows, columns = _peak(_correlation(a, b), reach)
    return math.hypot(rows * ratios[0], columns * ratios[1])
