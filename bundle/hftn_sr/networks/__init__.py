"""Networks by name. All take `image` (B, 3, H, W) and give `pred` (B, 1, H, W)."""

from hftn_sr.networks.correspondence import Correspondence
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.hftn import HFTNSR
from hftn_sr.networks.layers import channels_last
from hftn_sr.networks.methods import ANY_ACQUISITION, METHODS, NETWORKS, Method, build_network, network_name

__all__ = [
    "ANY_ACQUISITION",
    "METHODS",
    "NETWORKS",
    "Correspondence",
    "GatedUNet",
    "HFTNSR",
    "Method",
    "build_network",
    "channels_last",
    "network_name",
]
