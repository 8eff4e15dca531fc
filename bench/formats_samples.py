"""Pictures of every format and kind for `bench.formats`, `bench.fuzz` and the tests, written by nothing of ours.

Pillow and tifffile write what they can; a 16-bit PNG is put together here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin, features

from bench import formats_profiles as profiles

XMP = (
    b"<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>"
    b"<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about='' "
    b"xmlns:dc='http://purl.org/dc/elements/1.1/' dc:title='harbour'/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
IPTC = b"\x1c\x02\x50\x00\x07painter"
TEXT = {"Title": "Harbour", "Author": "中村", "Comment": "long " * 400}
PAINTER, TAKEN = "a painter", "2024:05:06 07:08:09"


def scene(height: int = 48, width: int = 64, seed: int = 0, channels: int = 3) -> NDArray[np.float64]:
    """A graded sky over grain with a disc in it: (H, W, channels) in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    made = np.stack([0.35 + 0.4 * y + 0.1 * n * x for n in range(channels)], axis=2)
    made[np.hypot(x - 0.6, y - 0.3) < 0.13] = np.linspace(0.8, 0.4, channels)
    made[y > 0.45] *= 0.7
    made[y > 0.45] += 0.08 * rng.standard_normal((int((y > 0.45).sum()), channels))
    return np.clip(made, 0, 1)


def levels(channels: int = 3, bits: int = 8, **size: int) -> NDArray[Any]:
    """The same as (H, W, channels) levels of 8 or 16 bits, (H, W) for one channel."""
    made = np.rint(scene(channels=channels, **size) * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    return made[:, :, 0] if channels == 1 else made


def veil(bits: int = 8, height: int = 48, width: int = 64) -> NDArray[Any]:
    """An alpha that goes from nothing to all, (H, W)."""
    made = np.broadcast_to(np.linspace(0, 2**bits - 1, width), (height, width))
    return np.rint(made).astype(np.uint8 if bits == 8 else np.uint16)


def exif(orientation: int | None = None) -> Image.Exif:
    """A maker, a time, a place and, where asked for, how to turn it."""
    made = Image.Exif()
    made[0x013B] = PAINTER
    if orientation is not None:
        made[0x0112] = orientation
    made.get_ifd(0x8769)[0x9003] = TAKEN
    made.get_ifd(0x8769)[0xA002] = 64
    made.get_ifd(0x8825).update({1: "N", 2: (35.0, 21.0, 38.0)})
    return made


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(values: NDArray[Any], *chunks: tuple[bytes, bytes], bits: int | None = None, late: bool = False) -> bytes:
    """A PNG of (H, W) or (H, W, C) values.

    Args:
        values: uint8 or uint16.
        chunks: more of them.
        bits: of a value, if fewer than those of its type.
        late: whether the chunks come after the pixels.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    kind = 0 if values.ndim == 2 else {2: 4, 3: 2, 4: 6}[values.shape[2]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits or 8 * values.itemsize, kind, 0, 0, 0)
    if bits is None:
        rows = np.ascontiguousarray(values.astype(values.dtype.newbyteorder(">"))).view(np.uint8)
    else:
        rows = np.packbits(np.unpackbits(values[:, :, None], axis=2)[:, :, -bits:].reshape(len(values), -1), axis=1)
    rows = np.pad(rows.reshape(values.shape[0], -1), ((0, 0), (1, 0)))
    pixels = chunk(b"IDAT", zlib.compress(rows.tobytes()))
    more = b"".join(chunk(name, data) for name, data in chunks)
    body = pixels + more if late else more + pixels
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def png_profile(icc: bytes) -> tuple[bytes, bytes]:
    """A profile as a PNG's chunk."""
    return b"iCCP", b"made here\0\0" + zlib.compress(icc)


def text() -> PngImagePlugin.PngInfo:
    """`TEXT` as PNG text: plain, international, and compressed."""
    made = PngImagePlugin.PngInfo()
    made.add_text("Title", TEXT["Title"])
    made.add_itxt("Author", TEXT["Author"], "ja", "作者")
    made.add_text("Comment", TEXT["Comment"], zip=True)
    return made


def iptc_segment() -> bytes:
    """`IPTC` as a JPEG's segment."""
    body = b"Photoshop 3.0\0" + struct.pack(">4sHHI", b"8BIM", 0x0404, 0, len(IPTC)) + IPTC + b"\0" * (len(IPTC) % 2)
    return struct.pack(">2sH", b"\xff\xed", len(body) + 2) + body


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    """A TIFF, deflated unless told otherwise."""
    from tifffile import imwrite

    file = io.BytesIO()
    imwrite(file, values, metadata=None, **{"compression": "zlib", **options})
    return file.getvalue()


def animation(kind: str, *, count: int = 3) -> bytes:
    """Frames that differ, of 100, 50, 150 ... ms, shown twice."""
    rgb = kind != "GIF"
    frames = []
    for number in range(count):
        frame = Image.fromarray(levels(seed=number))
        ImageDraw.Draw(frame).rectangle([4 * number, 8, 4 * number + 9, 20], (220, 40, 40))
        frames.append(frame if rgb else frame.quantize(64))
    if kind == "TIFF":
        return saved(frames[0], kind, save_all=True, append_images=frames[1:])
    times = [100 + 50 * (-number % 3 if number else 0) for number in range(count)]
    more = {"lossless": True} if kind == "WEBP" else {}
    loop = 1 if kind == "GIF" else 2
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=times, loop=loop, **more)


def heif() -> bool:
    """Whether HEIF can be made and read here."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _image(channels: int = 3) -> Image.Image:
    made = levels(channels)
    return Image.frombytes("CMYK", (64, 48), made.tobytes()) if channels == 4 else Image.fromarray(made)


def _glass() -> Image.Image:
    return Image.fromarray(np.dstack([levels(), veil()]))


def _palette(*, clear: bool = False) -> bytes:
    return saved(_image().quantize(200), "PNG", **({"transparency": 3} if clear else {}))


SAMPLES: Mapping[str, Callable[[], bytes]] = {
    "png": lambda: saved(_image(), "PNG", exif=exif(), dpi=(300, 300), pnginfo=text()),
    "png grey": lambda: saved(_image(1), "PNG"),
    "png alpha": lambda: saved(_glass(), "PNG"),
    "png palette": _palette,
    "png palette, one clear": lambda: _palette(clear=True),
    "png bits": lambda: saved(_image(1).convert("1"), "PNG"),
    "png 2 bits, one clear": lambda: png(levels(1) >> 6, (b"tRNS", b"\0\3"), bits=2),
    "png 16": lambda: png(levels(bits=16), png_profile(profiles.PROPHOTO)),
    "png 16 alpha": lambda: png(np.dstack([levels(bits=16), veil(16)])),
    "png 16 grey": lambda: png(levels(1, 16)),
    "png 16 grey alpha": lambda: png(np.dstack([levels(1, 16), veil(16)])),
    "apng": lambda: animation("PNG"),
    "jpeg": lambda: saved(
        _image(), "JPEG", quality=85, exif=exif(6), icc_profile=profiles.DISPLAY_P3, xmp=XMP, extra=iptc_segment()
    ),
    "jpeg progressive": lambda: saved(_image(), "JPEG", quality=70, progressive=True, subsampling=1),
    "jpeg grey": lambda: saved(_image(1), "JPEG"),
    "jpeg cmyk": lambda: saved(_image(4), "JPEG", icc_profile=profiles.INKS),
    "webp lossy": lambda: saved(_image(), "WEBP", quality=80, exif=exif(), xmp=XMP),
    "webp lossless": lambda: saved(_glass(), "WEBP", lossless=True, icc_profile=profiles.ADOBE_RGB),
    "webp animation": lambda: animation("WEBP"),
    "tiff": lambda: saved(_image(), "TIFF", compression="tiff_lzw", dpi=(300, 300)),
    "tiff bare": lambda: saved(_glass(), "TIFF"),
    "tiff 16": lambda: tiff(levels(bits=16), photometric="rgb", iccprofile=profiles.PROPHOTO, predictor=True),
    "tiff 16 alpha": lambda: tiff(
        np.dstack([levels(bits=16), veil(16)]), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "tiff 16 apart": lambda: tiff(
        levels(bits=16).transpose(2, 0, 1), photometric="rgb", planarconfig="separate", predictor=True
    ),
    "tiff 16 cmyk": lambda: tiff(levels(4, 16), photometric="separated", iccprofile=profiles.INKS),
    "tiff 16 bare": lambda: tiff(
        levels(bits=16).transpose(2, 0, 1), photometric="rgb", planarconfig="separate", byteorder=">", compression=None
    ),
    "tiff float": lambda: tiff(scene(channels=1)[:, :, 0].astype(np.float32), photometric="minisblack", byteorder=">"),
    "tiff 16 grey": lambda: tiff(levels(1, 16), photometric="minisblack"),
    "tiff cmyk": lambda: saved(_image(4), "TIFF", icc_profile=profiles.INKS, compression="tiff_adobe_deflate"),
    "tiff jpeg": lambda: saved(_image(), "TIFF", compression="jpeg"),
    "tiff group 4": lambda: saved(_image(1).convert("1"), "TIFF", compression="group4"),
    "tiff pages": lambda: animation("TIFF"),
    "gif": lambda: saved(_image().quantize(64), "GIF"),
    "gif animation": lambda: animation("GIF"),
    "bmp": lambda: saved(_image(), "BMP"),
    "jpeg 2000": lambda: saved(_image(), "JPEG2000"),
    "ppm": lambda: saved(_image(), "PPM"),
    "tga": lambda: saved(_glass(), "TGA", compression="tga_rle"),
    "ico": lambda: saved(_image(), "ICO"),
    "pcx": lambda: saved(_image(), "PCX"),
    "sgi": lambda: saved(_image(), "SGI"),
    "qoi": lambda: saved(_image(), "QOI"),
    "psd": lambda: (
        struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, 48, 64, 8, 3) + b"\0" * 14 + levels().transpose(2, 0, 1).tobytes()
    ),
} | (
    {
        "avif": lambda: saved(_image(), "AVIF", quality=80, icc_profile=profiles.DISPLAY_P3, exif=exif(6)),
        "avif alpha": lambda: saved(_glass(), "AVIF", quality=60),
    }
    if features.check("avif")
    else {}
)
"""Small seeds of every format, 64 × 48."""
