"""One picture in every built-in style, labelled, on one page, to choose a style from. Not a style itself."""

from __future__ import annotations

import math
import textwrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glaze_trt import styles
from glaze_trt.report.page import FAINT, PAPER, write

_MARGIN, _GAP, _CAPTION, _LARGEST = 40, 24, 76, 512


def sheet(rgb_levels: NDArray[np.uint8], seed: int = 0) -> Image.Image:
    """Paint the picture in every style and lay the results out.

    Each style paints at the size shown, so the sheet is quick however large the picture is.

    Args:
        rgb_levels: (H, W, 3) levels.
        seed: the same seed gives the same sheet.

    Returns:
        The page: the picture first, then the styles in the order of `styles.available()`.
    """
    original = Image.fromarray(rgb_levels)
    original.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    rgb = np.asarray(original, dtype=np.float32) / np.float32(255)
    panels = [("original", "the picture as it is", original)]
    for name in styles.available():
        levels = np.rint(styles.apply(name, rgb, seed) * 255).astype(np.uint8)
        panels.append((name, styles.describe(name), Image.fromarray(levels)))
    return _laid_out(panels)


def _laid_out(panels: list[tuple[str, str, Image.Image]]) -> Image.Image:
    """A grid of (name, remark, picture), about as wide as a screen."""
    width, height = panels[0][2].size
    cell = max(width, 220) + _GAP, height + _CAPTION + _GAP
    wished = math.sqrt(len(panels) * 1.5 * cell[1] / cell[0])  # half again as wide as it is high
    columns = min(range(1, len(panels) + 1), key=lambda count: abs(count - wished) + -len(panels) % count)
    rows = math.ceil(len(panels) / columns)
    page = Image.new("RGB", (2 * _MARGIN + columns * cell[0] - _GAP, 2 * _MARGIN + rows * cell[1] - _GAP), PAPER)
    draw = ImageDraw.Draw(page)
    for index, (name, remark, picture) in enumerate(panels):
        x, y = _MARGIN + index % columns * cell[0], _MARGIN + index // columns * cell[1]
        page.paste(picture, (x, y))
        write(draw, (x, y + height + 8), name, 20, room=cell[0] - _GAP)
        lines = textwrap.wrap(remark.partition(": ")[2] or remark, (cell[0] - _GAP) // 7)
        for line, text in enumerate(lines[:2]):
            write(draw, (x, y + height + 36 + 18 * line), text, 14, FAINT, room=cell[0] - _GAP)
    return page
