"""Watercolour: transparent washes with dried edges, granulation, wet bleeding and backruns on white paper (Turner).

Pigment is a density over paper and washes are glazed, after Curtis et al., "Computer-generated watercolor" (SIGGRAPH
1997); edge darkening, turbulence and paper act on the density as in Bousseau et al., "Interactive watercolor rendering
with temporal coherence and abstraction" (NPAR 2006); wet edges and gaps between washes after Montesdeoca et al. (2017).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from glaze_trt.styles import flow, paper
from glaze_trt.styles.orientation import along_edges, luma
from glaze_trt.styles.scale import clouds, ramp, resized, soften, unit, working

Array = NDArray[np.float32]

_SHEET = np.array([0.985, 0.975, 0.95], dtype=np.float32)

_WASHES = (
    # from this density on, laid this dense, hue bled over, border smoothed over (both sigmas in units), how wet
    (0.05, 0.16, 9.0, 3.5, 1.0),
    (0.22, 0.22, 5.0, 2.4, 0.9),
    (0.48, 0.34, 3.0, 1.6, 0.5),
    (0.86, 0.48, 1.8, 1.0, 0.25),
    (1.40, 0.60, 1.2, 0.7, 0.0),
)


def watercolour(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    shape, size = rgb.shape[:2], unit(rgb.shape)
    small, scale = working(rgb)
    plain = _simplified(_luminous(small), scale)
    field = flow.Flow(along_edges(plain, detail=1.2 * scale, reach=4 * scale)[0])
    density = field.smoothed(-np.log(np.clip(plain, 0.03, 1.0)), 1.5 * scale, 1)
    amount = resized(density.mean(axis=2), shape)
    tooth = paper.tooth(shape, 2.3 * max(size, 0.7), rng)
    wet = ramp(clouds(shape, 85 * size, rng, octaves=2), 0.1, 0.9)
    gap = _gaps(plain, field, scale, shape) * (1 - wet)
    border = _border(shape, size, rng)

    painted = np.zeros((*shape, 3), dtype=np.float32)
    for threshold, load, bled, smoothed, dampness in _WASHES:
        hue = soften(density, bled * scale) + np.float32(0.02)
        hue = resized(hue / hue.mean(axis=2, keepdims=True), shape)
        wander = 0.07 * clouds(shape, 40 * size, rng, octaves=4) + 0.06 * (tooth - 0.5)
        level = soften(amount, smoothed * size) * (1 + wander)
        wash = _wash(level - threshold, dampness * wet, size) * (1 - 0.6 * gap) * border
        pooled = 1 + 0.2 * clouds(shape, 70 * size, rng) + 1.7 * np.clip(wash - soften(wash, 4.5 * size), 0, 1)
        painted += (load * wash * np.clip(pooled, 0.35, 2.2))[..., None] * hue
    painted *= (_backruns(amount, size, rng) * (1 + 0.42 * (0.5 - tooth)))[..., None]
    sheet = _SHEET * paper.lit(soften(tooth, 0.6 * size), 0.04)[..., None]
    return np.asarray(np.clip(sheet * np.exp(-painted), 0, 1), dtype=np.float32)


def _luminous(rgb: Array) -> Array:
    """Lights up to the white of the paper, darks opened, colours purer."""
    grey = luma(rgb)[..., None]
    low, high = (float(level) for level in np.quantile(grey[::2, ::2], [0.02, 0.97]))
    even = np.clip((grey - 0.8 * low) / max(high - 0.8 * low, 0.3), 0, 1) ** np.float32(0.64)
    return np.asarray(np.clip(even + 1.3 * (rgb - grey), 0.02, 1), dtype=np.float32)


def _simplified(rgb: Array, scale: float) -> Array:
    plain = rgb
    for _ in range(2):
        plain = np.asarray(cv2.bilateralFilter(plain, -1, 0.13, 3.0 * scale), dtype=np.float32)
    return plain


def _wash(above: Array, wet: Array, size: float) -> Array:
    """Where a wash lies, (H, W) in [0, 1]: a clean dried border where the sheet was dry, a soft one where wet."""
    dy, dx = np.gradient(soften(above, 0.8 * size)) if min(above.shape) > 1 else (above * 0, above * 0)
    pixels = above / (np.hypot(dx, dy) + np.float32(0.006 / size))
    dry = ramp(pixels, -0.9 * max(size, 1.0), 0.9 * max(size, 1.0))
    return np.asarray(dry + wet * (soften(dry, 8 * size) - dry), dtype=np.float32)


def _gaps(plain: Array, field: flow.Flow, scale: float, shape: tuple[int, int]) -> Array:
    """Slivers of bare paper left between areas so that they do not run together, (H, W) in [0, 1]."""
    bright = -flow.ridges(luma(plain), field, 1.3 * scale)
    return flow.inked(resized(bright, shape), -0.024, 50)


def _border(shape: tuple[int, int], size: float, rng: np.random.Generator) -> Array:
    """1 on the painted part of the sheet, 0 on its bare margin, (H, W), as a brush leaves it."""
    height, width = shape
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    inward = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))
    side = 0.012 * min(shape)
    ragged = 0.22 * side * clouds(shape, 40 * size, rng, octaves=5)
    return ramp(inward + ragged - side, -0.12 * side - 0.1, 0.12 * side + 0.1)


def _backruns(amount: Array, size: float, rng: np.random.Generator) -> Array:
    """Blooms where water ran back into a damp wash, (H, W) about 1: pale inside, a dark frayed rim."""
    height, width = amount.shape
    bloom = np.ones((height, width), dtype=np.float32)
    fray = clouds((height, width), 15 * size, rng, octaves=4)
    for _ in range(9):
        row, column = int(rng.integers(0, height)), int(rng.integers(0, width))
        radius = rng.uniform(18, 46) * size
        if not 0.2 < amount[row, column] < 1.3:
            continue
        far = int(2.2 * radius) + 1
        part = slice(max(0, row - far), row + far), slice(max(0, column - far), column + far)
        y, x = np.ogrid[part[0].start : min(row + far, height), part[1].start : min(column + far, width)]
        away = np.hypot(y - row, 0.8 * (x - column)).astype(np.float32) / np.float32(radius)
        inside = 1 - away + np.float32(0.16) * fray[part]
        rim = np.exp(-((inside / np.where(inside > 0, 0.05, 0.02)) ** 2))  # sharp without, trailing off within
        bloom[part] *= 1 - 0.35 * ramp(inside, 0.0, 0.45) + 0.40 * rim
    return bloom
