"""MSDT, our reading: a deformable transformer on multi-scale embeddings of both contrasts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.baselines.blocks import Baseline, Residual, Up, at_least_float32
from hftn_sr.networks.layers import conv3x3, output_convolution

__all__ = ["MSDT", "ChannelNorm", "DeformableAttention", "MultiScaleEmbedding"]

HEADS = 4
BLOCKS = 8
SPACING = 32  # voxels of the high-resolution grid from one sample point to the next
REACH = 2.0  # spacings that a sample point may move


class MSDT(Baseline):
    r"""Multi-scale deformable transformer on the low-resolution grid; **our reading**, results under this name must say so.

    .. math::
        e = E_x(x), \quad v_0 = Conv_1([e, E_r(PixelUnshuffle_s(r))]), \quad
        v_i = v' + FFN(LN\,v'), \; v' = v_{i-1} + DA(LN\,v_{i-1}), \quad Conv(Up_s(Conv(v_8) + e))

    with :math:`FFN = Conv_1 \circ GELU \circ DWConv \circ Conv_1`, C to 2C to C, `MultiScaleEmbedding` E and `DeformableAttention` DA.
    Source: Zou et al., Biomed. Signal Process. Control 79:104154, 2023, doi 10.1016/j.bspc.2022.104154, of which we have the abstract
    only: multi-scale patch embedding of both contrasts; a deformable transformer with data-dependent sparse attention.
    Not found, hence chosen: everything else, among it the grid, the sizes, the upsampling at the end and the loss.

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C, a multiple of 4.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(self, scale: int, channels: int = 64) -> None:
        super().__init__(scale, channels, multiple=SPACING)
        if channels % HEADS:
            raise ValueError(f"expected channels divisible by the {HEADS} heads, got {channels}")
        self.options = {"scale": scale, "channels": channels}
        self.embed_target = MultiScaleEmbedding(1, channels)
        self.embed_reference = MultiScaleEmbedding(scale**2, channels)
        self.joint = nn.Conv2d(2 * channels, channels, 1)
        self.blocks = nn.Sequential(*(_block(channels, SPACING // scale) for _ in range(BLOCKS)))
        self.deep = conv3x3(channels, channels)
        self.restore = nn.Sequential(Up(channels, scale), output_convolution(channels))

    def _detail(self, x: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        target = self.embed_target(x)
        reference = self.embed_reference(functional.pixel_unshuffle(low + high, self.scale))
        return self.restore(self.deep(self.blocks(self.joint(torch.cat([target, reference], 1)))) + target)


class MultiScaleEmbedding(nn.Module):
    """Convolutions of kernel 3, 5 and 7 side by side, concatenated, then 1x1: (B, channels_in, h, w) to (B, C, h, w)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2) for kernel in (3, 5, 7))
        self.merge = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels_in, h, w) to (B, C, h, w)."""
        return self.merge(torch.cat([scale(image) for scale in self.scales], 1))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of (B, C, h, w) over the channels of each voxel."""

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        return super().forward(features.movedim(1, -1)).movedim(-1, 1)


class DeformableAttention(nn.Module):
    r"""Attention of every voxel to few sample points, whose places depend on the image.

    .. math:: \mathrm{softmax}(q^T k / \sqrt{C/4}) \, v', \qquad q = Conv_1(v), \quad k, v' = Conv_1(v(p_0 + \Delta))

    The points :math:`p_0` are the centres of a regular grid. Their offsets :math:`\Delta`, own ones for each of 4 heads, come from q:
    average over a grid cell, depthwise convolution, layer norm, GELU, a 1x1 convolution that starts at zero, 2 tanh, in grid cells. v is
    read at the points linearly, each head its own channels, beyond the border as at it; a last 1x1 convolution mixes the heads.
    The bias of k moves all of a voxel's weights alike, so it has no effect; it is there because the public code has it.

    Source: public code of Xia et al., CVPR 2022, presumed to be what MSDT builds on. There, the centres are divided by n - 1, so that the
    outer points leave the image; here by n. Chosen: the average, the reach of 2 cells, no position bias.

    Args:
        channels: feature channels C, a multiple of 4.
        cell: side of a grid cell in voxels; must divide h and w.
    """

    def __init__(self, channels: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.query, self.key, self.value, self.project = (nn.Conv2d(channels, channels, 1) for _ in range(4))
        last = nn.Conv2d(channels, 2 * HEADS, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.offset = nn.Sequential(_depthwise(channels), ChannelNorm(channels), nn.GELU(), last, nn.Tanh())

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        query = self.query(features)
        samples = self.sample(features, self.points(query))
        queries, keys, values = (_heads(each).flatten(3) for each in (query, self.key(samples), self.value(samples)))
        weights = torch.softmax(queries.transpose(2, 3) @ keys / queries.shape[2] ** 0.5, -1)
        return self.project((values @ weights.transpose(2, 3)).flatten(1, 2).view_as(features))

    def points(self, query: Tensor) -> Tensor:
        """Where to sample, (B*4, h/cell, w/cell, 2) as (x, y), -1 and 1 being the outer edges of the image, from q (B, C, h, w)."""
        offsets = REACH * at_least_float32(_heads(self.offset(functional.avg_pool2d(query, self.cell))).flatten(0, 1))
        rows, columns = offsets.shape[-2:]
        row, column = (torch.arange(size, device=query.device) + 0.5 for size in (rows, columns))
        return torch.stack([2 * (column + offsets[:, 0]) / columns - 1, 2 * (row[:, None] + offsets[:, 1]) / rows - 1], -1)

    @staticmethod
    def sample(features: Tensor, points: Tensor) -> Tensor:
        """Features (B, C, h, w) at the points (B*4, n, m, 2) of each head, (B, C, n, m); in float32 also under autocast."""
        heads = at_least_float32(_heads(features).flatten(0, 1))
        return functional.grid_sample(heads, points, padding_mode="border", align_corners=False).unflatten(0, (-1, HEADS)).flatten(1, 2)


def _block(channels: int, cell: int) -> nn.Sequential:
    return nn.Sequential(
        Residual(ChannelNorm(channels), DeformableAttention(channels, cell)),
        Residual(
            ChannelNorm(channels),
            nn.Conv2d(channels, 2 * channels, 1),
            _depthwise(2 * channels),
            nn.GELU(),
            nn.Conv2d(2 * channels, channels, 1),
        ),
    )


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def _heads(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, 4, C/4, h, w)."""
    return features.unflatten(1, (HEADS, -1))
