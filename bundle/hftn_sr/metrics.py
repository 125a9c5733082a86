"""Image quality by the protocol `corrected`: per volume, in the truth's own intensity, amplitude never rescaled.

Volumes are (X, Y, Z) tensors whose last axis is through-plane. Everything is computed in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["CONVENTIONS", "nmse", "psnr", "scores", "ssim"]

CONVENTIONS = {
    "psnr": "dB, by volume, peak = maximum of the truth volume",
    "ssim": "per slice, 7x7 uniform window, data range = maximum of the truth volume, mean over slices",
    "nmse": "squared error over squared truth, by volume",
}

WINDOW = 7
K1, K2 = 0.01, 0.03  # constants of Wang et al. 2004


def psnr(prediction: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, peak = maximum of the truth; infinite where both are equal."""
    error = torch.mean((prediction.double() - truth.double()) ** 2)
    return 10 * math.log10(float(truth.max()) ** 2 / float(error)) if error > 0 else math.inf


def nmse(prediction: Tensor, truth: Tensor) -> float:
    """Normalised mean squared error, squared error over the truth's energy."""
    return float(((prediction.double() - truth.double()) ** 2).sum() / (truth.double() ** 2).sum())


def ssim(prediction: Tensor, truth: Tensor) -> float:
    """Structural similarity, mean over slices (..., X, Y, Z) along Z; data range = maximum of the truth.

    The 7x7 window stays inside the slice and covariances are unbiased, as in scikit-image's defaults.
    Source: Wang et al. 2004.
    """
    x, y = (volume.double().movedim(-1, 0).flatten(0, -3).unsqueeze(1) for volume in (prediction, truth))
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    mean_x, mean_y, xx, yy, xy = (functional.avg_pool2d(image, WINDOW, stride=1) for image in (x, y, x * x, y * y, x * y))
    variance_x, variance_y, covariance = unbiased * (xx - mean_x**2), unbiased * (yy - mean_y**2), unbiased * (xy - mean_x * mean_y)
    peak = float(truth.max())
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float((luminance * structure).mean())


def scores(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """`psnr`, `ssim` and `nmse` of one volume (X, Y, Z); see CONVENTIONS.

    Raises:
        ValueError: unequal shapes, slices smaller than the SSIM window, or a truth without positive signal.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"expected equal shapes, got {tuple(prediction.shape)} and {tuple(truth.shape)}")
    if min(truth.shape[-3:-1]) < WINDOW:
        raise ValueError(f"expected slices of at least {WINDOW} x {WINDOW}, got {tuple(truth.shape[-3:-1])}")
    if truth.max() <= 0:
        raise ValueError("expected a truth with positive signal, its maximum is the peak")
    return {"psnr": psnr(prediction, truth), "ssim": ssim(prediction, truth), "nmse": nmse(prediction, truth)}
