"""SSIMULACRA2 of pictures of any size, in bands of rows, so that a large one fits in memory.

The `ssimulacra2` package holds some 25 arrays of the picture in float64 at once: 14 GB at 24 megapixels. Here every
octave goes through in bands, of which only sums are kept. Tables and constants are the package's own, and so are its
borders (Gaussian over 11 pixels: zeros beside the picture, its mirror image above and below); the scores are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray
from ssimulacra2.ssimulacra2 import (
    Msssim,
    MsssimScale,
    kNumScales,
    kOpsinAbsorbanceBias,
    kOpsinAbsorbanceMatrix,
    weights,
)

Levels = NDArray[np.uint8]
Array = NDArray[np.float32]
Sums = NDArray[np.float64]
Flags = NDArray[np.bool_]

OCTAVES: int = kNumScales
"""At most; the picture itself is the first."""

_RADIUS, _SIGMA = 5, 1.5
_SMALLEST = 8
"""The shortest side that is measured."""

_C2 = 0.0009

_NEGLIGIBLE = 0.01
"""There are 108 weights from 0.0001 to 225; those below this move a score by under 0.01, and are left out."""

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
        for used in _used(before.shape, first):
            height, width = pictures[0].shape[:2]
            half = tuple(np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.float32) for _ in pictures)
            parts = pool.map(lambda rows, x=pictures, y=half, z=used: _band(x, rows, y, z), _bands(height, width))
            scales.scales.append(_averages(sum(parts, start=np.zeros((6, 3))) / (height * width)))
            pictures = half
    return float(scales.score())


def _used(size: Sequence[int], first: int) -> list[Flags]:
    """For each octave which maps of which channels weigh anything, (3, 2): SSIM errors, and edges.

    The package numbers its weights by the octaves that a picture has, so a small one is weighed otherwise.
    """
    count, side = first, min(size[:2])
    while count < OCTAVES and side >= _SMALLEST:
        count, side = count + 1, (side + 1) // 2
    heavy = weights[: 3 * count * 6].reshape(3, count, 2, 3) > _NEGLIGIBLE
    return [np.stack([heavy[:, o, :, 0].any(1), heavy[:, o, :, 1:].any((1, 2))], axis=1) for o in range(first, count)]


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """First and last row of each band; each begins at an even row, so that halving it needs no other's rows."""
    rows = max(16, _PIXELS // width // 2 * 2)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _band(
    pictures: tuple[NDArray[np.generic], ...], rows: tuple[int, int], half: tuple[Array, ...], used: Flags
) -> Sums:
    """Sums over a band of rows, (6, 3): of SSIM errors, added edges and lost detail, each with its fourth powers'."""
    height = pictures[0].shape[0]
    top, bottom = rows
    first, last = max(0, top - _RADIUS), min(height, bottom + _RADIUS)
    channels = [int(channel) for channel in np.flatnonzero(used.any(1))]
    seen = []
    for picture, smaller in zip(pictures, half, strict=True):
        part = picture[first:last]
        linear = _LINEAR[part] if part.dtype == np.uint8 else np.asarray(part, np.float32)
        smaller[top // 2 : (bottom + 1) // 2] = _halved(linear[top - first : bottom - first])
        seen.append(_xyb(linear, channels) if channels else [])
    inner = slice(top - first, bottom - first)
    found = np.zeros((6, 3))
    for channel, a, b in zip(channels, *seen, strict=True):
        mean_a, mean_b = (_blur(x)[inner] for x in (a, b))
        if used[channel, 0]:
            square_a, square_b, shared = (_blur(x)[inner] for x in (a * a, b * b, a * b))
            shift = mean_a - mean_b
            ratio = 2.0 * (shared - mean_a * mean_b) + _C2
            ratio /= (square_a - mean_a * mean_a) + (square_b - mean_b * mean_b) + _C2
            found[:2, channel] = _norms(1.0 - (1.0 - shift * shift) * ratio)
        if used[channel, 1]:
            edge = (1.0 + np.abs(b[inner] - mean_b)) / (1.0 + np.abs(a[inner] - mean_a)) - 1.0
            found[2:4, channel], found[4:, channel] = _norms(edge), _norms(-edge)
    return found


def _norms(error: NDArray[np.float64]) -> tuple[float, float]:
    """The sum of what is positive of a map, and of its fourth powers."""
    error = np.maximum(error, 0.0)
    total = float(error.sum())
    np.square(error, out=error)
    return total, float(np.square(error, out=error).sum())


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


def _xyb(linear: Array, channels: Sequence[int]) -> list[NDArray[np.float64]]:
    """Linear RGB to some channels of XYB, shifted to positive values, (H, W) each.

    In float64, in which local variances do not cancel.
    """
    roots = 3 if 2 in channels else 2  # X and Y need two
    mixed = cv2.transform(linear.astype(np.float64), _ABSORBED[:roots])
    to_xyb = _TO_XYB[np.ix_(list(channels), [*range(roots), 3])]
    found = cv2.transform(np.cbrt(mixed, out=mixed), to_xyb).reshape(*linear.shape[:2], len(channels))
    return [np.ascontiguousarray(found[..., index]) for index in range(len(channels))]


def _blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
    wide = cv2.copyMakeBorder(x, 0, 0, _RADIUS, _RADIUS, cv2.BORDER_CONSTANT)
    soft = cv2.sepFilter2D(wide, -1, _TAPS, _TAPS, borderType=cv2.BORDER_REFLECT)
    return np.asarray(soft[:, _RADIUS:-_RADIUS])
