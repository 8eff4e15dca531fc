"""The loss scales of an fp16 step, found before the first one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import engine
from glaze_trt.errors import PrecisionError

_WANTED_RMS = 2.0**-4
"""Of a scaled fp16 gradient: about as far from 65504, where numbers end, as from 6e-8, where they vanish."""

_TRIES = 5
"""To find the loss scales; each takes a step that is thrown away."""


def calibrated(
    step: engine.Program, constants: Mapping[str, NDArray[Any]], state: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """A step's first state with every `scale_<term>` in it a power of two that suits the gradients there.

    A state without loss scales comes back as it is, and nothing is run.

    Args:
        step: made by `graph.step.step`.
        constants: its inputs that stay.
        state: its first state, with any scales.

    Raises:
        PrecisionError: an encoder overflows.
    """
    found = dict(state)
    scales = [name for name in state if name.startswith("scale_")]
    for _ in range(_TRIES if scales else 0):
        seen = step({**constants, **found})
        if not all(np.isfinite(value) for name, value in seen.items() if name.startswith("distance_")):
            raise PrecisionError("the encoder overflows in fp16 on this picture; choose --precision bf16 or fp32")
        factors = {name: _factor(float(seen[name.replace("scale", "rms", 1)])) for name in scales}
        if set(factors.values()) == {1.0}:
            break
        found |= {name: np.asarray(found[name] * np.float32(factor)) for name, factor in factors.items()}
    return found


def _factor(rms: float) -> float:
    """A power of two that brings the RMS of a gradient close to `_WANTED_RMS`."""
    if not np.isfinite(rms):
        return 2.0**-10
    if rms == 0:
        return 2.0**10
    return float(2.0 ** round(np.log2(_WANTED_RMS / rms)))
