"""Encoders that remember what they made of the last few pictures.

The loop, the judge of the saved file and the report each encode the original and the target, and the last two encode
the cloaked picture too: the same pixels by the same network, in fp32. Perceptual nets are left out, as their features
are large.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from engine import Options
from glaze_trt.graph.sight import Box
from glaze_trt.network import Network

_KEPT = 24
"""Of a run in which three pictures are under way, each with a target and what handling makes of it, that is enough."""

Outputs = Mapping[str, NDArray[np.float32]]


class Memory:
    """What networks made of their last inputs. Threads may share it."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._made: dict[tuple[object, ...], Outputs] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> Outputs | None:
        """What is known by this key."""
        with self._lock:
            return self._made.get(key)

    def put(self, key: tuple[object, ...], outputs: Outputs) -> None:
        """Keep it; the oldest goes."""
        with self._lock:
            self._made[key] = outputs
            if len(self._made) > _KEPT:
                del self._made[next(iter(self._made))]


class Remembering(Network):
    """A network that is not run again for an input that it, or another of its memory, has had; used by one thread."""

    def __init__(self, net: Network, memory: Memory | None = None) -> None:
        """Take a network; nothing is compiled yet.

        Args:
            net: whose file, engine and box are taken over.
            memory: shared with other networks; one of its own, if None.
        """
        super().__init__(net.model, net._engine_name, net._options, net.box)
        self._memory = memory or Memory()

    def run(self, name: str, value: NDArray[np.float32]) -> Outputs:
        """The outputs for an input tensor, which are not to be written to."""
        digest = hashlib.blake2b(np.ascontiguousarray(value).data).digest()
        key = str(self.model.path), self.box, name, value.shape, digest
        made = self._memory.get(key)
        if made is None:
            made = super().run(name, value)
            self._memory.put(key, made)
        return made

    def at(self, box: Box | None) -> Network:
        """The same network, looking at a part of the picture."""
        return Remembering(super().at(box), self._memory)

    def apart(self, options: Options | None) -> Network:
        """The same network with engines of its own, for another thread."""
        return Remembering(Network(self.model, self._engine_name, options, self.box), self._memory)
