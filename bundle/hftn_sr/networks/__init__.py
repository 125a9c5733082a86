"""Networks by name. All take `image` (B, 3, H, W) and give `pred` (B, 1, H, W)."""

from hftn_sr.networks.hftn import HFTNSR

__all__ = ["HFTNSR"]
