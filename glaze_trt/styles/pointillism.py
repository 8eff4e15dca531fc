"""Pointillism: pure dots side by side, mixed by the eye (Seurat, Signac).

Each dot takes the local colour and strays from it: most keep near, some jump to a neighbouring or the complementary
hue, so that the mean stays while every dot is purer. Dots lie on jittered grids, large ones under small ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from glaze_trt.styles.orientation import blur, luma

Array = NDArray[np.float32]

_GROUND = np.array([0.93, 0.89, 0.80], dtype=np.float32)  # primed canvas, seen between the dots


def pointillism(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    height, width = rgb.shape[:2]
    unit = float(np.clip(min(height, width) / 512, 0.5, 3.0))
    canvas = 0.55 * blur(rgb, 3 * unit) + 0.45 * _GROUND
    for spacing, radius, hue, purity in ((10.0, 6.0, 0.5, 1.5), (7.0, 4.0, 0.45, 1.8), (5.6, 2.8, 0.25, 1.7)):
        canvas = _dots(canvas, rgb, spacing * unit, radius * unit, hue, purity, rng)
    return np.asarray(np.clip(canvas, 0, 1), dtype=np.float32)


def _dots(
    canvas: Array, rgb: Array, spacing: float, radius: float, hue: float, purity: float, rng: np.random.Generator
) -> Array:
    height, width = rgb.shape[:2]
    y, x = (axis.ravel() for axis in np.mgrid[0 : height + spacing : spacing, 0 : width + spacing : spacing])
    centres = np.stack([y, x], axis=1) + rng.uniform(-0.42, 0.42, (len(y), 2)) * spacing
    rows = np.clip(np.rint(centres[:, 0]), 0, height - 1).astype(int)
    columns = np.clip(np.rint(centres[:, 1]), 0, width - 1).astype(int)
    colours = _stray(blur(rgb, 0.35 * radius)[rows, columns], hue, purity, rng)
    radii = radius * rng.uniform(0.7, 1.15, len(centres))

    pixels = np.indices((height, width)).reshape(2, -1).T
    distance, nearest = cKDTree(centres).query(pixels, k=1)
    cover = np.clip(radii[nearest] - distance + 0.5, 0, 1).reshape(height, width, 1)
    body = 1.0 + 0.10 * ndimage.gaussian_filter(1 - (distance / radius).reshape(height, width, 1), (0.5, 0.5, 0))
    paint = colours[nearest].reshape(height, width, 3) * np.clip(body, 0.92, 1.08)
    return np.asarray(canvas + cover * (paint - canvas), dtype=np.float32)


def _stray(colours: Array, hue: float, purity: float, rng: np.random.Generator) -> Array:
    """Purer colours whose mean stays near: each dot's hue is turned about the grey axis."""
    grey = luma(colours)[:, None]
    chroma = purity * (colours - grey)
    count = len(colours)
    turn = hue * rng.standard_normal(count)
    opposite = rng.random(count) < 0.05
    turn = np.where(opposite, np.pi, turn)[:, None]
    axis = np.full(3, 1 / np.sqrt(3))
    turned = chroma * np.cos(turn) + np.cross(axis, chroma) * np.sin(turn)
    neutral = 0.07 * _hue_wheel(rng.uniform(0, 2 * np.pi, count))  # even a grey wall is made of colours
    light = 0.07 * rng.standard_normal((count, 1))
    return np.asarray(np.clip(grey + turned + neutral + light, 0, 1), dtype=np.float32)


def _hue_wheel(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.cos(angle + shift) for shift in (0, -2 * np.pi / 3, 2 * np.pi / 3)], axis=1)
