"""What a file says beside its pixels: read into plain values, without what would be false of the new file.

Left out: the orientation (pictures are upright), previews of the picture as it was, and how the old file was laid out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from glaze_trt.pictures.pixels import Carried

_INCH, _CENTIMETRE = 2, 3
_SIZE = (0xA002, 0xA003)  # PixelXDimension, PixelYDimension
_SUB_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_IPTC_RESOURCE = 0x0404
_PHOTOSHOP = b"Photoshop 3.0\0"
_LONGEST_MARKER = 65533

_SPOKEN = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298}
    | {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
)
"""What the first directory says to a reader: names, description, maker, model, software, date, artist, rating, rights;
the rest is the layout of a file."""

_COLOUR_CHUNKS = (b"cICP", b"cHRM", b"gAMA", b"sRGB")
_NOT_TEXT = re.compile(r"XML:com\.adobe\.xmp|Raw profile type .*")


def exif_of(image: Image.Image, size: tuple[int, int]) -> tuple[bytes | None, bool]:
    """EXIF of an opened picture, which will be upright and of `size`, and whether all of it could be kept.

    Raises:
        Exception: of whatever kind the damage causes.
    """
    found, kept = image.getexif(), Image.Exif()
    spoken = {tag: found[tag] for tag in sorted(_SPOKEN.intersection(found))}
    for tag, value in spoken.items():
        if _writes(tag, value):
            kept[tag] = value
    whole = len(kept) == len(spoken)
    for ifd in _SUB_IFDS:
        entries = dict(found.get_ifd(ifd))
        entries.pop(ExifTags.IFD.Interop, None)  # a place in the old file
        entries |= {tag: length for tag, length in zip(_SIZE, size, strict=True) if tag in entries}
        sound = {tag: value for tag, value in entries.items() if _writes(tag, value, ifd)}
        whole &= len(sound) == len(entries)
        if sound:
            kept.get_ifd(ifd).update(sound)
    if not len(kept) and not any(kept.get_ifd(ifd) for ifd in _SUB_IFDS):
        return None, whole
    made = kept.tobytes()
    Image.Exif().load(made)
    return made, whole


def _writes(tag: int, value: Any, ifd: int | None = None) -> bool:
    """Whether Pillow can write an entry back that it read."""
    made = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II", group=ifd)
    try:
        made[tag] = value
        made.tobytes(8)
    except Exception:  # whatever a damaged value is not
        return False
    return not isinstance(value, dict)


def with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    """EXIF that says the resolution too, for formats that say it nowhere else."""
    made = Image.Exif()
    if exif is not None:
        made.load(exif)
    made[ExifTags.Base.XResolution], made[ExifTags.Base.YResolution] = dpi
    made[ExifTags.Base.ResolutionUnit] = _INCH
    return made.tobytes()


def dpi_of(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch, where a picture says so and it can be."""
    dpi = image.info.get("dpi")
    if image.format in ("JPEG", "MPO") and "jfif_density" not in image.info:
        dpi = None  # Pillow supposes 72 where there is EXIF
    if not dpi and image.format != "TIFF":
        exif = image.getexif()
        scale = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(exif.get(ExifTags.Base.ResolutionUnit, _INCH), 0.0)
        both = exif.get(ExifTags.Base.XResolution), exif.get(ExifTags.Base.YResolution)
        dpi = tuple(float(side) * scale for side in both if side is not None)
    if not dpi or len(dpi) != 2 or not all(1 < float(side) < 1e6 for side in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def carried(image: Image.Image, head: bytes) -> Carried:
    """Text and the like of an opened picture; `head` is how its file begins, before any pixels of a PNG."""
    info = image.info
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    comment = info.get("comment")
    return Carried(
        xmp=re.sub(rb'tiff:Orientation="[0-9]"|<tiff:Orientation>[0-9]</tiff:Orientation>', b"", xmp) if xmp else None,
        iptc=_iptc(image),
        comment=comment if image.format in ("JPEG", "MPO") and isinstance(comment, bytes) else None,
        text=_text(image),
        chunks=tuple(c for c in chunks(head) if c[0] in _COLOUR_CHUNKS) if image.format == "PNG" else (),
    )


def _iptc(image: Image.Image) -> bytes | None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        found = image.tag_v2.get(TiffImagePlugin.IPTC_NAA_CHUNK)
    else:
        resources = image.info.get("photoshop")
        found = resources.get(_IPTC_RESOURCE) if isinstance(resources, Mapping) else None
    return found if isinstance(found, bytes) and found else None


def _text(image: Image.Image) -> tuple[tuple[str, str, str, str], ...]:
    if not isinstance(image, PngImagePlugin.PngImageFile):
        return ()
    return tuple(
        (key, str(value), str(getattr(value, "lang", "") or ""), str(getattr(value, "tkey", "") or ""))
        for key, value in image.text.items()
        if not _NOT_TEXT.fullmatch(key)
    )


def png_info(carried: Carried, *, profile: bool) -> PngImagePlugin.PngInfo:
    """The same as Pillow writes it into a PNG; `profile` tells whether there is a profile that says more of colour."""
    made = PngImagePlugin.PngInfo()
    for name, data in () if profile else carried.chunks:
        made.add(name, data)
    if carried.xmp is not None:
        made.add_itxt("XML:com.adobe.xmp", carried.xmp.decode("utf-8", "replace"))
    for key, value, language, translated in carried.text:
        long = len(value) > 1024
        if language or translated or any(ord(letter) > 255 for letter in value):
            made.add_itxt(key, value, language, translated, zip=long)
        else:
            made.add_text(key, value, zip=long)
    return made


def jpeg_segments(carried: Carried) -> bytes:
    """IPTC as a JPEG's segment, or nothing where there is none or it is too long for one."""
    if carried.iptc is None:
        return b""
    body = struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(carried.iptc)) + carried.iptc
    segment = _PHOTOSHOP + body + b"\0" * (len(carried.iptc) % 2)
    return b"" if len(segment) > _LONGEST_MARKER else struct.pack(">2sH", b"\xff\xed", len(segment) + 2) + segment


def fits_jpeg(xmp: bytes | None) -> bool:
    """Whether an XMP packet fits the one segment that a JPEG has for it."""
    return xmp is None or len(xmp) + 29 <= _LONGEST_MARKER


def tiff_tags(exif: bytes | None) -> tuple[list[tuple[int, str | int, Any]], dict[int, dict[int, Any]]]:
    """EXIF as a TIFF has it: (tag, type, value) of the first directory, and the directories below it."""
    found = Image.Exif()
    if exif is not None:
        found.load(exif)
    tags: list[tuple[int, str | int, Any]] = []
    for tag in sorted(_SPOKEN.intersection(found)):
        value = found[tag]
        if isinstance(value, str):
            tags.append((tag, "s", value.encode("utf-8", "replace")))
        elif isinstance(value, bytes):
            tags.append((tag, "B", value))
        elif isinstance(value, int) and 0 <= value < 65536:
            tags.append((tag, "H", value))
    return tags, {int(ifd): dict(entries) for ifd in _SUB_IFDS if (entries := found.get_ifd(ifd))}


def directory(entries: Mapping[int, Any], ifd: int, offset: int) -> bytes:
    """A little-endian TIFF directory that will lie at `offset` of its file."""
    made = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II", group=ifd)
    for tag, value in entries.items():
        made[tag] = value
    return made.tobytes(offset)


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG before its pixels, as (name, data); as many as are whole."""
    found, at = [], 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (b"IDAT", b"IEND") or at + 12 + length > len(data):
            break
        found.append((name, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found
