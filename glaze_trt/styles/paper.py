"""Sheets to work on: the tooth of drawing paper, the fibres of Japanese paper, the laid lines of old prints.

Used by the styles; not a style itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import special

from glaze_trt.styles.scale import clouds, soften

Array = NDArray[np.float32]


def tooth(shape: Sequence[int], grain: float, rng: np.random.Generator) -> Array:
    """Height of a rough sheet, (H, W), evenly spread over [0, 1]; `grain` is the size of a bump in pixels."""
    bumps = clouds(shape, grain, rng, octaves=2) + 0.5 * clouds(shape, 2.7 * grain, rng, octaves=1)
    spread = float(bumps.std()) + 1e-6
    return np.asarray(special.ndtr(bumps / np.float32(spread)), dtype=np.float32)


def lit(height: Array, depth: float) -> Array:
    """Light on a relief of (H, W), from the upper left, about 1."""
    slope = np.roll(height, -1, axis=(0, 1)) - np.roll(height, 1, axis=(0, 1))
    return np.asarray(1 + depth * slope, dtype=np.float32)


def fibres(shape: Sequence[int], unit: float, rng: np.random.Generator) -> Array:
    """Long pale mulberry fibres lying in a sheet, (H, W) in [0, 1]."""
    height, width = shape[:2]
    count = min(20000, int(height * width / (unit * unit) / 650))
    length = 26 * unit * rng.uniform(0.4, 1.5, count)
    turn = rng.uniform(0, np.pi, count)[:, None] + rng.normal(0, 0.9, count)[:, None] * np.linspace(-0.5, 0.5, 7)
    steps = np.stack([np.cos(turn), np.sin(turn)], axis=2) * (length[:, None, None] / 6)
    start = rng.uniform(0, 1, (count, 1, 2)) * (width, height)
    paths = np.rint((start + np.cumsum(steps, axis=1)) * 8).astype(np.int32)
    sheet = np.zeros((height, width), dtype=np.uint8)
    for path, tone in zip(paths, rng.integers(70, 255, count).tolist(), strict=True):
        cv2.polylines(sheet, [path], False, tone, max(1, round(0.7 * unit)), cv2.LINE_AA, 3)
    return soften(sheet.astype(np.float32) / np.float32(255), 0.4 * unit)


def laid(shape: Sequence[int], unit: float, rng: np.random.Generator) -> Array:
    """Tone of laid paper, (H, W) about 0 and within about 1: fine wire lines, chain lines and clouding."""
    height, width = shape[:2]
    x = np.arange(width, dtype=np.float32)[None] + 0.8 * unit * clouds(shape, 90 * unit, rng, octaves=1)
    y = np.arange(height, dtype=np.float32)[:, None] + 0.6 * unit * clouds(shape, 90 * unit, rng, octaves=1)
    wires = np.sin(2 * np.pi * y / (3.1 * max(unit, 1.0)))
    chains = np.exp(-(((((x / (58 * unit)) % 1.0) - 0.5) * 58 / 1.6) ** 2))
    return np.asarray(0.35 * wires - 0.5 * chains + 0.5 * clouds(shape, 60 * unit, rng), dtype=np.float32)
