"""How alike two results are."""

from __future__ import annotations

import numpy as np


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Cosine of two arrays as vectors."""
    a, b = left.astype(np.float64).ravel(), right.astype(np.float64).ravel()
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300))
