"""The networks that HFTN-SR is compared with, written anew; docs/baselines.md says from what and how closely."""

from hftn_sr.networks.baselines.early_fusion import EarlyFusion
from hftn_sr.networks.baselines.edsr import EDSR
from hftn_sr.networks.baselines.interpolation import CubicInterpolation, ZeroFilling
from hftn_sr.networks.baselines.mcsr import MCSR
from hftn_sr.networks.baselines.minet import MINet
from hftn_sr.networks.baselines.msdt import MSDT
from hftn_sr.networks.baselines.neu import NEU
from hftn_sr.networks.baselines.sanet import SANet

__all__ = ["EDSR", "MCSR", "NEU", "MINet", "MSDT", "SANet", "EarlyFusion", "ZeroFilling", "CubicInterpolation"]
