"""What programs on a processor share: aligned numpy buffers and the call with arrays. No backend is named here."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from engine.runtime.feeds import check_feeds
from engine.runtime.protocol import Array, Precision, TensorSpec

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register

BoundT = TypeVar("BoundT")


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


class HostProgram(ABC, Generic[BoundT]):
    """A `Program` whose buffers are numpy arrays; a backend adds `bind` and `run_once`."""

    def __init__(
        self,
        engine: str,
        device: str,
        precision: Precision,
        inputs: dict[str, TensorSpec],
        outputs: dict[str, TensorSpec],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.engine = engine
        self.device = device
        self.precision = precision
        self.inputs = inputs
        self.outputs = outputs
        self.notes = notes
        self._call: tuple[dict[str, HostBuffer], dict[str, HostBuffer], BoundT] | None = None

    @abstractmethod
    def bind(self, inputs: Mapping[str, HostBuffer], outputs: Mapping[str, HostBuffer]) -> BoundT:
        """Tie every input and output to a buffer, without a copy."""

    @abstractmethod
    def run_once(self, bound: BoundT) -> None:
        """Run one step; raises `BackendError`."""

    def allocate(self, spec: TensorSpec) -> HostBuffer:
        """A zeroed buffer in the processor's memory."""
        return HostBuffer(spec, aligned(spec))

    def run(self, bindings: Sequence[BoundT], first: int, steps: int) -> None:
        """Run `bindings[i % len(bindings)]` for i = first ... first + steps - 1."""
        for i in range(first, first + steps):
            self.run_once(bindings[i % len(bindings)])

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once on arrays; the results are copies.

        Raises:
            FeedError: a feed is missing, unknown, or of another shape or type.
            BackendError: the backend failed.
        """
        arrays = check_feeds(feeds, self.inputs)
        if self._call is None:
            inputs = {name: self.allocate(spec) for name, spec in self.inputs.items()}
            outputs = {name: self.allocate(spec) for name, spec in self.outputs.items()}
            self._call = inputs, outputs, self.bind(inputs, outputs)
        inputs, outputs, bound = self._call
        for name, array in arrays.items():
            inputs[name].write(array)
        self.run_once(bound)
        return {name: buffer.read() for name, buffer in outputs.items()}
