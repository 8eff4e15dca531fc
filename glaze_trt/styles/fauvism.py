"""Fauvism: flat, broad strokes of colour from the tube, hues set against their opposites, canvas left bare (Derain).

Hue is free and lightness is not, which is what keeps a Fauve picture legible (Livingstone, "Vision and Art", 2002):
each stroke takes the tube, with or without white, that is nearest in lightness to its place and to a hue pushed away
from its surroundings (simultaneous contrast, Chevreul 1839); shadows are pushed to blue and green, lights to the warm.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab

from glaze_trt.styles import brush, flow
from glaze_trt.styles.orientation import along_edges, luma
from glaze_trt.styles.scale import clouds, ramp, resized, soften, unit, working

Array = NDArray[np.float32]

_TUBES = np.array(
    [
        (0.84, 0.07, 0.10),  # cadmium red
        (0.95, 0.30, 0.08),  # vermilion
        (0.98, 0.55, 0.05),  # cadmium orange
        (0.99, 0.82, 0.08),  # cadmium yellow
        (0.72, 0.80, 0.12),  # yellow green
        (0.10, 0.62, 0.26),  # emerald green
        (0.02, 0.42, 0.33),  # viridian
        (0.08, 0.60, 0.66),  # turquoise
        (0.10, 0.40, 0.78),  # cerulean blue
        (0.10, 0.17, 0.58),  # ultramarine
        (0.36, 0.16, 0.56),  # violet
        (0.80, 0.15, 0.48),  # rose madder
        (0.06, 0.07, 0.24),  # Prussian blue
        (0.40, 0.05, 0.14),  # alizarin
    ],
    dtype=np.float32,
)
_WHITES = (0.0, 0.3, 0.55, 0.78)
_CANVAS = np.array([0.93, 0.905, 0.84], dtype=np.float32)
_LINE = np.array([0.07, 0.09, 0.30], dtype=np.float32)


def fauvism(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    shape, size = rgb.shape[:2], unit(rgb.shape)
    small, scale = working(rgb)
    angle, sure = along_edges(small, detail=1.6 * scale, reach=6 * scale)
    usual = rng.uniform(-0.6, 0.6) + 0.5 * clouds(angle.shape, 90 * scale, rng, octaves=1)
    cos = sure**2 * np.cos(2 * angle) + 0.15 * np.cos(2 * usual)
    sin = sure**2 * np.sin(2 * angle) + 0.15 * np.sin(2 * usual)
    angle = np.asarray(0.5 * np.arctan2(sin, cos), dtype=np.float32)
    wanted = _wanted(small, scale, rng)
    paints = np.concatenate([_TUBES + np.float32(white) * (1 - _TUBES) for white in _WHITES])
    detail = soften(np.abs(luma(small) - soften(luma(small), 4 * scale)), 3 * scale)

    sizes = [(40 * size, 14 * size), (25 * size, 8.5 * size), (14 * size, 4.6 * size)]
    brushes = [brush.make(*each, rng) for each in sizes]
    canvas = brush.Canvas(_canvas(shape, size, rng), brushes[0].half)
    for layer, (tool, (long, wide)) in enumerate(zip(brushes, sizes, strict=True)):
        rows, columns = _places(shape, (0.62, 0.62, 0.6)[layer] * np.sqrt(long * wide), rng)
        at = rows * small.shape[0] // shape[0], columns * small.shape[1] // shape[1]
        if layer:
            keep = detail[at] > (0.016, 0.034)[layer - 1]
            rows, columns, at = rows[keep], columns[keep], (at[0][keep], at[1][keep])
        colours = _chosen(soften(wanted, 0.25 * wide * scale / size)[at], paints, rng)
        canvas.paint(tool, rows, columns, angle[at] + rng.normal(0, 0.08, len(rows)).astype(np.float32), colours)
    painted = canvas.lit(depth=0.28)
    drawn = _drawing(small, angle, scale, shape) * ramp(clouds(shape, 22 * size, rng), -0.9, -0.1)
    return np.asarray(np.clip(painted + 0.9 * drawn[..., None] * (_LINE - painted), 0, 1), dtype=np.float32)


def _wanted(rgb: Array, scale: float, rng: np.random.Generator) -> Array:
    """The Lab colour that each place of (H, W, 3) wants: its lightness, and its hue pushed from its surroundings."""
    levels = np.rint(255 * rgb).astype(np.uint8)
    flat = cv2.edgePreservingFilter(levels, flags=cv2.RECURS_FILTER, sigma_s=max(1.0, 20 * scale), sigma_r=0.3)
    lab = rgb2lab(flat.astype(np.float32) / np.float32(255)).astype(np.float32)
    light = lab[..., 0]
    low, high = np.quantile(light[::2, ::2], [0.02, 0.98])
    if high - low > 10:
        light = 20 + 74 * np.clip((light - low) / (high - low), 0, 1) * 0.7 + 0.3 * (light - 20)
    colour = lab[..., 1:]
    away = colour - soften(colour, 45 * scale)
    warm = (light - soften(light, 60 * scale)) / 30
    push = np.clip(warm, -1, 1)[..., None] * np.array([16, 26], dtype=np.float32)
    swing = 14 * np.stack([clouds(light.shape, 70 * scale, rng) for _ in range(2)], axis=2)
    colour = 1.1 * colour + 1.5 * away + push + swing
    strength = np.linalg.norm(colour, axis=2, keepdims=True)
    colour = colour * ((45 + 0.5 * strength) / (strength + 6))
    return np.concatenate([light[..., None], colour], axis=2).astype(np.float32)


def _chosen(wanted: Array, paints: Array, rng: np.random.Generator) -> Array:
    """The paint nearest to each wanted Lab colour, (N, 3): lightness binds, hue is loose."""
    offered = rgb2lab(paints[None])[0].astype(np.float32)
    wanted = wanted + rng.normal(0, (3, 13, 13), wanted.shape).astype(np.float32)
    metric = np.array([1.5, 0.62, 0.62], dtype=np.float32)
    wanted, offered = wanted * metric, offered * metric
    apart = (offered**2).sum(axis=1) - 2 * wanted @ offered.T
    colour = paints[np.argmin(apart, axis=1)]
    mixed = colour * (1 + 0.05 * rng.standard_normal((len(colour), 1)))
    return np.asarray(np.clip(mixed, 0, 1), dtype=np.float32)


def _places(shape: tuple[int, int], step: float, rng: np.random.Generator) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """One stroke a cell, somewhere in it, in random order."""
    rows, columns = (axis.ravel() for axis in np.mgrid[0 : shape[0] : step, 0 : shape[1] : step])
    order = rng.permutation(len(rows))
    rows, columns = (axis[order] + rng.uniform(0, step, len(rows)) for axis in (rows, columns))
    return np.minimum(rows.astype(np.intp), shape[0] - 1), np.minimum(columns.astype(np.intp), shape[1] - 1)


def _canvas(shape: tuple[int, int], size: float, rng: np.random.Generator) -> Array:
    """Primed canvas with its weave, (H, W, 3)."""
    y, x = (axis.astype(np.float32) for axis in np.indices(shape, sparse=True))
    period = 2 * np.pi / max(2.6 * size, 2.2)
    weave = np.sin(period * x) * np.sin(period * y) * (1 + 0.4 * clouds(shape, 20 * size, rng))
    return np.asarray(_CANVAS * (1 + 0.022 * weave + 0.012 * clouds(shape, 3 * size, rng))[..., None], dtype=np.float32)


def _drawing(small: Array, angle: Array, scale: float, shape: tuple[int, int]) -> Array:
    """Outlines in thin blue, (H, W) in [0, 1]."""
    ridge = flow.ridges(luma(small), flow.Flow(angle), 1.7 * scale)
    return flow.inked(resized(ridge, shape), -0.012, 60)
