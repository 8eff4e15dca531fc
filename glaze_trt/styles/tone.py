"""Tone for drawings: a picture's brightness spread over what a sheet can hold. Not a style itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def spread(grey: Array, middle: float) -> Array:
    """Darkness in [0, 1] of an (H, W) brightness: paper at the lights, full at the darks, `middle` about the median.

    A dark picture is lightened and a flat one is given contrast, neither all the way: a night stays a night.
    """
    sample = grey[:: max(1, grey.shape[0] // 256), :: max(1, grey.shape[1] // 256)]
    low, median, high = (float(level) for level in np.quantile(sample, [0.02, 0.5, 0.98]))
    low, high = 0.75 * low, high + 0.25 * (1 - high)
    dark = np.clip((high - grey) / max(high - low, 0.25), 0, 1)
    now = float(np.clip((high - median) / max(high - low, 0.25), 0.05, 0.95))
    power = np.clip(np.log(middle) / np.log(now), 0.6, 1.5)
    return np.asarray(dark ** np.float32(power), dtype=np.float32)
