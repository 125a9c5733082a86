"""Networks by name. All take `image` (B, 3, H, W) and give `pred` (B, 1, H, W)."""

from torch import nn

from hftn_sr.networks.baselines import EDSR, MCSR, MSDT, NEU, CubicInterpolation, EarlyFusion, MINet, SANet, ZeroFilling
from hftn_sr.networks.hftn import HFTNSR

__all__ = ["NETWORKS", "HFTNSR"]

NETWORKS: dict[str, type[nn.Module]] = {
    "hftn": HFTNSR,
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
