"""A picture at a reduced size, and a change found there brought up to full size; and what of a change is coarse.

A cloak of fine grain is averaged away where a picture is scaled down, as every training pipeline does. What is found on
the reduced picture, enlarged, outlasts that. What is added to it later must leave it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8]
Array = NDArray[np.float32]

_DOWN, _UP = Image.Resampling.LANCZOS, Image.Resampling.BICUBIC


def reduced_size(size: Sequence[int], side: int) -> tuple[int, int]:
    """(height, width) with the longer side at `side` pixels."""
    factor = side / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def reduced(levels: Levels, size: tuple[int, int]) -> Levels:
    """A picture at another (height, width), as image programs scale: Lanczos; (H, W, 3) uint8."""
    return np.asarray(Image.fromarray(levels).resize(size[::-1], _DOWN), np.uint8)


def resampled(
    change: Array, size: tuple[int, int], how: Image.Resampling = _UP, part: tuple[slice, slice] | None = None
) -> Array:
    """A change at another (height, width), or a part of that.

    Args:
        change: (h, w, 3) float32.
        size: of the whole.
        how: Pillow's.
        part: rows and columns of the whole; all of it if None.
    """
    rows, columns = part or (slice(0, size[0]), slice(0, size[1]))
    down, across = change.shape[0] / size[0], change.shape[1] / size[1]
    box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
    box = (box[0], box[1], min(box[2], change.shape[1]), min(box[3], change.shape[0]))
    shape = (columns.stop - columns.start, rows.stop - rows.start)
    planes = (Image.fromarray(np.ascontiguousarray(change[..., channel])) for channel in range(3))
    return np.stack([np.asarray(plane.resize(shape, how, box), np.float32) for plane in planes], axis=2)


def averaged(mask: Array, size: tuple[int, int]) -> Array:
    """A mask, (H, W) in [0,1], reduced to another (height, width)."""
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.BOX), np.float32).clip(0, 1)


def added(levels: Levels, change: Array) -> Levels:
    """A picture, (H, W, 3) uint8, with a change in [0,1] units, to the nearest levels."""
    return np.asarray(np.rint(np.clip(levels + 255 * change, 0, 255)), np.uint8)


def holding(kept: Array, factor: float) -> Callable[[Array], Array]:
    """Puts back into a change what a reduction by `factor` shows of `kept`, and keeps the finer rest as it is.

    Args:
        kept: the change whose coarse part stays, (h, w, 3); it is all coarse.
        factor: how many pixels become one, each way.
    """
    size = kept.shape[0], kept.shape[1]
    small = max(1, round(size[0] / factor)), max(1, round(size[1] / factor))

    def hold(change: Array) -> Array:
        finer = change - kept
        return change - resampled(resampled(finer, small, _DOWN), size)

    return hold
