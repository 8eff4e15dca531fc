"""A picture to a file's bytes: in its own colours, bit depth and kind, as far as the format holds them.

What a format cannot hold is told beforehand (`losses`), and nothing is lost that is not.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from glaze_trt.errors import OutputError
from glaze_trt.pictures import formats, metadata, png, tiff
from glaze_trt.pictures.colour import Inks, Tables, Values
from glaze_trt.pictures.formats import FORMATS
from glaze_trt.pictures.pixels import Encoding, Picture

_DEEP = ("PNG", "TIFF")
_INKS = ("JPEG", "TIFF")


def encode(picture: Picture, suffix: str, encoding: Encoding | None = None) -> bytes:
    """The bytes of a picture file of the format that `suffix` names, in memory.

    Args:
        picture: what to write; its own values move as its levels have.
        suffix: as ".png".
        encoding: of the pixels; what matches the picture's source best, if None.

    Raises:
        OutputError: the format cannot hold it (WebP ends at 16383 pixels a side, EXIF in a JPEG at 64 KiB).
    """
    kind = FORMATS[suffix.lower()]
    chosen = formats.ladder(picture, suffix)[0] if encoding is None else encoding
    try:
        if kind == "TIFF":
            return tiff.write([page(picture)])
        return _written(picture, lay_out(picture, kind), kind, chosen)
    except (OSError, ValueError, RuntimeError) as error:
        raise OutputError(f"{kind} cannot hold this picture ({error}); choose .png") from error


def losses(picture: Picture, suffix: str) -> tuple[str, ...]:
    """What a file of this format will not hold of a picture, one line each, and how its colours move."""
    kind, own, notes = FORMATS[suffix.lower()], picture.own, []
    inks = _channels(picture) == 4
    if _channels(picture) == 1:
        notes.append("a grey picture stays grey: it moves by the mean of the cloak's three channels")
    if inks and kind not in _INKS:
        notes.append(f"{kind} holds no CMYK; written as sRGB")
    elif own is not None and isinstance(own.space, (Tables, Inks)):
        notes.append("its colours come from tables or inks, which follow a cloak nearly and not exactly")
    if own is not None and own.values.dtype == np.uint16 and _bits(picture, kind) == 8:
        deeper = ".tif" if picture.frame else ".png" if _bits(picture, "TIFF") == 8 else ".png or .tif"
        notes.append(f"written with 8 bits a channel; {deeper} keeps 16")
    if kind != "PNG" and picture.carried.text:
        names = ", ".join(dict.fromkeys(metadata.keyword(text).decode("latin-1") for text in picture.carried.text))
        notes.append(f"PNG text is not kept in {kind}: {''.join(filter(str.isprintable, names))[:200]}")
    if kind not in ("JPEG", "TIFF") and picture.carried.iptc is not None:
        notes.append(f"IPTC records are not kept in {kind}")
    if kind != "JPEG" and picture.carried.comment:
        notes.append(f"a JPEG's comment is not kept in {kind}")
    if kind == "JPEG" and not metadata.fits_jpeg(picture.carried.xmp, metadata.XMP_LABEL):
        notes.append("its XMP is too long for a JPEG and was left out")
    if kind == "JPEG" and not metadata.fits_jpeg(picture.exif):
        notes.append("its EXIF is too long for a JPEG and was left out")
    return tuple(notes)


@dataclass(frozen=True)
class Layout:
    """What goes into a file: values (H, W, C), alpha (H, W) of the same type, and the profile of these values."""

    values: Values
    alpha: Values | None
    icc: bytes | None

    @property
    def inks(self) -> bool:
        """Whether the values are CMYK."""
        return bool(self.values.shape[2] == 4)

    @property
    def stacked(self) -> Values:
        """Values and alpha in one array."""
        return self.values if self.alpha is None else np.dstack([self.values, self.alpha])


def lay_out(picture: Picture, kind: str) -> Layout:
    """A picture as a format holds it."""
    own, icc = picture.own, picture.icc
    if own is None:
        values: Values = picture.levels
    else:
        values = own.space.moved(in_bits(own.values, _bits(picture, kind)), own.levels, picture.levels)
        bare_grey = values.shape[2] == 1 and (kind in ("WEBP", "HEIF") or (kind == "AVIF" and icc is not None))
        if bare_grey or (values.shape[2] == 4 and kind not in _INKS):
            values, icc = own.space.levels(values), None
    alpha = None if picture.alpha is None or kind == "JPEG" else in_bits(picture.alpha, 8 * values.dtype.itemsize)
    return Layout(values, alpha, icc)


def in_bits(values: Values, bits: int) -> Values:
    """Values of 8 or 16 bits as the nearest of the other."""
    if 8 * values.dtype.itemsize == bits:
        return values
    if bits == 16:
        return values.astype(np.uint16) * np.uint16(257)
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def page(picture: Picture) -> tiff.Page:
    """A picture as a page of a TIFF."""
    laid = lay_out(picture, "TIFF")
    return tiff.Page(
        laid.stacked, laid.inks, laid.alpha is not None, laid.icc, picture.exif, picture.dpi, picture.carried
    )


def _channels(picture: Picture) -> int:
    return 3 if picture.own is None else int(picture.own.values.shape[2])


def _bits(picture: Picture, kind: str) -> int:
    if picture.own is None or picture.own.values.dtype == np.uint8 or kind not in _DEEP:
        return 8
    if kind == "PNG":
        return 16 if picture.frame is None else 8
    return 8 if _channels(picture) == 1 and picture.alpha is not None else 16  # nothing reads that TIFF back


def attached(picture: Picture, icc: bytes | None, kind: str) -> dict[str, Any]:
    """Pillow's options for what a picture carries."""
    made: dict[str, Any] = {}
    if icc is not None:
        made["icc_profile"] = icc
    exif = picture.exif
    if picture.dpi is not None and kind in ("PNG", "JPEG"):
        made["dpi"] = picture.dpi
    elif picture.dpi is not None:
        exif = metadata.with_resolution(exif, picture.dpi)
    if exif is not None:
        made["exif"] = exif
    if kind == "PNG":
        return made | {"pnginfo": metadata.png_info(picture.carried)}
    if picture.carried.xmp is not None:
        made["xmp"] = picture.carried.xmp
    if kind == "JPEG":
        if not metadata.fits_jpeg(exif):
            del made["exif"]
        if not metadata.fits_jpeg(picture.carried.xmp, metadata.XMP_LABEL):
            del made["xmp"]
        made["extra"] = metadata.jpeg_segments(picture.carried)
        made["comment"] = picture.carried.comment or b""
    return made


def _written(picture: Picture, laid: Layout, kind: str, encoding: Encoding) -> bytes:
    made = attached(picture, laid.icc, kind)
    if kind == "PNG" and laid.values.dtype == np.uint16 and laid.stacked.shape[2] > 1:
        return png.write(laid.stacked, png.small(laid.stacked.shape[2], **made))
    if kind == "PNG":
        made |= {"compress_level": 6}
    else:
        made |= formats.options(encoding, kind, grey=laid.values.shape[2] == 1)
    if kind == "HEIF":
        formats.use_heif()
    image = image_of(laid)
    try:
        return _saved(image, kind, made)
    except OSError:
        if kind != "JPEG":
            raise
        # Pillow has too small a buffer for noise, where a JPEG is made in one piece
        return _saved(image, kind, made | {"optimize": False, "progressive": False})


def _saved(image: Image.Image, kind: str, options: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def image_of(laid: Layout) -> Image.Image:
    """A layout as Pillow has it."""
    if laid.inks:
        return Image.frombytes("CMYK", (laid.values.shape[1], laid.values.shape[0]), laid.values.tobytes())
    stacked = laid.stacked
    return Image.fromarray(stacked[:, :, 0] if stacked.shape[2] == 1 else stacked)
