from __future__ import annotations

import io
import os
import resource
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from bench import formats_samples as samples
from glaze_trt.errors import OutputError, PictureError
from glaze_trt.pictures import formats, picture
from tests.glaze_trt.scene import scene


def write(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "bmp", "gif", "jpg", "jp2", "tga", "ppm"])
def test_formats_are_read_as_rgb_at_their_own_size(tmp_path: Path, suffix: str) -> None:
    levels = scene(37, 51)
    options = {"quality": 95} if suffix in ("jpg", "webp") else {}
    read = picture.load(write(tmp_path / f"a.{suffix}", Image.fromarray(levels), **options))
    assert read.rgb.shape == (37, 51, 3)
    assert read.rgb.dtype == np.float32
    assert np.abs(read.levels.astype(int) - levels).mean() < 12
    if suffix in ("png", "tif", "bmp", "tga", "ppm"):
        np.testing.assert_array_equal(read.levels, levels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F"])
def test_modes_are_read_with_the_brightness_they_had(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(scene()).convert(mode)
    read = picture.load(write(tmp_path / "a.tif", image))
    assert read.rgb.mean() == pytest.approx(scene().mean() / 255, abs=0.03)
    assert (read.alpha is not None) == (mode in ("LA", "RGBA"))


def test_sixteen_bit_grey_keeps_its_scale(tmp_path: Path) -> None:
    deep = (np.arange(64 * 48).reshape(48, 64) * 20).astype(np.uint16)
    read = picture.load(write(tmp_path / "a.png", Image.fromarray(deep)))
    np.testing.assert_allclose(read.rgb[..., 0], deep / 65535, atol=0.5 / 255)
    assert read.notes == ()


def test_white_is_zero_in_some_tiffs_of_sixteen_bits(tmp_path: Path) -> None:
    deep = (np.arange(64 * 48).reshape(48, 64) * 20).astype(np.uint16)
    (tmp_path / "a.tif").write_bytes(samples.tiff(65535 - deep, photometric="miniswhite"))
    np.testing.assert_allclose(picture.load(tmp_path / "a.tif").rgb[..., 0], deep / 65535, atol=0.5 / 255)


def test_alpha_profile_exif_and_resolution_go_through(tmp_path: Path) -> None:
    alpha = np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    image = Image.fromarray(np.dstack([scene(), alpha]))
    source = picture.load(write(tmp_path / "a.png", image, icc_profile=profile, exif=exif, dpi=(300, 300)))
    for name in ("b.png", "b.webp", "b.tif"):
        picture.save(tmp_path / name, source)
        kept = picture.load(tmp_path / name)
        np.testing.assert_array_equal(kept.levels, scene(), err_msg=name)
        assert kept.alpha is not None
        np.testing.assert_array_equal(kept.alpha, alpha, err_msg=name)
        assert kept.icc == profile
        assert b"a camera" in (kept.exif or b"")
        assert kept.dpi == pytest.approx((300, 300), abs=0.1)


def test_damaged_exif_is_no_reason_to_refuse_a_picture() -> None:
    data = samples.saved(Image.fromarray(scene()), "JPEG", exif=samples.exif())
    first = data.index(b"Exif") + 14
    for number in range(200):
        rng = np.random.default_rng(number)
        broken = bytearray(data)
        for _ in range(3):
            broken[int(rng.integers(first, first + 150))] = int(rng.integers(256))
        read = picture.decode(bytes(broken), Path("a"))
        assert picture.decode(picture.encode(read, ".tif"), Path("b")).levels.shape == read.levels.shape


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_orientation_is_honoured_and_then_upright(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"jpg": {"quality": 95}, "webp": {"lossless": True}}.get(suffix, {})
    source = picture.load(write(tmp_path / f"a.{suffix}", Image.fromarray(scene()), exif=exif, **options))
    upright = np.rot90(scene(), -1)
    assert source.rgb.shape == upright.shape
    assert np.abs(source.levels.astype(int) - upright).mean() < 12
    picture.save(tmp_path / "b.png", source)
    np.testing.assert_array_equal(picture.load(tmp_path / "b.png").levels, source.levels)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif", "jp2", "tga", "ppm"])
@pytest.mark.parametrize("part", [0.03, 0.5, 0.95])
def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path, suffix: str, part: float) -> None:
    path = write(tmp_path / f"a.{suffix}", Image.fromarray(scene()))
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(PictureError, match=r"^\S+: [^\n]+$"):
        picture.load(path)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for name, reason in (
        ("text.png", "not a picture"),
        ("empty.png", "is empty"),
        ("", "is a folder"),
        ("missing.png", "no such file"),
        ("text.png/a.png", "cannot be read"),
        ("nul\0.png", "cannot be read"),
    ):
        with pytest.raises(PictureError, match=reason):
            picture.load(tmp_path / name)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(scene(seed=seed)) for seed in range(3)]
    path = write(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="holds 3 frames or pages; --frames all"):
        picture.load(path)


@pytest.mark.parametrize("side", [20_001, 60_000])
def test_a_large_picture_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    data = write(tmp_path / "a.png", Image.fromarray(scene())).read_bytes()
    header = data[12:16] + side.to_bytes(4, "big") * 2 + data[24:29]
    with pytest.raises(PictureError, match="up to 400 megapixels"):
        picture.decode(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:], Path("a"))


def test_a_file_far_too_short_for_its_pixels_is_refused() -> None:
    data = samples.saved(Image.fromarray(scene()), "PNG")
    header = data[12:16] + (19_000).to_bytes(4, "big") * 2 + data[24:29]
    with pytest.raises(PictureError, match=r"damaged: 19000 x 19000 pixels in \d+ bytes"):
        picture.decode(data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:], Path("a"))


def test_nothing_of_pillow_stays_changed(tmp_path: Path) -> None:
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    path = write(tmp_path / "a.png", Image.fromarray(scene()))
    (tmp_path / "bad.png").write_bytes(path.read_bytes()[:500])

    def read(name: str) -> bool:
        try:
            return picture.load(tmp_path / name).size == (64, 48)
        except PictureError:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, ["a.png", "bad.png"] * 20)) == [True, False] * 20
    assert limit == Image.MAX_IMAGE_PIXELS
    assert list(warnings.filters) == filters


def test_a_jpeg_that_pretends_to_be_large_is_refused_at_once() -> None:
    made = bytearray(samples.saved(Image.fromarray(scene()), "JPEG"))
    at = made.index(b"\xff\xc0") + 5
    made[at : at + 4] = (19_000).to_bytes(2, "big") * 2
    with pytest.raises(PictureError, match=r"damaged: 19000 x 19000 pixels in \d+ bytes"):
        picture.decode(bytes(made), Path("a"))
    white = samples.saved(Image.new("L", (4000, 4000), 255), "JPEG", progressive=True, quality=1)
    assert picture.decode(white, Path("a")).size == (4000, 4000)


def test_a_gif_of_next_to_nothing_on_a_huge_screen_is_refused_at_once() -> None:
    def gif(side: int) -> bytes:
        screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        return screen + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"

    assert picture.decode(gif(500), Path("a")).size == (500, 500)
    with pytest.raises(PictureError, match=r"damaged: 19000 x 19000 pixels in \d+ bytes"):
        picture.decode(gif(19_000), Path("a"))
    plain = samples.saved(Image.new("P", (6000, 6000)), "GIF")
    with Image.open(io.BytesIO(plain)) as image:
        assert formats.may_hold(image, plain[:100], len(plain))


def deep_files() -> dict[str, bytes]:
    """Colour of more than 8 bits, of which Pillow keeps 8."""
    deep = samples.levels(bits=16)
    high = deep.astype(">u2")
    header = struct.pack(">HBBHHHHII", 474, 0, 2, 3, 64, 48, 3, 0, 65535)
    made = {
        "ppm": b"P6 64 48 65535\n" + high.tobytes(),
        "sgi": header.ljust(512, b"\0") + high[::-1].transpose(2, 0, 1).tobytes(),
        "jp2": cv2.imencode(".jp2", deep)[1].tobytes(),
    }
    if samples.heif():
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_bytes("RGB;16", (64, 48), deep.tobytes()).save(file)
        made["heif"] = file.getvalue()
    return made


@pytest.mark.parametrize("name", deep_files())
def test_colour_that_comes_down_to_eight_bits_is_told_of(name: str) -> None:
    read = picture.decode(deep_files()[name], Path("a"))
    assert read.levels.dtype == np.uint8
    assert "more than 8 bits" in read.notes[-1]


@pytest.mark.parametrize("bits", [8, 16])
def test_channels_that_are_no_colours_are_told_of(bits: int) -> None:
    values = np.dstack([samples.levels(bits=bits), samples.veil(bits)])
    for kind, notes in (("unassalpha", 0), ("unspecified", 1)):
        read = picture.decode(samples.tiff(values, photometric="rgb", extrasamples=[kind]), Path("a"))
        np.testing.assert_array_equal(read.levels if read.own is None else read.own.values, values[:, :, :3])
        assert ["more channels" in note for note in read.notes] == [True] * notes


@pytest.mark.parametrize(("primaries", "transfer", "told"), [(1, 13, False), (12, 13, True), (9, 16, True)])
def test_colours_that_are_told_by_numbers_are_told_of(primaries: int, transfer: int, told: bool) -> None:
    files = [samples.png(samples.levels(), (b"cICP", bytes([primaries, transfer, 0, 1])))]
    if ".avif" in picture.FORMATS:
        made = bytearray(samples.saved(Image.fromarray(samples.levels()), "AVIF"))
        at = made.index(b"colrnclx") + 8
        made[at : at + 4] = struct.pack(">HH", primaries, transfer)
        files.append(bytes(made))
    for data in files:
        notes = picture.decode(data, Path("a")).notes
        assert [f"primaries {primaries}, transfer {transfer}" in note for note in notes] == [True] * told


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("turn", [1, 6])
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_a_tiff_stay(channels: int, turn: int, order: str) -> None:
    values = samples.levels(channels, 16)
    options = {"byteorder": order, "extratags": [(274, "H", 1, turn, True)], "predictor": True}
    data = samples.tiff(values, photometric="rgb" if channels == 3 else "separated", **options)
    upright = values if turn == 1 else np.rot90(values, -1)
    for _ in range(2):
        read = picture.decode(data, Path("a"))
        assert read.own is not None
        np.testing.assert_array_equal(read.own.values, upright)
        assert read.notes == ()
        data = picture.encode(read, ".tif")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a drawing"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "a drawing"),
        (b"II*\0\x10\0\0\0CR\2\0" + b"\0" * 40, "camera's raw"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 40, "pillow-heif"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "begins like a picture"),
        (b"8BPS\0\1" + b"\0" * 40, "Photoshop"),
        (samples.tiff(np.zeros((8, 8, 3), np.float32), photometric="rgb"), "RGB of 8 or 16 bits"),
        (samples.tiff(np.zeros((8, 8, 3), np.uint8), photometric="rgb", subfiletype=1), "begins with a preview"),
    ],
)
def test_what_is_nearly_a_picture_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        picture.decode(data, Path("a"))


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        picture.save(path, picture.from_levels(scene()))
    assert path.read_text() == "mine"
    picture.save(path, picture.from_levels(scene()), overwrite=True)
    np.testing.assert_array_equal(picture.load(path).levels, scene())


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("mine")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            picture.save(path, picture.from_levels(scene()), overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_places_and_formats_are_refused(tmp_path: Path) -> None:
    bare = picture.from_levels(scene())
    with pytest.raises(OutputError, match="no folder"):
        picture.save(tmp_path / "none" / "a.png", bare)
    with pytest.raises(OutputError, match="choose one of"):
        picture.save(tmp_path / "a.doc", bare)
    glass = picture.Picture(bare.levels, alpha=np.zeros((48, 64), np.uint8))
    with pytest.raises(OutputError, match="transparency"):
        picture.save(tmp_path / "a.jpg", glass)
    with pytest.raises(OutputError, match="16383 pixels a side"):
        picture.check_writable(tmp_path / "a.webp", picture.from_levels(np.zeros((1, 16_384, 3), np.uint8)))


def test_names_that_no_file_can_have_are_refused(tmp_path: Path) -> None:
    for name in ("a" * 300 + ".png", "nul\0.png"):
        with pytest.raises(OutputError, match="cannot be written"):
            picture.check_writable(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(OutputError, match="not an ordinary file"):
        picture.check_writable(tmp_path / "pipe.png", overwrite=True)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(OutputError, match="exists already"):
        picture.check_writable(tmp_path / "link.png")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that even root cannot write")
def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(OutputError, match="/proc"):
        picture.save("/proc/self/a.png", picture.from_levels(scene()))
