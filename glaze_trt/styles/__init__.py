"""Built-in styles: deterministic, quick, without a network or a GPU.

Each style is one function in one file over an (H, W, 3) picture in [0, 1] and a seeded generator. They change the
manner strongly and leave the content where it is, which is what a cloak's target must do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from glaze_trt.errors import StyleError
from glaze_trt.styles import scale
from glaze_trt.styles.charcoal import charcoal
from glaze_trt.styles.cubism import cubism
from glaze_trt.styles.engraving import engraving
from glaze_trt.styles.fauvism import fauvism
from glaze_trt.styles.impasto import impasto
from glaze_trt.styles.linocut import linocut
from glaze_trt.styles.mosaic import mosaic
from glaze_trt.styles.pointillism import pointillism
from glaze_trt.styles.stained_glass import stained_glass
from glaze_trt.styles.ukiyo_e import ukiyo_e
from glaze_trt.styles.watercolour import watercolour

Array = NDArray[np.float32]

_STYLES: Mapping[str, Callable[[Array, np.random.Generator], Array]] = MappingProxyType(
    {
        "charcoal": charcoal,
        "cubism": cubism,
        "engraving": engraving,
        "fauvism": fauvism,
        "impasto": impasto,
        "linocut": linocut,
        "mosaic": mosaic,
        "pointillism": pointillism,
        "stained-glass": stained_glass,
        "ukiyo-e": ukiyo_e,
        "watercolour": watercolour,
    }
)

LARGEST = 2_250_000
"""Pixels up to which a picture is painted at its own size; a larger one is painted reduced, and enlarged."""

DEFAULT = "impasto"
"""The style used where neither a style nor a target picture is given."""


def available() -> tuple[str, ...]:
    """The names `apply` takes."""
    return tuple(_STYLES)


def describe(name: str) -> str:
    """One line on a style.

    Raises:
        StyleError: there is no such style.
    """
    return (sys.modules[_find(name).__module__].__doc__ or "").splitlines()[0]


def apply(name: str, rgb: NDArray[np.floating], seed: int = 0) -> Array:
    """Repaint a picture in a style.

    Args:
        name: one of `available()`.
        rgb: (H, W, 3) in [0, 1].
        seed: the same seed gives the same picture.

    Returns:
        (H, W, 3) float32 in [0, 1].

    Raises:
        StyleError: there is no such style.
    """
    style, rng = _find(name), np.random.default_rng(seed)
    image = np.ascontiguousarray(rgb, dtype=np.float32)
    factor = math.sqrt(LARGEST / (image.shape[0] * image.shape[1]))
    if factor >= 1:
        return style(image, rng)
    small = scale.resized(image, (max(1, int(image.shape[0] * factor)), max(1, int(image.shape[1] * factor))))
    painted = scale.resized(style(small, rng), (image.shape[0], image.shape[1]))
    return np.clip(painted, 0, 1, out=painted)


def target_from(picture: NDArray[np.uint8], size: tuple[int, int]) -> Array:
    """A target made of any picture: scaled to cover (height, width) and cropped about its centre.

    Args:
        picture: (h, w, 3) levels.
        size: height and width of the picture to be cloaked.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    height, width = size
    if picture.shape[:2] == size:
        return picture.astype(np.float32) / np.float32(255)
    fitted = ImageOps.fit(Image.fromarray(picture), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted, dtype=np.float32) / np.float32(255)


def _find(name: str) -> Callable[[Array, np.random.Generator], Array]:
    try:
        return _STYLES[name]
    except KeyError:
        raise StyleError(f"no style is called '{name}'; the built-in ones are {', '.join(_STYLES)}") from None
