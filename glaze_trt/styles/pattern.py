"""A high-contrast text pattern: what Mist moves a picture's latent toward.

Liang and Wu (arXiv 2305.12683) use one such picture; this one is our own, of any size: words in rows, each row shifted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_WORDS = "NO MIMICRY "
_ROWS = 12
"""Rows of text in the shorter side."""


def pattern(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) levels, black on white."""
    size = max(6, round(min(height, width) / _ROWS))
    page = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size)
    step = draw.textlength(_WORDS, font=font)
    for row in range(height // size + 1):
        x = -(row * 0.37 % 1.0) * step
        while x < width:
            draw.text((x, row * size), _WORDS, font=font, fill=0)
            x += step
    return np.repeat(np.asarray(page, np.uint8)[..., None], 3, axis=2)
