r"""Cubic B-splines through the samples of a volume, smoothed before where they are finer than what is wanted.

A spline is :math:`\sum_k c_k \beta^3(x - k)` along each axis. Its coefficients c follow from the samples by a linear map of each axis,
and so does the Gaussian: both are one matrix. Beyond its ends the spline is continued as its mirror image, the Gaussian by the outermost
sample. Source: Unser 1999, doi 10.1109/79.799930.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["SUPPORT", "along_axes", "at_points"]

Matrix = NDArray[np.floating[Any]]

SUPPORT = 4  # samples that a point depends on along an axis
AHEAD = 2  # coefficients kept beyond either end
FORGOTTEN = 1e-9  # contribution of a sample from which on it is left out
POINTS = 1 << 14  # evaluated at a time, so that they stay near the processor
# Weights of the four coefficients around a point that lies by a fraction f behind the second one: from 1, f, f^2 and f^3.
WEIGHTS = torch.tensor([[1, 4, 1, 0], [-3, 0, 3, 0], [3, -6, 3, 0], [-1, 3, -3, 1]], dtype=torch.float64) / 6


def along_axes(
    data: NDArray[np.float32], shape: tuple[int, int, int], index: Matrix, along: NDArray[np.intp], sigmas: Matrix
) -> NDArray[np.float32]:
    """The spline on a grid with parallel axes, by one matrix product an axis.

    Args:
        data: (X, Y, Z).
        shape: samples of the grid along each axis.
        index: (4, 4), index of the grid to index of the data.
        along: the grid's axis that runs along each of the data's.
        sigmas: standard deviation of the Gaussian along each axis of the data, in samples.
    """
    matrices = []
    for axis, (other, sigma) in enumerate(zip(along.tolist(), sigmas.tolist(), strict=True)):
        positions = index[axis, other] * np.arange(shape[other]) + index[axis, 3]
        first = np.floor(positions).astype(int)
        values = np.zeros((len(positions), data.shape[axis] + 2 * AHEAD))
        weights = _powers(torch.from_numpy(positions - first)).T @ WEIGHTS
        for tap in range(SUPPORT):
            place = np.clip(first - 1 + AHEAD + tap, 0, values.shape[1] - 1)  # what lies outside is cut off by the caller
            values[np.arange(len(positions)), place] += weights[:, tap].numpy()
        matrices.append(_narrowed(values @ _coefficients(data.shape[axis], sigma)))
    return _product(data, matrices).numpy().T.transpose(np.argsort(along))


def at_points(data: NDArray[np.float32], shape: tuple[int, int, int], index: Matrix, sigmas: Matrix) -> NDArray[np.float32]:
    """The spline on a grid that is rotated against the data, point by point. Arguments: see `along_axes`.

    The four coefficients that a point needs along the first axis lie side by side in memory. They are rows of a table, of which each point
    gets 16, weighted and added up as words of a sentence are by an embedding. Weights of all taps come from matrix products, which also
    repeat those of an axis over the taps of the other.
    """
    sizes = [size + 2 * AHEAD for size in data.shape]
    coefficients = _product(data, [_narrowed(_coefficients(*each)) for each in zip(data.shape, sigmas.tolist(), strict=True)]).flatten()
    table = coefficients.as_strided((coefficients.numel() - SUPPORT + 1, SUPPORT), (1, 1)).contiguous()
    strides = torch.tensor([1, sizes[0], sizes[0] * sizes[1]], dtype=torch.int32)
    taps = torch.arange(SUPPORT, dtype=torch.int32)
    nearby = (taps[:, None] * strides[2] + taps * strides[1]).flatten()
    last = torch.tensor([[size - SUPPORT] for size in sizes], dtype=torch.float64)
    matrix, start = torch.from_numpy(index[:3, :3]), torch.from_numpy(index[:3, 3]) + AHEAD - 1
    along_row = matrix[:, :1] * torch.arange(shape[0])
    lines_at_once = -(-POINTS // shape[0])
    bags = torch.arange(0, lines_at_once * shape[0] * len(nearby), len(nearby), dtype=torch.int32)
    first_axis = WEIGHTS.float()
    second_axis, third_axis = first_axis.repeat(1, SUPPORT), first_axis.repeat_interleave(SUPPORT, 1)
    result = torch.empty(shape[::-1])
    for plane, z in zip(result, range(shape[2]), strict=True):
        for lines, y in zip(plane.split(lines_at_once), torch.arange(shape[1]).split(lines_at_once), strict=True):
            place = (along_row[:, None] + (matrix[:, 1:2] * y + (matrix[:, 2:] * z + start[:, None]))[:, :, None]).flatten(1)
            first = torch.minimum(place.floor().clamp_(min=0), last)
            powers = _powers((place - first).float())
            rows = (first.to(torch.int32) * strides[:, None]).sum(0, dtype=torch.int32)
            indices = (rows[:, None] + nearby).flatten()
            each = (powers[:, 1].T @ second_axis).mul_(powers[:, 2].T @ third_axis).flatten()
            found = functional.embedding_bag(indices, table, bags[: len(rows)], mode="sum", per_sample_weights=each)
            lines.copy_((found * (powers[:, 0].T @ first_axis)).sum(-1).view_as(lines))
    return result.numpy().T


def _product(data: NDArray[np.float32], matrices: list[Tensor]) -> Tensor:
    """Each matrix (out, in) along its axis of (X, Y, Z), whose first axis is the fastest in memory; comes back as (Z, Y, X)."""
    first, second, third = matrices
    image = second @ (torch.from_numpy(np.ascontiguousarray(data.T)) @ first.T)
    return (third @ image.flatten(1)).unflatten(1, image.shape[1:])


def _powers(fraction: Tensor) -> Tensor:
    """(4, ...), 1 to the third power; each of them in one piece."""
    squared = fraction * fraction
    return torch.stack([torch.ones_like(fraction), fraction, squared, squared * fraction])


def _coefficients(size: int, sigma: float) -> Matrix:
    """(size + 4, size), from the samples of an axis to the coefficients of the spline through what the Gaussian leaves of them."""
    extra = 0 if size >= SUPPORT else SUPPORT - 1  # a spline needs four samples: shorter axes are continued at both ends
    full = size + 2 * extra
    samples = np.zeros((full, size))
    samples[np.arange(full), np.clip(np.arange(full) - extra, 0, size - 1)] = 1
    basis = np.zeros((full, full))
    for offset, weight in ((-1, 1 / 6), (0, 2 / 3), (1, 1 / 6)):
        np.add.at(basis, (np.arange(full), _mirrored(np.arange(full) + offset, full)), weight)
    coefficients = np.linalg.solve(basis, _gaussian(full, sigma) @ samples)
    kept: Matrix = coefficients[_mirrored(np.arange(extra - AHEAD, extra + size + AHEAD), full)]
    return kept


def _gaussian(size: int, sigma: float) -> Matrix:
    """(size, size), a Gaussian's smoothing of the samples of an axis."""
    radius = int(np.ceil(4 * sigma))
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-((offsets / max(sigma, 1e-6)) ** 2) / 2)
    matrix = np.zeros((size, size))
    for offset, weight in zip(offsets.tolist(), weights / weights.sum(), strict=True):
        np.add.at(matrix, (np.arange(size), np.clip(np.arange(size) + offset, 0, size - 1)), weight)
    return matrix


def _mirrored(index: NDArray[np.int_], size: int) -> NDArray[np.int_]:
    period = 2 * size - 2
    inside: NDArray[np.int_] = (size - 1) - np.abs((size - 1) - index % period)
    return inside


def _narrowed(matrix: Matrix) -> Tensor:
    """As float32, without the numbers near the smallest of all, which are slow to multiply."""
    return torch.from_numpy(np.where(np.abs(matrix) < FORGOTTEN, 0, matrix).astype(np.float32))
