"""Transfer attention: where in the reference each place of the target is found, whether that can be trusted, and what lies there."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.p4 import TURNS, tie

__all__ = ["Found", "TransferAttention", "expected_offset", "moved"]

SHARPNESS = 20.0  # of the softmax over cosines, at the start
DILATIONS = (1, 2, 4, 1)


class Found(NamedTuple):
    """What a search found, on half the grid.

    Args:
        logits: (B, (2 r + 1)^2, h, w), of the softmax over offsets.
        displacement: (B, 2, h, w), along H and W in places of half the grid, from a place of the target to the same place of the
            reference.
        relevance: (B, 1, h, w), logit of S: the displacement is right to a voxel.
    """

    logits: Tensor
    displacement: Tensor
    relevance: Tensor


def expected_offset(probabilities: Tensor) -> Tensor:
    """Mean offset (B, 2, h, w) along H and W under probabilities (B, (2 r + 1)^2, h, w): the soft arg-max."""
    side = _side(probabilities)
    steps = torch.arange(side, dtype=probabilities.dtype, device=probabilities.device) - side // 2
    offsets = torch.stack([steps.repeat_interleave(side), steps.repeat(side)])
    return functional.conv2d(probabilities, offsets[..., None, None])


def moved(images: Tensor, displacement: Tensor) -> Tensor:
    """Images (B, C, H, W) sampled at each voxel plus its displacement (B, 2, H, W) in voxels, by cubic interpolation, in float32.

    Beyond the borders, the border's voxels continue. Gradients to both arguments are those of the interpolation.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32, device=images.device)[:, None] + displacement[:, 0].float()
    columns = torch.arange(width, dtype=torch.float32, device=images.device) + displacement[:, 1].float()
    places = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
    return functional.grid_sample(images.float(), places, mode="bicubic", padding_mode="border", align_corners=False)


class TransferAttention(nn.Module):
    """From relevance to place and trust: equation (10) made continuous.

    The soft arg-max of the relevance is where the place is found; dilated convolutions add the remainder and give S, the trust in it. All
    convolutions are rotation-equivariant (`p4`): the displacement is a vector that turns with the slice, and S turns as an image.

    Args:
        channels: of the queries and inside, a multiple of 4.
    """

    def __init__(self, channels: int = 24) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        entering = channels + 4 * TURNS  # displacement, displacement by peak, peak, expected cosine
        self.context = nn.Sequential()
        for dilation in DILATIONS:
            self.context.append(nn.Conv2d(entering, channels, 3, padding=dilation, dilation=dilation))
            self.context.append(nn.ReLU(inplace=True))
            entering = channels
        self.remainder, self.trust = nn.Conv2d(channels, TURNS, 1), nn.Conv2d(channels, 1, 1)
        for last in (self.remainder, self.trust):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                tie(layer, leaving=layer is not self.trust)

    def forward(self, query: Tensor, relevance: Tensor) -> Found:
        """Find each place, in float32 also under autocast, but for a scripted network, which is not meant for it.

        Args:
            query: (B, C, h, w).
            relevance: (B, (2 r + 1)^2, h, w).
        """
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._found(query.float(), relevance.float())
        with torch.autocast(relevance.device.type, enabled=False):  # bfloat16 gradients of dilated convolutions are NaN on some CPUs
            return self._found(query.float(), relevance.float())

    def _found(self, query: Tensor, relevance: Tensor) -> Found:
        logits = relevance * self.sharpness.exp()
        probabilities = logits.softmax(1)
        soft = expected_offset(probabilities)
        peak, cosine = probabilities.amax(1, keepdim=True), (probabilities * relevance).sum(1, keepdim=True)
        half = _side(relevance) // 2
        vector = _fours(soft / half)
        # TURNS, which TorchScript does not see
        scalars = torch.cat([peak.expand(-1, 4, -1, -1), cosine.expand(-1, 4, -1, -1)], 1)
        features = self.context(torch.cat([query, vector, vector * peak, scalars], 1))
        along = self.remainder(features)
        remainder = torch.cat([along[:, 0:1] - along[:, 2:3], along[:, 1:2] - along[:, 3:4]], 1)
        return Found(logits, soft + half * remainder, self.trust(features))


def _side(offsets: Tensor) -> int:
    """2 r + 1 of maps (B, (2 r + 1)^2, h, w). By the root of a float, which TorchScript knows."""
    return int(math.sqrt(offsets.shape[1]) + 0.5)


def _fours(vector: Tensor) -> Tensor:
    """(B, 2, h, w) along H and W as the four maps of a feature that turns: a quarter turn takes H to W and W to minus H."""
    return torch.cat([vector, -vector], 1)
