"""Pictures of 16 bits a channel, which Pillow reads as 8, by OpenCV; and TIFFs of any depth, written by tifffile.

What OpenCV reads is believed only where its high bytes are what Pillow read.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt.pictures import metadata
from glaze_trt.pictures.pixels import Carried

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BAND = 1 << 20
"""Rows worked on at once hold about so many values."""

_ASIDE = 1
"""What is added to the number of a tag that tifffile would not write; no tag in use lies there."""


def png_kind(head: bytes) -> tuple[int, int]:
    """Bits and colour type of a PNG by how it begins; (8, -1) for what is none."""
    if head[:8] != _SIGNATURE or len(head) < 26:
        return 8, -1
    return head[24], head[25]


def png_may_hold(size: tuple[int, int], head: bytes, length: int) -> bool:
    """Whether a PNG of some bytes can hold so many pixels: deflate packs 1032 to 1 at best.

    Where a stream ends early but properly, Pillow takes the rest for black, and a hundred megapixels of it.
    """
    bits, kind = png_kind(head)
    channels = {2: 3, 4: 2, 6: 4}.get(kind, 1)
    return size[0] * size[1] * bits * channels / 8 <= 1032 * length


def read_png(data: bytes) -> NDArray[np.uint16] | None:
    """A PNG of 16 bits: (H, W, C), C being 1, 3 or 4 (grey with alpha comes as RGB with alpha); None where it cannot.

    Only whole chunks of pixels are shown to OpenCV: it would apply or complain of what else there is, and reserves
    whatever length a chunk pretends to have.
    """
    parts, at, name = [data[:33]], _first_pixels(data), b""
    while at + 12 <= len(data) and name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (b"IDAT", b"IEND"):
            parts.append(data[at : at + 12 + length])
        at += 12 + length
    return _read(b"".join(parts), 0) if name == b"IEND" and at <= len(data) else None


def read_tiff(data: bytes, page: int) -> NDArray[np.uint16] | None:
    """A page of a TIFF of 16 bits, upright: (H, W, C); None where it cannot be read."""
    return _read(data, page)


def _read(data: bytes, page: int) -> NDArray[np.uint16] | None:
    try:
        encoded = np.frombuffer(data, np.uint8)
        if page == 0:
            read: NDArray[Any] | None = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        else:
            _, pages = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(page, page + 1))
            read = pages[0] if pages else None
    except cv2.error:
        return None
    if read is None or read.dtype != np.uint16:
        return None
    found = read.view(np.uint16)
    if found.ndim == 2:
        return found[:, :, None]
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(found.shape[2])
    for rows in _bands(found) if order is not None else ():
        found[rows] = found[rows][:, :, order]
    return None if order is None else found


def agrees(deep: NDArray[np.uint16], shallow: NDArray[np.uint8]) -> bool:
    """Whether the high bytes of 16-bit values are these 8-bit values, (H, W, C) both."""
    if deep.shape != shallow.shape:
        return False
    return all(np.array_equal(deep[rows] >> 8, shallow[rows]) for rows in _bands(deep))


def _bands(values: NDArray[Any]) -> Iterator[slice]:
    rows = max(1, _BAND // (values.shape[1] * values.shape[2]))
    for first in range(0, values.shape[0], rows):
        yield slice(first, first + rows)


def write_png(values: NDArray[np.uint16], like: bytes) -> bytes:
    """A PNG of 16 bits: grey with alpha, RGB, or RGB with alpha, (H, W, 2 to 4).

    Args:
        values: what it holds.
        like: a PNG of the same kind of pixels, whose other chunks before them it takes over.
    """
    if values.shape[2] == 2:  # which OpenCV does not write
        rows = values.astype(">u2").view(np.uint8).reshape(values.shape[0], -1)
        rows = np.concatenate([rows[:, :4], rows[:, 4:] - rows[:, :-4]], axis=1)  # filter 1: less the pixel to the left
        filtered = np.concatenate([np.ones((len(rows), 1), np.uint8), rows], axis=1)
        header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 4, 0, 0, 0)
        start = _SIGNATURE + _chunk(b"IHDR", header)
        pixels = _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)) + _chunk(b"IEND", b"")
    else:
        turn = cv2.COLOR_RGB2BGR if values.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        made, encoded = cv2.imencode(".png", cv2.cvtColor(values, turn), [cv2.IMWRITE_PNG_COMPRESSION, 6])
        if not made:
            raise OSError("the 16-bit PNG was not made")
        data = encoded.tobytes()
        start, pixels = data[:33], data[_first_pixels(data) :]
    return b"".join((start, like[33 : _first_pixels(like)], pixels))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _first_pixels(data: bytes) -> int:
    """Where the first IDAT chunk of a PNG begins, or its end."""
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        at += 12 + int(struct.unpack_from(">I", data, at)[0])
    return at


@dataclass(frozen=True)
class Page:
    """A page of a TIFF to be written.

    Attributes:
        values: (H, W, C) uint8 or uint16; C is 1, 3 or 4 without alpha, 2 or 4 with.
        inks: whether they are CMYK.
        alpha: whether the last channel is.
    """

    values: NDArray[Any]
    inks: bool
    alpha: bool
    icc: bytes | None
    exif: bytes | None
    dpi: tuple[float, float] | None
    carried: Carried


def write_tiff(pages: Sequence[Page]) -> bytes:
    """A TIFF of one page or several, deflated with a predictor.

    EXIF lies in directories of its own, which tifffile does not write: a tag beside each is, and is then made to be it.
    """
    from tifffile import TiffWriter

    file = io.BytesIO()
    below: list[dict[int, dict[int, Any]]] = []
    with TiffWriter(file, byteorder="<") as writer:
        for page in pages:
            spoken, directories = metadata.tiff_tags(page.exif)
            below.append(directories)
            tags = [(tag, kind, 1 if kind == "H" else len(value), value, True) for tag, kind, value in spoken]
            tags += [(ifd + _ASIDE, "I", 1, 0, True) for ifd in directories]
            for tag, value in ((700, page.carried.xmp), (33723, page.carried.iptc)):
                if value is not None:
                    tags.append((tag, "B", len(value), value, True))
            values = page.values if page.values.shape[2] > 1 else page.values[:, :, 0]
            writer.write(
                values,
                photometric="separated" if page.inks else "rgb" if page.values.shape[2] > 2 else "minisblack",
                planarconfig="contig" if values.ndim == 3 else None,
                extrasamples=["unassalpha"] if page.alpha else None,
                compression="adobe_deflate",
                predictor=True,
                iccprofile=page.icc,
                resolution=page.dpi,
                resolutionunit="INCH" if page.dpi else None,
                software=False,
                metadata=None,
                extratags=tags,
            )
    if any(below):
        _fill_in(file, below)
    return file.getvalue()


def _fill_in(file: io.BytesIO, below: Sequence[Mapping[int, Mapping[int, Any]]]) -> None:
    """Write each page's directories at the end of a TIFF, and where they lie into the page."""
    from tifffile import TiffFile

    file.seek(0)
    with TiffFile(file) as made:
        places = [
            (page.aspage().tags[ifd + _ASIDE], ifd, entries)
            for page, directories in zip(made.pages, below, strict=True)
            for ifd, entries in directories.items()
        ]
    for tag, ifd, entries in places:
        end = file.seek(0, io.SEEK_END)
        file.write(b"\0" * (end % 2) + metadata.directory(entries, ifd, end + end % 2))
        file.seek(tag.offset)
        file.write(struct.pack("<H", ifd))
        file.seek(tag.valueoffset)
        file.write(struct.pack("<I", end + end % 2))


def small_png(channels: int, **options: Any) -> bytes:
    """A PNG of one pixel of 1 to 4 channels, with everything else that Pillow's options say."""
    file = io.BytesIO()
    Image.new({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels], (1, 1)).save(file, "PNG", **options)
    return file.getvalue()
