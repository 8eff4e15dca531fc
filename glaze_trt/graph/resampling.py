"""Pillow's resampling of a line of pixels as a matrix: antialiased, and easy to differentiate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """A weight by distance in pixels, and the distance beyond which it is 0."""

    weight: Callable[[Matrix], Matrix]
    reach: float


def _bilinear(x: Matrix) -> Matrix:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _lanczos(x: Matrix) -> Matrix:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _bicubic(x: Matrix) -> Matrix:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


BILINEAR, BICUBIC, LANCZOS = Kernel(_bilinear, 1.0), Kernel(_bicubic, 2.0), Kernel(_lanczos, 3.0)


def resampling(before: int, after: int, kernel: Kernel) -> Matrix:
    """The matrix (after, before): the kernel widened when shrinking, cut at the ends."""
    scale = before / after
    widen = max(scale, 1.0)
    centre = (np.arange(after)[:, None] + 0.5) * scale
    first = np.maximum(np.trunc(centre - kernel.reach * widen + 0.5), 0)
    last = np.minimum(np.trunc(centre + kernel.reach * widen + 0.5), before)
    pixel = np.arange(before)[None]
    weight = np.where((first <= pixel) & (pixel < last), kernel.weight((pixel + 0.5 - centre) / widen), 0.0)
    return np.asarray(weight / weight.sum(1, keepdims=True))
