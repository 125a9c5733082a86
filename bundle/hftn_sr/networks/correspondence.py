"""Correspondence: a gated U-Net that is given the reference as it lies and as a search has moved it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.layers import check_image, pad_far_edges
from hftn_sr.networks.p4 import tie
from hftn_sr.networks.relevance_embedding import RelevanceEmbedding
from hftn_sr.networks.transfer_attention import Found, TransferAttention, moved

__all__ = ["Correspondence", "FeatureSynthesis", "Gathered"]


class FeatureSynthesis(GatedUNet):
    r"""`GatedUNet` of z, both bands in place, both bands moved and S, which enter at every resolution: equation (11).

    At each level below the first, the mean of the six images over :math:`2^l \times 2^l` voxels is convolved and added to the level's
    first convolution, so that trust and moved bands need not pass the pooling.
    """

    images = 6

    def __init__(self, scale: int | None, channels: int, levels: int, equivariant: bool, slope: float) -> None:
        super().__init__(scale, channels, levels, equivariant=equivariant, slope=slope)
        self.enter = nn.ModuleList(nn.Conv2d(self.images, channels * 2**level, 3, padding=1, bias=False) for level in range(1, levels))
        if equivariant:
            for layer in self.enter:
                tie(layer, entering=False)  # type: ignore[arg-type]

    def _descend(self, images: Tensor) -> list[Tensor]:
        entering: list[Tensor] = []
        smaller = images
        for enter in self.enter:
            smaller = functional.avg_pool2d(smaller, 2)
            entering.append(enter(smaller))
        features = images
        skips: list[Tensor] = []
        for index, level in enumerate(self.down):
            features = level(functional.max_pool2d(features, 2), entering.pop(0)) if index else level(features)
            skips.append(features)
        return skips


class Correspondence(nn.Module):
    r"""HFTN-SR with transfer by a fine search, and a gated U-Net in place of the chain of FEBs.

    .. math::
        q, k = Embed(z), Embed(low), \quad r_{p, d} = mean_{5 \times 5} \cos(q_p, k_{p + d}), \quad
        t_p = p + \sum_d softmax_d(r_{p, d}) \, d + remainder, \qquad
        z + UNet([z, low, high, low(t), high(t), S])

    Fusion that trusts a reference loses what a misplaced one costs; fusion trained on misplaced ones ignores it. Here a search says where
    the reference shows each place, and S whether that is right. Both bands are sampled there, from the source, on the high-resolution grid.
    What lies in place stays beside it, since interpolation loses the finest detail. The search is supervised with displacements that the
    training draws itself (`hftn_sr.training.correspondence`): the image loss alone teaches none (docs/design-log.md).

    The whole network is rotation-equivariant (`p4`), its memory grows linearly with the image, and untrained it is zero-filling.

    Source: equations (8) to (11) of HFTN-SR, whose hard arg-max over patches of the low-resolution grid becomes a soft one at every second
    voxel; the U-Net as in `GatedUNet`.

    Args:
        scale: upscaling factor s, 2 or 4; None for any acquisition. Of no consequence for the layers.
        channels: feature channels of the U-Net on the high-resolution grid; a multiple of 4 for `equivariant`.
        levels: resolutions of the U-Net.
        embedding: channels of queries and keys, a multiple of 4.
        radius: reach of the search in places of half the grid: 4 is 8 voxels.
        searching: False leaves out the search and what it moves, which is `GatedUNet`, to measure what they bring.
        equivariant: False leaves the U-Net's convolutions free.
        slope: negative slope of the U-Net's ReLUs, see `GatedUNet`.

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(
        self,
        scale: int | None,
        channels: int = 48,
        levels: int = 4,
        embedding: int = 24,
        radius: int = 4,
        searching: bool = True,
        equivariant: bool = True,
        slope: float = 0.0,
    ) -> None:
        super().__init__()
        if embedding < 4 or embedding % 4 or radius < 1:
            raise ValueError(f"expected an embedding that 4 divides and a radius of at least 1, got {embedding} and {radius}")
        self.options = {
            "scale": scale, "channels": channels, "levels": levels, "embedding": embedding, "radius": radius,
            "searching": searching, "equivariant": equivariant, "slope": slope,
        }  # fmt: skip
        self.scale, self.multiple, self.searching = scale, 2 ** (levels - 1), searching
        self.synthesis: GatedUNet
        if searching:
            self.embed, self.attend = RelevanceEmbedding(embedding, radius), TransferAttention(embedding)
            self.synthesis = FeatureSynthesis(scale, channels, levels, equivariant, slope)
        else:
            self.synthesis = GatedUNet(scale, channels, levels, equivariant=equivariant, slope=slope)

    @torch.no_grad()
    def begin_with(self, unet: GatedUNet, share: float = 0.5) -> None:
        """Take over a trained `GatedUNet` of the same size; what enters at the lower levels begins at zero.

        What its first convolution made of the bands in place, it now makes of a mixture of them and the moved bands. So the result is that
        of the U-Net where a search finds the reference in place, and holds where the reference is not, before any further training
        (docs/design-log.md).

        Args:
            unet: same channels and levels.
            share: of the moved bands.
        """
        own, given = self.synthesis.state_dict(), unet.state_dict()
        first = given["down.0.0.weight"]
        target, bands = first[:, :1], first[:, 1:]
        mixed = torch.cat([target, (1 - share) * bands, share * bands, torch.zeros_like(target)], 1)
        entering = {name: torch.zeros_like(weight) for name, weight in own.items() if name.startswith("enter.")}
        self.synthesis.load_state_dict({**given, **entering, "down.0.0.weight": mixed})

    def use_slope(self, slope: float) -> None:
        """See `GatedUNet.use_slope`."""
        self.options["slope"] = slope
        self.synthesis.use_slope(slope)

    def search(self, image: Tensor) -> Found:
        """Where the reference shows each place.

        Args:
            image: (B, 3, H, W), see `forward`, even sizes. In float32 also under autocast, but for the embedding.
        """
        query, relevance = self.embed(image[:, :1], image[:, 1:2])
        found: Found = self.attend(query, relevance)
        return found

    def gather(self, image: Tensor, found: Found) -> Tensor:
        """What enters the U-Net: (B, 3, H, W) and what a search found to (B, 6, H, W), even sizes."""
        displacement = functional.interpolate(found.displacement, scale_factor=2.0, mode="bilinear")
        relevance = functional.interpolate(found.relevance, scale_factor=2.0, mode="bilinear")
        return torch.cat([image, moved(image[:, 1:], 2 * displacement), relevance.sigmoid()], 1)

    def fuse(self, image: Tensor, found: Found) -> Tensor:
        """Super-resolve with what a search found: (B, 3, H, W) to (B, 1, H, W), sizes that 2^(L - 1) divides."""
        pred: Tensor = self.synthesis(self.gather(image, found))
        return pred

    def forward(self, image: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            image: (B, 3, H, W) on the high-resolution grid: zero-filled target, low band and high band of the reference. Any size: what
                2^(L - 1) does not divide is padded at the far edges and cropped again, so that no sample moves.

        Returns:
            pred: (B, 1, H, W).
        """
        check_image(image)
        height, width = image.shape[-2:]
        padded = pad_far_edges(image, self.multiple)
        pred: Tensor = self.fuse(padded, self.search(padded)) if self.searching else self.synthesis(padded)
        return pred[..., :height, :width]


class Gathered(nn.Module):
    """The part of a `Correspondence` before its U-Net: (B, 3, H, W) to what enters that, (B, 6, H, W), of any size."""

    def __init__(self, network: Correspondence) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Search and move, padded as `Correspondence.forward` pads, cropped again."""
        height, width = image.shape[-2:]
        padded = pad_far_edges(image, self.network.multiple)
        return self.network.gather(padded, self.network.search(padded))[..., :height, :width]
