"""Pictures in and out: any still picture Pillow opens, as RGB at its own size, and a save that never half-writes.

What a file carries beside its colours (alpha, colour profile, EXIF, resolution) goes through untouched. Nothing
here resizes, and nothing here knows of encoders or cloaks.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from glaze_trt import atomic
from glaze_trt.errors import OutputError, PictureError

MAX_PIXELS = 2_250_000
"""The largest picture taken for now: the step graph is compiled for the whole picture at once."""

FORMATS = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""What can be written, by suffix. WebP and TIFF are written lossless, so JPEG alone changes a pixel."""

_DEEP_MODES = ("I", "F")
_MANY_PICTURES_BY_NATURE = ("PSD", "MPO")  # layers under one composite; a photograph and its previews


@dataclass(frozen=True)
class Picture:
    """A still picture, upright.

    Attributes:
        rgb: (H, W, 3) float32 in [0, 1], on the grid of 8-bit levels.
        alpha: (H, W) uint8, or None where the file had no transparency.
        icc: the RGB colour profile's bytes, or None.
        exif: EXIF bytes without the orientation tag, or None.
        dpi: pixels per inch (x, y), or None.
        path: where it came from, or None.
        notes: what the file held that this picture does not, one line each.
    """

    rgb: NDArray[np.float32]
    alpha: NDArray[np.uint8] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    path: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def levels(self) -> NDArray[np.uint8]:
        """The colours as 8-bit levels, (H, W, 3)."""
        return to_levels(self.rgb)

    def with_levels(self, levels: NDArray[np.uint8]) -> Picture:
        """The same picture with other colours, (H, W, 3) uint8."""
        if levels.shape != self.rgb.shape:
            raise ValueError(f"levels of shape {levels.shape} for a picture of shape {self.rgb.shape}")
        return replace(self, rgb=to_rgb(levels))


def to_levels(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours in [0, 1] to the nearest 8-bit levels; values outside are clipped."""
    return np.clip(np.rint(np.asarray(rgb) * 255.0), 0, 255).astype(np.uint8)


def to_rgb(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """8-bit levels to float32 colours in [0, 1]."""
    return levels.astype(np.float32) / np.float32(255.0)


def load(path: str | os.PathLike[str]) -> Picture:
    """Read one still picture, upright, as RGB at its own size.

    Raises:
        PictureError: missing, unreadable, damaged, not a picture, of several frames, or over `MAX_PIXELS`.
    """
    path = Path(path)
    _refuse_non_files(path)
    try:
        with path.open("rb") as file:
            return _decode(file, path)
    except PermissionError:
        raise PictureError(f"{path}: may not be read (permission denied)") from None


def decode(data: bytes, path: Path) -> Picture:
    """Read a picture from a file's bytes; `path` is what messages call it.

    Raises:
        PictureError: as `load`.
    """
    return _decode(io.BytesIO(data), path)


def _decode(file: IO[bytes], path: Path) -> Picture:
    # Warnings are Pillow's remarks on odd metadata and on size; the size is checked below, before decoding.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file) as image:
                _refuse_unsuitable(image, path)
                image.load()
                _refuse_unsuitable(image, path)  # icon files settle their size only when decoded
                return _from_image(image, path)
        except PictureError:
            raise
        except UnidentifiedImageError:
            raise PictureError(
                f"{path}: not a picture of a known format, whatever its name says; give PNG, JPEG, WebP or TIFF"
            ) from None
        except Image.DecompressionBombError:
            raise PictureError(f"{path}: far too large; {_size_limit()}") from None
        except MemoryError:
            raise PictureError(f"{path}: not enough memory to decode it") from None
        except Exception as error:  # Pillow's decoders raise whatever the damage made of the bytes
            reason = " ".join(str(error).split()) or type(error).__name__
            raise PictureError(f"{path}: damaged or cut short ({reason}); get the file again") from error


def from_levels(levels: NDArray[np.uint8]) -> Picture:
    """A bare picture of (H, W, 3) uint8 levels."""
    return Picture(rgb=to_rgb(levels))


def save(path: str | os.PathLike[str], picture: Picture, *, overwrite: bool = False, quality: int = 95) -> None:
    """Write a picture in the format its suffix names: beside the target first, then renamed over it.

    A full disk, a crash or an interrupt leaves the old file, or none, and nothing else.

    Args:
        path: the file to make; PNG, WebP (lossless), TIFF (lossless) or JPEG (4:4:4).
        picture: what to write, with its alpha, profile, EXIF and resolution.
        overwrite: replace a file that is already there.
        quality: of JPEG, 1 to 100.

    Raises:
        OutputError: no such format, transparency that JPEG cannot hold, a file in the way, or a write that failed.
    """
    path = Path(path)
    check_writable(path, picture, overwrite=overwrite)
    atomic.write_bytes(path, encode(picture, path.suffix, quality=quality))


def check_writable(path: Path, picture: Picture | None = None, *, overwrite: bool = False) -> None:
    """Find out before the work what `save` would refuse.

    Raises:
        OutputError: as `save`, as far as it can be known without writing the picture.
    """
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"{path}: cannot write '{path.suffix}' files; choose one of {', '.join(FORMATS)}")
    if picture is not None and FORMATS[path.suffix.lower()] == "JPEG" and _is_transparent(picture):
        raise OutputError(f"{path}: JPEG cannot hold the picture's transparency; choose .png")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file name")
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; choose another name or add --overwrite")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: the folder {folder} cannot be written")


def encode(picture: Picture, suffix: str, *, quality: int = 95) -> bytes:
    """The bytes of a picture file of the format that `suffix` names, in memory.

    Raises:
        OutputError: the format cannot hold it (WebP ends at 16383 pixels a side, EXIF in a JPEG at 64 KiB).
    """
    kind = FORMATS[suffix.lower()]
    levels = picture.levels
    if picture.alpha is not None and kind != "JPEG":
        levels = np.dstack([levels, picture.alpha])
    settings: dict[str, dict[str, Any]] = {
        "PNG": {"optimize": False, "compress_level": 6},
        "WEBP": {"lossless": True, "exact": True, "quality": 80, "method": 4},
        "TIFF": {"compression": "tiff_adobe_deflate"},
        "JPEG": {"quality": quality, "subsampling": 0, "optimize": True},
    }
    options = settings[kind]
    if picture.icc is not None:
        options["icc_profile"] = picture.icc
    if picture.exif is not None and kind != "TIFF":  # a TIFF's own tags are its EXIF; Pillow writes them itself
        options["exif"] = picture.exif
    if picture.dpi is not None and kind != "WEBP":
        options["dpi"] = picture.dpi
    buffer = io.BytesIO()
    try:
        Image.fromarray(levels).save(buffer, kind, **options)
    except (OSError, ValueError) as error:
        raise OutputError(f"{kind} cannot hold this picture ({error}); choose .png") from error
    return buffer.getvalue()


def _refuse_non_files(path: Path) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise PictureError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_ISDIR(found.st_mode):
        raise PictureError(f"{path}: is a folder; give picture files")
    if not stat.S_ISREG(found.st_mode):
        raise PictureError(f"{path}: is not an ordinary file")
    if found.st_size == 0:
        raise PictureError(f"{path}: is empty")


def _refuse_unsuitable(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{path}: {width} x {height} is {width * height / 1e6:.1f} megapixels; {_size_limit()}; make it smaller"
        )
    if image.format == "EPS":
        raise PictureError(f"{path}: is PostScript, a program and not a picture; export it as PNG first")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _MANY_PICTURES_BY_NATURE:
        raise PictureError(f"{path}: holds {frames} frames or pages; save the one you want as a picture of its own")


def _size_limit() -> str:
    return f"pictures up to {MAX_PIXELS / 1e6:.2f} megapixels are taken for now"


def _from_image(image: Image.Image, path: Path) -> Picture:
    notes: list[str] = []
    if image.format == "MPO":
        notes.append("the file holds more pictures (previews, depth or gain maps); only the photograph is kept")
    dpi = image.info.get("dpi")
    icc = image.info.get("icc_profile")
    try:
        upright = ImageOps.exif_transpose(image)
        exif = _portable_exif(upright)
    except Exception:  # damaged EXIF is no reason to refuse a sound picture
        upright, exif = image, None
        notes.append("its EXIF is damaged and was left out")
    if upright.mode.startswith(_DEEP_MODES):
        notes.append("more than 8 bits a channel; read as the nearest 8 bits")
    levels, alpha = levels_and_alpha(upright, icc)
    return Picture(
        rgb=to_rgb(levels),
        alpha=alpha,
        icc=icc if icc and icc[16:20] == b"RGB " else None,
        exif=exif,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(1 < float(d) < 1e6 for d in dpi) else None,
        path=path,
        notes=tuple(notes),
    )


def _portable_exif(image: Image.Image) -> bytes | None:
    if image.format == "TIFF":
        return None  # its "EXIF" is the layout of the file itself
    exif = image.getexif()
    exif.pop(ExifTags.Base.Orientation, None)
    return exif.tobytes() if len(exif) else None


def levels_and_alpha(image: Image.Image, icc: bytes | None) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """RGB as (H, W, 3) 8-bit levels, and alpha as (H, W) where there is any.

    Raises:
        ValueError: values that no scale fits, or a mode that Pillow does not convert.
    """
    if image.mode.startswith(_DEEP_MODES):
        grey = _deep_grey(image)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    if image.has_transparency_data:
        levels = np.asarray(image.convert("RGBA"))
        return levels[:, :, :3].copy(), levels[:, :, 3].copy()
    if image.mode == "CMYK" and icc and icc[16:20] == b"CMYK":
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(icc), srgb, outputMode="RGB")
            if converted is not None:
                return np.asarray(converted).copy(), None
    return np.asarray(image.convert("RGB")).copy(), None


def _deep_grey(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of more than 8 bits or in floating point, to 8 bits: the smallest usual scale that holds its values."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError("negative or infinite values")
    scales = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    return to_levels(values / next((scale for scale in scales if values.max() <= scale), values.max()))


def _is_transparent(picture: Picture) -> bool:
    return picture.alpha is not None and bool((picture.alpha < 255).any())
