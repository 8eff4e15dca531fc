"""Where Pillow reads a sound file wrongly, or takes a damaged one for sound: put right before and after it decodes.

Found with Pillow 13; each has a test in `tests/glaze_trt/pictures/test_quirks.py` that fails without it.
"""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from glaze_trt.pictures import png

_NO_TEXT = ("dpi", "exif", "icc_profile", "interlace", "transparency", "xmp")
_APART = 2
"""PlanarConfiguration of a TIFF whose channels lie one after another."""


def prepare(image: Image.Image, file: IO[bytes], head: bytes) -> None:
    """Put right what has to be before an opened picture is loaded, from `file`, which begins with `head`.

    Raises:
        Exception: a PNG or a TIFF is damaged, of which Pillow would make black or noise; see `png.check`.
    """
    forget_text(image, head)
    if image.format == "PNG" and image.tell() == 0:
        stands = file.tell()
        png.check(file)
        file.seek(stands)
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.use_load_libtiff:
        return
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))
    apart = image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == _APART
    boxes = [tile.extents for tile in image.tile if tile.extents is not None]
    held = sum((right - left) * (lower - upper) for left, upper, right, lower in boxes)
    if held < image.width * image.height * (len(bits) if apart else 1):
        raise ValueError("it lacks a part of its pixels")
    if apart and set(bits) == {16}:  # would be read as if they had 8
        extents = (0, 0, *image._tile_size)
        arguments = (f"{image.mode};16N", False, image.tag_v2.offset)
        image.tile = [image.tile[0]._replace(codec_name="libtiff", extents=extents, offset=0, args=arguments)]
        image.use_load_libtiff = True


def forget_text(image: Image.Image, head: bytes) -> None:
    """Text of a PNG goes by its keyword among what Pillow knows of a picture: take it out where it has no business."""
    if image.format == "PNG":
        for name in _NO_TEXT:
            if isinstance(image.info.get(name), str):
                del image.info[name]
        if head[28]:
            image.info["interlace"] = 1


def transparency(image: Image.Image, head: bytes) -> Any:
    """The value or colour that is transparent, or the palette's alphas; None where nothing is.

    In a PNG of 2 or 4 bits it is counted in these, where Pillow has spread the values over 8.
    """
    found = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(found, int) and head[24] in (2, 4):
        return found * (255 // (2 ** head[24] - 1))
    return found


def deep_grey(image: Image.Image) -> NDArray[Any]:
    """The values of a loaded grey picture of more than 8 bits, (H, W), dark being low; 12 bits as 16."""
    values = np.asarray(image)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return values
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))
    if image.tag_v2.prefix == b"MM" and image.use_load_libtiff and image.mode in ("I", "F"):
        stored = {("I", 16): "i2", ("I", 32): "i4", ("F", 32): "f4"}[image.mode, bits[0]]
        values = values.astype(stored).byteswap()
    if not image.mode.startswith("I;16"):
        return values
    values = values.astype(np.uint16)
    if bits[0] == 12:
        values = (values << 4) | (values >> 8)
    return values if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) else 65535 - values
