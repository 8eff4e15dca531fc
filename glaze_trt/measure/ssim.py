"""The structural similarity index (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004), and PSNR.

For measuring a finished picture; `graph.terms.dssim` is the differentiable form.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_SIGMA = 1.5
_RADIUS = 5  # an 11 x 11 window, as published
_C1 = (0.01 * 255.0) ** 2
_C2 = (0.03 * 255.0) ** 2

_BAND = 256
"""Rows at a time, so that a large picture is never whole in float64."""


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean SSIM over pixels and channels of two (H, W, 3) pictures of 8-bit levels.

    Gaussian window 11 x 11 with sigma 1.5, K1 0.01, K2 0.03, population moments; the border of five pixels, where
    the window does not fit, counts only in pictures too small to have anything else.
    """
    edge = _RADIUS if min(a.shape[:2]) > 2 * _RADIUS else 0
    total, count = 0.0, 0
    for top in range(edge, a.shape[0] - edge, _BAND):
        bottom = min(top + _BAND, a.shape[0] - edge)
        first, last = max(0, top - _RADIUS), min(a.shape[0], bottom + _RADIUS)
        index = _index(a[first:last], b[first:last])[top - first : bottom - first]
        inner = index[:, edge : index.shape[1] - edge]
        total, count = total + float(inner.sum()), count + inner.size
    return total / count


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float | None:
    """Peak signal-to-noise ratio in dB of two pictures of 8-bit levels; None where they are identical."""
    bands = (slice(top, top + _BAND) for top in range(0, a.shape[0], _BAND))
    total = sum(int(np.square(a[band].astype(np.int32) - b[band]).sum(dtype=np.int64)) for band in bands)
    return None if total == 0 else float(10.0 * np.log10(255.0**2 * a.size / total))


def _index(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[Any]:
    """SSIM at every pixel and channel."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x * mean_x
    var_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    return np.asarray(
        ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2))
        / ((mean_x * mean_x + mean_y * mean_y + _C1) * (var_x + var_y + _C2))
    )


def _blur(x: NDArray[np.float64]) -> NDArray[Any]:
    for axis in (0, 1):
        x = ndimage.gaussian_filter1d(x, _SIGMA, axis=axis, radius=_RADIUS, mode="reflect")
    return x
