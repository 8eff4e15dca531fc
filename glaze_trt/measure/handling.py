"""What ordinary handling does to a finished picture: the real transformations, on 8-bit levels.

`glaze_trt.graph.views` shows the loop what is like them; here is what the report measures.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt.errors import UsageError

Levels = NDArray[np.uint8]

NOISE = 6.0
"""Standard deviation, in 8-bit levels."""


def jpeg(levels: Levels, quality: int) -> Levels:
    """Saved as JPEG with 4:2:0 chroma, as most programs do, and opened again; (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer).convert("RGB"), np.uint8)


def halved_and_back(levels: Levels) -> Levels:
    """Scaled to half the size (rounded, at least a pixel) and back to its own, by Lanczos both ways."""
    picture = Image.fromarray(levels)
    half = (max(1, round(picture.width / 2)), max(1, round(picture.height / 2)))
    small = picture.resize(half, Image.Resampling.LANCZOS)
    return np.asarray(small.resize(picture.size, Image.Resampling.LANCZOS), np.uint8)


def noise(levels: Levels, seed: int = 0) -> Levels:
    """With Gaussian noise of `NOISE` levels on every channel, the same for the same seed."""
    grain = NOISE * np.random.default_rng(seed).standard_normal(levels.shape)
    return np.clip(np.rint(levels + grain), 0, 255).astype(np.uint8)


_TRANSFORMATIONS: Mapping[str, Callable[[Levels], Levels]] = {
    "jpeg 90": lambda levels: jpeg(levels, 90),
    "jpeg 75": lambda levels: jpeg(levels, 75),
    "half size and back": halved_and_back,
    "noise": noise,
}

NAMES = tuple(_TRANSFORMATIONS)
"""What `apply` knows."""


def apply(name: str, levels: Levels) -> Levels:
    """A picture after one of `NAMES`; (H, W, 3) uint8 to the same.

    Raises:
        UsageError: no such transformation.
    """
    if name not in _TRANSFORMATIONS:
        raise UsageError(f"no transformation {name!r}; choose one of {', '.join(NAMES)}")
    return _TRANSFORMATIONS[name](levels)


def left(levels: Levels, progress: Callable[[Levels], float]) -> dict[str, float]:
    """The progress that each transformation leaves of a cloaked picture, by name.

    Args:
        levels: (H, W, 3) uint8.
        progress: of a picture, as `glaze_trt.evaluate.Progress` tells it.
    """
    return {name: progress(apply(name, levels)) for name in NAMES}
