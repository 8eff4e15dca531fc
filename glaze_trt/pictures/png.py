"""PNGs by their chunks: what Pillow does not tell of them, whether they are whole, and those of 16 bits written.

After the PNG specification, third edition: clauses 5.3 (chunks) and 8 (interlacing).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt.pictures.pixels import Chunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PIXELS = (b"IDAT", b"fdAT")
_PIECE = 1 << 20
_CHANNELS = {2: 3, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced picture: the first column and row, and the step from one to the next."""


def kind_of(head: bytes) -> tuple[int, int]:
    """Bits and colour type of a PNG by how it begins; (8, -1) for what is none."""
    if head[:8] != SIGNATURE or len(head) < 26:
        return 8, -1
    return head[24], head[25]


def chunks(file: IO[bytes]) -> Iterator[Chunk]:
    """The chunks of a PNG that are no pixels, but for damaged ones."""
    for name, length in _places(file):
        if name not in _PIXELS:
            data, checksum = file.read(length), file.read(4)
            if checksum == struct.pack(">I", zlib.crc32(name + data)):
                yield name, data


def check(file: IO[bytes]) -> None:
    """Look whether a PNG holds all of its pixels, and as they were written.

    Raises:
        ValueError: a checksum is wrong, or pixels are missing.
        zlib.error: what holds the pixels cannot be unpacked.
    """
    file.seek(0)
    missing, unpacked = _packed_size(file.read(33)), zlib.decompressobj()
    for name, length in _places(file):
        if name not in _PIXELS:
            continue
        checksum = zlib.crc32(name)
        while length:
            piece = file.read(min(length, _PIECE))
            if not piece:
                raise ValueError("it ends within its pixels")
            length -= len(piece)
            checksum = zlib.crc32(piece, checksum)
            while piece and missing and name == b"IDAT" and not unpacked.eof:
                missing -= len(unpacked.decompress(piece, min(missing, _PIECE)))
                piece = unpacked.unconsumed_tail
        if file.read(4) != struct.pack(">I", checksum):
            raise ValueError("the checksum of its pixels is wrong")
    if missing:
        raise ValueError("it lacks a part of its pixels")


def _packed_size(start: bytes) -> int:
    """Bytes of all rows, each with its filter, by how a PNG begins."""
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", start, 16)
    total = 0
    for left, upper, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(0, width - left) // across), -(-max(0, height - upper) // down)
        total += rows * (1 + -(-columns * bits * _CHANNELS.get(kind, 1) // 8)) if columns else 0
    return total


def _places(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """The names and lengths of a PNG's chunks, the file standing at the data of each; moved on by what was not read."""
    at = 8
    while True:
        file.seek(at)
        start = file.read(8)
        if len(start) < 8:
            return
        length, name = struct.unpack(">I4s", start)
        yield name, length
        if name == b"IEND":
            return
        at += 12 + length


def pixels_alone(data: bytes) -> bytes | None:
    """A PNG with no other chunks than those of its pixels; None where it is not whole."""
    parts, at, name = [data[:33]], _first_pixels(data), b""
    while at + 12 <= len(data) and name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (b"IDAT", b"IEND"):
            parts.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(parts) if name == b"IEND" and at <= len(data) else None


def write(values: NDArray[np.uint16], like: bytes) -> bytes:
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
        start = SIGNATURE + _chunk(b"IHDR", header)
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


def small(channels: int, **options: Any) -> bytes:
    """A PNG of one pixel of 1 to 4 channels, with everything else that Pillow's options say."""
    file = io.BytesIO()
    Image.new({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels], (1, 1)).save(file, "PNG", **options)
    return file.getvalue()
