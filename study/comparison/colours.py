"""One colour for each method, in every figure; those of the five main methods can be told apart by the colour-blind (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["COLOURS", "method_colours"]

COLOURS = {
    "zero_filling": "#9e9e9e",
    "cubic": "#c9c9c9",
    "edsr": "#000000",
    "mcsr": "#cc79a7",
    "neu": "#009e73",
    "minet": "#b8a500",
    "msdt": "#8c564b",
    "sanet": "#7a5195",
    "early_fusion": "#e69f00",
    "ablation_1": "#08306b",
    "ablation_2": "#6a8fbf",
    "ablation_3": "#a6bddb",
    "hftn": "#0072b2",
    "hftn_light": "#56b4e9",
    "base": "#d55e00",
    "small": "#f4a582",
    "correspondence": "#b2182b",
    "correspondence_small": "#ef8a62",
    "without_gates": "#a63603",
    "without_p4": "#fdae6b",
}


def method_colours(methods: Iterable[str]) -> dict[str, str]:
    """The colours of these methods, keys of `hftn_sr.networks.METHODS`."""
    return {method: COLOURS[method] for method in methods}
