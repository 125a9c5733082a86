"""Feature transfer block (FTB): find for each patch of the target the most alike patch of the reference, and bring its detail."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

from hftn_sr.networks.layers import conv3x3

__all__ = ["FTB", "Concatenation", "Transfer", "best_match"]

Transfer = Literal["gather", "gather_and_keep", "mask"]

LONGEST_PIECE = 128  # of a row of the correlation matrix that is searched as a whole
CORRELATIONS_AT_ONCE = 1 << 20  # entries of the correlation matrix held at a time: 4 MiB in float32; fewer rows at a time multiply slower


def best_match(query: Tensor, key: Tensor, at_once: int = CORRELATIONS_AT_ONCE) -> tuple[Tensor, Tensor]:
    r"""Position and similarity of the key most alike to each query, without holding the whole correlation matrix.

    .. math:: t_p = \mathrm{argmax}_j \; r_{p,j}, \qquad S_p = r_{p,t_p}, \qquad r_{p,j} = \langle q_p/|q_p|, k_j/|k_j| \rangle

    The search runs without gradients in blocks of rows, in float32 also under autocast (bfloat16 moves arg-maxima); the similarity of the
    chosen pairs is then computed again with gradients. That is the value and the gradient of the full matrix, in linear memory.
    An exported graph holds the search as one matrix product, since a loop over blocks would be fixed to the size it was traced at.

    Source: HFTN-SR, equations (9) and (10).

    Args:
        query: (B, P, d).
        key: (B, J, d).
        at_once: how many correlations are in memory at a time.

    Returns:
        positions t (B, P), int64, and similarities S (B, P) within -1..1.
    """
    with torch.autocast(query.device.type, enabled=False):
        query = functional.normalize(query.float(), dim=-1)  # eps-guarded: a zero vector stays zero
        key = functional.normalize(key.float(), dim=-1)
        with torch.no_grad():
            candidates = key.transpose(1, 2).contiguous()
            exporting = torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()
            counting = isinstance(query, FakeTensor)  # which holds no memory; a thousand blocks would only take time
            if exporting or counting or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
                position = torch.matmul(query, candidates).argmax(-1)
            else:
                rows = max(1, at_once // (key.shape[0] * key.shape[1]))
                position = torch.cat([_place_of_maximum(torch.matmul(block, candidates)) for block in query.split(rows, 1)], 1)
        first = torch.arange(key.shape[0], device=key.device).unsqueeze(1) * key.shape[1]
        chosen = key.flatten(0, 1).index_select(0, (first + position).flatten()).view_as(query)
        return position, (query * chosen).sum(-1)


def _place_of_maximum(correlation: Tensor) -> Tensor:
    """(B, P, J) to (B, P): `argmax` over J, the first one where several are equal.

    The maximum of each piece of a row first, which a CPU does eight values at a time, then the place within the best piece: three times
    faster than `argmax`, which goes value by value and would cost as much as the matrix product before it.
    """
    piece = next(length for length in range(LONGEST_PIECE, 0, -1) if correlation.shape[-1] % length == 0)
    pieces = correlation.unflatten(-1, (-1, piece))
    best = pieces.amax(-1).argmax(-1)
    within = pieces.gather(2, best[..., None, None].expand(-1, -1, 1, piece)).squeeze(2).argmax(-1)
    return best * piece + within


class FTB(nn.Module):
    r"""Feature transfer block.

    .. math:: F_{FAF} = F_{Tar} + Conv_{3 \times 3}([C, F_{Tar}]) \cdot S

    where C holds, for each p x p patch of the target features, the patch of the reference's high-frequency features at the position
    where its low-frequency features are most alike, and S is that similarity, repeated over the patch. S is the only path by which the
    embeddings learn, so it is never detached.

    Source: HFTN-SR, equations (7) to (11).

    Args:
        channels: feature channels C.
        patch: side p of the non-overlapping patches.
        embedding: length d of a query or key.
        separate: query and key have a linear projection each, instead of one for both.
        transfer: what C holds. `gather`: the patch found. `mask`: the reference's patches where they lie, those that no target patch
            found set to 0. `gather_and_keep`: the patch found and, as further channels, the reference's features where they lie.
    """

    def __init__(self, channels: int, patch: int = 2, embedding: int = 64, separate: bool = False, transfer: Transfer = "gather") -> None:
        super().__init__()
        if transfer not in get_args(Transfer):
            raise ValueError(f"expected transfer to be one of {get_args(Transfer)}, got {transfer!r}")
        self.patch, self.transfer = patch, transfer
        # Flattening a patch and one linear layer, equation (8), is a 1x1 convolution after the patches became channels.
        self.query = nn.Conv2d(channels * patch**2, embedding, 1)
        self.key = nn.Conv2d(channels * patch**2, embedding, 1) if separate else None
        self.synthesis = conv3x3((3 if transfer == "gather_and_keep" else 2) * channels, channels)

    def forward(self, low: Tensor, high: Tensor, target: Tensor) -> Tensor:
        """Fused features from those of the reference's two bands and of the target.

        Args:
            low: F_RecL, (B, C, h, w); patch must divide h and w.
            high: F_RecH, (B, C, h, w).
            target: F_Tar, (B, C, h, w).

        Returns:
            F_FAF, (B, C, h, w).
        """
        q, k = self._embedded(self.query, target), self._embedded(self.key or self.query, low)  # (8)
        T, S = best_match(q.flatten(2).transpose(1, 2), k.flatten(2).transpose(1, 2))  # (9), (10)
        C = self._transferred(high, T)
        S = S.to(target.dtype).unflatten(1, (1, *q.shape[-2:])).repeat_interleave(self.patch, -2).repeat_interleave(self.patch, -1)
        return torch.addcmul(target, self.synthesis(torch.cat([*C, target], 1)), S)  # (11)

    def _embedded(self, layer: nn.Conv2d, features: Tensor) -> Tensor:
        """(B, C, h, w) to (B, d, h/p, w/p): the layer on each flattened patch, as a convolution in steps of p."""
        weight = layer.weight.view(layer.out_channels, -1, self.patch, self.patch)
        return functional.conv2d(features, weight, layer.bias, stride=self.patch)

    def _transferred(self, high: Tensor, position: Tensor) -> list[Tensor]:
        if self.transfer == "mask":
            patches = functional.pixel_unshuffle(high, self.patch)
            found = torch.zeros_like(patches[:, 0].flatten(1)).scatter(1, position, 1.0)
            return [functional.pixel_shuffle(patches * found.view_as(patches[:, :1]), self.patch)]
        transferred = _voxels(high, self._origins(high, position))
        return [transferred, high] if self.transfer == "gather_and_keep" else [transferred]

    def _origins(self, high: Tensor, position: Tensor) -> Tensor:
        """Where in a (B, h, w) array, flattened, each voxel of the patches at `position` (B, P) lies: (B, h, w)."""
        batch, _, height, width = high.shape
        row, column, image = (torch.arange(length, device=high.device) for length in (height, width, batch))
        places = row.unsqueeze(1) * width + column
        corners = places[:: self.patch, :: self.patch].flatten()
        found = corners[position].unflatten(1, (height // self.patch, width // self.patch))
        found = found.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        within = (row % self.patch).unsqueeze(1) * width + column % self.patch
        return found + within + (image * (height * width)).view(-1, 1, 1)


def _voxels(features: Tensor, origins: Tensor) -> Tensor:
    """The voxels of (B, C, h, w) at `origins` (B, h, w); the channels of a voxel lie together and are copied at once."""
    batch, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, origins.flatten())
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


class Concatenation(nn.Module):
    r"""What stands in place of an FTB in the ablation without it, :math:`Conv_{3 \times 3}([F_{RecL}, F_{RecH}, F_{Tar}])`.

    Source: HFTN-SR, section 3.4, model 2. It takes and gives what `FTB` does.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.synthesis = conv3x3(3 * channels, channels)

    def forward(self, low: Tensor, high: Tensor, target: Tensor) -> Tensor:
        """Three times (B, C, h, w) to (B, C, h, w)."""
        return self.synthesis(torch.cat([low, high, target], 1))
