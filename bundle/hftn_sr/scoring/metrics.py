"""Image quality: per volume, in the truth's own intensity, amplitude never rescaled. Both protocols share these formulas.

Volumes are (X, Y, Z) tensors whose last axis is through-plane. Everything is computed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["CONVENTIONS", "SCORES", "Score", "SliceSums", "nmse", "psnr", "scores", "slice_scores", "slice_sums", "ssim"]

Score = Literal["psnr", "ssim", "nmse"]
SCORES: tuple[Score, ...] = ("psnr", "ssim", "nmse")

CONVENTIONS = {
    "psnr": "dB, by volume, peak = maximum of the truth volume",
    "ssim": "per slice, 7x7 uniform window, data range = maximum of the truth volume, mean over slices",
    "nmse": "squared error over squared truth, by volume",
}

WINDOW = 7
K1, K2 = 0.01, 0.03  # constants of Wang et al. 2004


def psnr(prediction: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, peak = maximum of the truth; infinite where both are equal, NaN where one is."""
    error = torch.mean((prediction.double() - truth.double()) ** 2)
    return math.inf if error == 0 else 10 * math.log10(float(truth.max()) ** 2 / float(error))


def nmse(prediction: Tensor, truth: Tensor) -> float:
    """Normalised mean squared error, squared error over the truth's energy."""
    return float(((prediction.double() - truth.double()) ** 2).sum() / (truth.double() ** 2).sum())


def ssim(prediction: Tensor, truth: Tensor) -> float:
    """Structural similarity, mean over slices (..., X, Y, Z) along Z; data range = maximum of the truth.

    The 7x7 window stays inside the slice and covariances are unbiased, as in scikit-image's defaults.
    Source: Wang et al. 2004.
    """
    return float(_ssim_by_slice(prediction, truth, float(truth.max())).mean())


def scores(prediction: Tensor, truth: Tensor) -> dict[str, float]:
    """`psnr`, `ssim` and `nmse` of one volume (X, Y, Z); see CONVENTIONS.

    Raises:
        ValueError: unequal shapes, slices smaller than the SSIM window, or a truth without positive signal.
    """
    _check(prediction, truth)
    return {"psnr": psnr(prediction, truth), "ssim": ssim(prediction, truth), "nmse": nmse(prediction, truth)}


@dataclass(frozen=True)
class SliceSums:
    """What each slice of a volume adds to the volume's scores, so that these follow exactly for any choice of slices.

    Args:
        squared_error: (D,), summed over the slice, intensity squared.
        squared_truth: (D,), summed over the slice, intensity squared.
        ssim: (D,), with the volume's maximum as data range.
        voxels: in a slice.
        peak: maximum of the truth volume, whichever slices are chosen.
    """

    squared_error: NDArray[np.float64]
    squared_truth: NDArray[np.float64]
    ssim: NDArray[np.float64]
    voxels: int
    peak: float

    def score(self, name: Score, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score (...) of the volumes in which slice d occurs counts[..., d] times.

        As `psnr`, `ssim` and `nmse` for each; PSNR is infinite without error, NMSE is NaN without signal.
        """
        slices = counts.sum(-1)
        if name == "ssim":
            return np.asarray(counts @ self.ssim / slices)
        error = counts @ self.squared_error
        with np.errstate(divide="ignore", invalid="ignore"):
            if name == "psnr":
                return np.asarray(10 * np.log10(self.peak**2 * slices * self.voxels / error))
            truth = counts @ self.squared_truth
            return np.where(truth > 0, error / truth, np.nan)

    def scores(self) -> dict[str, float]:
        """The volume's scores, as the function `scores`."""
        once = np.ones(len(self.ssim))
        return {name: float(self.score(name, once)) for name in SCORES}


def slice_sums(prediction: Tensor, truth: Tensor) -> SliceSums:
    """The slices (X, Y) of one volume (X, Y, Z), summed up.

    Raises:
        ValueError: as `scores`, or not three axes.
    """
    if truth.ndim != 3:
        raise ValueError(f"expected a volume of three axes, got {tuple(truth.shape)}")
    _check(prediction, truth)
    peak = float(truth.max())
    error, energy = ((image.double() ** 2).sum((0, 1)) for image in (prediction.double() - truth.double(), truth))
    by_slice = _ssim_by_slice(prediction, truth, peak)
    return SliceSums(error.cpu().numpy(), energy.cpu().numpy(), by_slice.cpu().numpy(), truth.shape[0] * truth.shape[1], peak)


def slice_scores(prediction: Tensor, truth: Tensor) -> dict[str, NDArray[np.float64]]:
    """`psnr`, `ssim` and `nmse` of each slice of one volume (X, Y, Z), each (Z,), all with the volume's maximum as peak and data range.

    PSNR (dB) is infinite in a slice without error, so its mean over slices is not the volume's PSNR; NMSE is NaN in a slice whose truth
    is zero throughout.

    Raises:
        ValueError: as `slice_sums`.
    """
    sums = slice_sums(prediction, truth)
    return {name: sums.score(name, np.eye(len(sums.ssim))) for name in SCORES}


def _check(prediction: Tensor, truth: Tensor) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(f"expected equal shapes, got {tuple(prediction.shape)} and {tuple(truth.shape)}")
    if min(truth.shape[-3:-1]) < WINDOW:
        raise ValueError(f"expected slices of at least {WINDOW} x {WINDOW}, got {tuple(truth.shape[-3:-1])}")
    if truth.max() <= 0:
        raise ValueError("expected a truth with positive signal, its maximum is the peak")


def _ssim_by_slice(prediction: Tensor, truth: Tensor, peak: float) -> Tensor:
    """SSIM of each slice of (..., X, Y, Z), one after another, with the data range `peak`."""
    x, y = (volume.double().movedim(-1, 0).flatten(0, -3).unsqueeze(1) for volume in (prediction, truth))
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    mean_x, mean_y, xx, yy, xy = (functional.avg_pool2d(image, WINDOW, stride=1) for image in (x, y, x * x, y * y, x * y))
    variance_x, variance_y, covariance = unbiased * (xx - mean_x**2), unbiased * (yy - mean_y**2), unbiased * (xy - mean_x * mean_y)
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean((-3, -2, -1))
