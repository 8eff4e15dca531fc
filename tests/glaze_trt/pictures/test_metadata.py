from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import formats_profiles as profiles
from bench import formats_samples as samples
from glaze_trt.pictures import picture

UTF_8 = "© Müller 中村".encode()


def exif(text: bytes, order: str) -> bytes:
    """EXIF with a description and, below, an owner, in the bytes that are given; `order` is "<" or ">"."""
    text += b"\0" * (1 + (len(text) + 1) % 2)
    first, below = 8 + 2 + 2 * 12 + 4, 8 + 2 + 2 * 12 + 4 + len(text)
    made = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2)
    made += struct.pack(order + "HHII", 0x010E, 2, len(text), first)
    made += struct.pack(order + "HHII", 0x8769, 4, 1, below) + b"\0" * 4 + text
    made += struct.pack(order + "HHHII", 1, 0xA430, 2, len(text), below + 2 + 12 + 4) + b"\0" * 4 + text
    return b"Exif\0\0" + made


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", sorted({*picture.FORMATS} - {".tiff", ".jpeg", ".heif"}))
def test_exif_keeps_the_bytes_of_its_text(suffix: str, order: str) -> None:
    data = samples.saved(Image.fromarray(samples.levels()), "PNG", exif=exif(UTF_8, order), dpi=(300, 300))
    for _ in range(2):
        data = picture.encode(picture.decode(data, Path("a")), suffix)
        assert data.count(UTF_8) == 2


TEXTS = (
    (b"tEXt", b"Author\0Andr\xe9 M\xfcller"),
    (b"tEXt", b"Comment\0one"),
    (b"tEXt", b"Comment\0two"),
    (b"iTXt", b"Title\0\0\0en\0Title\0Harbour"),
    (b"iTXt", "Title\0\0\0de\0Titel\0Häfen".encode()),
    (b"iTXt", b"Broken\0\0\0en\0\0no \xff\xfe UTF-8"),
)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("late", [False, True])
def test_png_text_comes_back_chunk_by_chunk(bits: int, late: bool) -> None:
    read = picture.decode(samples.png(samples.levels(bits=bits), *TEXTS, late=late), Path("a"))
    assert read.carried.text == TEXTS
    assert picture.decode(picture.encode(read, ".png"), Path("b")).carried.text == TEXTS
    (note,) = (note for note in picture.losses(read, ".webp") if "PNG text" in note)
    assert note.endswith("Author, Comment, Title, Broken")


def test_what_a_png_says_of_its_colours_stays_beside_its_profile() -> None:
    chunk = b"cICP", bytes([12, 13, 0, 1])
    data = samples.png(samples.levels(), samples.png_profile(profiles.DISPLAY_P3), chunk)
    again = picture.decode(picture.encode(picture.decode(data, Path("a")), ".png"), Path("b"))
    assert (again.icc, again.carried.colours) == (profiles.DISPLAY_P3, (chunk,))


@pytest.mark.parametrize("quote", ["'", '"'])
def test_xmp_does_not_show_or_turn_the_picture_as_it_was(quote: str) -> None:
    false = f"<r tiff:Orientation={quote}1{quote}><xmp:Thumbnails>\n<i>abc</i></xmp:Thumbnails><dc:title/></r>"
    data = samples.saved(Image.fromarray(samples.levels()), "JPEG", xmp=false.encode())
    assert picture.decode(data, Path("a")).carried.xmp == b"<r ><dc:title/></r>"


def test_resolution_is_turned_with_a_tiff() -> None:
    options = {"resolution": (300, 150), "resolutionunit": "INCH", "extratags": [(274, "H", 1, 6, True)]}
    read = picture.decode(samples.tiff(samples.levels(), photometric="rgb", **options), Path("a"))
    assert read.size == (48, 64)
    assert read.dpi == (150, 300)


def test_what_is_too_long_for_a_jpeg_is_left_out_and_told_of() -> None:
    long = samples.exif()
    long.get_ifd(0x8769)[0x927C] = b"a maker's note " * 5000
    read = picture.decode(samples.saved(Image.fromarray(samples.levels()), "PNG", exif=long), Path("a"))
    read = replace(read, carried=replace(read.carried, xmp=b"<x/>" * 20_000))
    notes = picture.losses(read, ".jpg")
    assert ["EXIF" in note for note in notes] == [False, True]
    assert ["XMP" in note for note in notes] == [True, False]
    assert picture.decode(picture.encode(read, ".jpg"), Path("b")).exif is None


def test_a_jpegs_comment_is_kept_or_told_of() -> None:
    read = picture.decode(samples.saved(Image.fromarray(samples.levels()), "JPEG", comment=UTF_8), Path("a"))
    assert Image.open(io.BytesIO(picture.encode(read, ".jpg"))).info["comment"] == UTF_8
    assert picture.losses(read, ".jpg") == ()
    assert "comment" in picture.losses(read, ".png")[0]


def test_a_palette_of_greys_keeps_its_profile_of_colours() -> None:
    source = Image.fromarray(samples.levels(1)).convert("P")
    read = picture.decode(samples.saved(source, "PNG", icc_profile=profiles.DISPLAY_P3), Path("a"))
    assert read.icc == profiles.DISPLAY_P3
    assert read.own is not None
    np.testing.assert_array_equal(read.own.values, np.asarray(source.convert("RGB")))
