"""A driver without a GPU: work waits in a queue and runs on numpy memory, in stream order, when somebody waits for it.

Stricter than a real one: what CUDA forbids while a stream is captured fails here too, and every call is written down.
Beside it a program of a few lines, whose steps say by which addresses they read and write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from engine.errors import BackendError
from engine.runtime.cuda import CudaProgram, DeviceBuffer
from engine.runtime.protocol import TensorSpec
from engine.runtime.session import Session

Work = Callable[[], None]


@dataclass(eq=False)
class Memory:
    address: int
    nbytes: int


class Captured:
    def __init__(self, driver: StandInDriver, works: list[Work]) -> None:
        self.driver, self.works, self.closed = driver, works, False

    def launch(self) -> None:
        assert not self.closed
        self.driver.note("launch")
        self.driver.queue.extend(self.works)

    def close(self) -> None:
        self.driver.note("free graph")
        self.closed = True


class StandInDriver:
    index = 0
    name = "stand-in GPU"
    capability = (8, 9)
    stream = 0x57

    def __init__(self, skew: int = 0, refuse: str | None = None) -> None:
        """`skew`: bytes off alignment; `refuse`: why every capture fails, after its work was recorded."""
        self.calls: list[str] = []
        self.queue: list[Work] = []
        self.contents: dict[int, np.ndarray] = {}
        self.recording: list[Work] | None = None
        self.attached = False
        self.executed = 0
        self.closed = False
        self._skew, self._refuse = skew, refuse

    def note(self, call: str) -> None:
        assert not self.closed
        self.calls.append(call)

    def attach(self) -> None:
        self.attached = True

    def allocate(self, nbytes: int) -> Memory:
        self._forbid("allocate")
        raw = np.full(nbytes + 512, 0xAB, np.uint8)
        start = -raw.ctypes.data % 256 + self._skew
        memory = Memory(raw.ctypes.data + start, nbytes)
        self.contents[memory.address] = raw[start : start + nbytes]
        return memory

    def zero(self, memory: Memory) -> None:
        self._forbid("zero")
        self.queue.append(lambda: self.contents[memory.address].fill(0))

    def copy_in(self, memory: Memory, array: np.ndarray) -> None:
        self._forbid("write")
        assert array.flags.c_contiguous
        self._drain()
        self.contents[memory.address][:] = array.reshape(-1).view(np.uint8)

    def copy_out(self, memory: Memory, array: np.ndarray) -> None:
        self._forbid("read")
        self._drain()
        array.reshape(-1).view(np.uint8)[:] = self.contents[memory.address]

    def synchronise(self) -> None:
        self._forbid("synchronise")
        self._drain()

    def capture(self, work: Callable[[int], None]) -> Captured:
        self._forbid("capture")
        self.recording = []
        try:
            work(self.stream)
            if self._refuse:
                raise BackendError(self._refuse)
            return Captured(self, self.recording)
        finally:
            self.recording = None

    def close(self) -> None:
        if not self.closed:
            self.note("close")
        self.closed = True

    def submit(self, stream: int, label: str, work: Work) -> None:
        """What a library does with a stream."""
        assert stream == self.stream
        assert self.attached
        self.note(label)
        (self.queue if self.recording is None else self.recording).append(work)

    def array(self, address: int, spec: TensorSpec) -> np.ndarray:
        return self.contents[address].view(spec.dtype).reshape(spec.shape)

    def _drain(self) -> None:
        for work in self.queue:
            work()
            self.executed += 1
        self.queue.clear()

    def _forbid(self, call: str) -> None:
        self.note(call)
        if self.recording is not None:
            raise BackendError(f"{call}: operation not permitted when stream is capturing")


@dataclass(eq=False)
class Bound:
    turn: int
    inputs: dict[str, int]
    outputs: dict[str, int]


PLAIN = TensorSpec((2, 3), np.dtype(np.float32))
COUNT = TensorSpec((), np.dtype(np.float32))


class HalvingProgram(CudaProgram[Bound]):
    """x_next = x / 2 + gain, n_next = n + 1, seen = x + n."""

    def __init__(self, driver: StandInDriver) -> None:
        inputs = {"x": PLAIN, "n": COUNT, "gain": PLAIN}
        super().__init__(driver, "halving", "fp32", inputs, {"x_next": PLAIN, "n_next": COUNT, "seen": PLAIN})
        self.driver = driver
        self.bound: list[Bound] = []

    def bind(self, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]) -> Bound:
        taken = [{name: buffer.address for name, buffer in group.items()} for group in (inputs, outputs)]
        self.bound.append(Bound(len(self.bound), *taken))
        return self.bound[-1]

    def enqueue(self, bound: Bound, stream: int) -> None:
        reads, writes = bound.inputs, bound.outputs  # a captured graph holds addresses, not the binding

        def step() -> None:
            x, n, gain = (self.driver.array(reads[name], self.inputs[name]) for name in self.inputs)
            written = {"x_next": x / 2 + gain, "n_next": n + 1, "seen": x + n}
            for name, value in written.items():
                self.driver.array(writes[name], self.outputs[name])[...] = value

        self.driver.submit(stream, f"step {bound.turn}", step)

    def warmed(self) -> None:
        self.driver.note("warmed")


X = np.arange(6, dtype=np.float32).reshape(2, 3)
GAIN = np.full((2, 3), 3, np.float32)


def open_session(program: HalvingProgram, x: np.ndarray = X) -> Session:
    return Session(
        program,
        carry={"x_next": "x", "n_next": "n"},
        constants={"gain": GAIN},
        state={"x": x, "n": np.zeros((), np.float32)},
    )


def expected(steps: int, x: np.ndarray = X, gain: np.ndarray = GAIN) -> np.ndarray:
    for _ in range(steps):
        x = x / 2 + gain
    return x


def check(session: Session, x: np.ndarray = X) -> None:
    steps = session.steps
    np.testing.assert_array_equal(session.read("x"), expected(steps, x))
    assert session.read("n") == steps
    np.testing.assert_array_equal(session.read("x_next"), expected(steps, x))
    np.testing.assert_array_equal(session.read("seen"), expected(steps - 1, x) + (steps - 1))
