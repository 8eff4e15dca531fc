"""Small pictures made here: a landscape, waves, a face. Seeded, so every run sees the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter


def scene(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """A graded sky, a disc, a dark ground with grain: (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    sky = np.stack([0.4 + 0.5 * y, 0.5 + 0.3 * y, 0.8 - 0.3 * y], axis=2)
    disc = np.hypot(x - 0.6, y - 0.25) < 0.12
    ground = y > 0.45 + 0.05 * np.sin(9 * x)
    sky[disc] = (1.0, 0.9, 0.6)
    sky[ground] = (0.25, 0.3, 0.2)
    sky[ground] += 0.12 * rng.standard_normal((int(ground.sum()), 3))
    return np.clip(np.rint(sky * 255), 0, 255).astype(np.uint8)


def waves(height: int = 64, width: int = 96, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth fields, a disc and texture, other for every seed: (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    layers = [np.sin(x / rng.uniform(6, 20) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(6, 20)) for _ in range(3)]
    picture = 0.5 + 0.25 * np.stack(layers, axis=-1)
    disc = (x - width * 0.4) ** 2 + (y - height * 0.5) ** 2 < (min(height, width) * 0.3) ** 2
    picture[disc] = picture[disc][:, ::-1] * 0.7
    picture[height // 2 :] += 0.06 * rng.standard_normal((height - height // 2, width, 3))
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def image(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(1, 3, H, W) float32 in [0,1]."""
    return np.ascontiguousarray(levels.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)


def face(side: int = 96) -> Image.Image:
    """A face seen from the front, drawn plainly enough for a cascade to know it: (side, side)."""
    picture = Image.new("RGB", (side, side), (90, 110, 130))
    draw = ImageDraw.Draw(picture)

    def oval(x: float, y: float, wide: float, high: float, colour: tuple[int, int, int]) -> None:
        draw.ellipse([(x - wide) * side, (y - high) * side, (x + wide) * side, (y + high) * side], fill=colour)

    oval(0.5, 0.5, 0.30, 0.38, (60, 40, 30))
    oval(0.5, 0.54, 0.26, 0.33, (222, 180, 150))
    for x in (0.39, 0.61):
        oval(x, 0.48, 0.075, 0.045, (120, 80, 65))
        oval(x, 0.48, 0.05, 0.025, (235, 225, 220))
        oval(x, 0.48, 0.025, 0.025, (30, 20, 20))
        oval(x, 0.425, 0.075, 0.015, (60, 40, 30))
    oval(0.5, 0.60, 0.035, 0.03, (190, 140, 115))
    oval(0.5, 0.53, 0.02, 0.08, (235, 195, 165))
    oval(0.5, 0.72, 0.09, 0.025, (150, 60, 60))
    return picture.filter(ImageFilter.GaussianBlur(side / 80))
