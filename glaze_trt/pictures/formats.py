"""What can be read and written, and how closely an encoder follows: the settings worth trying, best match first."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PpmImagePlugin, TiffImagePlugin, features

from glaze_trt.graph.jpeg import steps
from glaze_trt.pictures.pixels import Encoding, Picture

FORMATS = (
    {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
    | ({".avif": "AVIF"} if features.check("avif") else {})
    | ({".heic": "HEIF", ".heif": "HEIF"} if find_spec("pillow_heif") else {})
)
"""What can be written here, by suffix."""

READABLE = frozenset(FORMATS) | {
    ".apng", ".avif", ".heic", ".heif", ".gif", ".bmp", ".jfif", ".jpe", ".jp2", ".jpx", ".mpo", ".ppm", ".pgm",
    ".psd", ".tga", ".qoi",
}  # fmt: skip
"""Suffixes of what may be a picture; whether one is, its bytes tell."""

OPENED = (
    "PNG", "JPEG", "MPO", "WEBP", "TIFF", "AVIF", "HEIF", "GIF", "BMP", "DIB", "JPEG2000", "PPM", "PSD", "ICO", "PCX",
    "SGI", "QOI", "TGA",
)  # fmt: skip
"""Pillow's names of what is read; TGA last, as nothing in its bytes says that it is one."""

ANIMATED = ("PNG", "WEBP", "TIFF")
"""What can hold several frames or pages as they are."""

LONGEST = {"WEBP": 16383, "JPEG": 65500, "AVIF": 65535, "HEIF": 16384}
"""Pixels a side that a format ends at."""

LOSSLESS = Encoding()

_SRGB_PRIMARIES, _SRGB_TRANSFERS = (1, 2), (1, 2, 6, 13, 14, 15)
"""By CICP, with what is unknown and the curves of video, which is shown as if it were sRGB."""

_EMPTY = 1 << 24
"""Pixels that an animation may have around its frames."""

_UNUSUAL = "unusual chroma subsampling"
_SAMPLINGS = {(2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1", (4, 2): "4:1:0"}
"""Of a JPEG, by the sampling factors of its luma."""

_FINER = {"4:1:1": "4:2:2", "4:1:0": "4:2:0", "4:4:0": "4:4:4", _UNUSUAL: "4:4:4"}
"""What Pillow writes in place of what it does not."""

_JPEG = (95, 98, 100)
_WEBP = (90, 95, 100)
_AVIF = (90, 95, 98, 100)


def ladder(picture: Picture, suffix: str, quality: int | None = None) -> tuple[Encoding, ...]:
    """Encodings to try for a picture, the closest to its source first, the most faithful last.

    A JPEG from a JPEG starts with its tables and subsampling. WebP is lossless unless the source was lossy, and ends
    lossless at least.

    Args:
        picture: what is to be written.
        suffix: of the file.
        quality: where to start instead, for what is lossy.
    """
    kind = FORMATS[suffix.lower()]
    source = picture.source.encoding if picture.source is not None else None
    lossy = picture.source is not None and picture.source.lossy
    if kind in ("PNG", "TIFF") or picture.frame is not None or (kind == "WEBP" and not lossy and quality is None):
        return (LOSSLESS,)
    same = picture.source is not None and picture.source.format in (kind, "MPO" if kind == "JPEG" else kind)
    sampling = source.subsampling if source is not None and same else "4:4:4"
    sampling = _FINER.get(sampling, sampling)
    if kind == "WEBP":
        return (*_from(quality, _WEBP, "4:2:0"), LOSSLESS)
    if kind in ("AVIF", "HEIF"):
        return _unique((*_from(quality, _AVIF[:2], sampling), *_from(quality, _AVIF, "4:4:4")))
    if quality is not None or source is None or source.quality is None or not same:
        return _from(quality, _JPEG, sampling)
    higher = [better for better in _JPEG if better > source.quality]
    return _unique(
        (
            replace(source, subsampling=sampling),
            *(Encoding(better, sampling) for better in higher[:1] if better < 98),
            *(Encoding(better) for better in higher or (source.quality, 100)),
        )
    )


def _from(first: int | None, rest: Sequence[int], sampling: str) -> tuple[Encoding, ...]:
    qualities = rest if first is None else (first, *(quality for quality in rest if quality > first))
    return tuple(Encoding(quality, sampling) for quality in qualities)


def _unique(encodings: Sequence[Encoding]) -> tuple[Encoding, ...]:
    return tuple(dict.fromkeys(encodings))


def encoding_of(image: Image.Image, head: bytes) -> Encoding | None:
    """How an opened picture was encoded; None where that is not known.

    Args:
        image: opened, not yet converted.
        head: how its file begins.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return _jpeg(image)
    if image.format == "WEBP":
        return Encoding(90, "4:2:0") if b"VP8 " in _webp_chunks(head) else LOSSLESS
    if image.format in ("AVIF", "HEIF"):
        return Encoding(90, _avif_sampling(head) if image.format == "AVIF" else _heif_sampling(head))
    return None


def _jpeg(image: JpegImagePlugin.JpegImageFile) -> Encoding | None:
    tables = tuple(tuple(table) for _, table in sorted(image.quantization.items()))
    if not 1 <= len(tables) <= 4 or any(len(table) != 64 for table in tables):
        return None
    used = [component[3] for component in image.layer]
    usual = len(tables) <= 2 and used[:1] == [0] and set(used[1:]) <= {len(tables) - 1}
    exact = usual and all(1 <= step <= 255 for table in tables for step in table)
    progressive = bool(image.info.get("progressive"))
    return Encoding(quality_of(tables[0]), _jpeg_sampling(image), tables if exact else None, progressive)


def _jpeg_sampling(image: JpegImagePlugin.JpegImageFile) -> str:
    _, *chroma = factors = [(component[1], component[2]) for component in image.layer]
    if len(factors) == 1 or set(factors) == {(1, 1)}:
        return "4:4:4"
    return _SAMPLINGS.get(factors[0], _UNUSUAL) if len(factors) == 3 and set(chroma) == {(1, 1)} else _UNUSUAL


def quality_of(table: Sequence[int]) -> int:
    """The IJG quality whose luma table is closest to one, 64 steps row by row; 1 to 100."""
    wanted = np.log(np.maximum(np.asarray(table, float), 1))
    return min(range(100, 0, -1), key=lambda quality: float(np.abs(np.log(steps(quality)[0]) - wanted).sum()))


def _webp_chunks(head: bytes) -> set[bytes]:
    found, at = set(), 12
    while at + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, at)
        found.add(name)
        if name in (b"VP8 ", b"VP8L"):
            break
        at += 8 + length + length % 2
    return found


def _avif_sampling(head: bytes) -> str:
    at = head.find(b"av1C")
    if at < 0 or at + 7 > len(head):
        return "4:2:0"
    flags = head[at + 6]
    return {(0, 0): "4:4:4", (1, 0): "4:2:2", (1, 1): "4:2:0"}.get(((flags >> 3) & 1, (flags >> 2) & 1), "4:2:0")


def _heif_sampling(head: bytes) -> str:
    at = head.find(b"hvcC")
    return {1: "4:2:0", 2: "4:2:2", 3: "4:4:4"}.get(head[at + 20] & 3 if 0 <= at < len(head) - 20 else 1, "4:2:0")


def use_heif() -> None:
    """Let Pillow read and write HEIF, where pillow-heif is installed."""
    if "HEIF" not in Image.OPEN:
        with suppress(ImportError):
            import_module("pillow_heif").register_heif_opener()


def more_bits(image: Image.Image, head: bytes) -> bool:
    """Whether the file of an opened picture, not yet loaded, has more than 8 bits a channel."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(ExifTags.Base.BitsPerSample)
        return isinstance(bits, tuple) and set(bits) == {16}
    if image.format == "AVIF":
        at = head.find(b"av1C")
        return at >= 0 and at + 7 <= len(head) and bool(head[at + 6] & 0x40)
    if image.format == "JPEG2000":
        at = head.find(b"\xff\x4f\xff\x51")
        return 0 <= at < len(head) - 42 and (head[at + 42] & 0x7F) > 7
    if isinstance(image, PpmImagePlugin.PpmImageFile):  # its decoder is told the brightest value, if that is not 255
        arguments = image.tile[0].args
        return isinstance(arguments, tuple) and isinstance(arguments[-1], int) and arguments[-1] > 255
    return {
        "PNG": lambda: head[24] == 16,
        "SGI": lambda: head[3] == 2,
        "HEIF": lambda: int(image.info.get("bit_depth", 8)) > 8,
    }.get(image.format or "", lambda: False)()


def other_colours(image: Image.Image, head: bytes) -> str | None:
    """What primaries and transfer an opened picture has by CICP (ITU-T H.273), where these are not sRGB's."""
    at = head.find({"PNG": b"cICP", "AVIF": b"colrnclx", "HEIF": b"colrnclx"}.get(image.format or "", b"\0none"))
    if not 0 <= at < len(head) - 12:
        return None
    primaries, transfer = head[at + 4 : at + 6] if image.format == "PNG" else head[at + 9 : at + 12 : 2]
    alike = primaries in _SRGB_PRIMARIES and transfer in _SRGB_TRANSFERS
    return None if alike else f"primaries {primaries}, transfer {transfer}"


def may_hold(image: Image.Image, head: bytes, length: int) -> bool:
    """Whether the file of an opened picture is long enough for its pixels.

    Decoders make black or grey pixels, hundreds of megapixels of them, of what is not there. Deflate packs 1032 to 1 at
    best; JPEG takes a bit for a block of 8 x 8 pixels of one channel. Frames may be smaller than an animation, so there
    it is a matter of measure: GIF packs some 1500 pixels of one colour into a byte.

    Args:
        image: opened, not yet loaded.
        head: how its file begins.
        length: of the file in bytes.
    """
    pixels = image.width * image.height
    if image.format == "PNG":
        return pixels * head[24] * {2: 3, 4: 2, 6: 4}.get(head[25], 1) / 8 <= 1032 * length
    if image.format == "GIF" or (image.format == "WEBP" and head[12:16] == b"VP8X" and head[20] & 2):
        return pixels <= _EMPTY + 4096 * length
    return image.format not in ("JPEG", "MPO") or pixels <= 8 * 64 * length


def options(encoding: Encoding, kind: str, *, grey: bool) -> dict[str, Any]:
    """Pillow's options for an encoding in a lossy format, or in WebP."""
    if kind == "WEBP":
        if encoding.quality is None:
            return {"lossless": True, "exact": True, "quality": 80, "method": 4}
        return {"quality": encoding.quality, "exact": True, "method": 4}
    quality = 100 if encoding.quality is None else encoding.quality
    if kind == "AVIF":
        return {"quality": quality, "subsampling": "4:0:0" if grey else encoding.subsampling}
    if kind == "HEIF":
        return {"quality": quality, "chroma": encoding.subsampling.replace(":", "")}
    sampling = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}.get(encoding.subsampling, 0)
    made = {"subsampling": 0 if grey else sampling, "optimize": True, "progressive": encoding.progressive}
    tables = None if encoding.tables is None else [list(table) for table in encoding.tables]
    return made | ({"quality": quality} if tables is None else {"qtables": tables[:1] if grey else tables})
