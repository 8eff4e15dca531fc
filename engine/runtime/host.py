"""What programs on a processor share: aligned numpy buffers, and steps in a loop. No backend is named here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.runtime.buffered import BoundT, BufferedProgram
from engine.runtime.protocol import Array, TensorSpec

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


def aligned(spec: TensorSpec) -> Array:
    """A zeroed C-contiguous array whose first byte lies on a multiple of `ALIGNMENT`."""
    size = math.prod(spec.shape) * spec.dtype.itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(spec.dtype).reshape(spec.shape)


@dataclass(frozen=True)
class HostBuffer:
    """A buffer in the processor's memory; backends bind `array` itself, so nothing is copied at run time."""

    spec: TensorSpec
    array: Array

    def write(self, array: Array) -> None:
        """Copy `array` in."""
        np.copyto(self.array, array, casting="no")

    def read(self) -> Array:
        """Return a copy."""
        return self.array.copy()


class HostProgram(BufferedProgram[HostBuffer, BoundT]):
    """A `Program` whose buffers are numpy arrays; a backend adds `bind` and `run_once`."""

    def allocate(self, spec: TensorSpec) -> HostBuffer:
        """A zeroed buffer in the processor's memory."""
        return HostBuffer(spec, aligned(spec))

    def run(self, bindings: Sequence[BoundT], first: int, steps: int) -> None:
        """Run `bindings[i % len(bindings)]` for i = first ... first + steps - 1."""
        for i in range(first, first + steps):
            self.run_once(bindings[i % len(bindings)])
