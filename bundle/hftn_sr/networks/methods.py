"""Networks by name, and the methods of a comparison: a network with its options and the split of the reference that it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hftn_sr.kspace import Decomposition
from hftn_sr.networks.baselines import EDSR, MCSR, MSDT, NEU, CubicInterpolation, EarlyFusion, MINet, SANet, ZeroFilling
from hftn_sr.networks.correspondence import Correspondence
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.hftn import HFTNSR

__all__ = ["ANY_ACQUISITION", "METHODS", "NETWORKS", "Method", "build_network", "network_name"]

NETWORKS: dict[str, type[nn.Module]] = {
    "hftn": HFTNSR,
    "gated_unet": GatedUNet,
    "correspondence": Correspondence,
    "edsr": EDSR,
    "mcsr": MCSR,
    "neu": NEU,
    "minet": MINet,
    "msdt": MSDT,
    "sanet": SANet,
    "early_fusion": EarlyFusion,
    "zero_filling": ZeroFilling,
    "cubic": CubicInterpolation,
}


ANY_ACQUISITION = ("gated_unet", "correspondence")  # networks whose layers know no scale


@dataclass(frozen=True)
class Method:
    """A row of a comparison.

    Args:
        network: key of NETWORKS.
        options: arguments of its constructor besides the scale; its defaults are the published size.
        decomposition: how the reference is split before the network sees it, see `kspace.decompose`.
    """

    network: str
    options: Mapping[str, Any] = field(default_factory=dict)
    decomposition: Decomposition = "band"


METHODS: dict[str, Method] = {
    "zero_filling": Method("zero_filling"),
    "cubic": Method("cubic"),
    "edsr": Method("edsr"),
    "mcsr": Method("mcsr"),
    "neu": Method("neu"),
    "minet": Method("minet"),
    "msdt": Method("msdt"),
    "sanet": Method("sanet"),
    "early_fusion": Method("early_fusion"),
    # The paper's table 3: without HLD, FTB and SCRFM; without FTB and SCRFM; without SCRFM.
    "ablation_1": Method("hftn", {"transfer": "none", "scrfm": False}, decomposition="none"),
    "ablation_2": Method("hftn", {"transfer": "none", "scrfm": False}),
    "ablation_3": Method("hftn", {"scrfm": False}),
    "hftn": Method("hftn"),
    "hftn_light": Method(
        "hftn", {"channels": 48, "blocks": 1, "transfer": "gather_and_keep"}
    ),  # lighter, reference's features also in place
    "base": Method("gated_unet"),
    "small": Method("gated_unet", {"channels": 24}),
    # With a search for the place of the reference; trained by configs/train_correspondence.yaml, which supervises it.
    "correspondence": Method("correspondence"),
    "correspondence_small": Method("correspondence", {"channels": 24}),
    "without_gates": Method("gated_unet", {"gated": False}),  # what the gates bring
    "without_p4": Method("gated_unet", {"equivariant": False}),  # what rotation equivariance brings
}


def build_network(method: str, scale: int | None, options: Mapping[str, Any] | None = None) -> nn.Module:
    """The untrained network of a method.

    Args:
        method: key of METHODS.
        scale: upscaling factor s, 2 or 4; None for any acquisition, which the networks ANY_ACQUISITION can take.
        options: what differs from the method's own.

    Raises:
        ValueError: no such method, no such option of its network, or a network that needs a scale.
    """
    if method not in METHODS:
        raise ValueError(f"expected a method of {', '.join(METHODS)}, got {method!r}")
    chosen = METHODS[method]
    if scale is None and chosen.network not in ANY_ACQUISITION:
        raise ValueError(f"expected a scale of 2 or 4 for the method {method}, which knows no other loss of resolution")
    options = {**chosen.options, **(options or {})}
    try:
        return NETWORKS[chosen.network](scale=scale, **options)
    except TypeError as error:
        raise ValueError(f"expected options of {NETWORKS[chosen.network].__name__} for method {method}: {error}") from None


def network_name(network: nn.Module) -> str:
    """Key of NETWORKS.

    Raises:
        ValueError: a network of another kind.
    """
    for name, kind in NETWORKS.items():
        if type(network) is kind:
            return name
    raise ValueError(f"expected one of the networks {', '.join(NETWORKS)}, got {type(network).__name__}")
