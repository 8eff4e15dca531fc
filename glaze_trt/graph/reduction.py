"""An encoder that is shown a picture scaled down, with the scaling as part of its graph, so that it has a gradient."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import engine
from engine.tape import OPSET, Tape
from glaze_trt.graph.resampling import BICUBIC, resampling
from glaze_trt.network import Network, padded_shape

WEIGHT = 2.0
"""Of what an encoder sees of a picture scaled down, where 1 is what it sees of the picture itself: training pipelines
take 512 pixels more often than 1024, and less of a change gets there."""


class Reduced(Network):
    """An encoder of free size that sees every picture of one size at a smaller one."""

    def __init__(self, net: Network, whole: tuple[int, int], size: tuple[int, int]) -> None:
        """Take an encoder.

        Args:
            net: it takes pictures of any size.
            whole: (height, width) of the pictures, without what they are grown by.
            size: (height, width) that it sees them at.
        """
        super().__init__(net.model, net._engine_name, net._options)
        self._whole, self._size = whole, size

    def load(self, name: str, shape: tuple[int, ...]) -> ir.Model:
        """The graph for one shape of the input, (1, 3, H, W), grown or not."""
        taken = padded_shape(self._size, self.model.manifest)
        ports = self.model.manifest.ports or (name, "latent")
        net = engine.load(self.model.path, shapes={ports[0]: taken})
        graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="reduction")
        image = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
        graph.inputs.append(image)
        tape = Tape(graph)
        with tape.scope("reduction", precision="fp32"):
            rows, columns = (
                _line(self._whole[axis], self._size[axis], shape[2 + axis], taken[2 + axis]) for axis in (0, 1)
            )
            small = tape.MatMul(tape.MatMul(rows[None, None], image), np.ascontiguousarray(columns.T)[None, None])
        latent = tape.splice(net, {ports[0]: small})[ports[1]]
        latent.name = "latent"
        graph.outputs.append(latent)
        return ir.Model(graph, ir_version=10)


def _line(before: int, after: int, given: int, taken: int) -> NDArray[np.float32]:
    """From `given` pixels, of which the first `before` count, to `after` and their mirror image up to `taken`."""
    line = np.pad(resampling(before, after, BICUBIC), ((0, 0), (0, given - before)))
    return np.pad(line, ((0, taken - after), (0, 0)), mode="symmetric").astype(np.float32)
