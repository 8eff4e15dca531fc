"""Where a picture's faces are, for extractors that see one face at a time: OpenCV's frontal-face cascade.

Viola and Jones (CVPR 2001), with the weights that come with OpenCV; it knows photographs of faces seen from the front,
painted ones only where they are painted so. Whoever knows better names the boxes (`--region`).
"""

from __future__ import annotations

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

from glaze_trt.graph.sight import Box, inside

_SIDE = 1024
"""Pixels of the longer side in which faces are looked for."""

_LEAST = 32
"""Pixels of the smallest face, there."""

_NEIGHBOURS = 6
"""How many overlapping finds make a face."""

_WIDER = 0.15
"""Added to each side of a find, as a part of it: embeddings were trained on faces with hair and chin."""


def find(levels: NDArray[np.uint8]) -> list[Box]:
    """The faces of an (H, W, 3) picture, the largest first."""
    height, width = levels.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    small = cv2.resize(
        levels, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    grey = cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
    cascade = cv2.CascadeClassifier(f"{haarcascades}haarcascade_frontalface_default.xml")
    found = cascade.detectMultiScale(grey, 1.1, _NEIGHBOURS, minSize=(_LEAST, _LEAST))
    boxes = [_wider(tuple(round(float(side) / scale) for side in box), width, height) for box in found]
    return sorted(boxes, key=lambda box: -box[2] * box[3])


def _wider(box: tuple[int, ...], width: int, height: int) -> Box:
    x, y, w, h = box
    more_x, more_y = round(_WIDER * w), round(_WIDER * h)
    return inside((x - more_x, y - more_y, w + 2 * more_x, h + 2 * more_y), width, height) or (x, y, w, h)
