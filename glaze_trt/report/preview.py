"""Pictures made small enough to look at, and embedded in a page; and which parts of a large one to show at full size.

Previews are JPEG with full chroma, for a cloak is in the colours too; parts at full size are WebP without loss.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8]

_SMALL = 512
"""A picture under this many pixels a side is enlarged by a whole number, so that it can be seen."""

_CELLS = 64
"""Along the longer side, at which parts of a picture are compared."""

_QUIET = 4.0
"""Levels of local contrast under which all grounds count as equally calm."""


@dataclass(frozen=True)
class Preview:
    """A picture for a page.

    Attributes:
        uri: the picture itself, as a data URI.
        width: in CSS pixels.
        height: the same.
        scale: CSS pixels per pixel of the picture.
    """

    uri: str
    width: int
    height: int
    scale: float

    @property
    def enlarged(self) -> bool:
        """Whether it is shown larger than it is."""
        return self.scale > 1


def preview(levels: Levels, side: int, quality: int) -> Preview:
    """A picture, (H, W, 3) uint8, at most `side` pixels in height and width."""
    height, width = levels.shape[:2]
    small = shrunk(levels, side)
    factor = max(1, _SMALL // max(height, width)) if small is levels else 1
    data = io.BytesIO()
    Image.fromarray(small).save(data, "JPEG", quality=quality, subsampling="4:4:4")
    scale = max(small.shape[:2]) / max(height, width) * factor
    return Preview(_uri("jpeg", data.getvalue()), small.shape[1] * factor, small.shape[0] * factor, scale)


def exact(levels: Levels) -> Preview:
    """A picture as it is, (H, W, 3) uint8, without loss."""
    data = io.BytesIO()
    Image.fromarray(levels).save(data, "WEBP", lossless=True, quality=30, method=2)
    return Preview(_uri("webp", data.getvalue()), levels.shape[1], levels.shape[0], 1.0)


def shrunk(levels: Levels, side: int, *, sampled: bool = False) -> Levels:
    """A picture, (H, W, 3) uint8, to `side` pixels at most, by areas or `sampled`; itself where it is no larger."""
    height, width = levels.shape[:2]
    if max(height, width) <= side:
        return levels
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_NEAREST if sampled else cv2.INTER_AREA
    return np.asarray(cv2.resize(levels, size, interpolation=how), np.uint8)


def most_changed(before: Levels, after: Levels, size: tuple[int, int]) -> tuple[int, int]:
    """The (x, y) of the part of a size (width, height) in which two pictures, (H, W, 3) uint8, differ most."""
    change, cell = _change(before, after)
    return _best(_window(change, cell, size), cell, before, size)


def most_telling(before: Levels, after: Levels, size: tuple[int, int]) -> tuple[int, int]:
    """The same of the part whose change is largest beside its own contrast: a calm ground hides nothing."""
    change, cell = _change(before, after)
    grey = cv2.cvtColor(shrunk(before, 8 * _CELLS), cv2.COLOR_RGB2GRAY)
    shape = change.shape[1], change.shape[0]
    mean, square = (
        cv2.resize(value, shape, interpolation=cv2.INTER_AREA)
        for value in (grey.astype(np.float32), np.square(grey, dtype=np.float32))
    )
    contrast = np.sqrt(np.maximum(square - np.square(mean), 0))
    told = _window(change, cell, size) / (_QUIET + _window(contrast, cell, size))
    return _best(told, cell, before, size)


def _change(before: Levels, after: Levels) -> tuple[NDArray[np.float32], float]:
    """The mean change of every cell, and a cell's side in pixels."""
    height, width = before.shape[:2]
    cell = max(1.0, max(height, width) / _CELLS)
    shape = max(1, round(width / cell)), max(1, round(height / cell))
    finer = cv2.convertScaleAbs(cv2.absdiff(before, after), alpha=8)  # else a calm part's would be lost to rounding
    change = cv2.resize(finer, shape, interpolation=cv2.INTER_AREA)
    return change.astype(np.float32).mean(axis=2), cell


def _window(values: NDArray[np.float32], cell: float, size: tuple[int, int]) -> NDArray[np.float32]:
    """The mean over a part of that size (width, height in pixels) around every cell."""
    cells = max(1, round(size[0] / cell)), max(1, round(size[1] / cell))
    return np.asarray(cv2.blur(values, cells, borderType=cv2.BORDER_REFLECT), np.float32)


def _best(score: NDArray[np.float32], cell: float, whole: Levels, size: tuple[int, int]) -> tuple[int, int]:
    row, column = np.unravel_index(int(np.argmax(score)), score.shape)
    height, width = whole.shape[:2]
    x, y = (column + 0.5) * cell - size[0] / 2, (row + 0.5) * cell - size[1] / 2
    return int(np.clip(x, 0, max(0, width - size[0]))), int(np.clip(y, 0, max(0, height - size[1])))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
