"""Small seeded pictures for the tests: smooth fields, edges and texture, as paintings have."""

from __future__ import annotations

import numpy as np


def scene(height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    layers = [np.sin(x / rng.uniform(6, 20) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(6, 20)) for _ in range(3)]
    picture = 0.5 + 0.25 * np.stack(layers, axis=-1)
    disc = (x - width * 0.4) ** 2 + (y - height * 0.5) ** 2 < (min(height, width) * 0.3) ** 2
    picture[disc] = picture[disc][:, ::-1] * 0.7
    picture[height // 2 :] += 0.06 * rng.standard_normal((height - height // 2, width, 3))
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def image(levels: np.ndarray) -> np.ndarray:
    """(1, 3, H, W) float32 in [0,1]."""
    return np.ascontiguousarray(levels.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)
