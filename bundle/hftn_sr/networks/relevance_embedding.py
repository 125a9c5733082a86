"""Relevance embedding: what target and reference have in common at each place, and how alike their places are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.layers import conv3x3
from hftn_sr.networks.p4 import TURNS, tie

__all__ = ["DESCRIBED", "RelevanceEmbedding", "contrast_free", "similarities"]

WINDOW = 17  # voxels, of the local normalisation
FLOOR = 4e-4  # an intensity of 1 is the brightest of the image
GRADIENT_FLOOR = 1e-5  # per voxel squared
DESCRIBED = 4 * TURNS  # channels of the description


def contrast_free(image: Tensor, floor: float = FLOOR, gradient_floor: float = GRADIENT_FLOOR) -> Tensor:
    r"""Description of an image that does not depend on which tissue is bright.

    Each image is normalised by itself in windows of 17 x 17 voxels. A bright edge in one contrast is a dark one in the other: what they
    share is the direction of the gradient modulo 180 degrees, which doubled angles express,

    .. math:: (g_x^2 - g_y^2, \; 2 g_x g_y) / (e + g_x^2 + g_y^2), \qquad e = \text{local mean of } g_x^2 + g_y^2 .

    Args:
        image: (B, 1, H, W), even sizes.
        floor: added to the local variance.
        gradient_floor: added to e.

    Returns:
        (B, 16, H/2, W/2): normalised intensity, the two parts of the direction, and the gradient's strength; each as four maps that turn
        with the image (`p4`). A quarter turn changes the sign of a doubled angle.
    """
    mean = _local_mean(image)
    centred = image - mean
    normalised = centred * (_local_mean(centred.square()) + floor).rsqrt()
    edges = functional.pad(image, (1, 1, 1, 1), mode="replicate")
    rows = (edges[..., 2:, 1:-1] - edges[..., :-2, 1:-1]) / 2
    columns = (edges[..., 1:-1, 2:] - edges[..., 1:-1, :-2]) / 2
    strength = rows.square() + columns.square()
    energy = strength + _local_mean(strength) + gradient_floor
    maps = torch.cat([normalised, strength / energy, (columns.square() - rows.square()) / energy, 2 * rows * columns / energy], 1)
    intensity, gradient, straight, oblique = functional.avg_pool2d(maps, 2).split(1, dim=1)
    straight, oblique = torch.cat([straight, -straight], 1), torch.cat([oblique, -oblique], 1)
    return torch.cat([intensity.expand(-1, 4, -1, -1), gradient.expand(-1, 4, -1, -1), straight, straight, oblique, oblique], 1)


def similarities(query: Tensor, key: Tensor, radius: int) -> Tensor:
    r"""Cosine of each query with the keys around its place, in float32: equation (9) within a window.

    Args:
        query: (B, C, h, w).
        key: (B, C, h, w).
        radius: largest distance r along each axis.

    Returns:
        (B, (2 r + 1)^2, h, w), the offset along W changing fastest; 0 beyond the borders. Memory grows linearly with the image.
    """
    query = functional.normalize(query.float(), dim=1)
    keys = functional.pad(functional.normalize(key.float(), dim=1), (radius, radius, radius, radius))
    if not torch.jit.is_scripting() and torch.is_grad_enabled() and query.requires_grad:  # type: ignore[attr-defined]
        found: Tensor = _WindowedProducts.apply(query, keys)  # type: ignore[no-untyped-call]
        return found
    return _windowed_products(query, keys)


class _WindowedProducts(torch.autograd.Function):
    """`_windowed_products` with the gradients summed up in place, which takes a third of the time of autograd's own."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor) -> Tensor:
        ctx.save_for_backward(query, keys)
        return _windowed_products(query, keys)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        query, keys = ctx.saved_tensors
        to_query, to_keys = torch.zeros_like(query), torch.zeros_like(keys)
        windows = zip(_windows(query, keys), _windows(query, to_keys), gradient.split(1, dim=1), strict=True)
        for window, to_window, weight in windows:
            to_query.addcmul_(window, weight)
            to_window.addcmul_(query, weight)
        return to_query, to_keys


def _windowed_products(query: Tensor, keys: Tensor) -> Tensor:
    """Scalar products of queries (B, C, h, w) with the keys (B, C, h + 2 r, w + 2 r) around: (B, (2 r + 1)^2, h, w)."""
    return torch.stack([(query * window).sum(1) for window in _windows(query, keys)], -1).movedim(-1, 1)


def _windows(query: Tensor, keys: Tensor) -> list[Tensor]:
    """The parts of `keys` of the size of `query`, as views; the offset along W changes fastest."""
    height, width = query.shape[-2:]
    side = keys.shape[-1] - width + 1
    places = [(place // side, place % side) for place in range(side * side)]
    return [keys[:, :, row : row + height, column : column + width] for row, column in places]


class RelevanceEmbedding(nn.Module):
    """Queries of the target and keys of the reference's low band, on half the grid: equations (8) and (9).

    Two encoders of four 3x3 convolutions, rotation-equivariant (`p4`): the four maps of a feature turn alike in query and key, so that
    their cosine stays the same.

    Args:
        channels: of a query and a key, a multiple of 4.
        radius: largest distance of a key from its query, in places of half the grid.
        window: side of the square over which cosines are averaged.
    """

    def __init__(self, channels: int = 24, radius: int = 4, window: int = 5) -> None:
        super().__init__()
        self.radius, self.window = radius, window
        self.query, self.key = _encoder(channels), _encoder(channels)

    def forward(self, target: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        """Embed and compare.

        Args:
            target: (B, 1, H, W), zero-filled.
            low: (B, 1, H, W), low band of the reference.

        Returns:
            query (B, C, H/2, W/2) and relevance (B, (2 r + 1)^2, H/2, W/2), see `similarities`, float32.
        """
        query = self.query(contrast_free(target))
        relevance = similarities(query, self.key(contrast_free(low)), self.radius)
        return query, _local_mean(relevance, self.window)


def _encoder(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entering in (DESCRIBED, channels, channels, channels):
        layers += [conv3x3(entering, channels), nn.ReLU(inplace=True)]
    encoder = nn.Sequential(*layers[:-1])
    for layer in encoder:
        if isinstance(layer, nn.Conv2d):
            tie(layer)
    return encoder


def _local_mean(image: Tensor, window: int = WINDOW) -> Tensor:
    """Mean of the part of a square window, of an odd number of voxels, that lies in the image."""
    half = window // 2
    rows = functional.avg_pool2d(image, (window, 1), stride=1, padding=(half, 0), count_include_pad=False)
    return functional.avg_pool2d(rows, (1, window), stride=1, padding=(0, half), count_include_pad=False)
