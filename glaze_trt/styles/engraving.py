"""Engraving: swelling lines along the form, crossed in the darks, black ink on cream laid paper (Goltzius, Mellan).

The line screen is grown like a fingerprint: a grating is filtered again and again along the structure tensor's
direction and to its own period across it until it follows the form, forking where it must (Cappelli, Maio and
Maltoni's ridge synthesis, 2000). A line is as wide as the tone is dark, after Ostromoukhov, "Digital facial engraving"
(SIGGRAPH 1999); a second set crosses the first in the darks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glaze_trt.styles import flow, paper, tone
from glaze_trt.styles.orientation import along_edges, luma
from glaze_trt.styles.scale import clouds, ramp, resized, soften, unit, working

Array = NDArray[np.float32]

_INK = np.array([0.10, 0.085, 0.08], dtype=np.float32)
_SHEET = np.array([0.955, 0.915, 0.82], dtype=np.float32)
_RULING = np.deg2rad(14)  # the way lines run where the picture gives none
_CROSSING = np.deg2rad(62)
_ROUNDS = 8  # of filtering; the lines are settled after six


def engraving(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    shape, size = rgb.shape[:2], unit(rgb.shape, least=0.75)
    small, scale = working(rgb)
    scale = max(scale, 0.75)
    period = 5.4 * scale
    angle = _form(small, scale)
    dark = _darkness(rgb, size)
    first = resized(_screen(angle, _RULING, period, rng), shape)
    second = resized(_screen(angle + np.float32(_CROSSING), _RULING + _CROSSING, 1.05 * period, rng), shape)

    period *= size / scale
    flicks = 0.10 * clouds(shape, 7 * size, rng, octaves=2) * (1 - ramp(dark, 0.15, 0.45))  # lines break in the lights
    wide = np.clip(0.95 * dark - 0.015 + flicks * ramp(dark, 0.02, 0.12), 0, 0.46) + 0.40 * ramp(dark, 0.7, 1.0)
    cross = np.clip((dark - wide) / (1 - wide) + 0.10, 0, 0.55) * ramp(dark, 0.42, 0.56)
    ink = 1 - (1 - _cut(first, wide, period)) * (1 - _cut(second, cross, period))
    ink = np.maximum(ink, _contours(small, scale, shape))
    return _printed(ink, size, rng)


def _form(rgb: Array, scale: float) -> Array:
    """The direction of the lines, (H, W): round the form where there is one, else ruled."""
    angle, sure = along_edges(rgb, detail=2.2 * scale, reach=7 * scale)
    grey = soften(luma(rgb), 1.5 * scale)
    relief = soften(np.abs(grey - soften(grey, 6 * scale)), 7 * scale)
    weight = sure * (0.15 + 0.85 * ramp(relief, 0.006, 0.030))  # a canvas's own texture is no form
    cos = soften(weight * np.cos(2 * angle), 5 * scale) + 0.16 * np.float32(np.cos(2 * _RULING))
    sin = soften(weight * np.sin(2 * angle), 5 * scale) + 0.16 * np.float32(np.sin(2 * _RULING))
    return np.asarray(0.5 * np.arctan2(sin, cos), dtype=np.float32)


def _darkness(rgb: Array, size: float) -> Array:
    """How much ink a place wants, (H, W) in [0, 1], with the small forms made clearer."""
    dark = soften(tone.spread(luma(rgb), middle=0.42), 0.7 * size)
    dark = dark + 0.9 * (dark - soften(dark, 6 * size)) + 0.3 * (dark - soften(dark, 30 * size))
    return np.asarray(np.clip(dark, 0, 1), dtype=np.float32)


def _screen(angle: Array, ruling: float, period: float, rng: np.random.Generator) -> Array:
    """Distance from the middle of the nearest line, (H, W): 0 on it, 1 halfway to the next."""
    height, width = angle.shape
    field = flow.Flow(angle)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wander = 0.35 * clouds(angle.shape, 60, rng, octaves=1)
    wave = np.cos(2 * np.pi / period * (y * np.cos(ruling) - x * np.sin(ruling)) + wander).astype(np.float32)
    wave += 0.15 * rng.standard_normal(wave.shape, dtype=np.float32)
    for _ in range(_ROUNDS):
        wave = field.smoothed(wave, 1.4, 1)
        wave = 0.5 * wave - 0.25 * (field.across(wave, period / 2) + field.across(wave, -period / 2))
        wave /= 1.5 * np.sqrt(soften(wave * wave, period)) + np.float32(1e-4)
    quarter = 0.5 * (field.across(wave, period / 4) - field.across(wave, -period / 4))
    return np.asarray(np.arctan2(np.abs(quarter), wave) / np.pi, dtype=np.float32)


def _cut(screen: Array, width: Array, period: float) -> Array:
    """Lines that cover `width` of the screen, (H, W), with edges one pixel soft."""
    return np.asarray(np.clip((width - screen) * period / 2 + 0.5, 0, 1) * (width > 0.02), dtype=np.float32)


def _contours(small: Array, scale: float, shape: tuple[int, int]) -> Array:
    angle, _ = along_edges(small, detail=1.0 * scale, reach=2.5 * scale)
    ridge = flow.ridges(luma(small), flow.Flow(angle), 1.0 * scale)
    return 0.9 * flow.inked(resized(ridge, shape), -0.016, 60)


def _printed(ink: Array, size: float, rng: np.random.Generator) -> Array:
    """Ink on the sheet, (H, W, 3)."""
    shape = ink.shape
    sheet = _SHEET * (1 + 0.016 * paper.laid(shape, size, rng)[..., None])
    pressed = ink * (1 - 0.10 * np.clip(clouds(shape, 2.0, rng, octaves=1), 0, 2))
    return np.asarray(np.clip(sheet + pressed[..., None] * (_INK - sheet), 0, 1), dtype=np.float32)
