"""What a comparison is made of: one method at one scale with one seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comparison.cost import Cost
from hftn_sr.errors import UsageFault, check_choice
from hftn_sr.networks import METHODS, build_network

__all__ = ["ABLATIONS", "OUR_READING", "TITLES", "Row", "chosen_methods", "needs_training", "title"]

TITLES = {
    "zero_filling": "zero-filling",
    "cubic": "cubic interpolation",
    "edsr": "EDSR",
    "mcsr": "MCSR",
    "neu": "NEU",
    "minet": "MINet",
    "msdt": "MSDT",
    "sanet": "SANet",
    "early_fusion": "early fusion (control)",
    "ablation_1": "ablation 1",
    "ablation_2": "ablation 2",
    "ablation_3": "ablation 3",
    "hftn": "HFTN-SR",
    "hftn_light": "HFTN-SR light",
    "base": "gated U-Net (base)",
    "small": "gated U-Net (small)",
    "correspondence": "gated U-Net with search",
    "correspondence_small": "gated U-Net with search (small)",
    "without_gates": "gated U-Net without gates",
    "without_p4": "gated U-Net without p4",
}
NOTHING = Cost(0, 0)
NOT_COMPARED = ("small", "correspondence", "correspondence_small")  # unless named
OUR_READING = ("mcsr", "neu", "msdt")  # at most an abstract of these was found, see docs/baselines.md

# The paper's table 3: which of HLD, FTB and SCRFM a model has.
ABLATIONS = {
    "ablation_1": (False, False, False),
    "ablation_2": (True, False, False),
    "ablation_3": (True, True, False),
    "hftn": (True, True, True),
}


def title(method: str) -> str:
    """As a method is called in tables and pictures."""
    return TITLES.get(method, method)


def needs_training(method: str) -> bool:
    """False for interpolation."""
    return any(True for _ in build_network(method, 2).parameters())


def chosen_methods(names: str) -> list[str]:
    """Keys of METHODS in their order there: `all`, or names with commas between; zero-filling, which gains refer to, is always among them.

    `all` leaves out `small`, which is the network of `base` in another size and at equal cost the same, and networks that the comparison's
    training, which draws no displacements, cannot teach to search.

    Raises:
        UsageFault: a name that METHODS lacks.
    """
    named = [name.strip() for name in names.split(",") if name.strip()]
    wanted = [name for name in METHODS if name not in NOT_COMPARED] if names == "all" else named
    for name in wanted:
        check_choice("--methods", name, ("all", *METHODS))
    if not wanted:
        raise UsageFault("--methods", "no method named", "--methods all")
    return [name for name in METHODS if name in wanted or name == "zero_filling"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        method: key of METHODS.
        scale: upscaling factor s.
        seed: of weights and patches; None for interpolation, which has neither.
        options: what the size of the comparison changes in the method's own.
        channels: feature channels C; None for interpolation.
        cost: of the network with these options.
    """

    method: str
    scale: int
    seed: int | None
    options: Mapping[str, Any] = field(default_factory=dict)
    channels: int | None = None
    cost: Cost = NOTHING

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return f"{self.method}_x{self.scale}" + ("" if self.seed is None else f"_s{self.seed}")

    @property
    def trained(self) -> bool:
        """Interpolation is not."""
        return self.seed is not None

    def label(self, seeds: Sequence[int]) -> str:
        """The method, with the seed where there are several."""
        return title(self.method) + (f", seed {self.seed}" if self.trained and len(seeds) > 1 else "")
