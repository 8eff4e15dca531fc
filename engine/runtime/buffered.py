"""What every program shares, wherever its memory lies: its description, and the call with arrays.

Where buffers lie and how steps are repeated is for `host` and `cuda`. No backend is named here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeVar

from engine.runtime.feeds import check_feeds
from engine.runtime.protocol import Array, Buffer, Precision, TensorSpec

BufferT = TypeVar("BufferT", bound=Buffer)
BoundT = TypeVar("BoundT")


class BufferedProgram(ABC, Generic[BufferT, BoundT]):
    """A `Program` that still lacks its memory and its way to run steps."""

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
        self._call: tuple[dict[str, BufferT], dict[str, BufferT], BoundT] | None = None

    @abstractmethod
    def allocate(self, spec: TensorSpec) -> BufferT:
        """A zeroed buffer on the program's device. Raises `BackendError`."""

    @abstractmethod
    def bind(self, inputs: Mapping[str, BufferT], outputs: Mapping[str, BufferT]) -> BoundT:
        """Tie every input and output to a buffer, without a copy."""

    @abstractmethod
    def run_once(self, bound: BoundT) -> None:
        """Run one step and wait for it; raises `BackendError`."""

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
