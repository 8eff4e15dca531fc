"""What a cloaked 8-bit picture is worth, measured with torch, the `lpips` package and `ssimulacra2`.

Nothing here is shared with either loop that made the picture, and nothing of `glaze_trt` or `engine` is imported.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from bench.networks import lpips_network, taesd
from bench.quality.pairs import Levels, Pair, to_tensor


@dataclass(frozen=True)
class Measures:
    """Progress toward the target's latent, and what the change costs: L∞ in 8-bit levels."""

    progress: float
    lpips: float
    linf: int
    ssimulacra2: float


class Judge:
    """Measures cloaks of one pair in float32."""

    def __init__(self, pair: Pair, weights: Path | None) -> None:
        self.pair = pair
        self._encoder = taesd(weights)
        self._lpips = lpips_network("squeeze", weights)
        self._original = to_tensor(pair.picture)
        with torch.no_grad():
            self._goal = self._encoder(to_tensor(pair.target))
            self._whole = float(torch.linalg.vector_norm(self._encoder(self._original) - self._goal))

    def __call__(self, cloaked: Levels) -> Measures:
        """All four measures of one cloaked picture."""
        picture = to_tensor(cloaked)
        with torch.no_grad():
            left = float(torch.linalg.vector_norm(self._encoder(picture) - self._goal))
            distance = float(self._lpips(self._original, picture, normalize=True))
        linf = int(np.abs(cloaked.astype(np.int16) - self.pair.picture.astype(np.int16)).max())
        return Measures(1 - left / self._whole, distance, linf, ssimulacra2(self.pair.picture, cloaked))

    def scaled_down(self, cloaked: Levels, floor: float, rounds: int = 8) -> tuple[float, Levels]:
        """The largest scale of the change, by bisection, at which SSIMULACRA2 is at least `floor`, and that picture."""
        if ssimulacra2(self.pair.picture, cloaked) >= floor:
            return 1.0, cloaked
        low, high = 0.0, 1.0
        for _ in range(rounds):
            middle = (low + high) / 2
            holds = ssimulacra2(self.pair.picture, self._scaled(cloaked, middle)) >= floor
            low, high = (middle, high) if holds else (low, middle)
        return low, self._scaled(cloaked, low)

    def _scaled(self, cloaked: Levels, scale: float) -> Levels:
        original = self.pair.picture.astype(np.float32)
        moved = original + scale * (cloaked.astype(np.float32) - original)
        return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


def ssimulacra2(original: Levels, distorted: Levels) -> float:
    """SSIMULACRA2 of two 8-bit pictures: 100 identical, 70 about JPEG 65, below 0 ruined."""
    files = []
    for levels in (original, distorted):
        file = io.BytesIO()
        Image.fromarray(levels).save(file, format="PNG", compress_level=0)
        file.seek(0)
        files.append(file)
    return float(compute_ssimulacra2(*files))
