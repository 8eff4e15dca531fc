"""Pictures of 16 bits a channel, which Pillow reads as 8, by OpenCV and tifffile.

What they read is believed only where its high bytes are what Pillow read.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glaze_trt.pictures import png

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it speaks of what is damaged

_BAND = 1 << 20
"""Rows worked on at once hold about so many values."""

_LONGEST_TILE = 1 << 14
"""Pixels a side; a buffer is made of one before it is looked into."""


def read_png(data: bytes) -> NDArray[np.uint16] | None:
    """A PNG of 16 bits: (H, W, C), C being 1, 3 or 4 (grey with alpha comes as RGB with alpha); None where it cannot.

    Only whole chunks of pixels are shown to OpenCV: it would apply or complain of what else there is, and reserves
    whatever length a chunk pretends to have.
    """
    pixels = png.pixels_alone(data)
    return None if pixels is None else _read(pixels, 0)


def read_tiff(data: bytes, page: int) -> NDArray[np.uint16] | None:
    """A page of a TIFF of 16 bits, upright: (H, W, C); None where it cannot be read."""
    return _read(data, page)


def read_planes(data: bytes, page: int) -> NDArray[np.uint16] | None:
    """The same, as it lies in the file, of what OpenCV does not read: CMYK, and channels that lie one after another.

    By tifffile, for no other compression than deflate.
    """
    from tifffile import TiffFile

    try:
        with TiffFile(io.BytesIO(data)) as file:
            found = file.pages[page].aspage()
            shape = (found.imagelength, found.imagewidth, found.samplesperpixel)
            if math.prod(found.shape) != math.prod(shape) or max(found.tilelength, found.tilewidth) > _LONGEST_TILE:
                return None
            read = found.asarray(maxworkers=1)
    except Exception:  # whatever damage makes of it
        return None
    apart = found.planarconfig == 2
    read = np.moveaxis(read.reshape(shape[2], *shape[:2]), 0, 2) if apart else read.reshape(shape)
    return read if read.dtype == np.uint16 else None


def _read(data: bytes, page: int) -> NDArray[np.uint16] | None:
    try:
        encoded = np.frombuffer(data, np.uint8)
        if page == 0:
            read: NDArray[Any] | None = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        else:
            _, pages = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
            read = pages[0] if pages else None
    except cv2.error:
        return None
    if read is None or read.dtype != np.uint16:
        return None
    found = read.view(np.uint16)
    if found.ndim == 2:
        return found[:, :, None]
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(found.shape[2])
    for rows in _bands(found) if order is not None else ():
        found[rows] = found[rows][:, :, order]
    return None if order is None else found


def agreed(found: NDArray[np.uint16] | None, shallow: NDArray[np.uint8]) -> NDArray[np.uint16] | None:
    """16-bit values (H, W, C) where their high bytes are these 8-bit values, else None; of more channels the first."""
    if found is None or found.shape[:2] != shallow.shape[:2] or found.shape[2] < shallow.shape[2]:
        return None
    found = found[:, :, : shallow.shape[2]]
    return found if all(np.array_equal(found[rows] >> 8, shallow[rows]) for rows in _bands(found)) else None


def _bands(values: NDArray[Any]) -> Iterator[slice]:
    rows = max(1, _BAND // (values.shape[1] * values.shape[2]))
    for first in range(0, values.shape[0], rows):
        yield slice(first, first + rows)
