"""Gated U-Net: both contrasts at every resolution, gates on the way back up, and a result that turns with the slice."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.layers import check_image, conv3x3, output_convolution, pad_far_edges
from hftn_sr.networks.p4 import TURNS, tie

__all__ = ["GatedUNet", "Level"]


class GatedUNet(nn.Module):
    r"""U-Net on the zero-filled target and the two bands of the reference, whose skips are gated by what comes from below.

    .. math::
        d_0 = Level([z, low, high]), \quad d_l = Level(Pool(d_{l-1})), \qquad
        u_{L-1} = d_{L-1}, \quad v_l = PixelShuffle(Conv_{1 \times 1}(u_{l+1})), \quad
        u_l = Level(v_l + d_l \cdot 2\sigma(Conv_{1 \times 1}(v_l))), \qquad z + Conv_{1 \times 1}(u_0)

    Level is two (conv3, ReLU), to :math:`2^l C` channels at :math:`1/2^l` of the resolution, so that each of the L levels costs about
    the same. Depth on the high-resolution grid and a wide view at low resolution are worth more than as many MACs on the
    low-resolution grid alone (docs/design-log.md). The last convolution starts at zero, so that the untrained network is zero-filling.

    All convolutions are rotation-equivariant (`p4`): a slice turned by 90 degrees gives the turned result, to rounding and where the
    padding divides the size. Others have to learn that from the few patients that there are.

    Source: Ronneberger et al., MICCAI 2015, doi 10.1007/978-3-319-24574-4_28, with gates on the skips as in Oktay et al., MIDL 2018; the
    bands, the zero-filled skip and that both contrasts enter together: ours, after HFTN-SR.

    Args:
        scale: upscaling factor s, 2 or 4, or None for any acquisition; of no consequence for the layers.
        channels: feature channels C on the high-resolution grid; a multiple of 4 for `equivariant`.
        levels: resolutions L, each half of the one before.
        gated: False lets the skips through as they are, to measure what the gates bring.
        equivariant: False leaves the convolutions free, likewise.
        slope: negative slope of the ReLUs. With 0 whole levels stop firing in long trainings, for good (docs/design-log.md).

    Raises:
        ValueError: an option outside what is listed here.
    """

    images = 3  # that enter

    def __init__(
        self, scale: int | None, channels: int = 48, levels: int = 4, gated: bool = True, equivariant: bool = True, slope: float = 0.0
    ) -> None:
        super().__init__()
        if scale not in (2, 4, None):
            raise ValueError(f"expected a scale of 2 or 4, or None, got {scale}")
        if channels < 1 or levels < 2:
            raise ValueError(f"expected at least 1 channel and 2 levels, got {channels} and {levels}")
        if equivariant and channels % TURNS:
            raise ValueError(f"expected channels that {TURNS} divides, or equivariant=False, got {channels}")
        if not 0 <= slope < 1:
            raise ValueError(f"expected a slope from 0 to below 1, got {slope}")
        self.options = {
            "scale": scale, "channels": channels, "levels": levels, "gated": gated, "equivariant": equivariant, "slope": slope,
        }  # fmt: skip
        self.multiple, self.images = 2 ** (levels - 1), type(self).images  # on the object, where TorchScript finds it
        widths = [channels * 2**level for level in range(levels)]
        self.down = nn.ModuleList(Level(before, own, slope) for before, own in zip([self.images, *widths[:-1]], widths, strict=True))
        self.enlarge = nn.ModuleList(nn.Sequential(nn.Conv2d(2 * own, 4 * own, 1), nn.PixelShuffle(2)) for own in reversed(widths[:-1]))
        self.gates = nn.ModuleList(nn.Conv2d(own, own, 1) if gated else nn.Identity() for own in reversed(widths[:-1]))
        self.up = nn.ModuleList(Level(own, own, slope) for own in reversed(widths[:-1]))
        self.gated = gated
        self.output = output_convolution(channels, kernel=1)
        if equivariant:
            self._tie()

    def use_slope(self, slope: float) -> None:
        """Take the activation of weights that were trained with this negative slope: with another they give nonsense."""
        self.options["slope"] = slope
        for level in (*self.down, *self.up):
            level[1], level[3] = _activation(slope), _activation(slope)

    def _tie(self) -> None:
        shuffled = {each[0] for each in self.enlarge}  # type: ignore[index]
        first = self.down[0][0]  # type: ignore[index]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                tie(layer, entering=layer is not first, leaving=layer is not self.output, shuffled=layer in shuffled)

    def forward(self, image: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            image: (B, 3, H, W) on the high-resolution grid: zero-filled target, low band and high band of the reference. Any size: what
                2^(L - 1) does not divide is padded at the far edges and cropped again, so that no sample moves.

        Returns:
            pred: (B, 1, H, W).
        """
        check_image(image, self.images)
        height, width = image.shape[-2:]
        skips = self._descend(pad_far_edges(image, self.multiple))
        features = skips.pop()
        for enlarge, gate, level in zip(self.enlarge, self.gates, self.up):  # noqa: B905 - TorchScript knows no strict
            features = enlarge(features)  # one name throughout: what is no longer needed is let go
            features = torch.addcmul(features, skips.pop(), gate(features).sigmoid_(), value=2) if self.gated else features + skips.pop()
            features = level(features)
        return image[:, :1] + self.output(features)[..., :height, :width]

    def _descend(self, images: Tensor) -> list[Tensor]:
        """Features of all levels, the lowest last."""
        features = images
        skips: list[Tensor] = []
        for index, level in enumerate(self.down):
            features = level(functional.max_pool2d(features, 2) if index else features)
            skips.append(features)
        return skips


class Level(nn.Sequential):
    """Two (conv3, ReLU) of one resolution.

    Args:
        entering: channels that enter.
        own: channels inside and that leave.
        slope: negative slope of the ReLUs.
    """

    def __init__(self, entering: int, own: int, slope: float) -> None:
        super().__init__(conv3x3(entering, own), _activation(slope), conv3x3(own, own), _activation(slope))

    def forward(self, features: Tensor, added: Tensor | None = None) -> Tensor:
        """Features (B, entering, H, W) to (B, own, H, W); `added`, if given, is added to the first convolution's."""
        features = self[0](features)
        if added is not None:
            features = features + added
        return self[3](self[2](self[1](features)))


def _activation(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
