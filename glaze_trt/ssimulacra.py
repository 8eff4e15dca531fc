"""SSIMULACRA2 of pictures of any size, in bands of rows, so that a large one fits in memory.

The `ssimulacra2` package holds some 25 arrays of the picture in float64 at once: 14 GB at 24 megapixels. Here every
octave goes through in bands, of which only sums are kept. Tables and constants are the package's own, and so are its
borders (Gaussian over 11 pixels: zeros beside the picture, its mirror image above and below); the scores are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray
from ssimulacra2.ssimulacra2 import Msssim, MsssimScale, kNumScales, kOpsinAbsorbanceBias, kOpsinAbsorbanceMatrix

Levels = NDArray[np.uint8]
Array = NDArray[np.float32]
Sums = NDArray[np.float64]

OCTAVES: int = kNumScales
"""At most; the picture itself is the first."""

_RADIUS, _SIGMA = 5, 1.5
_SMALLEST = 8
"""The shortest side that is measured."""

_C2 = 0.0009
_PIXELS = 1 << 17
"""Of a band, about: its arrays then stay in the processor's cache."""

_TAPS = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
_TAPS /= _TAPS.sum()

_ABSORBED = np.column_stack([kOpsinAbsorbanceMatrix.reshape(3, 3), kOpsinAbsorbanceBias])
_MIXED = np.array([[7.0, -7.0, 0.0], [0.5, 0.5, 0.0], [-0.5, -0.5, 1.0]])
_TO_XYB = np.column_stack([_MIXED, np.array([0.42, 0.01, 0.55]) - _MIXED @ np.cbrt(kOpsinAbsorbanceBias)])
"""From cube roots of absorbed light to XYB, with X scaled by 14 and Y taken from B, all shifted to positive values."""

_LINEAR = np.arange(256) / 255.0
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""Linear light of every 8-bit level."""


def score(before: Levels, after: Levels, first: int = 0) -> float:
    """SSIMULACRA2 of two (H, W, 3) pictures: 100 is identical, negative is ruined.

    A side under 8 pixels is first extended by its edge.

    Args:
        before: (H, W, 3) uint8.
        after: the same.
        first: how many times a larger picture was halved to become these; its finer octaves are taken to be identical.
    """
    short = [max(0, _SMALLEST - side) for side in before.shape[:2]]
    if any(short):
        before, after = (np.pad(x, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge") for x in (before, after))
    pictures: tuple[NDArray[np.generic], ...] = (before, after)
    scales = Msssim()
    scales.scales += [MsssimScale() for _ in range(first)]
    with ThreadPoolExecutor(_threads()) as pool:
        for octave in range(first, OCTAVES):
            height, width = pictures[0].shape[:2]
            if min(height, width) < _SMALLEST:
                break
            last = octave == OCTAVES - 1
            half = () if last else tuple(np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.float32) for _ in "ab")
            parts = pool.map(lambda rows, x=pictures, y=half: _band(x, rows, y), list(_bands(height, width)))
            scales.scales.append(_averages(sum(parts, start=np.zeros((6, 3))) / (height * width)))
            pictures = half
    return float(scales.score())


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """First and last row of each band; each begins at an even row, so that halving it needs no other's rows."""
    rows = max(16, _PIXELS // width // 2 * 2)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _band(pictures: tuple[NDArray[np.generic], ...], rows: tuple[int, int], half: tuple[Array, ...]) -> Sums:
    """Sums over a band of rows, (6, 3): of SSIM errors, added edges and lost detail, each with its fourth powers'."""
    height = pictures[0].shape[0]
    top, bottom = rows
    first, last = max(0, top - _RADIUS), min(height, bottom + _RADIUS)
    seen = []
    for index, picture in enumerate(pictures):
        part = picture[first:last]
        linear = _LINEAR[part] if part.dtype == np.uint8 else np.asarray(part, np.float32)
        if half:
            half[index][top // 2 : (bottom + 1) // 2] = _halved(linear[top - first : bottom - first])
        seen.append(_xyb(linear))
    inner = slice(top - first, bottom - first)
    a, b = seen
    mean_a, mean_b, square_a, square_b, shared = (_blur(x)[inner] for x in (a, b, a * a, b * b, a * b))
    a, b = a[inner], b[inner]
    shift = mean_a - mean_b
    ratio = 2.0 * (shared - mean_a * mean_b) + _C2
    ratio /= (square_a - mean_a * mean_a) + (square_b - mean_b * mean_b) + _C2
    error = 1.0 - (1.0 - shift * shift) * ratio
    edge = (1.0 + np.abs(b - mean_b)) / (1.0 + np.abs(a - mean_a)) - 1.0
    found = np.empty((6, 3))
    for index, plane in enumerate((error, edge, -edge)):
        plane = np.maximum(plane, 0.0)
        found[2 * index] = plane.sum((0, 1))
        plane *= plane
        found[2 * index + 1] = np.einsum("hwc,hwc->c", plane, plane)
    return found


def _averages(means: Sums) -> MsssimScale:
    """Mean and 4-norm of every map, in the package's order."""
    means[1::2] **= 0.25
    scale = MsssimScale()
    scale.avg_ssim = means[:2].T.ravel()
    scale.avg_edgediff = means[2:].T.ravel()
    return scale


def _halved(linear: Array) -> Array:
    """Means of 2×2, of what there is at an odd edge."""
    height, width = linear.shape[:2]
    if height % 2 or width % 2:
        linear = np.pad(linear, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return (linear[::2, ::2] + linear[1::2, ::2] + linear[::2, 1::2] + linear[1::2, 1::2]) * np.float32(0.25)


def _xyb(linear: Array) -> NDArray[np.float64]:
    """Linear RGB to XYB, shifted to positive values; (H, W, 3) float64, in which local variances do not cancel."""
    mixed = cv2.transform(linear.astype(np.float64), _ABSORBED)
    return np.asarray(cv2.transform(np.cbrt(mixed, out=mixed), _TO_XYB))


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    wide = cv2.copyMakeBorder(x, 0, 0, _RADIUS, _RADIUS, cv2.BORDER_CONSTANT)
    soft = cv2.sepFilter2D(wide, -1, _TAPS, _TAPS, borderType=cv2.BORDER_REFLECT)
    return np.asarray(soft[:, _RADIUS:-_RADIUS])
