"""Filters that follow a direction field: smoothing along it, lines where tone changes across it.

Kang, Lee and Chui, "Flow-based image abstraction" (TVCG 2009); Winnemoeller, Kyprianidis and Olsen, "XDoG: an
eXtended difference-of-Gaussians compendium" (2012). Used by the styles; not a style itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from glaze_trt.styles.scale import soften

Array = NDArray[np.float32]


class Flow:
    """A field of directions that pictures of its size are sampled along."""

    def __init__(self, angle: Array) -> None:
        """Start from the (H, W) angle in radians, from the x axis toward y; half a turn makes no difference."""
        height, width = angle.shape
        self._x, self._y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        self._cos: Array = np.cos(angle)
        self._sin: Array = np.sin(angle)

    def along(self, image: Array, distance: float) -> Array:
        """The picture `distance` pixels further along the field."""
        return self._sampled(image, np.float32(distance) * self._cos, np.float32(distance) * self._sin)

    def across(self, image: Array, distance: float) -> Array:
        """The picture `distance` pixels to the side of the field."""
        return self._sampled(image, np.float32(-distance) * self._sin, np.float32(distance) * self._cos)

    def smoothed(self, image: Array, step: float, passes: int) -> Array:
        """The picture blurred along the field: `passes` times the mean of five places `step` pixels apart."""
        for _ in range(passes):
            total = image.copy()
            for distance in (-2 * step, -step, step, 2 * step):
                total += self.along(image, distance)
            image = total / np.float32(5)
        return image

    def _sampled(self, image: Array, dx: Array, dy: Array) -> Array:
        moved = cv2.remap(image, self._x + dx, self._y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, dtype=np.float32)


def ridges(grey: Array, flow: Flow, sigma: float, keep: float = 1.0) -> Array:
    """Where a line belongs: the flow-guided difference of Gaussians of an (H, W) picture, negative on dark lines.

    Args:
        grey: tone in [0, 1].
        flow: directions along the edges.
        sigma: half the width of a line in pixels.
        keep: the share of the wide Gaussian taken off; below 1 flat darks fill as well.
    """
    difference = soften(grey, sigma) - np.float32(keep) * soften(grey, 1.6 * sigma)
    return flow.smoothed(difference, max(1.0, sigma), 2)


def inked(ridge: Array, threshold: float, hardness: float) -> Array:
    """The coverage in [0, 1] of lines drawn where `ridge` falls below `threshold` (XDoG's soft threshold)."""
    return np.asarray(np.where(ridge < threshold, np.tanh(hardness * (threshold - ridge)), 0), dtype=np.float32)
