"""A flat bristle brush: ready-turned stamps with ragged ends and furrows, laid on a canvas of paint that has height.

Used by the styles that paint with strokes; not a style itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]

_ANGLES = 36
_VARIANTS = 3


@dataclass(frozen=True)
class Brush:
    """Stamps of one brush size.

    Attributes:
        stamps: (angles, variants, S, S, 1) coverage in [0, 1].
        furrows: (angles, variants, S, S) height of the paint left by the bristles, in [0, 1].
    """

    stamps: Array
    furrows: Array

    @property
    def half(self) -> int:
        """Half a stamp's side in pixels."""
        return int(self.stamps.shape[2]) // 2


def make(length: float, width: float, rng: np.random.Generator) -> Brush:
    """A brush whose stroke is `length` by `width` pixels."""
    half = int(np.ceil(np.hypot(length, width) / 2)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)
    stamps, furrows = [], []
    for index in range(_ANGLES * _VARIANTS):
        angle = np.pi * (index // _VARIANTS) / _ANGLES
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        bristles = ndimage.gaussian_filter1d(rng.random(64), 1.2)
        bristles = (bristles - bristles.min()) / (np.ptp(bristles) + 1e-6)
        place = np.clip((across / width + 0.5) * 63, 0, 63)
        bristle = np.interp(place, np.arange(64), bristles)
        end = length / 2 * (0.72 + 0.28 * bristle)  # each bristle lifts off at its own place
        inside_ends = np.clip((end - np.abs(along)) / (0.12 * length + 0.5), 0, 1)
        inside_sides = np.clip((width / 2 - np.abs(across)) / 0.9, 0, 1)
        stamp = inside_ends * inside_sides
        ridge = np.clip(np.abs(across) / (width / 2), 0, 1) ** 4  # paint is pushed to the sides
        stamps.append(stamp[..., None])
        furrows.append(stamp * (0.35 + 0.45 * bristle + 0.3 * ridge + 0.2 * along / length))
    shape = (_ANGLES, _VARIANTS, 2 * half + 1, 2 * half + 1)
    return Brush(
        stamps=np.asarray(stamps, dtype=np.float32).reshape(*shape, 1),
        furrows=np.asarray(furrows, dtype=np.float32).reshape(shape),
    )


class Canvas:
    """Paint with colour and height, with a margin on which strokes may end."""

    def __init__(self, ground: Array, margin: int) -> None:
        """Start from a ground of (H, W, 3) colours; `margin` is the half size of the largest stamp."""
        self._size = ground.shape[:2]
        self._margin = margin
        self._colour = np.pad(ground, [(margin, margin), (margin, margin), (0, 0)], mode="edge")
        self._height = np.zeros(self._colour.shape[:2], dtype=np.float32)

    def paint(
        self, brush: Brush, rows: NDArray[np.intp], columns: NDArray[np.intp], angles: Array, colours: Array
    ) -> None:
        """Lay strokes in the order given.

        Args:
            brush: what to paint with.
            rows: (N,) centres.
            columns: (N,) centres.
            angles: (N,) radians from the x axis toward y.
            colours: (N, 3).
        """
        half, side = brush.half, 2 * brush.half + 1
        turned = np.rint(angles / np.pi * _ANGLES).astype(int) % _ANGLES
        tops = (rows + self._margin - half).tolist()
        lefts = (columns + self._margin - half).tolist()
        for index, (top, left, turn) in enumerate(zip(tops, lefts, turned.tolist(), strict=True)):
            variant = index % _VARIANTS
            stamp = brush.stamps[turn, variant]
            colour = self._colour[top : top + side, left : left + side]
            colour += stamp * (colours[index] - colour)
            height = self._height[top : top + side, left : left + side]
            height += stamp[..., 0] * (brush.furrows[turn, variant] - 0.7 * height)

    def lit(self, depth: float) -> Array:
        """The paint under light from the upper left, (H, W, 3); `depth` scales the relief."""
        height = ndimage.gaussian_filter(self._height, 0.6)
        slope = depth * (np.roll(height, -1, axis=(0, 1)) - np.roll(height, 1, axis=(0, 1)))
        shade = 1.0 + np.clip(slope, -0.35, 0.3)[..., None]
        gloss = np.clip(slope - 0.22, 0, 0.5)[..., None]
        lit = self._colour * shade + 0.3 * gloss
        (height_, width_), margin = self._size, self._margin
        inside = lit[margin : margin + height_, margin : margin + width_]
        return np.asarray(np.clip(inside, 0, 1), dtype=np.float32)
