"""A picture's own colours and sRGB: there for the encoder, and a change of sRGB levels back into the picture's own.

    Curves    grey and RGB made of curves and a matrix: sRGB in 16 bits, Display P3, Adobe RGB, ProPhoto, Dot Gain
    Tables    profiles made of tables, mostly of printing: by Little CMS in 8 bits, relative colorimetric with black
              point compensation
    Inks      CMYK without a profile, as Pillow reads it

A change is added, never a colour replaced: a pixel whose levels stay keeps its values to the bit, and a colour that
sRGB cannot show stays outside sRGB. Work goes over a picture by bands of rows, so memory is bounded.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from glaze_trt.pictures import icc as profiles

Levels = NDArray[np.uint8]
Values = NDArray[Any]
"""(H, W, C) uint8 or uint16."""

Floats = NDArray[np.float32]

_BAND = 1 << 18
"""Pixels worked on at once."""

_FINE = 1 << 18
"""Entries of a table that is read backwards: more than 16 bits."""

_ROUNDS = 16
"""In which a value is brought back toward the original, a quarter of the way each."""


class Space(Protocol):
    """One kind of colour."""

    def levels(self, values: Values) -> Levels:
        """Values (H, W, C) in sRGB, (H, W, 3) uint8."""

    def moved(self, values: Values, before: Levels, after: Levels) -> Values:
        """Values changed as sRGB levels change from `before` to `after`, and nowhere further than somewhere there."""


@dataclass(frozen=True)
class Curves:
    """Grey or RGB by curves and a matrix.

    Attributes:
        channels: 1 or 3.
        profile: an ICC profile, or None for sRGB's curve and primaries.
    """

    channels: int
    profile: bytes | None = None

    def levels(self, values: Values) -> Levels:
        """See `Space`."""
        made = np.empty((*values.shape[:2], 3), np.uint8)
        for rows in _bands(values):
            made[rows] = _rounded(self._forth(values[rows].reshape(-1, self.channels))).reshape(made[rows].shape)
        return made

    def moved(self, values: Values, before: Levels, after: Levels) -> Values:
        """See `Space`; grey moves by the mean of the three channels."""
        return _moved(values, before, after, self._moved, self.levels)

    def _moved(self, values: Values, before: Levels, after: Levels) -> Values:
        change = after.astype(np.float32) - before
        return _fitting(self._back(self._forth(values) + change), values.dtype)

    def _forth(self, values: Values) -> Floats:
        """(N, C) to sRGB in levels, unrounded and unclipped, (N, 3)."""
        top = np.iinfo(values.dtype).max
        if self.profile is None:
            return np.broadcast_to(values * np.float32(255 / top), (len(values), 3))
        numbers = _numbers(self.profile)
        wide = values.astype(np.uint16) * np.uint16((profiles.POINTS - 1) // top)
        light = np.stack([curve.take(wide[:, number]) for number, curve in enumerate(numbers.curves)], axis=1)
        if numbers.matrix is not None:
            light = cv2.transform(light[None], numbers.matrix)[0]
        return np.broadcast_to(255 * _encoded(light), (len(values), 3))

    def _back(self, levels: Floats) -> Floats:
        """The inverse of `_forth`, values in [0, 1], (N, C)."""
        scaled = levels / np.float32(255)
        if self.channels == 1:
            scaled = scaled.mean(axis=1, keepdims=True)
        if self.profile is None:
            return np.asarray(scaled)
        numbers = _numbers(self.profile)
        if numbers.matrix is not None:
            light = cv2.transform(_linear(scaled)[None], np.linalg.inv(numbers.matrix))[0]
            scaled = _encoded(np.clip(light, 0, 1))
        where = np.rint(np.clip(scaled, 0, 1) * (_FINE - 1)).astype(np.int32)
        return np.stack([back.take(where[:, number]) for number, back in enumerate(numbers.backward)], axis=1)


@dataclass(frozen=True)
class Tables:
    """RGB or CMYK by a profile's tables."""

    mode: str
    profile: bytes

    def levels(self, values: Values) -> Levels:
        """See `Space`."""
        made = np.empty((*values.shape[:2], 3), np.uint8)
        for rows in _bands(values):
            made[rows] = _applied(_transforms(self.profile, self.mode)[0], _in_8_bits(values[rows]), self.mode, "RGB")
        return made

    def moved(self, values: Values, before: Levels, after: Levels) -> Values:
        """See `Space`; close to the change and not exact, as tables have few entries."""
        return _moved(values, before, after, self._moved, self.levels)

    def _moved(self, values: Values, before: Levels, after: Levels) -> Values:
        back = _transforms(self.profile, self.mode)[1]
        wanted = _applied(back, after[None], "RGB", self.mode)[0].astype(int)
        first = found = _in_8_bits(values).astype(int)
        for _ in range(2):
            seen = self.levels(found[None].astype(np.uint8))
            found = np.clip(found + wanted - _applied(back, seen, "RGB", self.mode)[0], 0, 255)
        top = np.iinfo(values.dtype).max
        return np.asarray(np.clip(values + (found - first) * (top // 255), 0, top).astype(values.dtype))


@dataclass(frozen=True)
class Inks:
    """CMYK without a profile: light is what the inks leave of it, black stays unless it is in the way."""

    def levels(self, values: Values) -> Levels:
        """See `Space`."""
        made = np.empty((*values.shape[:2], 3), np.uint8)
        for rows in _bands(values):
            made[rows] = np.asarray(_image(_in_8_bits(values[rows]), "CMYK").convert("RGB"))
        return made

    def moved(self, values: Values, before: Levels, after: Levels) -> Values:
        """See `Space`."""
        return _moved(values, before, after, self._moved, self.levels)

    @staticmethod
    def _moved(values: Values, before: Levels, after: Levels) -> Values:
        white = np.maximum(255 * (1 - values[:, 3:] / np.iinfo(values.dtype).max), after.max(axis=1, keepdims=True))
        inks = 1 - after / np.maximum(white, 1)
        return _fitting(np.concatenate([inks, 1 - white / 255], axis=1), values.dtype)


def space_of(icc: bytes | None, values: Values) -> Space | None:
    """The space of values (H, W, C); None where they are 8-bit sRGB already.

    Raises:
        ValueError: the profile is damaged, of another kind of colour, or leads one way only.
    """
    channels = values.shape[2]
    if icc is None:
        if channels == 4:
            return Inks()
        return None if channels == 3 and values.dtype == np.uint8 else Curves(channels)
    found = profiles.parse(icc)
    if found.channels != channels:
        raise ValueError("its colour profile is for another kind of colours")
    if found.curves is None:
        mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
        if channels == 1:
            raise ValueError("its grey colour profile has tables")
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            _transforms(icc, mode)
            return Tables(mode, icc)
        raise ValueError("its colour profile cannot be used both ways")
    space = Curves(channels, icc)
    if channels == 3 and _is_srgb(space):
        return None if values.dtype == np.uint8 else Curves(channels)
    return space


def _is_srgb(space: Curves) -> bool:
    """Whether a profile means sRGB, to a level."""
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    return bool(np.abs(space.levels(grid).astype(int) - grid).max() <= 1)


@dataclass(frozen=True)
class _Numbers:
    """A profile as tables.

    Attributes:
        curves: value to linear light, (C, 65536).
        matrix: linear light to linear sRGB, (3, 3); None for grey.
        backward: sRGB's encoding of linear light, which spaces it as eyes do, to value, (C, `_FINE`).
    """

    curves: Floats
    matrix: NDArray[np.float64] | None
    backward: Floats


@functools.lru_cache(maxsize=4)
def _numbers(profile: bytes) -> _Numbers:
    found, srgb = profiles.parse(profile), profiles.parse(_srgb_profile().tobytes())
    if found.curves is None or srgb.matrix is None:
        raise ValueError("a profile of tables has no curves")
    light, grid = _linear(np.linspace(0, 1, _FINE, dtype=np.float32)[:, None])[:, 0], np.linspace(0, 1, profiles.POINTS)
    return _Numbers(
        found.curves.astype(np.float32),
        None if found.matrix is None else np.linalg.inv(srgb.matrix) @ found.matrix,
        np.stack([np.interp(light, curve, grid) for curve in found.curves]).astype(np.float32),
    )


def _srgb_profile() -> Any:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.lru_cache(maxsize=4)
def _transforms(profile: bytes, mode: str) -> tuple[Any, Any]:
    """To sRGB and back."""
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), _srgb_profile()
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return (
        ImageCms.buildTransform(own, srgb, mode, "RGB", intent, flags),
        ImageCms.buildTransform(srgb, own, "RGB", mode, intent, flags),
    )


def _applied(transform: Any, values: Values, mode: str, to: str) -> Values:
    """(H, W, C) uint8 to the same in another mode."""
    image = ImageCms.applyTransform(_image(values, mode), transform)
    if image is None or image.mode != to:
        raise ValueError("the colour transform made nothing")
    return np.asarray(image)


def _image(values: Values, mode: str) -> Image.Image:
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), np.ascontiguousarray(values).tobytes())


def _in_8_bits(values: Values) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return np.asarray(values)
    return np.asarray((values.astype(np.uint32) + 128) // 257, np.uint8)


def _encoded(light: Floats) -> Floats:
    """Linear light to sRGB (IEC 61966-2-1), negative light as its mirror image; (N, C)."""
    size = np.abs(light)
    bent = cv2.pow(size, 1 / 2.4) * np.float32(1.055) - np.float32(0.055)
    return np.copysign(np.where(size <= 0.0031308, size * np.float32(12.92), bent.reshape(size.shape)), light)


def _linear(encoded: Floats) -> Floats:
    """The inverse of `_encoded`."""
    size = np.abs(encoded)
    bent = cv2.pow((size + np.float32(0.055)) / np.float32(1.055), 2.4)
    return np.copysign(np.where(size <= 0.04045, size / np.float32(12.92), bent.reshape(size.shape)), encoded)


def _rounded(levels: Floats) -> Levels:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _fitting(parts: NDArray[Any], dtype: np.dtype[Any]) -> Values:
    """Values in [0, 1] to the nearest of a type."""
    top = np.iinfo(dtype).max
    return np.asarray(np.clip(np.rint(parts * top), 0, top).astype(dtype))


def _bands(values: Values) -> Iterator[slice]:
    rows = max(1, _BAND // values.shape[1])
    for first in range(0, values.shape[0], rows):
        yield slice(first, first + rows)


def _moved(
    values: Values,
    before: Levels,
    after: Levels,
    move: Callable[[Values, Levels, Levels], Values],
    levels: Callable[[Values], Levels],
) -> Values:
    """Values with `move` done to the pixels that change, and held within the largest change asked for."""
    bound = max((_furthest(after[rows], before[rows]) for rows in _bands(values)), default=0)
    made = values.copy()
    for rows in _bands(values):
        first, start = values[rows].reshape(-1, values.shape[2]), before[rows].reshape(-1, 3)
        wanted = after[rows].reshape(-1, 3)
        changed = _apart(wanted, start) > 0
        if not changed.any():
            continue
        found = np.where(changed[:, None], move(first, start, wanted), first)
        far = np.flatnonzero(_apart(levels(found[None])[0], start) > bound)
        for last in range(_ROUNDS + 1):
            if not far.size:
                break
            rest = found[far].astype(int) - first[far]
            kept = np.trunc(rest * 0.75).astype(int) if last < _ROUNDS else 0
            found[far] = (first[far] + kept).astype(values.dtype)
            far = far[_apart(levels(found[far][None])[0], start[far]) > bound]
        made[rows] = found.reshape(made[rows].shape)
    return made


def _apart(first: Levels, other: Levels) -> NDArray[np.int16]:
    """The largest difference of each pixel's channels, (N, 3) to (N,)."""
    away = np.abs(first.astype(np.int16) - other)
    return np.asarray(np.maximum(np.maximum(away[:, 0], away[:, 1]), away[:, 2]))


def _furthest(first: Levels, other: Levels) -> int:
    return int(np.abs(first.astype(np.int16) - other).max())
