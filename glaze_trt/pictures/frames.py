"""Several frames or pages in one file: animations (GIF, APNG, WebP) and TIFFs, read one picture each and written again.

A frame is read whole, as it is seen, whatever of it the file holds; so it is written, each in place of the one before.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from glaze_trt.errors import OutputError, PictureError
from glaze_trt.pictures import decoding, encoding, tiff
from glaze_trt.pictures.colour import Curves
from glaze_trt.pictures.decoding import MAX_PIXELS
from glaze_trt.pictures.formats import ANIMATED, FORMATS
from glaze_trt.pictures.pixels import Frame, Levels, Own, Picture

_WEBP_ALPHA = 0x10
"""Among the flags of a WebP: something of it is transparent."""


def read(file: IO[bytes], path: Path) -> tuple[Picture, ...]:
    """Every frame or page of a file, one for a still picture.

    Raises:
        PictureError: as `decoding.still`, or more than `MAX_PIXELS` in all.
    """

    def use(image: Image.Image, head: bytes) -> tuple[Picture, ...]:
        numbers = decoding.pages(image, path)
        if len(numbers) == 1:
            return (decoding.picture_of(image, file, head, path),)
        _refuse_many(len(numbers), len(numbers) * image.width * image.height if image.format != "TIFF" else 0, path)
        return tuple(_frames(image, file, head, path, numbers))

    found = decoding.opened(file, path, use)
    pages = found[0].source is not None and found[0].source.format == "TIFF"
    return found if len(found) == 1 or pages else _plain(found)


def _frames(image: Image.Image, file: IO[bytes], head: bytes, path: Path, numbers: Sequence[int]) -> Iterator[Picture]:
    total = 0
    for number in numbers:
        image.seek(number)
        decoding.refuse_hollow(image, file, head, path)  # a frame of a GIF may make its screen larger
        total += image.width * image.height
        _refuse_many(len(numbers), total, path)
        loaded = decoding.picture_of(image, file, head, path, _frame(image, number))
        yield replace(loaded, source=None if loaded.source is None else replace(loaded.source, encoding=None))


def _refuse_many(count: int, pixels: int, path: Path) -> None:
    if pixels > MAX_PIXELS:
        raise PictureError(
            f"{path}: its {count} frames or pages have over {MAX_PIXELS / 1e6:.0f} megapixels together; split it into "
            "several files"
        )


def _frame(image: Image.Image, number: int) -> Frame:
    if image.format == "TIFF":
        return Frame()
    poster = number == 0 and bool(image.info.get("default_image"))
    if image.format == "GIF":  # counts repetitions, and none is said where it plays once
        loop = 1 if "loop" not in image.info else image.info["loop"] + (image.info["loop"] > 0)
    else:
        loop = image.info.get("loop", 0)
    image.load()  # WebP tells a frame's duration when it is decoded
    return Frame(float(image.info.get("duration", 0)), int(loop), poster)


def _plain(frames: tuple[Picture, ...]) -> tuple[Picture, ...]:
    """An animation without alpha where no frame is transparent; all of it grey where every frame is, else none."""
    if not any(frame.transparent for frame in frames):
        frames = tuple(replace(frame, alpha=None) for frame in frames)
    if any(frame.icc is not None or (frame.own is not None and frame.own.values.shape[2] > 1) for frame in frames):
        return frames
    grey = all((frame.levels == frame.levels[:, :, :1]).all() for frame in frames)
    return tuple(replace(frame, own=_as_grey(frame.levels) if grey else None) for frame in frames)


def _as_grey(levels: Levels) -> Own:
    return Own(np.ascontiguousarray(levels[:, :, :1]), levels, Curves(1))


def encode(pictures: Sequence[Picture], suffix: str) -> bytes:
    """The bytes of a file that holds every one of these frames or pages, without loss.

    Raises:
        OutputError: a format of single pictures, or one that does not hold these.
    """
    kind = FORMATS.get(suffix.lower(), "")
    if kind not in ANIMATED:
        raise OutputError(f"'{suffix}' files do not hold several frames; choose .png, .webp or .tif")
    if kind != "TIFF" and len({picture.size for picture in pictures}) > 1:
        raise OutputError(f"{kind} holds frames of one size, and these pages have several; choose .tif")
    try:
        if kind == "TIFF":
            return tiff.write([encoding.page(picture) for picture in pictures])
        return _animation(pictures, kind)
    except (OSError, ValueError) as error:
        raise OutputError(f"{kind} cannot hold these frames ({error}); choose .tif") from error


def _animation(pictures: Sequence[Picture], kind: str) -> bytes:
    first = pictures[0]
    if kind == "WEBP":  # which has no posters
        pictures = [picture for picture in pictures if picture.frame is None or not picture.frame.poster]
    laid = [encoding.lay_out(picture, kind) for picture in pictures]
    if len({each.values.shape[2] for each in laid}) > 1 or any(each.inks for each in laid):
        raise ValueError("they are of several kinds of colour")
    if any(each.alpha is not None for each in laid):
        opaque = np.full(laid[0].values.shape[:2], 255, np.uint8)
        laid = [replace(each, alpha=opaque if each.alpha is None else each.alpha) for each in laid]
    images = [encoding.image_of(each) for each in laid]
    times = [picture.frame or Frame(0.0, 0) for picture in pictures]
    shown: dict[str, Any] = {
        "save_all": True,
        "append_images": images[1:],
        "duration": [time.duration or 0.0 for time in times if not time.poster],
        "loop": times[0].loop or 0,
    }
    if kind == "PNG":
        shown |= {"disposal": 0, "blend": 0, "default_image": times[0].poster, "compress_level": 6}
    else:
        shown |= {"lossless": True, "quality": 80, "method": 4}
    file = io.BytesIO()
    images[0].save(file, kind, **shown, **encoding.attached(first, laid[0].icc, kind))
    if kind == "WEBP" and laid[0].alpha is not None:
        _say_transparent(file)
    return file.getvalue()


def _say_transparent(file: io.BytesIO) -> None:
    """The encoder cuts frames to what is seen of them, and where that is opaque it calls the animation so."""
    header = file.getbuffer()
    if bytes(header[12:16]) == b"VP8X":
        header[20] |= _WEBP_ALPHA
