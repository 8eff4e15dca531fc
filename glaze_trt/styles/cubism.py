"""Cubism: the picture broken into planes, each seen from a slightly other place (Braque, Picasso, 1909 to 1912).

Planes are the cells of a weighted Voronoi partition whose seeds crowd where there is detail and whose metric is
stretched along the edges; each plane shifts and turns its piece of the picture, is shaded by a ramp of its own and
partly outlined, and the palette is drawn toward ochre, umber and grey-blue.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from glaze_trt.styles.orientation import along_edges, blur, luma

Array = NDArray[np.float32]

_OCHRE = np.array([0.80, 0.62, 0.36], dtype=np.float32)
_SLATE = np.array([0.34, 0.43, 0.50], dtype=np.float32)


def cubism(rgb: Array, rng: np.random.Generator) -> Array:
    """Repaint an (H, W, 3) picture in [0, 1]."""
    height, width = rgb.shape[:2]
    unit = float(np.clip(min(height, width) / 512, 0.5, 3.0))
    seeds = _seeds(rgb, max(4, round(height * width / (280 * unit * unit))), unit, rng)
    label, y, x = _planes(rgb, seeds, unit)
    colour = _seen_from_each_plane(rgb, seeds, label, y, x, unit, rng)
    colour = _palette(colour) * _ramps(seeds, label, y, x, rng)[..., None]
    line = _outlines(label, len(seeds), unit, rng)[..., None]
    return np.asarray(np.clip(colour * (1 - 0.6 * line), 0, 1), dtype=np.float32)


def _seeds(rgb: Array, count: int, unit: float, rng: np.random.Generator) -> Array:
    """(N, 2) rows and columns, denser where there is detail."""
    grey = luma(rgb)
    detail = blur(np.abs(grey - blur(grey, 3 * unit)), 4 * unit)
    density = (0.008 + detail).ravel().astype(np.float64)
    chosen = rng.choice(density.size, size=min(count, density.size), replace=False, p=density / density.sum())
    return np.stack(np.unravel_index(chosen, grey.shape), axis=1).astype(np.float32)


def _planes(rgb: Array, seeds: Array, unit: float) -> tuple[NDArray[np.intp], Array, Array]:
    """Each pixel's plane, (H, W), and its offset from the plane's seed, rows and columns."""
    height, width = rgb.shape[:2]
    angle, coherence = along_edges(rgb, detail=1.5 * unit, reach=6 * unit)
    snapped = np.rint(angle / (np.pi / 6)) * (np.pi / 6)  # few directions make straight, related planes
    at = tuple(seeds.astype(int).T)
    turn, stretch = snapped[at], 1 + 1.2 * coherence[at]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pixels = np.stack([y.ravel(), x.ravel()], axis=1)
    nearest = cKDTree(seeds).query(pixels, k=min(5, len(seeds)))[1].reshape(len(pixels), -1)
    dy, dx = (pixels[:, None, axis] - seeds[nearest, axis] for axis in (0, 1))
    cos, sin = np.cos(turn[nearest]), np.sin(turn[nearest])
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    distance = np.abs(along) / stretch[nearest] + np.abs(across) * stretch[nearest]  # angular, unlike the Euclidean
    best = np.argmin(distance, axis=1)[:, None]
    label = np.take_along_axis(nearest, best, axis=1).reshape(height, width)
    offset_y, offset_x = (np.take_along_axis(d, best, axis=1).reshape(height, width) for d in (dy, dx))
    return label, offset_y, offset_x


def _seen_from_each_plane(
    rgb: Array, seeds: Array, label: NDArray[np.intp], y: Array, x: Array, unit: float, rng: np.random.Generator
) -> Array:
    """Each plane's piece of the picture: simplified, shifted and turned a little."""
    count = len(seeds)
    turn = (0.18 * rng.standard_normal(count))[label]
    shift_y, shift_x = ((2.0 * unit * rng.standard_normal(count))[label] for _ in range(2))
    rows = seeds[label, 0] + shift_y + y * np.cos(turn) + x * np.sin(turn)
    columns = seeds[label, 1] + shift_x + x * np.cos(turn) - y * np.sin(turn)
    seen = np.stack(
        [
            ndimage.map_coordinates(channel, [rows, columns], order=1, mode="nearest")
            for channel in np.moveaxis(blur(rgb, 1.2 * unit), 2, 0)
        ],
        axis=2,
    )
    flat = label.ravel()
    size = np.maximum(np.bincount(flat, minlength=count), 1)
    mean = np.stack([np.bincount(flat, c.ravel(), count) / size for c in np.moveaxis(rgb, 2, 0)], axis=1)
    return np.asarray(0.6 * seen + 0.4 * mean[label], dtype=np.float32)


def _palette(rgb: Array) -> Array:
    """Toward ochre in the lights and slate in the darks, keeping brightness and a little of the colour."""
    grey = luma(rgb)[..., None] ** 0.85
    tint = _SLATE + (_OCHRE - _SLATE) * grey
    tint = tint * (grey / luma(tint)[..., None])
    contrast = np.clip(0.5 + 1.1 * (0.4 * rgb + 0.6 * tint - 0.47), 0, 1)
    return np.asarray(contrast, dtype=np.float32)


def _ramps(seeds: Array, label: NDArray[np.intp], y: Array, x: Array, rng: np.random.Generator) -> Array:
    """A ramp of light across each plane, one of a few directions."""
    count = len(seeds)
    direction = rng.integers(0, 8, count) * (np.pi / 4)
    run = x * np.cos(direction)[label] + y * np.sin(direction)[label]
    size = np.bincount(label.ravel(), minlength=count).clip(1)
    spread = np.sqrt(np.bincount(label.ravel(), (run * run).ravel(), count) / size)
    strength = rng.uniform(0.06, 0.20, count)[label]
    return np.asarray(1.0 + strength * np.clip(run / (spread[label] + 1e-3), -1.8, 1.8), dtype=np.float32)


def _outlines(label: NDArray[np.intp], count: int, unit: float, rng: np.random.Generator) -> Array:
    """Dark lines along some of the borders: each plane draws its own or leaves it open."""
    drawn = (rng.random(count) < 0.45)[label]
    border = np.zeros(label.shape, dtype=np.float32)
    border[:, 1:] = (label[:, 1:] != label[:, :-1]) & drawn[:, 1:]
    border[1:] = np.maximum(border[1:], (label[1:] != label[:-1]) & drawn[1:])
    return np.asarray(np.clip(blur(border, 0.7 * unit) * 1.5, 0, 1), dtype=np.float32)
