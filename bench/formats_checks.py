"""The checks of `bench.formats`: one function a property, over a format, on real files.

They are read back by Pillow, OpenCV and tifffile, and not by our loader alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageSequence

from bench import formats_profiles as profiles
from bench import formats_samples as samples
from bench.formats_samples import levels, saved, veil
from glaze_trt.errors import GlazeError
from glaze_trt.pictures import picture
from glaze_trt.pictures.picture import Picture

KEPT, NEARLY, TOLD, NO = "kept", "nearly", "told", "no"

BOX = (slice(10, 30), slice(20, 50))
"""Where the pictures are changed; everywhere else they are under a mask."""


@dataclass(frozen=True)
class Format:
    """A row: the suffix that is written, and Pillow's name and options of a file to begin with."""

    name: str
    suffix: str
    kind: str
    options: Mapping[str, Any]
    lossless: bool


FORMATS = (
    Format("PNG", ".png", "PNG", {}, True),
    Format("TIFF", ".tif", "TIFF", {"compression": "tiff_adobe_deflate"}, True),
    Format("WebP, lossless", ".webp", "WEBP", {"lossless": True}, True),
    Format("WebP, lossy", ".webp", "WEBP", {"quality": 90}, False),
    Format("JPEG", ".jpg", "JPEG", {"quality": 90, "subsampling": 0}, False),
    Format("AVIF", ".avif", "AVIF", {"quality": 90, "subsampling": "4:4:4"}, False),
    *([Format("HEIF", ".heic", "HEIF", {"quality": 90, "chroma": "444"}, False)] if samples.heif() else []),
)


@dataclass(frozen=True)
class Trip:
    """A picture's way: as it was loaded, as it was changed, its file, and what that is loaded as."""

    before: Picture
    after: Picture
    data: bytes
    again: Picture
    notes: tuple[str, ...]

    def told(self, *words: str) -> bool:
        """Whether a note has one of these words in it."""
        return any(word in note for note in self.notes for word in words)


def trip(data: bytes, suffix: str, form: Format, *, change: int = 6) -> Trip:
    """Load, change, save, load; `suffix` is of what is loaded."""
    before = picture.decode(data, Path(f"sample{suffix}"))
    shift = np.zeros(before.levels.shape, int)
    if change:
        box = (slice(0, None), slice(0, None)) if min(before.size) < 48 else BOX
        shape = shift[box].shape
        shift[box] = np.random.default_rng(1).integers(-change, change + 1, shape)
    after = before.with_levels(np.clip(before.levels + shift, 0, 255).astype(np.uint8))
    made = picture.encode(after, form.suffix)
    again = picture.decode(made, Path(f"made{form.suffix}"))
    return Trip(before, after, made, again, (*before.notes, *picture.losses(before, form.suffix)))


def outside(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where nothing was changed, (H, W)."""
    made = np.ones(shape[:2], bool)
    made[BOX] = False
    return made


def raw(data: bytes) -> NDArray[Any]:
    """The values a file holds, (H, W, C) of 8 or 16 bits, by libraries alone."""
    if data[:2] == b"II":
        from tifffile import imread

        found = np.asarray(imread(io.BytesIO(data)))
    elif data[:4] == b"\x89PNG" and data[24] == 16:
        import cv2

        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        found = found if found.ndim == 2 else found[:, :, [2, 1, 0, 3][: found.shape[2]]]
    else:
        image = Image.open(io.BytesIO(data))
        found = np.asarray(
            image.convert("RGBA" if image.has_transparency_data else "RGB") if image.mode == "P" else image
        )
    return found if found.ndim == 3 else found[:, :, None]


def _far(first: NDArray[Any], other: NDArray[Any]) -> int:
    return int(np.abs(first.astype(int) - other).max(initial=0))


def _far_in_gamut(done: Trip) -> int:
    """The same, of what arrived to what was asked for, where sRGB shows the picture's colours."""
    inside = ((done.before.levels > 0) & (done.before.levels < 255)).all(axis=2)
    return _far(done.again.levels[inside], done.after.levels[inside])


def _judged(worst: int, form: Format, room: int) -> str:
    if worst == 0:
        return KEPT
    return f"{NEARLY} {worst}" if not form.lossless and worst <= room else f"{NO} {worst}"


def pixels(form: Format) -> str:
    """The change arrives, and all else is identical."""
    data = saved(Image.fromarray(levels()), form.kind, **form.options)
    done = trip(data, form.suffix, form)
    if form.lossless and not np.array_equal(
        raw(done.data)[outside(levels().shape)], raw(data)[outside(levels().shape)]
    ):
        return NO
    return _judged(_far(done.again.levels, done.after.levels), form, 60)


def depth(form: Format) -> str:
    """16 bits stay: the original's values, and the change, but for a rounding on the edge of two levels."""
    icc = profiles.DISPLAY_P3
    if form.kind == "TIFF":
        data = samples.tiff(levels(bits=16), photometric="rgb", iccprofile=icc, predictor=True)
    else:
        data = samples.png(levels(bits=16), samples.png_profile(icc))
    done = trip(data, ".tif" if form.kind == "TIFF" else ".png", form)
    found = raw(done.data)
    if found.dtype != np.uint16:
        return TOLD if done.told("8 bits") else NO
    same = np.array_equal(found[outside(found.shape)], raw(data)[outside(found.shape)])
    return KEPT if same and done.again.icc == icc and _far_in_gamut(done) <= 1 else NO


def grey(form: Format) -> str:
    """Grey stays grey, and moves by the mean of the change."""
    if form.kind in ("WEBP", "HEIF"):
        done = trip(saved(Image.fromarray(levels(1)), "PNG"), ".png", form)
    else:
        options = {name: value for name, value in form.options.items() if name not in ("subsampling", "chroma")}
        done = trip(saved(Image.fromarray(levels(1)), form.kind, **options), form.suffix, form)
    wanted = np.rint(done.before.levels + (done.after.levels.astype(float) - done.before.levels).mean(2, keepdims=True))
    found = raw(done.data)
    if not (found == found[:, :, :1]).all():
        return NO
    return _judged(_far(np.broadcast_to(found[:, :, :1], wanted.shape), wanted), form, 20)


def palette(form: Format) -> str:
    """A palette's colours stay, though full colour takes its place, and a note says so."""
    source = Image.fromarray(levels()).quantize(120)
    data = saved(source, "TIFF" if form.kind == "TIFF" else "PNG")
    done = trip(data, ".tif" if form.kind == "TIFF" else ".png", form)
    away = outside(levels().shape)
    worst = _far(done.again.levels[away], np.asarray(source.convert("RGB"))[away])
    return _judged(worst, form, 60) if done.told("palette") else NO


def cmyk(form: Format) -> str:
    """CMYK goes back to CMYK by its profile."""
    inks = Image.frombytes("CMYK", (64, 48), levels(4).tobytes())
    kind = "JPEG" if form.kind == "JPEG" else "TIFF"
    options = form.options if form.kind in ("JPEG", "TIFF") else {"compression": "tiff_adobe_deflate"}
    data = saved(inks, kind, icc_profile=profiles.INKS, **options)
    done = trip(data, ".jpg" if kind == "JPEG" else ".tif", form)
    found, away = raw(done.data), outside(levels().shape)
    if found.shape[2] != 4:
        return TOLD if done.told("CMYK") and _far(done.again.levels[away], done.before.levels[away]) < 60 else NO
    if done.again.icc != profiles.INKS or _far(done.again.levels, done.after.levels) > 60:
        return NO
    return _judged(_far(found[away], raw(data)[away]), form, 60)


def alpha(form: Format) -> str:
    """Transparency stays."""
    glass = Image.fromarray(np.dstack([levels(), veil()]))
    if form.kind == "JPEG":
        try:
            picture.check_writable(Path("a.jpg"), picture.decode(saved(glass, "PNG"), Path("a.png")))
        except GlazeError as error:
            return TOLD if "transparency" in str(error) else NO
        return NO
    done = trip(saved(glass, form.kind, **form.options), form.suffix, form)
    if done.again.alpha is None:
        return NO
    return _judged(_far(done.again.alpha, done.before.alpha if done.before.alpha is not None else veil()), form, 12)


def profile(form: Format) -> str:
    """Display P3 comes in as sRGB, which Little CMS confirms, and goes back in its own values, to a rounding."""
    icc = profiles.DISPLAY_P3
    data = saved(Image.fromarray(levels()), form.kind, icc_profile=icc, **form.options)
    done = trip(data, form.suffix, form)
    own = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    shown = ImageCms.profileToProfile(
        Image.open(io.BytesIO(data)).convert("RGB"), own, ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB",
    )  # fmt: skip
    away = outside(levels().shape)
    if done.again.icc != icc or _far(done.before.levels, np.asarray(shown)) > 1:
        return NO
    if form.lossless and not np.array_equal(raw(done.data)[away], raw(data)[away]):
        return NO
    worst = _far_in_gamut(done)
    return KEPT if form.lossless and worst <= 3 else _judged(worst, form, 60)


def exif(form: Format) -> str:
    """The painter, the time and the place stay."""
    if form.kind == "TIFF":
        done = trip(saved(Image.fromarray(levels()), "PNG", exif=samples.exif()), ".png", form)
        done = trip(done.data, ".tif", form)
    else:
        done = trip(saved(Image.fromarray(levels()), form.kind, exif=samples.exif(), **form.options), form.suffix, form)
    found = Image.open(io.BytesIO(done.data)).getexif()
    said = found.get(0x013B), found.get_ifd(0x8769).get(0x9003), found.get_ifd(0x8825).get(1)
    return KEPT if said == (samples.PAINTER, samples.TAKEN, "N") and found.get(0x0112, 1) == 1 else NO


def orientation(form: Format) -> str:
    """Turned as EXIF says, and written upright."""
    plain = saved(Image.fromarray(levels()), form.kind, **form.options)
    for turn in range(2, 9):
        said: Any = samples.exif(turn)
        said = said.tobytes() if form.kind == "HEIF" else said  # what turns a HEIF is made of the bytes
        data = saved(Image.fromarray(levels()), form.kind, exif=said, **form.options)
        done = trip(data, form.suffix, form, change=0)
        wanted = {
            2: lambda v: v[:, ::-1], 3: lambda v: v[::-1, ::-1], 4: lambda v: v[::-1], 5: lambda v: v.swapaxes(0, 1),
            6: lambda v: np.rot90(v, -1), 7: lambda v: v[::-1, ::-1].swapaxes(0, 1), 8: np.rot90,
        }[turn](np.asarray(Image.open(io.BytesIO(plain)).convert("RGB")))  # fmt: skip
        found = Image.open(io.BytesIO(done.data))
        if found.getexif().get(0x0112, 1) != 1 or found.size != (wanted.shape[1], wanted.shape[0]):
            return NO
        if _far(np.asarray(found.convert("RGB")), wanted) > (0 if form.lossless else 60):
            return NO
    return KEPT


def resolution(form: Format) -> str:
    """Pixels per inch stay."""
    kind, suffix = ("PNG", ".png") if form.kind in ("WEBP", "AVIF", "HEIF") else (form.kind, form.suffix)
    done = trip(saved(Image.fromarray(levels()), kind, dpi=(300, 150)), suffix, form)
    found = Image.open(io.BytesIO(done.data))
    dpi = found.info.get("dpi") or (found.getexif().get(0x011A), found.getexif().get(0x011B))
    return KEPT if all(abs(a - b) < 0.02 for a, b in zip(dpi, (300, 150), strict=True)) else NO


def xmp(form: Format) -> str:
    """The XMP packet stays."""
    if form.kind == "TIFF":
        options: dict[str, Any] = {"tiffinfo": {700: samples.XMP}}
    elif form.kind == "PNG":
        info = samples.text()
        info.add_itxt("XML:com.adobe.xmp", samples.XMP.decode())
        options = {"pnginfo": info}
    else:
        options = {"xmp": samples.XMP}
    done = trip(saved(Image.fromarray(levels()), form.kind, **{**form.options, **options}), form.suffix, form)
    return KEPT if samples.XMP in done.data else NO


def iptc(form: Format) -> str:
    """IPTC records stay."""
    if form.kind == "TIFF":
        tag = (33723, "B", len(samples.IPTC), samples.IPTC, True)
        data, suffix = samples.tiff(levels(), photometric="rgb", extratags=[tag]), ".tif"
    else:
        data, suffix = saved(Image.fromarray(levels()), "JPEG", quality=90, extra=samples.iptc_segment()), ".jpg"
    done = trip(data, suffix, form)
    return KEPT if samples.IPTC in done.data else TOLD if done.told("IPTC") else NO


def text(form: Format) -> str:
    """PNG text stays."""
    done = trip(saved(Image.fromarray(levels()), "PNG", pnginfo=samples.text()), ".png", form)
    if form.kind != "PNG":
        return TOLD if done.told("PNG text") else NO
    return KEPT if dict(Image.open(io.BytesIO(done.data)).text) == samples.TEXT else NO


def frames(form: Format) -> str:
    """Several frames are refused by a line, or all of them are kept with durations and loop."""
    pages = form.kind == "TIFF"
    kind = {"PNG": "PNG", "WEBP": "WEBP", "TIFF": "TIFF"}.get(form.kind, "GIF")
    data = samples.animation(kind)
    try:
        picture.decode(data, Path("several"))
        return NO
    except GlazeError as error:
        if "--frames all" not in str(error):
            return NO
    found = picture.decode_frames(data, Path("several"))
    moved = [frame.with_levels(np.minimum(frame.levels, 250) + np.uint8(3)) for frame in found]
    try:
        made = picture.encode_frames(moved, form.suffix)
    except GlazeError:
        return TOLD
    again = Image.open(io.BytesIO(made))
    shown = [(np.asarray(frame.convert("RGB")), frame.info.get("duration")) for frame in ImageSequence.Iterator(again)]
    if len(shown) != 3 or any(not np.array_equal(a[0], b.levels) for a, b in zip(shown, moved, strict=True)):
        return NO
    return KEPT if pages or ([time for _, time in shown], again.info["loop"]) == ([100, 200, 150], 2) else NO


def sizes(form: Format) -> str:
    """One pixel wide, one pixel high, one pixel, and as wide as the format goes, 20 000 at most."""
    widest = min(20_000, picture.LONGEST.get(form.kind, 20_000))
    for height, width in ((1, 1), (37, 1), (1, 37), (2, widest)):
        data = saved(Image.fromarray(levels(height=height, width=width)), "PNG")
        try:
            done = trip(data, ".png", form)
        except GlazeError:  # HEIF begins at some pixels a side
            return TOLD
        if done.again.size != (width, height) or _far(done.again.levels, done.after.levels) > (
            0 if form.lossless else 60
        ):
            return NO
    return KEPT


PROPERTIES: Mapping[str, Callable[[Format], str]] = {
    "pixels under a mask": pixels,
    "16 bits": depth,
    "grey": grey,
    "palette's colours": palette,
    "CMYK": cmyk,
    "alpha": alpha,
    "wide gamut, profile": profile,
    "EXIF": exif,
    "orientation": orientation,
    "resolution": resolution,
    "XMP": xmp,
    "IPTC": iptc,
    "PNG text": text,
    "frames": frames,
    "1 to 20 000 pixels": sizes,
}
