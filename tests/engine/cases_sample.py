"""GridSample over a constant grid."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F

from tests.engine.case import Case


def grid(batch: int, reach: float) -> np.ndarray:
    """(batch, 3, 4, 2) points, some beyond the picture where `reach` is above 1; repeated over the batch if alike."""
    return np.random.default_rng(4).uniform(-reach, reach, (batch, 3, 4, 2)).astype(np.float32)


def sample(name: str, points: np.ndarray, mode: str, padding: str, corners: bool, opset: int) -> Case:
    written = mode if opset >= 20 or mode == "nearest" else "bilinear"
    return Case(
        f"sample/{name}",
        lambda g: g.GridSample(
            g.input("x", 2, 3, 5, 6),
            g.weight(values=points),
            mode=written,
            padding_mode=padding,
            align_corners=int(corners),
        ),
        lambda x, points: F.grid_sample(
            x, points, mode="nearest" if mode == "nearest" else "bilinear", padding_mode=padding, align_corners=corners
        ),
        opset=opset,
    )


TWO, ALIKE = grid(2, 1.4), np.tile(grid(1, 1.4), (2, 1, 1, 1))

CASES = [
    sample("linear", TWO, "linear", "zeros", False, 20),
    sample("linear/corners", TWO, "linear", "zeros", True, 16),
    sample("linear/border", ALIKE, "linear", "border", False, 22),
    sample("linear/border/corners", TWO, "linear", "border", True, 16),
    sample("nearest", ALIKE, "nearest", "zeros", False, 16),
    sample("nearest/border/corners", TWO, "nearest", "border", True, 20),
    sample("outside", ALIKE + 9, "linear", "zeros", False, 20),
]
