"""What a file says beside its pixels: read into plain values, without what would be false of the new file.

Left out: the orientation (pictures are upright), previews of the picture as it was, and how the old file was laid out.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import IO, Any

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from glaze_trt.pictures import png
from glaze_trt.pictures.pixels import Carried, Chunk

_INCH, _CENTIMETRE = 2, 3
_SIZE = (0xA002, 0xA003)  # PixelXDimension, PixelYDimension
_SUB_IFDS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_IPTC_RESOURCE = 0x0404
_PHOTOSHOP = b"Photoshop 3.0\0"
XMP_LABEL = b"http://ns.adobe.com/xap/1.0/\0"
"""What an XMP packet in a JPEG begins with."""

_LONGEST_MARKER = 65533

_SPOKEN = frozenset(
    {0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298}
    | {0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F}
)
"""What the first directory says to a reader: names, description, maker, model, software, date, artist, rating, rights;
the rest is the layout of a file."""

_COLOUR_CHUNKS = (b"cICP", b"cHRM", b"gAMA", b"sRGB")
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")
_NOT_TEXT = re.compile(rb"XML:com\.adobe\.xmp|Raw profile type (?!iptc).*")
_FALSE_XMP = re.compile(
    rb"""tiff:Orientation\s*=\s*(["'])[0-9]\1|<tiff:Orientation>\s*[0-9]\s*</tiff:Orientation>"""
    rb"""|<(xmp|xap):Thumbnails>.*?</\2:Thumbnails>""",
    re.DOTALL,
)
"""Of XMP: how the picture was to be turned, and how it looked."""


class _Text(str):
    """Text of EXIF. Pillow takes it for Latin-1, whatever it is, and would write ASCII: this is written as it was."""

    def encode(self, encoding: str = "latin-1", errors: str = "strict") -> bytes:
        """The bytes it was read from."""
        return super().encode("latin-1", "replace")


def exif_of(image: Image.Image, size: tuple[int, int]) -> tuple[bytes | None, bool]:
    """EXIF of an opened picture, which will be upright and of `size`, and whether all of it could be kept.

    Raises:
        Exception: of whatever kind the damage causes.
    """
    found, kept = image.getexif(), Image.Exif()
    spoken = {tag: _as_read(found[tag]) for tag in sorted(_SPOKEN.intersection(found))}
    for tag, value in spoken.items():
        if _writes(tag, value):
            kept[tag] = value
    whole = len(kept) == len(spoken)
    for ifd in _SUB_IFDS:
        entries = {tag: _as_read(value) for tag, value in found.get_ifd(ifd).items()}
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


def _as_read(value: Any) -> Any:
    """A value of an entry, to be written as it was read."""
    return _Text(value) if isinstance(value, str) else value


def _loaded(exif: bytes) -> tuple[dict[int, Any], dict[int, dict[int, Any]]]:
    """The entries of EXIF's first directory, and those of the directories below it."""
    found = Image.Exif()
    found.load(exif)
    below = {int(ifd): {tag: _as_read(value) for tag, value in found.get_ifd(ifd).items()} for ifd in _SUB_IFDS}
    return {tag: _as_read(value) for tag, value in found.items() if tag not in below}, {
        ifd: entries for ifd, entries in below.items() if entries
    }


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
        entries, below = _loaded(exif)
        for tag, value in entries.items():
            made[tag] = value
        for ifd, inside in below.items():
            made.get_ifd(ifd).update(inside)
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


def carried(image: Image.Image, file: IO[bytes]) -> Carried:
    """Text and the like of an opened picture, and of the file it was opened from."""
    info = image.info
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    comment = info.get("comment")
    alone = image.format == "PNG" and image.tell() == 0  # what else it says, it says of all of an animation
    found = list(png.chunks(file)) if alone else []
    return Carried(
        xmp=_FALSE_XMP.sub(b"", xmp) if xmp else None,
        iptc=_iptc(image),
        comment=comment if image.format in ("JPEG", "MPO") and isinstance(comment, bytes) else None,
        text=tuple(chunk for chunk in found if chunk[0] in _TEXT_CHUNKS and not _NOT_TEXT.fullmatch(keyword(chunk))),
        colours=tuple(chunk for chunk in found if chunk[0] in _COLOUR_CHUNKS),
    )


def _iptc(image: Image.Image) -> bytes | None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        found = image.tag_v2.get(TiffImagePlugin.IPTC_NAA_CHUNK)
    else:
        resources = image.info.get("photoshop")
        found = resources.get(_IPTC_RESOURCE) if isinstance(resources, Mapping) else None
    return found if isinstance(found, bytes) and found else None


def keyword(chunk: Chunk) -> bytes:
    """What a PNG's text is called."""
    return chunk[1].partition(b"\0")[0]


def png_info(carried: Carried) -> PngImagePlugin.PngInfo:
    """The same as Pillow writes it into a PNG."""
    made = PngImagePlugin.PngInfo()
    for name, data in (*carried.colours, *carried.text):
        made.add(name, data)
    if carried.xmp is not None:
        made.add_itxt("XML:com.adobe.xmp", carried.xmp)
    return made


def jpeg_segments(carried: Carried) -> bytes:
    """IPTC as a JPEG's segment, or nothing where there is none or it is too long for one."""
    if carried.iptc is None:
        return b""
    body = struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(carried.iptc)) + carried.iptc
    segment = _PHOTOSHOP + body + b"\0" * (len(carried.iptc) % 2)
    return b"" if len(segment) > _LONGEST_MARKER else struct.pack(">2sH", b"\xff\xed", len(segment) + 2) + segment


def fits_jpeg(packet: bytes | None, label: bytes = b"") -> bool:
    """Whether EXIF or, with its label, an XMP packet fits the one segment that a JPEG has for it."""
    return packet is None or len(label) + len(packet) <= _LONGEST_MARKER


def tiff_tags(exif: bytes | None) -> tuple[list[tuple[int, str | int, Any]], dict[int, dict[int, Any]]]:
    """EXIF as a TIFF has it: (tag, type, value) of the first directory, and the directories below it."""
    found, below = _loaded(exif) if exif is not None else ({}, {})
    tags: list[tuple[int, str | int, Any]] = []
    for tag in sorted(_SPOKEN.intersection(found)):
        value = found[tag]
        if isinstance(value, str):
            tags.append((tag, "s", value.encode()))
        elif isinstance(value, bytes):
            tags.append((tag, "B", value))
        elif isinstance(value, int) and 0 <= value < 65536:
            tags.append((tag, "H", value))
    return tags, below


def directory(entries: Mapping[int, Any], ifd: int, offset: int) -> bytes:
    """A little-endian TIFF directory that will lie at `offset` of its file."""
    made = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II", group=ifd)
    for tag, value in entries.items():
        made[tag] = value
    return made.tobytes(offset)
