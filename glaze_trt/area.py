"""Where a picture may change, and where an extractor looks: masks, regions, faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt import faces as detector
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.graph.sight import Box, inside
from glaze_trt.pictures import picture

Levels = NDArray[np.uint8]
Mask = NDArray[np.float32]


def of(
    levels: Levels, mask: Path | None, regions: Sequence[Box], *, faces: bool
) -> tuple[Mask | None, tuple[Box, ...]]:
    """The mask of a picture, and what extractors of one fixed size look at.

    Args:
        levels: the picture, (H, W, 3).
        mask: a picture of the same size, white where the other may change; grey by part.
        regions: boxes outside which nothing may change.
        faces: whether extractors look at faces; without `regions` these are then looked for.

    Returns:
        (H, W) in [0,1], or None for all of it; and the boxes, none where no extractor needs any.

    Raises:
        PictureError: the mask cannot be read or has another size, or no face was found.
        UsageError: a region lies outside the picture.
    """
    height, width = levels.shape[:2]
    boxes = tuple(dict.fromkeys(_cut(box, width, height) for box in regions))
    if faces and not boxes:
        boxes = tuple(detector.find(levels))
        if not boxes:
            raise PictureError(
                f"no face was found; name one by --region x,y,width,height, or --region 0,0,{width},{height} for all"
            )
    allowed: Mask | None = None
    if boxes:
        allowed = np.zeros((height, width), np.float32)
        for x, y, w, h in boxes:
            allowed[y : y + h, x : x + w] = 1
    if mask is not None:
        drawn = _read(mask, width, height)
        allowed = drawn if allowed is None else allowed * drawn
        if not allowed.any():
            raise PictureError(f"{mask}: leaves nothing that may change; white is where the picture may")
    return allowed, boxes if faces else ()


def parse(text: str) -> Box:
    """A box from "x,y,width,height" in pixels.

    Raises:
        UsageError: it is none.
    """
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts) or 0 in map(int, parts[2:]):
        raise UsageError(f"--region {text}: give x,y,width,height in pixels, as 100,40,256,256")
    x, y, w, h = map(int, parts)
    return x, y, w, h


def _cut(box: Box, width: int, height: int) -> Box:
    found = inside(box, width, height)
    if found is None:
        raise UsageError("--region {},{},{},{} lies outside the picture, which is {} x {}".format(*box, width, height))
    return found


def _read(path: Path, width: int, height: int) -> Mask:
    """A mask as pictures are read: upright, of any depth; what is transparent counts as black."""
    try:
        drawn = picture.load(path)
    except PictureError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise PictureError(f"{path}: the mask cannot be read as a picture ({reason})") from error
    if drawn.levels.shape[:2] != (height, width):
        size = "{1} x {0}".format(*drawn.levels.shape)
        raise PictureError(f"{path}: the mask is {size} and the picture {width} x {height}")
    grey = np.asarray(Image.fromarray(drawn.levels).convert("L"), np.float32) / np.float32(255)
    if drawn.alpha is None:
        return grey
    return np.asarray(grey * (drawn.alpha / np.float32(np.iinfo(drawn.alpha.dtype).max)), np.float32)
