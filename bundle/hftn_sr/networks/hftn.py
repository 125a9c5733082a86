"""HFTN-SR, the network of the paper."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from hftn_sr.networks.feature_extraction import FEB
from hftn_sr.networks.feature_standardization import SCRFM, PlainRestoration
from hftn_sr.networks.feature_transfer import FTB, Concatenation, Transfer
from hftn_sr.networks.layers import check_image, conv3x3, output_convolution, pad_far_edges, sum_of_taps, tap_by_tap

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

    The last convolution starts at zero, so that the untrained network is exactly zero-filling. In training, each line of the code is an
    equation. In evaluation mode the last convolution is joined with those before it (`layers.tap_by_tap`), which gives the same but for
    rounding in less time and memory; forward hooks on `output`, `residual_high` and `scrfm` see nothing then.
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
        check_image(image)
        height, width = image.shape[-2:]
        zero_filled, LF, HF = pad_far_edges(image, self.scale * self.patch).split(1, 1)
        I_LR, LF = zero_filled[..., :: self.scale, :: self.scale], LF[..., :: self.scale, :: self.scale]  # their own samples, exactly
        detail = self._detail(I_LR, LF, HF) if self.training or not isinstance(self.scrfm, SCRFM) else self._detail_fast(I_LR, LF, HF)
        return image[:, :1] + detail[..., :height, :width].to(image.dtype)

    def _detail(self, I_LR: Tensor, LF: Tensor, HF: Tensor) -> Tensor:
        """What the network adds to the zero-filled target, (B, 1, H, W), equation by equation."""
        F_Tar_0 = self.head_target(I_LR)  # (1)
        F_FAF_N = self._stages(F_Tar_0, LF, HF)  # (2) to (11)
        F_f = self.scrfm(F_FAF_N, F_Tar_0)  # (12) to (18)
        I_SR: Tensor = self.output(F_f + self.residual_high(HF))
        return I_SR

    def _stages(self, F_Tar_0: Tensor, LF: Tensor, HF: Tensor) -> Tensor:
        """F_FAF^N, (B, C, h, w), or the sum over all stages; apart, so that the reference's features go before the image is restored."""
        F_RecH = self.head_high(functional.pixel_unshuffle(HF, self.scale))  # (3)
        F_RecL = self.head_low(LF)  # (5)
        F_FAF = total = F_Tar_0
        for FEB_Tar, FEB_RecH, FEB_RecL, transfer in zip(self.target, self.high, self.low, self.transfer, strict=True):
            F_Tar = FEB_Tar(F_FAF)  # (2)
            F_RecH = FEB_RecH(F_RecH)  # (4)
            F_RecL = FEB_RecL(F_RecL)  # (6)
            F_FAF = transfer(F_RecL, F_RecH, F_Tar)  # (7) to (11)
            if self.fusion == "parallel_sum":
                total, F_FAF = total + F_FAF, F_Tar
        return total if self.fusion == "parallel_sum" else F_FAF

    def _detail_fast(self, I_LR: Tensor, LF: Tensor, HF: Tensor) -> Tensor:
        """`_detail` in a seventh of the operations on the high-resolution grid: its last two convolutions are computed as one."""
        F_Tar_0 = self.head_target(I_LR)
        maps = self.scrfm.taps(self._stages(F_Tar_0, LF, HF), F_Tar_0, self.output)  # type: ignore[operator]
        weight, bias = tap_by_tap(self.residual_high, self.output)
        return sum_of_taps(maps.add_(functional.conv2d(HF, weight, bias, padding=1)), self.output)
