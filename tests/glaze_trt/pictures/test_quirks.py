from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import formats_samples as samples
from glaze_trt.errors import PictureError
from glaze_trt.pictures import picture
from glaze_trt.pictures.picture import Picture

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def own(read: Picture) -> np.ndarray:
    """A picture's own values, (H, W) for grey."""
    return read.levels if read.own is None else read.own.values.squeeze()


def bare_tiff(values: bytes, width: int, height: int, bits: int, rows: int) -> bytes:
    """A grey TIFF of one strip of some rows, whatever its height."""
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, rows)]
    entries.append((279, len(values)))
    directory = b"".join(struct.pack("<HHII", tag, 4 if tag in (257, 279) else 3, 1, value) for tag, value in entries)
    start = 8 + len(values)
    return b"II*\0" + struct.pack("<I", start) + values + struct.pack("<H", len(entries)) + directory + b"\0" * 4


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data, sums: data[:900] + bytes([data[900] ^ 4]) + data[901:] + sums, "damaged"),
        (lambda data, sums: data + bytes(4), "the checksum of its pixels is wrong"),
        (lambda data, sums: chunk(b"IDAT", zlib.compress(zlib.decompress(data[8:])[:4000])), "lacks a part"),
        (lambda data, sums: chunk(b"IDAT", data[8:-100]), "lacks a part"),
    ],
)
def test_a_png_with_damaged_pixels_is_refused(damage: Callable[[bytes, bytes], bytes], reason: str) -> None:
    data = samples.png(samples.levels())
    end = len(data) - 16
    assert picture.decode(data, Path("a")).size == (64, 48)
    with pytest.raises(PictureError, match=reason):
        picture.decode(data[:33] + damage(data[33:end], data[end : end + 4]) + data[end + 4 :], Path("a"))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 2), (48, 64)])
def test_an_interlaced_png_is_whole(height: int, width: int) -> None:
    values, rows = samples.levels(height=height, width=width), b""
    for left, upper, across, down in ADAM7:
        part = values[upper::down, left::across]
        rows += np.pad(part.reshape(len(part), -1), ((0, 0), (1, 0))).tobytes() if part.size else b""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    data = samples.png(values)[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(picture.decode(data, Path("a")).levels, values)
    with pytest.raises(PictureError, match="lacks a part"):
        picture.decode(data[:33] + chunk(b"IDAT", zlib.compress(rows[:-1])) + chunk(b"IEND", b""), Path("a"))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("key", ["dpi", "exif", "icc_profile", "interlace", "transparency", "xmp"])
def test_text_is_text_whatever_its_keyword(key: str, late: bool) -> None:
    data = samples.png(samples.levels(), (b"tEXt", f"{key}\0hello".encode()), late=late)
    for _ in range(2):
        read = picture.decode(data, Path("a"))
        np.testing.assert_array_equal(read.levels, samples.levels())
        assert (read.alpha, read.icc, read.exif, read.dpi, read.carried.xmp, read.notes) == (None,) * 5 + ((),)
        data = picture.encode(read, ".png")
        assert f"{key}\0hello".encode() in data


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_clear_value_is_found_in_pictures_of_few_bits(bits: int) -> None:
    values = np.tile(np.arange(2**bits, dtype=np.uint8), (2, 16 // 2**bits))
    data = samples.png(values, (b"tRNS", struct.pack(">H", 2**bits - 1)), bits=bits)
    read = picture.decode(data, Path("a"))
    np.testing.assert_array_equal(own(read), values * (255 // (2**bits - 1)))
    assert read.alpha is not None
    np.testing.assert_array_equal(read.alpha == 0, values == 2**bits - 1)


def test_a_tiff_without_all_of_its_strips_is_refused() -> None:
    assert picture.decode(bare_tiff(bytes(range(64)), 8, 8, 8, 8), Path("a")).size == (8, 8)
    with pytest.raises(PictureError, match="lacks a part of its pixels"):
        picture.decode(bare_tiff(bytes(range(64)), 8, 20_000_000, 8, 8), Path("a"))


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_channels_of_a_tiff_may_lie_one_after_another(
    bits: int, byteorder: str, compression: str | None, tile: tuple[int, int] | None
) -> None:
    values = samples.levels(bits=bits)
    options = {"byteorder": byteorder, "compression": compression, "tile": tile, "planarconfig": "separate"}
    data = samples.tiff(values.transpose(2, 0, 1), photometric="rgb", **options)
    read = picture.decode(data, Path("a"))
    np.testing.assert_array_equal(own(read), values)
    assert read.notes == ()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "i4", "i2", "u2"])
def test_deep_grey_is_read_in_either_order_of_bytes(kind: str, byteorder: str, compression: str | None) -> None:
    deep = samples.levels(1, 16) // 2
    values = (deep / 65535).astype(kind) if kind == "f4" else deep.astype(kind)
    read = picture.decode(
        samples.tiff(values, photometric="minisblack", byteorder=byteorder, compression=compression), Path("a")
    )
    np.testing.assert_allclose(own(read), deep, atol=1)


def test_twelve_bits_of_grey_keep_their_brightness() -> None:
    values = np.arange(64) * 65
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    read = picture.decode(bare_tiff(packed.astype(np.uint8).tobytes(), 8, 8, 12, 8), Path("a"))
    np.testing.assert_allclose(own(read).ravel(), values * (65535 / 4095), atol=1)


def test_floats_that_go_a_little_over_one_are_no_black_picture() -> None:
    values = samples.scene(channels=1)[:, :, 0].astype(np.float32) * 1.5
    read = picture.decode(samples.tiff(values, photometric="minisblack"), Path("a"))
    np.testing.assert_allclose(own(read), np.minimum(values, 1) * 65535, atol=1)
    assert "over 1 were clipped" in read.notes[-1]


def test_a_jpeg_of_noise_is_written() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    source = samples.saved(Image.fromarray(noise), "JPEG", quality=100, subsampling=0)
    read = picture.decode(source, Path("a"))
    assert Image.open(io.BytesIO(picture.encode(read, ".jpg"))).size == (300, 300)
