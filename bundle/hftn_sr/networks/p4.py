"""Convolutions that turn with their image: whatever a network of them finds in a slice, it finds in the slice turned by 90 degrees.

Channels come in fours, one for each turn: (F, 4) features flattened to C = 4F channels. Turning the image turns every map and moves it on
to the next of its four. A weight keeps to that where it is the same after all of its spatial and channel axes were turned together;
the mean over the four turns of any weight is such a weight.

The layers stay ordinary convolutions with ordinary weights: `tie` makes the weights symmetric once, and their gradients in every step, and
an optimizer that treats channels alike, as Adam and Muon do, then leaves them so but for rounding.

Source: Cohen and Welling, ICML 2016, "Group equivariant convolutional networks", with the group p4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["TURNS", "tie"]

TURNS = 4


def tie(convolution: nn.Conv2d, entering: bool = True, leaving: bool = True, shuffled: bool = False) -> None:
    """Make a convolution turn with its image, now and in training.

    Args:
        convolution: with weight (C_out, C_in, k, k), and a bias.
        entering: its input comes in fours; False for images, which only turn.
        leaving: its output does; False for an image.
        shuffled: a PixelShuffle by 2 follows, so that the output is (C, 2, 2), flattened.

    Raises:
        ValueError: channels that TURNS does not divide.
    """
    channels_out, channels_in = convolution.out_channels // (4 if shuffled else 1), convolution.in_channels
    fours_out, fours_in = TURNS if leaving else 1, TURNS if entering else 1
    if channels_out % fours_out or channels_in % fours_in:
        raise ValueError(f"expected channels divisible by {TURNS}, got {channels_in} to {channels_out}")
    features_out, features_in = channels_out // fours_out, channels_in // fours_in

    def symmetric_weight(weight: Tensor) -> Tensor:
        if shuffled:
            parts = weight.reshape(features_out, fours_out, 2, 2, features_in, fours_in)
            return _mean_over_turns(parts.permute(0, 1, 4, 5, 2, 3)).permute(0, 1, 4, 5, 2, 3).reshape(weight.shape)
        return _mean_over_turns(weight.reshape(features_out, fours_out, features_in, fours_in, *weight.shape[2:])).reshape(weight.shape)

    def symmetric_bias(bias: Tensor) -> Tensor:
        side = 2 if shuffled else 1
        return _mean_over_turns(bias.reshape(features_out, fours_out, 1, 1, side, side)).reshape(bias.shape)

    for parameter, symmetric in ((convolution.weight, symmetric_weight), (convolution.bias, symmetric_bias)):
        if parameter is None:
            continue
        with torch.no_grad():
            # The mean of four independent numbers varies half as much: as many features shall come out as large as before.
            parameter.copy_(symmetric(parameter) * TURNS**0.5)
        parameter.register_hook(symmetric)


def _mean_over_turns(weight: Tensor) -> Tensor:
    """(F_out, 4, F_in, 4, k, k), or 1 in place of a 4 for images.

    The maps that go to the first of four features are averaged; those to the other three are the same, turned. Features are last in memory
    meanwhile: this is done in every step of training, and rows of 3 or 4 weights would take eight times as long.
    """
    fours_out = weight.shape[1]
    maps = weight.permute(4, 5, 1, 3, 0, 2).contiguous()
    first = maps[:, :, 0].clone()
    for turns in range(1, TURNS):
        first += torch.rot90(maps[:, :, turns % fours_out], -turns).roll(-turns, 2)
    first /= TURNS
    turned = torch.stack([torch.rot90(first, turns).roll(turns, 2) for turns in range(fours_out)], 2)
    return turned.permute(4, 2, 5, 3, 0, 1)
