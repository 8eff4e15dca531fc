from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from bench import formats_profiles as profiles
from bench import formats_samples as samples
from glaze_trt.pictures import icc, picture
from glaze_trt.pictures.colour import Curves, Inks, Space, Tables, space_of

RNG = np.random.default_rng(3)
WIDE = {"Display P3": profiles.DISPLAY_P3, "Adobe RGB": profiles.ADOBE_RGB, "ProPhoto": profiles.PROPHOTO}


def by_little_cms(values: np.ndarray, profile: bytes, mode: str) -> np.ndarray:
    image = Image.frombytes(mode, (values.shape[1], values.shape[0]), values.tobytes())
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    shown = ImageCms.profileToProfile(image, own, srgb, ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB")
    return np.asarray(shown)


@pytest.mark.parametrize("name", WIDE)
def test_wide_colours_are_what_little_cms_makes_of_them(name: str) -> None:
    values = RNG.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    space = space_of(WIDE[name], values)
    assert isinstance(space, Curves)
    wanted = by_little_cms(values, WIDE[name], "RGB")
    assert np.abs(space.levels(values).astype(int) - wanted).max() <= 1
    deep = space.levels(values.astype(np.uint16) * 257)
    assert np.abs(deep.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("profile", [profiles.GREY_22, profiles.grey(profiles.SRGB_CURVE)])
def test_grey_profiles_are_what_little_cms_makes_of_them(profile: bytes) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    space = space_of(profile, values)
    assert space is not None
    wanted = by_little_cms(values, profile, "L")
    assert np.abs(space.levels(values).astype(int) - wanted).max() <= 1


def changed_below(space: Space, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sRGB levels before a change of up to 12 from row 20 on, as asked for, and as they came back."""
    before = space.levels(values)
    after = np.clip(before + RNG.integers(-12, 13, before.shape), 0, 255).astype(np.uint8)
    after[:20] = before[:20]
    moved = space.moved(values, before, after)
    np.testing.assert_array_equal(moved[:20], values[:20])
    seen = space.levels(moved).astype(int)
    assert np.abs(seen - before).max() <= 12
    return before, after, seen


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", WIDE)
def test_a_change_goes_back_within_the_largest_that_was_asked_for(name: str, bits: int) -> None:
    top = 2**bits - 1
    values = RNG.integers(0, top + 1, (40, 40, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    space = space_of(WIDE[name], values)
    assert space is not None
    before, after, seen = changed_below(space, values)
    shown = ((before[20:] > 12) & (before[20:] < 243)).all(axis=2)  # by sRGB at all
    error = np.abs(seen - after)[20:][shown]
    assert error.mean() < (0.8 if bits == 8 else 0.05)


def test_a_change_within_srgb_is_exact_in_sixteen_bits() -> None:
    values = RNG.integers(0, 65536, (32, 32, 3)).astype(np.uint16)
    space = space_of(None, values)
    assert space is not None
    before = space.levels(values)
    after = np.clip(before + RNG.integers(-20, 21, before.shape), 0, 255).astype(np.uint8)
    moved = space.moved(values, before, after)
    np.testing.assert_array_equal(space.levels(moved), after)
    inside = (moved > 0) & (moved < 65535)
    change = (after.astype(int) - before) * 257
    np.testing.assert_allclose((moved.astype(int) - values)[inside], change[inside], atol=1)


def test_grey_moves_by_the_mean() -> None:
    values = np.full((1, 4, 1), 100, np.uint8)
    space = space_of(None, values)
    assert space is not None
    before = space.levels(values)
    after = before + np.array([[[9, 0, 0], [3, 3, 3], [0, 0, 0], [9, 9, 0]]], np.uint8)
    np.testing.assert_array_equal(space.moved(values, before, after)[0, :, 0], [103, 103, 100, 106])


@pytest.mark.parametrize("profile", [None, profiles.INKS])
def test_inks_follow_a_change_and_stay_where_there_is_none(profile: bytes | None) -> None:
    values = RNG.integers(0, 180, (40, 40, 4)).astype(np.uint8)
    space = space_of(profile, values)
    assert isinstance(space, Inks if profile is None else Tables)
    before, after, seen = changed_below(space, values)
    asked, got = (after.astype(float) - before)[20:].ravel(), (seen - before)[20:].ravel()
    assert np.corrcoef(asked, got)[0, 1] > 0.95


def test_a_profile_that_means_srgb_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    read = picture.decode(samples.saved(Image.fromarray(samples.levels()), "PNG", icc_profile=srgb), Path("a"))
    assert read.own is None
    assert read.icc == srgb
    np.testing.assert_array_equal(read.levels, samples.levels())


@pytest.mark.parametrize("damage", [slice(0, 100), slice(200, 500), slice(36, 40)])
def test_a_damaged_profile_is_left_out_and_told_of(damage: slice) -> None:
    broken = bytearray(profiles.DISPLAY_P3)
    broken[damage] = b"\xff" * len(broken[damage])
    read = picture.decode(samples.saved(Image.fromarray(samples.levels()), "PNG", icc_profile=bytes(broken)), Path("a"))
    np.testing.assert_array_equal(read.levels, samples.levels())
    assert read.icc is None
    assert "profile was left out" in read.notes[-1]


def test_a_profile_of_other_colours_is_left_out_and_told_of() -> None:
    data = samples.saved(Image.fromarray(samples.levels()), "TIFF", icc_profile=profiles.INKS)
    read = picture.decode(data, Path("a"))
    assert read.icc is None
    assert "another kind of colours" in read.notes[-1]


@pytest.mark.parametrize(
    ("numbers", "light"),
    [
        ((0, 2.2), lambda x: x**2.2),
        ((1, 2.0, 1.0, -0.2), lambda x: np.maximum(x - 0.2, 0) ** 2),
        ((2, 2.0, 0.8, -0.2, 0.1), lambda x: np.maximum(0.8 * x - 0.2, 0) ** 2 + 0.1),
        ((3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045),
         lambda x: np.where(x >= 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)),
        ((4, 2.0, 0.9, 0.0, 0.1, 0.2, 0.02, 0.01), lambda x: np.where(x >= 0.2, (0.9 * x) ** 2 + 0.02, 0.1 * x + 0.01)),
    ],
)  # fmt: skip
def test_parametric_curves_are_read_as_the_standard_says(numbers, light) -> None:
    kind, *parameters = numbers
    fixed = [round(number * 65536) for number in parameters]
    curve = b"para\0\0\0\0" + struct.pack(f">HH{len(fixed)}i", kind, 0, *fixed)
    found = icc.parse(profiles.grey(curve)).curves
    assert found is not None
    np.testing.assert_allclose(found[0], light(np.linspace(0, 1, icc.POINTS)), atol=1e-4)


def test_gamma_in_a_png_stays_where_no_profile_says_more() -> None:
    data = samples.png(samples.levels(), (b"gAMA", (100_000).to_bytes(4, "big")))
    again = picture.encode(picture.decode(data, Path("a")), ".png")
    assert b"gAMA" + (100_000).to_bytes(4, "big") in again
