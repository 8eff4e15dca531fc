"""A small picture made here: a graded sky, a disc, a dark ground with grain. Seeded, so every run sees the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def scene(height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    sky = np.stack([0.4 + 0.5 * y, 0.5 + 0.3 * y, 0.8 - 0.3 * y], axis=2)
    disc = np.hypot(x - 0.6, y - 0.25) < 0.12
    ground = y > 0.45 + 0.05 * np.sin(9 * x)
    sky[disc] = (1.0, 0.9, 0.6)
    sky[ground] = (0.25, 0.3, 0.2)
    sky[ground] += 0.12 * rng.standard_normal((int(ground.sum()), 3))
    return np.clip(np.rint(sky * 255), 0, 255).astype(np.uint8)
