"""A model file fed with 8-bit pictures, and how a picture of any size is grown to what a network takes. In fp32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import engine
from glaze_trt.graph.sight import Box, through

if TYPE_CHECKING:
    from glaze_trt.models import Manifest, ModelFile

Levels = NDArray[np.uint8]

SIZES_KEPT = 4
"""Picture sizes that a `Network` stays compiled for; the one longest unused goes first."""


class Network:
    """A model file fed with 8-bit pictures, in fp32; compiled for each picture size on first use."""

    def __init__(
        self,
        model: ModelFile,
        engine_name: str = "auto",
        options: engine.Options | None = None,
        box: Box | None = None,
    ) -> None:
        """Take a model file; nothing is compiled yet.

        Args:
            model: the file.
            engine_name: as `engine.compile` takes it.
            options: as `engine.compile` takes them.
            box: what a network of one fixed size sees of a picture; None for all of it.
        """
        self.model, self.box = model, box
        self._engine_name, self._options = engine_name, options
        self._programs: dict[tuple[int, ...], engine.Program] = {}

    def __call__(self, levels: Levels) -> Mapping[str, NDArray[np.float32]]:
        """The outputs for (H, W, 3) uint8, padded by its mirror image to what the net takes."""
        return self.run("image", padded(levels, self.model.manifest))

    def run(self, name: str, value: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """The outputs for an input tensor given as it is."""
        return self.compile(name, value.shape)({name: value})

    def compile(self, name: str, shape: tuple[int, ...]) -> engine.Program:
        """The program for one shape of the input; kept.

        Raises:
            EngineError: the file cannot be compiled for it.
        """
        program = self._programs.pop(shape, None)
        if program is None:
            program = engine.compile(self.load(name, shape), self._engine_name, "fp32", self._options)
        self._programs[shape] = program
        if len(self._programs) > SIZES_KEPT:
            del self._programs[next(iter(self._programs))]
        return program

    def load(self, name: str, shape: tuple[int, ...]) -> ir.Model:
        """The graph for one shape of the input."""
        size, ports = self.model.manifest.size, self.model.manifest.ports
        whole = size is None or (shape[2:] == size and self.box is None)
        if whole and ports is None:
            return engine.load(self.model.path, shapes={name: shape})
        taken = shape if size is None else (*shape[:2], *size)
        net = engine.load(self.model.path, shapes={ports[0] if ports else name: taken})
        return through(net, shape, self.box, ports[1] if ports else None)

    def at(self, box: Box | None) -> Network:
        """The same network, looking at a part of the picture."""
        return Network(self.model, self._engine_name, self._options, box)

    def takes(self, levels: Levels) -> tuple[int, ...]:
        """The shape that a picture is padded to."""
        return padded_shape(levels.shape[:2], self.model.manifest)


def padded(levels: Levels, manifest: Manifest) -> NDArray[np.float32]:
    """An (H, W, 3) uint8 picture as (1, 3, H', W') float32 in [0, 1], grown at the right and bottom.

    H' and W' are the next multiples of the manifest's `multiple`, at least its `minimum`; the picture is mirrored. A
    network of one fixed size takes any picture, see `graph.sight`.
    """
    sides = padded_shape(levels.shape[:2], manifest)[2:]
    grow = [(0, full - side) for full, side in zip(sides, levels.shape[:2], strict=True)]
    image = np.pad(levels, [*grow, (0, 0)], mode="symmetric")
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255.0)


def padded_shape(size: Sequence[int], manifest: Manifest) -> tuple[int, ...]:
    """The shape that `padded` gives a picture of (height, width)."""
    multiple, minimum = (manifest.multiple, manifest.minimum) if manifest.size is None else (1, 1)
    return (1, 3, *(-(-max(side, minimum) // multiple) * multiple for side in size))
