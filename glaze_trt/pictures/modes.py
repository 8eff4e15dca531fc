"""The values of a picture that Pillow has loaded, whatever its mode: grey, RGB or CMYK, and alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt.pictures import quirks
from glaze_trt.pictures.colour import Values

_BAND = 1 << 22
"""Pixels converted at once."""

_DEEP_MODES = ("I", "F")
_RESCALED = "its values became 16-bit grey"

_OVERSHOOT = 2.0
"""Up to here, floats are taken for a picture in [0, 1] that goes over its edge somewhere."""


def values_of(image: Image.Image, through: Any = None) -> tuple[Values, Values | None, list[str]]:
    """A loaded picture's own values (H, W, C) and alpha (H, W), of 8 or 16 bits as Pillow has them, and remarks.

    Args:
        image: loaded.
        through: the value or colour, or the palette's alphas, that is transparent; see `quirks`.

    Raises:
        ValueError: values that no scale fits, or a mode that Pillow does not convert.
    """
    mode = image.mode
    if mode.startswith(_DEEP_MODES):
        grey, notes = _deep_grey(image)
        seen = np.where(grey == through, 0, 65535).astype(np.uint16) if isinstance(through, int) else None
        return grey[:, :, None], seen if grey.dtype == np.uint16 else None, notes
    if mode == "CMYK":
        return _array(image, "CMYK"), None, []
    grey_palette = mode in ("P", "PA") and _is_grey(image)
    notes = ["its palette gave way to full colour: a palette holds no cloak"] if mode in ("P", "PA") else []
    notes += ["its two colours became grey: a bit a pixel holds no cloak"] if mode == "1" else []
    notes += [f"its {mode} colours became RGB"] if mode in ("LAB", "HSV") else []
    opaque, clear = ("L", "LA") if mode in ("1", "L", "LA", "La") or grey_palette else ("RGB", "RGBA")
    if through is None and not image.has_transparency_data:
        return _array(image, opaque), None, notes
    through_rgb = clear == "LA" and mode not in ("LA", "La")  # Pillow knows no other way
    both = _array(image, "RGBA", through)[:, :, [0, 3]] if through_rgb else _array(image, clear, through)
    return np.ascontiguousarray(both[:, :, :-1]), np.ascontiguousarray(both[:, :, -1]), notes


def _array(image: Image.Image, mode: str, through: Any = None) -> NDArray[np.uint8]:
    """(H, W, C), converted by bands of rows: one copy of the picture and no more."""
    width, height = image.size
    made = np.empty((height, width, Image.getmodebands(mode)), np.uint8)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        band.info = {} if through is None else {"transparency": through}
        made[top : top + rows] = np.asarray(_converted(band, mode)).reshape(band.height, width, -1)
    return made


def _converted(band: Image.Image, mode: str) -> Image.Image:
    if band.mode == mode:
        return band
    if band.mode == "La":
        return band.convert("LA").convert(mode)
    return band.convert("RGBA").convert(mode) if band.mode == "PA" else band.convert(mode)


def _is_grey(image: Image.Image) -> bool:
    """Whether a palette has greys alone, and no profile that is one of colours."""
    palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    in_colour = (image.info.get("icc_profile") or b"")[16:20] == b"RGB "
    return bool(len(palette)) and not in_colour and bool((palette == palette[:, :1]).all())


def _deep_grey(image: Image.Image) -> tuple[Values, list[str]]:
    """Grey of more than 8 bits or in floating point, to 8 or 16 bits by the smallest usual scale that holds it."""
    values = quirks.deep_grey(image)
    if image.mode.startswith("I;16"):
        return values.astype(np.uint16), []
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("negative or infinite values")
    top = float(values.max())
    if image.mode == "F" and 1 < top < _OVERSHOOT:
        return np.rint(np.minimum(values, 1) * 65535).astype(np.uint16), [_RESCALED, "its values over 1 were clipped"]
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    scale = next((scale for scale in usual if top <= scale), top)
    if image.mode == "I" and scale == 255:
        return values.astype(np.uint8), []
    notes = [] if image.mode == "I" and scale == 65535 else [_RESCALED]
    return np.rint(values * (65535 / scale)).astype(np.uint16), notes
