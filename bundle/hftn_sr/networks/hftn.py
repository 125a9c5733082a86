"""HFTN-SR, the network of the paper."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.feature_extraction import FEB
from hftn_sr.networks.feature_standardization import SCRFM, PlainRestoration
from hftn_sr.networks.feature_transfer import FTB, Concatenation, Transfer
from hftn_sr.networks.layers import conv3x3, output_convolution, pad_far_edges, sum_of_taps, tap_by_tap

__all__ = ["HFTNSR"]


class HFTNSR(nn.Module):
    r"""High-frequency feature transfer network for multi-contrast super-resolution of MR images.

    Three branches of N stages run on the low-resolution grid: the target's, the reference's high band and its low band. At each stage the
    low band finds where the reference resembles the target, and the high band's features from there join the target's:

    .. math::
        F_{Tar}^i = FEB(F_{FAF}^{i-1}), \quad F_{RecH}^i = FEB(F_{RecH}^{i-1}), \quad F_{RecL}^i = FEB(F_{RecL}^{i-1}), \quad
        F_{FAF}^i = FTB(F_{RecL}^i, F_{RecH}^i, F_{Tar}^i)

    SCRFM adds the shallow features and restores the size. The high band once more, as a residual, and the zero-filled target complete

    .. math:: I_{SR} = Conv(F_f + Conv(HF)) + \text{zero_fill}(I_{LR})

    The last convolution starts at zero, so that the untrained network is exactly zero-filling. Computed, it is joined with those before it
    (`layers.tap_by_tap`): forward hooks on `output`, `residual_high` and `scrfm` see nothing, unless `scrfm` is False.
    Source: Jin, "HFTN-SR: High-Frequency Feature Transfer Network for MR Image Super-Resolution", equations (1) to (18).

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        stages: depth N of the three branches.
        blocks: residual channel-attention blocks n in each FEB.
        patch: side p of the patches that are matched, on the low-resolution grid.
        embedding: length d of a patch's query and key.
        separate: query and key have a linear projection each, instead of one for both.
        transfer: reading of the transferred features, see `FTB`; `none` concatenates the three branches instead (ablation).
        fusion: what enters stage i. `chain`: the fused features of stage i - 1. `parallel_sum`: the target's own features; the fused
            features of all stages are added up.
        stat: see `SCRFM`.
        literal_up: see `SCRFM`.
        scrfm: False restores the size by `PlainRestoration` instead (ablation).

    Raises:
        ValueError: an option outside what is listed here.
    """

    def __init__(
        self,
        scale: int,
        channels: int = 64,
        stages: int = 8,
        blocks: int = 2,
        patch: int = 2,
        embedding: int = 64,
        separate: bool = False,
        transfer: Transfer | Literal["none"] = "gather",
        fusion: Literal["chain", "parallel_sum"] = "chain",
        stat: Literal["std", "var"] = "std",
        literal_up: bool = False,
        scrfm: bool = True,
    ) -> None:
        super().__init__()
        self.options = {
            "scale": scale, "channels": channels, "stages": stages, "blocks": blocks, "patch": patch, "embedding": embedding,
            "separate": separate, "transfer": transfer, "fusion": fusion, "stat": stat, "literal_up": literal_up,
            "scrfm": scrfm,
        }  # fmt: skip
        if scale not in (2, 4):
            raise ValueError(f"expected a scale of 2 or 4, got {scale}")
        if fusion not in ("chain", "parallel_sum"):
            raise ValueError(f"expected fusion to be 'chain' or 'parallel_sum', got {fusion!r}")
        self.scale, self.patch, self.fusion = scale, patch, fusion
        self.head_target = conv3x3(1, channels)
        self.head_high = conv3x3(scale**2, channels)
        self.head_low = conv3x3(1, channels)
        self.target, self.high, self.low = (nn.ModuleList(FEB(channels, blocks) for _ in range(stages)) for _ in range(3))
        self.transfer = nn.ModuleList(
            Concatenation(channels) if transfer == "none" else FTB(channels, patch, embedding, separate, transfer) for _ in range(stages)
        )
        self.scrfm = SCRFM(channels, scale, stat, literal_up) if scrfm else PlainRestoration(channels, scale)
        self.residual_high = conv3x3(1, channels)
        self.output = output_convolution(channels)

    def forward(self, image: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            image: (B, 3, H, W) on the high-resolution grid: zero-filled target, low band and high band of the reference. Any size: what
                s*p does not divide is padded at the far edges and cropped again, so that no sample moves.

        Returns:
            pred: (B, 1, H, W).
        """
        height, width = image.shape[-2:]
        zero_filled, low, high = pad_far_edges(image, self.scale * self.patch).split(1, 1)
        detail = self._detail(zero_filled[..., :: self.scale, :: self.scale], low[..., :: self.scale, :: self.scale], high)
        return image[:, :1] + detail[..., :height, :width].to(image.dtype)

    def _detail(self, target: Tensor, low: Tensor, high: Tensor) -> Tensor:
        shallow = self.head_target(target)
        deep = self._deep(shallow, low, high)
        if isinstance(self.scrfm, PlainRestoration):
            restored: Tensor = self.output(self.scrfm(deep, shallow).add_(self.residual_high(high)))
            return restored
        weight, bias = tap_by_tap(self.residual_high, self.output)
        maps = self.scrfm.taps(deep, shallow, self.output).add_(functional.conv2d(high, weight, bias, padding=1))
        return sum_of_taps(maps, self.output)

    def _deep(self, shallow: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """F_FAF^N, (B, C, h, w), or the sum of all; apart so that the reference's features are gone when the image is restored."""
        fused = total = shallow
        features_high = self.head_high(functional.pixel_unshuffle(high, self.scale))
        features_low = self.head_low(low)
        for target_block, high_block, low_block, transfer in zip(self.target, self.high, self.low, self.transfer, strict=True):
            features_high, features_low = high_block(features_high), low_block(features_low)
            own = target_block(fused)
            fused = transfer(features_low, features_high, own)
            if self.fusion == "parallel_sum":
                total, fused = total + fused, own
        return total if self.fusion == "parallel_sum" else fused
