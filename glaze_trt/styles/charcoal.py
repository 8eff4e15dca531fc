"""Charcoal: strokes along the form, rubbed tone and lost edges, broken by the tooth of the paper (Redon, Seurat).

Strokes are traced along the structure tensor's direction (Salisbury et al., "Orientable textures for image-based
pen-and-ink illustration", SIGGRAPH 1997) and pressed into a paper whose height decides what takes charcoal, after
Sousa and Buchanan, "Observational model of graphite pencil materials" (2000); edges are XDoG lines.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from glaze_trt.styles import flow, paper, tone
from glaze_trt.styles.orientation import along_edges, luma
from glaze_trt.styles.scale import clouds, ramp, resized, soften, unit, working

Array = NDArray[np.float32]

_COAL = np.array([0.115, 0.11, 0.115], dtype=np.float32)
_SHEET = np.array([0.905, 0.875, 0.82], dtype=np.float32)
_SLANT = np.deg2rad(-52)  # the way a right hand hatches
_POINTS = 7


def charcoal(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    shape, size = rgb.shape[:2], unit(rgb.shape)
    small, scale = working(rgb)
    dark = _darkness(rgb, size)
    angle = _form(small, scale, shape)
    tooth = paper.tooth(shape, 1.7 * max(size, 0.7), rng)

    hatching = np.maximum(
        _strokes(dark, angle, 64 * size, 3.2 * size, 9.5 * size, rng),
        _strokes(ramp(dark, 0.25, 0.95), angle, 34 * size, 2.2 * size, 6.5 * size, rng),
    )
    hatching = np.minimum(hatching, 1.3 * dark + 0.05)  # the hand stops at an edge
    drawn = np.maximum(hatching, _contours(small, scale, shape, size, rng))
    blocked = 0.94 * ramp(dark, 0.52, 1.0)  # the darks are laid in with the side of the stick
    rubbed = _rubbed(dark, size, rng)
    deposit = 1.0 - (1 - 0.42 * rubbed) * (1 - 0.88 * _taken(drawn, tooth)) * (1 - 0.8 * _taken(blocked, tooth))
    sheet = _SHEET * paper.lit(tooth, 0.03)[..., None] * (1 + 0.012 * clouds(shape, 40 * size, rng)[..., None])
    return np.asarray(np.clip(sheet + deposit[..., None] * (_COAL - sheet), 0, 1), dtype=np.float32)


def _taken(pressure: Array, tooth: Array) -> Array:
    """What the sheet takes of a pressure, (H, W): the bumps first, the hollows only when pressed hard."""
    return np.asarray(pressure * ramp(1.15 * pressure - 0.72 * tooth, -0.34, 0.44), dtype=np.float32)


def _darkness(rgb: Array, size: float) -> Array:
    """How dark a place is drawn, (H, W) in [0, 1]: a strong, simple range from paper to black."""
    dark = tone.spread(luma(rgb), middle=0.40)
    near, far = soften(dark, 6 * size), soften(dark, 30 * size)
    dark = dark + 0.7 * (dark - near) + 0.25 * (dark - far)
    return ramp(soften(np.asarray(dark, dtype=np.float32), 0.5 * size), 0.0, 1.0)


def _form(rgb: Array, scale: float, shape: tuple[int, int]) -> Array:
    """The direction of the strokes, (H, W): along strong forms, else the hand's own slant."""
    angle, sure = along_edges(rgb, detail=2 * scale, reach=5 * scale)
    cos = soften(sure**2 * np.cos(2 * angle), 3 * scale) + 0.16 * np.float32(np.cos(2 * _SLANT))
    sin = soften(sure**2 * np.sin(2 * angle), 3 * scale) + 0.16 * np.float32(np.sin(2 * _SLANT))
    return np.asarray(0.5 * np.arctan2(resized(sin, shape), resized(cos, shape)), dtype=np.float32)


def _rubbed(dark: Array, size: float, rng: np.random.Generator) -> Array:
    """Charcoal worked into the sheet with a finger, (H, W): soft, cloudy, and past the edges."""
    near, far = soften(dark, 2.5 * size), soften(dark, 11 * size)
    cloudy = 1 + 0.13 * clouds(dark.shape, 34 * size, rng)
    return np.asarray(np.clip((0.65 * near + 0.35 * far) * cloudy, 0, 1), dtype=np.float32)


def _strokes(dark: Array, angle: Array, length: float, width: float, step: float, rng: np.random.Generator) -> Array:
    """Pressure of strokes, (H, W) in [0, 1]: one from about every `step` pixels, light ones under dark ones."""
    height, across = dark.shape
    count = int(height * across / (step * step)) + 1
    place = rng.uniform(0, 1, (count, 2)).astype(np.float32) * (height, across)
    centre = place.astype(int)
    level = dark[centre[:, 0], centre[:, 1]] * rng.uniform(0.7, 1.15, count)
    kept = level > 0.09
    place, level = place[kept], level[kept]
    long = length * rng.uniform(0.5, 1.25, len(place))
    path = np.empty((len(place), _POINTS, 2), dtype=np.float32)
    heading = np.zeros((len(place), 2))
    path[:, 0] = place
    for index in range(1, _POINTS):
        rows = np.clip(path[:, index - 1, 0], 0, height - 1).astype(int)
        columns = np.clip(path[:, index - 1, 1], 0, across - 1).astype(int)
        turn = angle[rows, columns]
        way = np.stack([np.sin(turn), np.cos(turn)], axis=1)
        way *= np.where((way * heading).sum(axis=1) < 0, -1, 1)[:, None]
        heading = way
        path[:, index] = path[:, index - 1] + way * (long / (_POINTS - 1))[:, None]
    path += place[:, None] - path[:, _POINTS // 2 : _POINTS // 2 + 1]  # about its own centre
    order = np.argsort(level)
    points = np.rint(path[order][..., ::-1] * 8).astype(np.int32)
    forces = np.rint(255 * np.clip(level[order], 0, 1)).astype(int).tolist()
    widths = np.maximum(1, np.rint(width * rng.uniform(0.6, 1.3, len(points)))).astype(int).tolist()
    sheet = np.zeros((height, across), dtype=np.uint8)
    for line, force, wide in zip(points, forces, widths, strict=True):
        cv2.polylines(sheet, [line], False, force, wide, cv2.LINE_AA, 3)
    return soften(sheet.astype(np.float32) / np.float32(255), 0.2 * width)


def _contours(small: Array, scale: float, shape: tuple[int, int], size: float, rng: np.random.Generator) -> Array:
    """Drawn edges, (H, W): firm here, lost there."""
    angle, _ = along_edges(small, detail=1.2 * scale, reach=3 * scale)
    ridge = flow.ridges(luma(small), flow.Flow(angle), 1.4 * scale)
    found = ramp(clouds(shape, 60 * size, rng, octaves=2), -1.6, 0.2)
    return np.asarray(flow.inked(resized(ridge, shape), -0.010, 45) * (0.45 + 0.55 * found), dtype=np.float32)
