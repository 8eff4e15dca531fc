"""How large things are in a picture, and noise of a given size: what every drawn style measures with.

Marks grow with the picture up to a limit, so that a style looks the same on a sketch and on a scan. Slow fields are
worked out on a reduced copy, where one unit is at most a pixel, and enlarged. Not a style itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def unit(shape: Sequence[int], least: float = 0.5) -> float:
    """Pixels to a unit, for a picture whose first two sides are `shape`: 1 where the shorter side is 512."""
    return float(np.clip(min(shape[:2]) / 512, least, 3.0))


def resized(image: Array, shape: tuple[int, int]) -> Array:
    """An (H, W) or (H, W, C) picture at another height and width: means on the way down, cubic on the way up."""
    if image.shape[:2] == shape:
        return image
    way = cv2.INTER_AREA if shape[0] <= image.shape[0] and shape[1] <= image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, shape[::-1], interpolation=way), dtype=np.float32)


def working(rgb: Array) -> tuple[Array, float]:
    """The copy to work on, at most as large as the picture, and the pixels to a unit in it, at most 1."""
    size = unit(rgb.shape)
    height, width = (max(1, round(side / max(size, 1.0))) for side in rgb.shape[:2])
    return resized(rgb, (height, width)), min(size, 1.0)


def soften(image: Array, sigma: float) -> Array:
    """Gaussian blur over height and width of (H, W) or (H, W, C)."""
    if sigma <= 0.05:
        return image
    factor = int(sigma // 6)
    if factor > 1:  # a wide blur leaves nothing that a reduced copy would not hold
        small = resized(image, (max(1, image.shape[0] // factor), max(1, image.shape[1] // factor)))
        wide = cv2.GaussianBlur(small, (0, 0), sigma / factor, borderType=cv2.BORDER_REPLICATE)
        grown = cv2.resize(wide, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.asarray(grown, dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)


def ramp(value: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def clouds(shape: Sequence[int], size: float, rng: np.random.Generator, octaves: int = 3) -> Array:
    """Noise of mean 0 and variance about 1, (H, W): lumps of `size` pixels and, an octave each, half as large."""
    height, width = shape[:2]
    total = np.zeros((height, width), dtype=np.float32)
    power = 0.0
    for octave in range(octaves):
        cell = max(1.0, size / 2**octave)
        lattice = rng.standard_normal((math.ceil(height / cell) + 3, math.ceil(width / cell) + 3), dtype=np.float32)
        rows, columns = (int(round(side * cell)) for side in lattice.shape)
        if cell == 1.0:
            lump = lattice
        else:
            lump = np.asarray(cv2.resize(lattice, (columns, rows), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
        top, left = (rng.integers(0, max(1, int(cell)), 2) + int(cell)).tolist()
        weight = 0.6**octave
        total += weight * lump[top : top + height, left : left + width]
        power += weight * weight * (1.0 if cell == 1.0 else 0.76)  # cubic interpolation evens out a quarter
    return np.asarray(total / np.float32(math.sqrt(power)), dtype=np.float32)
