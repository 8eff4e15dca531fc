"""What programs on an NVIDIA GPU share: device buffers, the call with arrays, and steps replayed as a CUDA graph.

A step of a captured graph costs the processor nothing: one launch stands for hundreds. State goes back and forth
between two sets of buffers, so one graph holds two steps, there and back. No backend is named here, and the driver's
calls are in `driver`.
"""

from __future__ import annotations

import contextlib
import math
import threading
import weakref
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import numpy as np

from engine.errors import BackendError, FeedError
from engine.runtime.buffered import BoundT, BufferedProgram
from engine.runtime.driver import ALIGNMENT, Driver, Launchable, Memory, open_driver, parse_device
from engine.runtime.protocol import Array, Precision, TensorSpec
from engine.runtime.serial import reason

__all__ = ["CudaProgram", "DeviceBuffer", "Driver", "open_driver", "parse_device"]


@dataclass(frozen=True, eq=False)
class DeviceBuffer:
    """A buffer in the GPU's memory; backends bind `address`, so nothing is copied at run time.

    A copy waits for all that its program has enqueued, and is done when it returns.
    """

    spec: TensorSpec
    memory: Memory
    driver: Driver
    lock: threading.RLock

    @property
    def address(self) -> int:
        """On the device, a multiple of `ALIGNMENT`."""
        return self.memory.address

    def write(self, array: Array) -> None:
        """Copy `array` in.

        Raises:
            FeedError: it has another shape or type.
            BackendError: the copy failed.
        """
        given = TensorSpec(array.shape, array.dtype)
        if given != self.spec:
            raise FeedError(f"a buffer of {self.spec} was given {given}; reshape or cast it first")
        if array.size:
            with self.lock:
                self.driver.attach()
                self.driver.copy_in(self.memory, np.asarray(array, order="C"))

    def read(self) -> Array:
        """Return a copy on the host. Raises `BackendError`."""
        array = np.empty(self.spec.shape, self.spec.dtype)
        if array.size:
            with self.lock:
                self.driver.attach()
                self.driver.copy_out(self.memory, array)
        return array


@dataclass
class _Cycle(Generic[BoundT]):
    """Bindings that take turns, and what is known of them."""

    bindings: tuple[BoundT, ...] | None
    warm: set[int] = field(default_factory=set)
    """Turns that have run once."""
    graph: Launchable | None = None


class CudaProgram(BufferedProgram[DeviceBuffer, BoundT]):
    """A `Program` on a GPU; a backend adds `bind` and `enqueue`. One binding serves one captured graph at most.

    Any thread may call; calls on one program and its buffers take turns. Two programs do not wait for each other:
    each has a driver, and so a stream, of its own.
    """

    def __init__(
        self,
        driver: Driver,
        engine: str,
        precision: Precision,
        inputs: dict[str, TensorSpec],
        outputs: dict[str, TensorSpec],
        notes: tuple[str, ...] = (),
    ) -> None:
        """The program owns `driver` from here on."""
        super().__init__(engine, driver.name, precision, inputs, outputs, notes)
        self._driver = driver
        self._lock = threading.RLock()
        self._cycles: dict[tuple[int, ...], _Cycle[BoundT]] = {}
        self._captures = True
        self._settled = False

    @abstractmethod
    def enqueue(self, bound: BoundT, stream: int) -> None:
        """Put one step on the stream with this handle, the driver's own, and return without waiting for it.

        Raises:
            BackendError: the backend refused.
        """

    def warmed(self) -> None:  # noqa: B027  (most backends have nothing to do here)
        """Called once, after the first steps have ended and before any capture."""

    def allocate(self, spec: TensorSpec) -> DeviceBuffer:
        """A zeroed buffer in the GPU's memory. Raises `BackendError`."""
        with self._lock:
            self._driver.attach()
            memory = self._driver.allocate(max(math.prod(spec.shape) * spec.dtype.itemsize, 1))
            if memory.address % ALIGNMENT:
                raise BackendError(
                    f"{self.device} gave memory at {memory.address:#x}, no multiple of {ALIGNMENT} bytes"
                )
            self._driver.zero(memory)
        return DeviceBuffer(spec, memory, self._driver, self._lock)

    def run(self, bindings: Sequence[BoundT], first: int, steps: int) -> None:
        """Run `bindings[i % len(bindings)]` for i = first ... first + steps - 1, and wait for the last.

        Every binding's first step is enqueued plainly, as libraries choose kernels and allocate in it; then one turn
        through all bindings is captured, and replayed wherever a whole turn remains to be run.

        Raises:
            BackendError: a step failed.
        """
        if not steps:
            return
        with self._lock:
            self._driver.attach()
            cycle = self._cycle(bindings)
            i, end = first, first + steps
            while i < end:
                turn = i % len(bindings)
                if turn == 0 and i + len(bindings) <= end and self._is_captured(cycle, bindings):
                    assert cycle.graph is not None
                    cycle.graph.launch()
                    i += len(bindings)
                else:
                    self.enqueue(bindings[turn], self._driver.stream)
                    cycle.warm.add(turn)
                    i += 1
            self._settle()

    def run_once(self, bound: BoundT) -> None:
        """Run one step, outside any graph."""
        self._driver.attach()
        self.enqueue(bound, self._driver.stream)
        self._settle()

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once on arrays; see `BufferedProgram`."""
        with self._lock:
            return super().__call__(feeds)

    def close(self) -> None:
        """Free the captured graphs, the stream and all buffers, also those that sessions still hold."""
        with self._lock:
            self._captures = False
            for cycle in self._cycles.values():
                _release(cycle)
            self._cycles.clear()
            self._call = None
            self._driver.close()

    def _settle(self) -> None:
        """Wait for all that was enqueued; the first time, the libraries have then chosen and compiled their kernels."""
        self._driver.synchronise()
        if not self._settled:
            self._settled = True
            self.warmed()

    def _cycle(self, bindings: Sequence[BoundT]) -> _Cycle[BoundT]:
        key = tuple(map(id, bindings))
        if key not in self._cycles:
            held: tuple[BoundT, ...] | None = None
            try:
                for bound in bindings:
                    weakref.finalize(bound, _forget, self._cycles, key).atexit = False
            except TypeError:
                held = tuple(bindings)  # lives as long as the program, so that its id is not given away
            self._cycles[key] = _Cycle(held)
        return self._cycles[key]

    def _is_captured(self, cycle: _Cycle[BoundT], bindings: Sequence[BoundT]) -> bool:
        """Whether there is a graph to launch, after an attempt at one as soon as all bindings are warm."""
        if cycle.graph is None and self._captures and len(cycle.warm) == len(bindings):
            self._settle()

            def turn(stream: int) -> None:
                for bound in bindings:
                    self.enqueue(bound, stream)

            try:
                cycle.graph = self._driver.capture(turn)
            except BackendError as error:
                self._captures = False
                self.notes = (*self.notes, f"steps are enqueued one by one, not as a CUDA graph: {reason(error)}")
        return cycle.graph is not None


def _release(cycle: _Cycle[Any]) -> None:
    if cycle.graph is not None:
        with contextlib.suppress(Exception):
            cycle.graph.close()
        cycle.graph = None


def _forget(cycles: dict[tuple[int, ...], _Cycle[Any]], key: tuple[int, ...]) -> None:
    cycle = cycles.pop(key, None)
    if cycle is not None:
        _release(cycle)
