"""A file's bytes to a picture: its own values, their colours in sRGB, and what else it carries.

Decoders run here and nowhere else; whatever they raise becomes one `PictureError`.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from cv2.utils import logging as log
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from glaze_trt.errors import PictureError
from glaze_trt.pictures import colour, deep, formats, metadata, modes, png, quirks, unreadable
from glaze_trt.pictures.colour import Values
from glaze_trt.pictures.pixels import Frame, Levels, Own, Picture, Source

MAX_PIXELS = 400_000_000
"""The largest picture taken; reading one takes some 7 bytes a pixel, 20 with 16 bits."""

_HEAD = 1 << 20
_MANY_PICTURES_BY_NATURE = ("PSD", "MPO", "ICO")  # layers under one composite; a photograph and its previews; sizes
_SECONDARY = 0b101  # of NewSubfileType: a reduced picture, or a mask

Made = TypeVar("Made")


class _Quiet:
    """Pillow without its remarks and with our limit of size, OpenCV without its log, while any thread decodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: tuple[Any, ...] = ()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                caught = warnings.catch_warnings()
                caught.__enter__()
                warnings.simplefilter("ignore")
                self._before = caught, Image.MAX_IMAGE_PIXELS, log.getLogLevel()
                Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses from twice as many on
                log.setLogLevel(log.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    caught, Image.MAX_IMAGE_PIXELS, level = self._before
                    log.setLogLevel(level)
                    caught.__exit__(None, None, None)


quiet = _Quiet()


def opened(file: IO[bytes], path: Path, use: Callable[[Image.Image, bytes], Made]) -> Made:
    """What `use` makes of an opened picture and the head of its file.

    Raises:
        PictureError: damaged, not a picture, or too large.
    """
    head = b""
    try:
        head = file.read(_HEAD)
        with quiet():
            if unreadable.is_heif(head):
                formats.use_heif()
            Image.init()
            with Image.open(file, formats=[name for name in formats.OPENED if name in Image.OPEN]) as image:
                _refuse_size(image.size, path)
                refuse_hollow(image, file, head, path)
                quirks.forget_text(image, head)
                return use(image, head)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{path}: {unreadable.what_it_is(head)}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{path}: far too large; {_size_limit()}") from None
    except MemoryError:
        raise PictureError(f"{path}: not enough memory to decode it") from None
    except Exception as error:  # decoders raise whatever the damage made of the bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{path}: damaged or cut short ({reason[:200]}); get the file again") from error


def refuse_hollow(image: Image.Image, file: IO[bytes], head: bytes, path: Path) -> None:
    """Find out before a picture, or a frame, is loaded whether its file is long enough for it.

    Raises:
        PictureError: it is not.
    """
    stands = file.tell()
    length = file.seek(0, os.SEEK_END)
    file.seek(stands)
    if not formats.may_hold(image, head, length):
        raise PictureError(f"{path}: damaged: {image.width} x {image.height} pixels in {length} bytes")


def still(file: IO[bytes], path: Path) -> Picture:
    """The one picture that a file holds.

    Raises:
        PictureError: damaged, not a picture, too large, or one of several.
    """

    def use(image: Image.Image, head: bytes) -> Picture:
        found = pages(image, path)
        if len(found) > 1:
            raise PictureError(
                f"{path}: holds {len(found)} frames or pages; --frames all takes every one of them, or save the one "
                "you want as a picture of its own"
            )
        return picture_of(image, file, head, path)

    return opened(file, path, use)


def pages(image: Image.Image, path: Path) -> Sequence[int]:
    """The numbers of an opened picture's frames or pages, 0 first, without those that are previews or masks of others.

    Raises:
        PictureError: there is nothing but previews, as in a camera's raw file.
    """
    count = getattr(image, "n_frames", 1)
    if image.format in _MANY_PICTURES_BY_NATURE:
        return range(1)
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return range(count)  # which a damaged file may pretend to be millions
    found = []
    for number in range(count):
        image.seek(number)
        kind = image.tag_v2.get(ExifTags.Base.NewSubfileType, 0)
        if not (isinstance(kind, int) and kind & _SECONDARY):
            found.append(number)
        elif number == 0:
            raise PictureError(
                f"{path}: begins with a preview, as cameras' raw files do; develop it to a TIFF or PNG first"
            )
    image.seek(0)
    return found


def picture_of(image: Image.Image, file: IO[bytes], head: bytes, path: Path, frame: Frame | None = None) -> Picture:
    """An opened picture, at the frame where it stands.

    Args:
        image: not loaded yet.
        file: what it was opened from.
        head: how that begins.
        path: what messages call it.
        frame: its place among several.
    """
    notes = [] if frame is not None or image.format != "MPO" else [_MPO]
    orientation, turned = 1, 1  # as EXIF says, and what Pillow leaves to be done of it
    with suppress(Exception):  # damaged EXIF is no reason to refuse a sound picture
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        turned = 1 if image.format == "TIFF" else orientation
    encoding = formats.encoding_of(image, head)
    deeper = formats.more_bits(image, head)
    quirks.prepare(image, file, head)
    image.load()
    quirks.forget_text(image, head)
    _refuse_size(image.size, path)  # icon files settle their size only when decoded
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        more = image.tag_v2.get(ExifTags.Base.SamplesPerPixel, 1) - len(image.getbands())
        notes += ["it has more channels than colours and transparency, which were left out"] if more > 0 else []
    values, alpha, remarks = modes.values_of(image, quirks.transparency(image, head))
    notes += remarks
    if deeper and values.dtype == np.uint8:
        values, alpha, remarks = _deepened(image, file, head, values, alpha, orientation, among=frame is not None)
        notes += remarks
    if frame is not None and alpha is not None and image.format != "TIFF":
        values[alpha == 0] = 0  # animations do not keep colours that nobody sees
    values = _upright(values, turned)
    alpha = None if alpha is None else _upright(alpha, turned)
    size = (values.shape[1], values.shape[0])
    try:
        exif, whole = metadata.exif_of(image, size)
        dpi = metadata.dpi_of(image)
    except Exception:
        exif, dpi, whole = None, None, False
    if not whole:
        notes.append("its EXIF is damaged; " + ("it was left out" if exif is None else "what is sound of it was kept"))
    icc = image.info.get("icc_profile") or None
    if icc is None and (colours := formats.other_colours(image, head)) is not None:
        notes.append(f"its colours are not sRGB's ({colours} by CICP), and are read as if they were")
    levels, own, icc, remarks = in_srgb(values, icc)
    file.seek(0, 2)
    return Picture(
        levels=levels,
        alpha=alpha,
        icc=icc,
        exif=exif,
        dpi=dpi if dpi is None or orientation not in _ON_ITS_SIDE else (dpi[1], dpi[0]),
        path=path,
        notes=(*notes, *remarks),
        own=own,
        carried=metadata.carried(image, file),
        source=Source(image.format or "", file.tell(), encoding),
        frame=frame,
    )


def in_srgb(values: Values, icc: bytes | None) -> tuple[Levels, Own | None, bytes | None, list[str]]:
    """Values (H, W, C) as sRGB levels; with them their own space, the profile where it is of use, and remarks."""
    notes = []
    try:
        space = colour.space_of(icc, values)
    except ValueError as error:
        notes.append(f"{error}; the profile was left out")
        icc, space = None, colour.space_of(None, values)
    if space is None:
        return values, None, icc, notes
    levels = space.levels(values)
    return levels, Own(values, levels, space), icc, notes


def _deepened(
    image: Image.Image,
    file: IO[bytes],
    head: bytes,
    values: Values,
    alpha: Values | None,
    orientation: int,
    *,
    among: bool,
) -> tuple[Values, Values | None, list[str]]:
    """The same in 16 bits where they can be read; else a remark."""
    tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
    if not (tiff or (image.format == "PNG" and not among)) or image.mode not in ("RGB", "RGBA", "CMYK"):
        return values, alpha, [_SHALLOW]
    file.seek(0)
    data, page = file.read(), image.tell()
    seen = image.mode == "RGBA"
    shallow = np.dstack([values, alpha]) if seen and alpha is not None else values
    found = deep.agreed(deep.read_tiff(data, page) if tiff else deep.read_png(data), shallow)
    if tiff and found is None and (planes := deep.read_planes(data, page)) is not None:
        found = deep.agreed(_upright(planes, orientation), shallow)
    if found is None:
        return values, alpha, [_SHALLOW]
    if png.kind_of(head)[1] == 4:
        found = found[:, :, [0, 3]]
    if seen:
        return np.ascontiguousarray(found[:, :, :-1]), np.ascontiguousarray(found[:, :, -1]), []
    through = image.info.get("transparency")
    if isinstance(through, tuple):
        return found, np.where((found == np.array(through)).all(axis=2), 0, 65535).astype(np.uint16), []
    return found, None, []


def _upright(values: Values, orientation: Any) -> Values:
    """(H, W, ...) as it is to be looked at, by EXIF's number."""
    turned = {
        2: lambda v: v[:, ::-1],
        3: lambda v: v[::-1, ::-1],
        4: lambda v: v[::-1],
        5: lambda v: v.swapaxes(0, 1),
        6: lambda v: np.rot90(v, -1),
        7: lambda v: v[::-1, ::-1].swapaxes(0, 1),
        8: lambda v: np.rot90(v),
    }.get(orientation)
    return values if turned is None else np.ascontiguousarray(turned(values))


_ON_ITS_SIDE = (5, 6, 7, 8)
_MPO = "the file holds more pictures (previews, depth or gain maps); only the photograph is kept"
_SHALLOW = "more than 8 bits a channel, which cannot be kept here; read and written as 8 bits"


def _refuse_size(size: Sequence[int], path: Path) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{path}: {width} x {height} is {width * height / 1e6:.1f} megapixels; {_size_limit()}; make it smaller"
        )


def _size_limit() -> str:
    return f"pictures up to {MAX_PIXELS / 1e6:.0f} megapixels are taken"
