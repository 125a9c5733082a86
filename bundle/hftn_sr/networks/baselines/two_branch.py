"""What MINet and SANet have in common: two branches of residual groups, joined at every stage, and attention over all stages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hftn_sr.networks.baselines.blocks import CSAM, LAM, Baseline, Up
from hftn_sr.networks.feature_extraction import FEB
from hftn_sr.networks.layers import conv3x3, output_convolution

__all__ = ["TwoBranch"]

GROUPS = 6  # stages that are residual groups; a seventh one is a convolution
BLOCKS = 6  # residual channel-attention blocks in a group


class TwoBranch(Baseline):
    r"""Target and reference r on the high-resolution grid; the target is upsampled right after its first convolution.

    .. math::
        t_0 = Conv(Up_s(Conv(x))), \quad r_0 = Conv(r), \quad
        r_i = Group(r_{i-1}), \quad t_i = Group(t'_{i-1}), \quad t'_i = t_i + \mathrm{join}(r_i, t_i)

    .. math:: L = Conv(LAM(r_1 \dots r_n, t_1 \dots t_n)), \qquad Conv(Conv([CSAM(t'_n), L]) + t_0)

    A seventh stage is one convolution instead of a group. The auxiliary image, :math:`Conv(Conv(CSAM(r_n)) + r_0)`, shall be r again.
    Source: public code of MINet and SANet.

    Args:
        scale: upscaling factor s, 2 or 4.
        channels: feature channels C.
        stages: number of stages n.
        join: makes the module that joins the two maps of one stage, (B, C, H, W) each.
        normalize_energy: see `LAM`.
        auxiliary: return (pred, reference reproduced) instead of pred.
    """

    def __init__(
        self, scale: int, channels: int, stages: int, join: Callable[[int], nn.Module], normalize_energy: bool, auxiliary: bool
    ) -> None:
        super().__init__(scale, channels)
        self.head_target = nn.Sequential(conv3x3(1, channels), Up(channels, scale), conv3x3(channels, channels))
        self.head_reference = conv3x3(1, channels)
        self.target, self.reference = (nn.ModuleList(_stage(channels, stage) for stage in range(stages)) for _ in range(2))
        self.join = nn.ModuleList(join(channels) for _ in range(stages))
        self.layers = LAM(normalize_energy)
        self.condense = conv3x3(2 * stages * channels, channels)
        self.attend_target = CSAM()
        self.merge_target = conv3x3(2 * channels, channels)
        self.output = output_convolution(channels)
        self.attend_reference = CSAM() if auxiliary else None
        self.merge_reference = conv3x3(channels, channels) if auxiliary else None
        self.output_reference = conv3x3(channels, 1) if auxiliary else None

    def _detail(self, x: Tensor, z: Tensor, low: Tensor, high: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        target = shallow_target = self.head_target(x)
        reference = shallow_reference = self.head_reference(low + high)
        references, targets = [], []
        for reference_stage, target_stage, join in zip(self.reference, self.target, self.join, strict=True):
            reference, target = reference_stage(reference), target_stage(target)
            references.append(reference)
            targets.append(target)
            target = target + join(reference, target)
        layers = self.condense(self.layers([*references, *targets]))
        detail = self.output(self.merge_target(torch.cat([self.attend_target(target), layers], 1)) + shallow_target)
        if self.attend_reference is None or self.merge_reference is None or self.output_reference is None:
            return detail
        return detail, self.output_reference(self.merge_reference(self.attend_reference(reference)) + shallow_reference)


def _stage(channels: int, stage: int) -> nn.Module:
    return FEB(channels, BLOCKS) if stage < GROUPS else conv3x3(channels, channels)
