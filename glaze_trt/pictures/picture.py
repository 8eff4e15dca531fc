"""Pictures in and out, as a user's files: the door to reading (`decoding`, `frames`) and writing (`encoding`).

A picture's colours, bit depth, alpha, profile, EXIF, text and resolution come back as they were, as far as the format
holds them; a save never half-writes. Nothing here resizes, and nothing here knows of encoders or cloaks.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glaze_trt import atomic
from glaze_trt.errors import OutputError, PictureError
from glaze_trt.pictures import decoding, encoding, modes
from glaze_trt.pictures import frames as several
from glaze_trt.pictures.decoding import MAX_PIXELS
from glaze_trt.pictures.encoding import encode, losses
from glaze_trt.pictures.formats import ANIMATED, FORMATS, LONGEST, READABLE, ladder
from glaze_trt.pictures.frames import encode as encode_frames
from glaze_trt.pictures.pixels import Encoding, Frame, Levels, Picture, to_levels, to_rgb

__all__ = [
    "FORMATS",
    "LONGEST",
    "MAX_PIXELS",
    "READABLE",
    "Encoding",
    "Frame",
    "Picture",
    "check_writable",
    "decode",
    "decode_frames",
    "encode",
    "encode_frames",
    "frames",
    "from_levels",
    "ladder",
    "levels_and_alpha",
    "load",
    "losses",
    "save",
    "save_frames",
    "to_levels",
    "to_rgb",
]

Made = TypeVar("Made")


def load(path: str | os.PathLike[str]) -> Picture:
    """Read one still picture, upright, at its own size.

    Raises:
        PictureError: missing, unreadable, damaged, not a picture, of several frames, or over `MAX_PIXELS`.
    """
    return _read(Path(path), decoding.still)


def decode(data: bytes, path: Path) -> Picture:
    """Read a picture from a file's bytes; `path` is what messages call it.

    Raises:
        PictureError: as `load`.
    """
    return decoding.still(io.BytesIO(data), path)


def decode_frames(data: bytes, path: Path) -> Sequence[Picture]:
    """Every frame or page of a file's bytes; see `frames`."""
    return several.read(io.BytesIO(data), path)


def frames(path: str | os.PathLike[str]) -> Sequence[Picture]:
    """Read every frame of an animation or page of a TIFF; of a still picture, the one.

    Raises:
        PictureError: as `load`, or over `MAX_PIXELS` in all.
    """
    return _read(Path(path), several.read)


def from_levels(levels: Levels) -> Picture:
    """A bare picture of (H, W, 3) uint8 levels."""
    return Picture(levels)


def levels_and_alpha(image: Image.Image, icc: bytes | None) -> tuple[Levels, NDArray[np.uint8] | None]:
    """An opened picture in sRGB as (H, W, 3) 8-bit levels, and alpha as (H, W) where there is any.

    Raises:
        ValueError: values that no scale fits, or a mode that Pillow does not convert.
    """
    values, alpha, _ = modes.values_of(image, image.info.get("transparency"))
    return decoding.in_srgb(values, icc)[0], None if alpha is None else encoding.in_bits(alpha, 8)


def save(
    path: str | os.PathLike[str], picture: Picture, *, overwrite: bool = False, encoding: Encoding | None = None
) -> None:
    """Write a picture in the format its suffix names: beside the target first, then renamed over it.

    A full disk, a crash or an interrupt leaves the old file, or none, and nothing else.

    Args:
        path: the file to make; see `FORMATS`.
        picture: what to write, with all that it carries.
        overwrite: replace a file that is already there.
        encoding: of the pixels; what matches the picture's source best, if None.

    Raises:
        OutputError: no such format, transparency that JPEG cannot hold, a file in the way, or a write that failed.
    """
    path = Path(path)
    check_writable(path, picture, overwrite=overwrite)
    atomic.write_bytes(path, encode(picture, path.suffix, encoding))


def save_frames(path: str | os.PathLike[str], pictures: Sequence[Picture], *, overwrite: bool = False) -> None:
    """Write frames or pages into one file, without loss: an APNG, a WebP animation or a TIFF of several pages.

    Durations and loops are kept; a frame that is just like the one before it may be joined to it.

    Raises:
        OutputError: as `save`, or a format that holds one picture.
    """
    path = Path(path)
    for picture in pictures:
        check_writable(path, picture, overwrite=overwrite)
    atomic.write_bytes(path, encode_frames(pictures, path.suffix))


def check_writable(path: Path, picture: Picture | None = None, *, overwrite: bool = False) -> None:
    """Find out before the work what `save` would refuse.

    Raises:
        OutputError: as `save`, as far as it can be known without writing the picture.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        missing = "; HEIF needs pip install 'glaze-trt[heif]'" if path.suffix.lower() in (".heic", ".heif") else ""
        raise OutputError(f"{path}: cannot write '{path.suffix}' files; choose one of {', '.join(FORMATS)}{missing}")
    if picture is not None:
        _check_holds(path, kind, picture)
    try:
        there = stat.S_IFMT(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        there = 0
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    if there and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or add --overwrite")
    if there not in (0, stat.S_IFREG, stat.S_IFLNK):
        raise OutputError(f"{path}: is not an ordinary file")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} cannot be written")


def _check_holds(path: Path, kind: str, picture: Picture) -> None:
    if kind == "JPEG" and picture.transparent:
        raise OutputError(f"{path}: JPEG cannot hold the picture's transparency; choose .png")
    if picture.frame is not None and kind not in ANIMATED:
        raise OutputError(f"{path}: {kind} holds one picture and no frames; choose .png, .webp or .tif")
    if max(picture.size) > LONGEST.get(kind, max(picture.size)):
        width, height = picture.size
        raise OutputError(f"{path}: {kind} ends at {LONGEST[kind]} pixels a side, this is {width} x {height}; "
                          "choose .png or .tif")  # fmt: skip


def _read(path: Path, reader: Callable[[IO[bytes], Path], Made]) -> Made:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise PictureError(f"{path}: is a folder; give picture files")
        if not stat.S_ISREG(found.st_mode):
            raise PictureError(f"{path}: is not an ordinary file")
        if found.st_size == 0:
            raise PictureError(f"{path}: is empty")
        with path.open("rb") as file:
            return reader(file, path)
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
