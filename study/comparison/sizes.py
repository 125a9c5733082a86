"""How large each network of a comparison is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from comparison.cost import method_cost
from hftn_sr.networks import METHODS, build_network

__all__ = ["GMAC", "NARROWEST", "Sizes", "fitted_options", "channels_step", "has_channels"]

Sizes = Literal["matched", "paper"]

GMAC = {2: 20.0, 4: 8.0}  # of matched networks for one slice of 320 x 320 voxels, unless asked otherwise
NARROWEST = 4  # channels; below, channel attention and four heads are left with next to nothing


def has_channels(method: str) -> bool:
    """Whether the method's network has feature channels; interpolation has none."""
    return "channels" in build_network(method, 2).options  # type: ignore[operator]


def channels_step(method: str) -> int:
    """What the channels must be a multiple of: MSDT has four heads, equivariant ones come in fours, others halve their channels."""
    return 4 if METHODS[method].network in ("msdt", "gated_unet", "correspondence") else 2


def fitted_options(method: str, scale: int, gmac: float) -> Mapping[str, Any]:
    """Options with the most channels whose network needs at most `gmac` for one slice of 320 x 320 voxels; empty for interpolation.

    The channels are never fewer than NARROWEST, even where that is above the bound.

    Args:
        method: key of METHODS.
        scale: upscaling factor s.
        gmac: bound in thousand million MACs.
    """
    if not has_channels(method):
        return {}
    shape, step = _shape(method, scale), channels_step(method)

    def of(channels: int) -> dict[str, Any]:
        return {**shape, "channels": channels}

    def fits(channels: int) -> bool:
        return method_cost(method, scale, of(channels)).gmac <= gmac

    known: int = build_network(method, scale).options["channels"]  # type: ignore[index,assignment]
    # Cost grows about with the square of the channels: begin where that leads, then walk.
    guess = known * math.sqrt(gmac / method_cost(method, scale, of(known)).gmac)
    channels = max(int(guess) // step * step, NARROWEST)
    while channels > NARROWEST and not fits(channels):
        channels -= step
    while fits(channels + step):
        channels += step
    return of(channels)


def _shape(method: str, scale: int) -> dict[str, Any]:
    """What matched cost changes besides the channels."""
    if method == "early_fusion":  # 72 blocks in 12 groups, as large as HFTN-SR, would be a tenth as wide as deep
        return {"groups": 4, "blocks": 6}
    searches = METHODS[method].network == "hftn" and METHODS[method].options.get("transfer") != "none"
    # At x2, comparing all patches of 2 x 2 samples takes 21 GMAC whatever the channels;
    # of 4 x 4 samples, as large in voxels as those of x4, 1.3.
    return {"patch": 4} if searches and scale == 2 else {}
