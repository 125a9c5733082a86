"""How large each network of a comparison is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from comparison.cost import method_cost
from hftn_sr.networks import METHODS, build_network

__all__ = ["GMAC", "NARROWEST", "Sizes", "fitted_options", "width_name", "width_step"]

Sizes = Literal["matched", "paper"]

GMAC = {2: 20.0, 4: 8.0}  # of matched networks for one slice of 320 x 320 voxels, unless asked otherwise
NARROWEST = 4  # channels; below, channel attention and four heads are left with next to nothing


def width_name(method: str) -> str | None:
    """Which option of the method's network says how many channels it has; None for interpolation."""
    options = build_network(method, 2).options
    return next((name for name in ("channels", "width") if name in options), None)  # type: ignore[operator]


def width_step(method: str) -> int:
    """What the width must be a multiple of: MSDT has four heads, convolutions that turn come in fours, others halve their channels."""
    return 4 if METHODS[method].network in ("msdt", "gated_unet", "correspondence") else 2


def fitted_options(method: str, scale: int, gmac: float) -> Mapping[str, Any]:
    """Options with the largest width whose network needs at most `gmac` for one slice of 320 x 320 voxels; empty for interpolation.

    The width is never below NARROWEST, even where that is above the bound.

    Args:
        method: key of METHODS.
        scale: upscaling factor s.
        gmac: bound in thousand million MACs.
    """
    name, step = width_name(method), width_step(method)
    if name is None:
        return {}
    shape = _shape(method, scale)

    def of(width: int) -> dict[str, Any]:
        return {**shape, name: width}

    def fits(width: int) -> bool:
        return method_cost(method, scale, of(width)).gmac <= gmac

    known: int = build_network(method, scale).options[name]  # type: ignore[index,assignment]
    # Cost grows about with the square of the width: begin where that leads, then walk.
    guess = known * math.sqrt(gmac / method_cost(method, scale, of(known)).gmac)
    width = max(int(guess) // step * step, NARROWEST)
    while width > NARROWEST and not fits(width):
        width -= step
    while fits(width + step):
        width += step
    return of(width)


def _shape(method: str, scale: int) -> dict[str, Any]:
    """What matched cost changes besides the width."""
    if method == "early_fusion":  # 72 blocks in 12 groups, as large as HFTN-SR, would be a tenth as wide as deep
        return {"groups": 4, "blocks": 6}
    searches = METHODS[method].network == "hftn" and METHODS[method].options.get("transfer") != "none"
    # At x2, comparing all patches of 2 x 2 samples takes 21 GMAC at any width; of 4 x 4 samples, as large in voxels as those of x4, 1.3.
    return {"patch": 4} if searches and scale == 2 else {}
