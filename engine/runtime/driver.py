"""The few calls of an NVIDIA driver that programs need, and the real one, on `cuda.core`.

One stream, and everything on it: what is enqueued, copied and replayed happens in that order. Which steps run is
`cuda`'s business; the tests put a stand-in with the same calls in the place of `CudaDriver`.
"""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from engine.errors import BackendError
from engine.runtime.protocol import Array, Precision
from engine.runtime.serial import reason

ALIGNMENT = 256
"""Bytes: what TensorRT asks of an address, and what CUDA's own allocators give."""

_FIRST_BF16 = (8, 0)
"""Compute capability from which bf16 is computed in hardware."""

_SMALL = 1 << 16
"""Bytes up to which page-locked memory is kept for every size: scalars are read all the time."""

INSTALL = "pip install cuda-core cuda-bindings"


class Memory(Protocol):
    """Memory on the device. It is freed when nothing refers to it any more, or when its driver is closed."""

    @property
    def address(self) -> int:
        """Of the first byte, on the device."""

    @property
    def nbytes(self) -> int:
        """Size."""


class Launchable(Protocol):
    """Captured work."""

    def launch(self) -> None:
        """Enqueue it all, on the stream that it was captured from."""

    def close(self) -> None:
        """Free it. What was launched must have ended."""


class Driver(Protocol):
    """A device and one stream on it. Every call raises `BackendError`.

    Any thread may call, one at a time; it calls `attach` first.

    Attributes:
        index: number of the device.
        name: the device in words, such as "NVIDIA L40S".
        capability: compute capability, (8, 9) for "sm89".
        stream: the handle that libraries take, a `cudaStream_t` as a number.
    """

    index: int
    name: str
    capability: tuple[int, int]
    stream: int

    def attach(self) -> None:
        """Make the device current in the calling thread."""

    def allocate(self, nbytes: int) -> Memory:
        """Memory with any contents."""

    def zero(self, memory: Memory) -> None:
        """Enqueue zeroes."""

    def copy_in(self, memory: Memory, array: Array) -> None:
        """Copy a C-contiguous array of exactly the memory's size in; done when this returns."""

    def copy_out(self, memory: Memory, array: Array) -> None:
        """Fill a C-contiguous array of exactly the memory's size; done when this returns."""

    def synchronise(self) -> None:
        """Wait for all that was enqueued."""

    def capture(self, work: Callable[[int], None]) -> Launchable:
        """Record what `work` enqueues on the stream whose handle it is given; nothing of it runs.

        After an error the stream takes plain work again.
        """

    def close(self) -> None:
        """Free the stream and all memory; to be called once or more, with nothing running."""


def precisions(capability: tuple[int, int]) -> tuple[Precision, ...]:
    """What GPUs of a compute capability multiply in hardware, the fastest first.

    Both narrow types run on tensor cores at one rate, and "mixed" needs no loss scale.
    """
    return ("mixed", "bf16", "fp16", "fp32") if capability >= _FIRST_BF16 else ("fp16", "fp32")


def parse_device(text: str) -> int:
    """The number in "cuda:1"; 0 for "cuda".

    Raises:
        BackendError: it is neither.
    """
    kind, _, number = text.partition(":")
    if kind != "cuda" or not (number.isdecimal() or text == "cuda"):
        raise BackendError(f"no device {text!r}; write cuda, or cuda:1 for the second GPU")
    return int(number or 0)


def open_driver(index: int = 0) -> CudaDriver:
    """A stream on a device.

    Raises:
        BackendError: no `cuda.core`, no NVIDIA driver, or no device of that number.
    """
    try:
        core = importlib.import_module("cuda.core")
    except Exception as error:  # without cuda.bindings it raises ImportError, with broken ones more
        raise BackendError(f"cuda.core cannot be used ({reason(error)}); {INSTALL}") from error
    try:
        count = len(core.Device.get_all_devices())
    except Exception as error:
        raise BackendError(
            f"no NVIDIA GPU can be used ({reason(error)}); install or update the NVIDIA driver"
        ) from error
    if not 0 <= index < count:
        have = (
            f"there are {count}, numbered from cuda:0" if count > 1 else ("there is only cuda:0" if count else "none")
        )
        raise BackendError(f"no GPU cuda:{index}: {have}; choose another --device")
    return CudaDriver(core, index)


class CudaDriver:
    """The `Driver` on `cuda.core`, with a non-blocking stream of its own."""

    def __init__(self, core: Any, index: int) -> None:
        """Open device `index`, which exists. See `open_driver`."""
        self._core = core
        self.index = index
        self._allocated: weakref.WeakSet[_DeviceMemory] = weakref.WeakSet()
        self._staging: dict[int, Any] = {}
        with _told("open", f"cuda:{index}"):
            self.attach()
            device = core.Device(index)
            self.name = str(device.name)
            capability = device.compute_capability
            self.capability = (int(capability.major), int(capability.minor))
            self._stream = device.create_stream(options=core.StreamOptions(nonblocking=True))
            self.stream = int(self._stream.handle)
            self._pinned = core.LegacyPinnedMemoryResource()

    def attach(self) -> None:
        """See `Driver`. Cheap: `cuda.core` keeps one device object per thread."""
        with _told("use", f"cuda:{self.index}"):
            self._core.Device(self.index).set_current()

    def allocate(self, nbytes: int) -> _DeviceMemory:
        """See `Driver`."""
        with _told(f"allocate {nbytes / 2**20:.1f} MiB on", self.name):
            buffer = self._core.Device(self.index).allocate(nbytes, stream=self._stream)
            memory = _DeviceMemory(buffer)
        self._allocated.add(memory)
        return memory

    def zero(self, memory: Memory) -> None:
        """See `Driver`."""
        with _told("clear memory on", self.name):
            _buffer(memory).fill(0, stream=self._stream)

    def copy_in(self, memory: Memory, array: Array) -> None:
        """See `Driver`."""
        with _told("copy to", self.name):
            staging = self._stage(memory.nbytes)
            _bytes(staging)[:] = array.reshape(-1).view(np.uint8)
            _buffer(memory).copy_from(staging, stream=self._stream)
            self._stream.sync()

    def copy_out(self, memory: Memory, array: Array) -> None:
        """See `Driver`."""
        with _told("copy from", self.name):
            staging = self._stage(memory.nbytes)
            _buffer(memory).copy_to(staging, stream=self._stream)
            self._stream.sync()
            array.reshape(-1).view(np.uint8)[:] = _bytes(staging)

    def synchronise(self) -> None:
        """See `Driver`."""
        with _told("finish the work on", self.name):
            self._stream.sync()

    def capture(self, work: Callable[[int], None]) -> Launchable:
        """See `Driver`; in thread-local mode, so that what other threads do meanwhile does no harm."""
        with _told("capture a graph on", self.name):
            builder = self._stream.create_graph_builder()
            try:
                builder.begin_building("thread_local")
                work(int(builder.stream.handle))
                builder.end_building()
                if not builder.graph_definition.nodes():
                    raise BackendError("nothing was enqueued on the stream that was captured")
                graph = builder.complete()
            finally:
                with contextlib.suppress(Exception):  # after an error it still has to end the capture
                    builder.close()
            graph.upload(self._stream)
            return _Captured(graph, self._stream)

    @property
    def version(self) -> str:
        """Of the NVIDIA driver, such as "580.65.06"; empty where it cannot be told."""
        with contextlib.suppress(Exception):
            major, *rest = importlib.import_module("cuda.core.system").get_kernel_mode_driver_version()
            return ".".join([str(major), *(f"{part:02d}" for part in rest)])
        return ""

    @property
    def memory(self) -> int | None:
        """Bytes on the device in all; None where it cannot be told."""
        with contextlib.suppress(Exception):
            return int(self._core.Device(self.index).to_system_device().memory_info.total)
        return None

    def close(self) -> None:
        """See `Driver`."""
        if self._stream.is_closed:
            return
        self.attach()
        with _told("free memory on", self.name):
            self._stream.sync()
            for memory in list(self._allocated):
                memory.buffer.close(self._stream)
            for staging in self._staging.values():
                staging.close()
            self._staging.clear()
            self._stream.sync()
            self._stream.close()

    def _stage(self, nbytes: int) -> Any:
        """Page-locked memory of exactly this size, as copies want both sides alike; one large piece is kept at most."""
        if nbytes not in self._staging:
            for size in [size for size in self._staging if min(size, nbytes) > _SMALL]:
                self._staging.pop(size).close()
            self._staging[nbytes] = self._pinned.allocate(nbytes)
        return self._staging[nbytes]


class _DeviceMemory:
    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer
        self.address = int(buffer.handle)
        self.nbytes = int(buffer.size)


class _Captured:
    def __init__(self, graph: Any, stream: Any) -> None:
        self._graph, self._stream = graph, stream

    def launch(self) -> None:
        try:
            self._graph.launch(self._stream)
        except Exception as error:
            raise BackendError(f"CUDA did not launch the captured steps: {reason(error)}") from error

    def close(self) -> None:
        self._graph.close()


def _buffer(memory: Memory) -> Any:
    if not isinstance(memory, _DeviceMemory):
        raise BackendError("this memory belongs to another driver")
    return memory.buffer


def _bytes(staging: Any) -> Array:
    return np.from_dlpack(staging).view(np.uint8)


@contextlib.contextmanager
def _told(what: str, where: str) -> Iterator[None]:
    """Any error of `cuda.core` as one line; the backend's own pass through."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise BackendError(f"CUDA could not {what} {where}: {reason(error)}") from error
