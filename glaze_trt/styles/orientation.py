"""Which way a brush would go: the direction along edges, from the smoothed structure tensor.

Kass and Witkin, "Analyzing oriented patterns" (1987). Used by the styles; not a style itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def luma(rgb: Array) -> Array:
    """Brightness of an (H, W, 3) picture, (H, W)."""
    return np.asarray(rgb @ _LUMA, dtype=np.float32)


def blur(image: Array, sigma: float) -> Array:
    """Gaussian blur over height and width of (H, W) or (H, W, C); wide ones are done on a reduced copy."""
    factor = int(sigma // 4)
    if factor > 1 and min(image.shape[:2]) >= 4 * factor:
        return _enlarged(blur(_reduced(image, factor), sigma / factor), image.shape[0], image.shape[1])
    for axis in (0, 1):
        image = ndimage.gaussian_filter1d(image, sigma, axis=axis, mode="reflect")
    return image


def along_edges(rgb: Array, detail: float, reach: float) -> tuple[Array, Array]:
    """Direction along the edges of an (H, W, 3) picture, and how sure it is.

    Args:
        rgb: colours in [0, 1].
        detail: scale of the edges, sigma in pixels.
        reach: how far an edge rules over flat parts, sigma in pixels.

    Returns:
        The angle in radians, (H, W), measured from the x axis toward y, and the coherence in [0, 1], (H, W).
    """
    grey = blur(luma(rgb), detail)
    dx, dy = ndimage.sobel(grey, axis=1), ndimage.sobel(grey, axis=0)
    xx, yy, xy = (_far_and_near(product, reach) for product in (dx * dx, dy * dy, dx * dy))
    angle = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    coherence = np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-8)
    return angle.astype(np.float32), coherence.astype(np.float32)


def _far_and_near(tensor: Array, reach: float) -> Array:
    """Close edges rule where there are any; far ones fill in the flat parts."""
    return blur(tensor, reach) + 0.02 * blur(tensor, 4 * reach)


def _reduced(image: Array, factor: int) -> Array:
    """Means of blocks of `factor` by `factor`; the last ones repeat the edge."""
    height, width = (-(-side // factor) for side in image.shape[:2])
    grow = [(0, height * factor - image.shape[0]), (0, width * factor - image.shape[1])]
    full = np.pad(image, [*grow, *[(0, 0)] * (image.ndim - 2)], mode="edge")
    blocks = full.reshape(height, factor, width, factor, *image.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _enlarged(image: Array, height: int, width: int) -> Array:
    """Linear interpolation between the centres of the blocks."""
    for axis, size in ((0, height), (1, width)):
        count = image.shape[axis]
        place = np.clip((np.arange(size) + 0.5) / -(-size // count) - 0.5, 0, count - 1)
        low = np.minimum(place.astype(int), max(count - 2, 0))
        weight = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(image.ndim)])
        near, far = image.take(low, axis), image.take(np.minimum(low + 1, count - 1), axis)
        image = near + weight * (far - near)
    return image
