from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from bench import formats_profiles as profiles
from bench import formats_samples as samples
from glaze_trt.errors import OutputError, PictureError
from glaze_trt.pictures import picture, sequence


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_animation_keeps_its_frames_times_and_loop(tmp_path: Path, kind: str, suffix: str) -> None:
    (tmp_path / "a").write_bytes(samples.animation(kind, count=4))
    frames = picture.frames(tmp_path / "a")
    assert [frame.frame.duration for frame in frames if frame.frame] == [100, 200, 150, 100]
    moved = [frame.with_levels(np.minimum(frame.levels, 200) + np.uint8(7)) for frame in frames]
    picture.save_frames(tmp_path / f"b{suffix}", moved)
    again = picture.frames(tmp_path / f"b{suffix}")
    assert [frame.frame for frame in again] == [frame.frame for frame in frames]
    assert all(frame.frame and frame.frame.loop == 2 for frame in again)
    for frame, wanted in zip(again, moved, strict=True):
        np.testing.assert_array_equal(frame.levels, wanted.levels)
        assert frame.alpha is None


def test_transparency_of_frames_stays(tmp_path: Path) -> None:
    veil = samples.veil()
    frames = [Image.fromarray(np.dstack([samples.levels(seed=seed), np.roll(veil, 8 * seed, 1)])) for seed in range(3)]
    for kind in ("PNG", "WEBP"):
        more = {"lossless": True} if kind == "WEBP" else {}
        data = samples.saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=40, **more)
        read = picture.decode_frames(data, Path("a"))
        moved = [frame.with_levels(np.minimum(frame.levels, 250) + np.uint8(5)) for frame in read]
        for suffix in (".png", ".webp"):
            again = picture.decode_frames(picture.encode_frames(moved, suffix), Path("b"))
            for frame, moved_frame, wanted in zip(again, moved, frames, strict=True):
                alpha = np.asarray(wanted)[..., 3]
                shown = np.minimum(np.asarray(wanted)[..., :3], 250) + np.uint8(5)
                np.testing.assert_array_equal(frame.alpha, alpha)
                np.testing.assert_array_equal(frame.levels[alpha > 0], shown[alpha > 0])
                np.testing.assert_array_equal(frame.levels, moved_frame.levels)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_an_opaque_shape_on_a_clear_ground_stays_so(suffix: str) -> None:
    frames = [Image.new("RGBA", (64, 48)) for _ in range(3)]
    for number, frame in enumerate(frames):
        frame.paste((200, 40 * number, 30, 255), (8 * number, 8, 8 * number + 20, 30))
    data = samples.saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=40, disposal=2)
    read = picture.decode_frames(data, Path("a"))
    made = picture.encode_frames(read, suffix)
    for found, wanted in zip(picture.decode_frames(made, Path("b")), frames, strict=True):
        np.testing.assert_array_equal(found.alpha, np.asarray(wanted)[:, :, 3])
        np.testing.assert_array_equal(found.levels, np.asarray(wanted)[:, :, :3])
    sequence.check_kept(made, Path(f"a{suffix}"), read)
    filled = [replace(frame, alpha=np.full((48, 64), 255, np.uint8)) for frame in read]
    with pytest.raises(OutputError, match="could not be kept"):
        sequence.check_kept(picture.encode_frames(filled, suffix), Path(f"a{suffix}"), read)


def test_a_gif_that_plays_once_goes_on_playing_once() -> None:
    frames = [Image.fromarray(samples.levels(seed=seed)).quantize(16) for seed in range(2)]
    data = samples.saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=80)
    assert [frame.frame.loop for frame in picture.decode_frames(data, Path("a")) if frame.frame] == [1, 1]


def test_a_grey_animation_stays_grey() -> None:
    frames = [Image.fromarray(samples.levels(1, seed=seed)) for seed in range(2)]
    data = samples.saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=80)
    read = picture.decode_frames(data, Path("a"))
    moved = [frame.with_levels(np.clip(frame.levels + np.array([9, 0, 0]), 0, 255).astype(np.uint8)) for frame in read]
    for frame, wanted in zip(picture.decode_frames(picture.encode_frames(moved, ".png"), Path("b")), read, strict=True):
        assert (frame.levels == frame.levels[:, :, :1]).all()
        np.testing.assert_array_equal(frame.levels, np.minimum(wanted.levels, 252) + np.uint8(3))


def test_the_picture_that_stands_for_an_animation_is_no_part_of_it() -> None:
    frames = [Image.fromarray(samples.levels(seed=seed)) for seed in range(3)]
    data = samples.saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=50, default_image=True)
    read = picture.decode_frames(data, Path("a"))
    assert [frame.frame.poster for frame in read if frame.frame] == [True, False, False]
    again = picture.decode_frames(picture.encode_frames(read, ".png"), Path("b"))
    assert [frame.frame.poster for frame in again if frame.frame] == [True, False, False]
    assert len(picture.decode_frames(picture.encode_frames(read, ".webp"), Path("b"))) == 2


def test_pages_keep_their_own_size_depth_and_colours(tmp_path: Path) -> None:
    from tifffile import TiffWriter

    first, second = samples.levels(bits=16), samples.levels(1, height=20, width=30)
    with TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(first, photometric="rgb", iccprofile=profiles.PROPHOTO, metadata=None)
        writer.write(second, photometric="minisblack", metadata=None)
        writer.write(second[:10, :15], photometric="minisblack", subfiletype=1, metadata=None)  # a preview of it
        writer.write(first[:, ::-1], photometric="rgb", iccprofile=profiles.PROPHOTO, metadata=None)
    with pytest.raises(PictureError, match="holds 3 frames or pages"):
        picture.load(tmp_path / "a.tif")
    pages = picture.frames(tmp_path / "a.tif")
    picture.save_frames(tmp_path / "b.tif", pages)
    again = picture.frames(tmp_path / "b.tif")
    for page, values, icc in zip(again, (first, second, first[:, ::-1]), (profiles.PROPHOTO, None) * 2, strict=False):
        assert page.own is not None
        np.testing.assert_array_equal(page.own.values.squeeze(), values)
        assert page.icc == icc
    with pytest.raises(OutputError, match="one size"):
        picture.encode_frames(pages, ".png")


def test_a_preview_behind_the_picture_is_no_page(tmp_path: Path) -> None:
    from tifffile import TiffWriter

    with TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(samples.levels(), photometric="rgb", metadata=None)
        writer.write(samples.levels()[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(picture.load(tmp_path / "a.tif").levels, samples.levels())


def test_formats_of_single_pictures_take_no_frames(tmp_path: Path) -> None:
    frames = picture.decode_frames(samples.animation("GIF"), Path("a"))
    for suffix in (".jpg", ".avif", ".gif"):
        with pytest.raises(OutputError, match=r"choose"):
            picture.save_frames(tmp_path / f"a{suffix}", frames)


def test_a_still_picture_is_one_frame() -> None:
    (frame,) = picture.decode_frames(samples.SAMPLES["png"](), Path("a"))
    assert frame.frame is None


def test_millions_of_frames_are_refused_at_once() -> None:
    made = bytearray(samples.animation("PNG"))
    at = made.index(b"acTL") + 4
    made[at : at + 4] = (1 << 24).to_bytes(4, "big")
    crc = zlib.crc32(made[at - 4 : at + 8])
    made[at + 8 : at + 12] = crc.to_bytes(4, "big")
    with pytest.raises(PictureError, match="megapixels together"):
        picture.decode_frames(bytes(made), Path("a"))


def test_a_frame_far_outside_its_gif_is_refused_at_once() -> None:
    made = bytearray(samples.animation("GIF", count=2))
    second = made.rindex(b"\x21\xf9\x04") + 8
    assert made[second : second + 1] == b","
    made[second + 1 : second + 9] = struct.pack("<HHHH", 15_000, 15_000, 64, 48)
    with pytest.raises(PictureError, match=r"damaged: 15064 x 15048 pixels in \d+ bytes"):
        picture.decode_frames(bytes(made), Path("a"))


def test_what_pillow_shows_of_the_file_is_what_was_written() -> None:
    frames = picture.decode_frames(samples.animation("GIF"), Path("a"))
    with Image.open(io.BytesIO(picture.encode_frames(frames, ".png"))) as image:
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    for found, frame in zip(shown, frames, strict=True):
        np.testing.assert_array_equal(found, frame.levels)
