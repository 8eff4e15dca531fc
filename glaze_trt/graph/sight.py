"""What a network of one fixed size sees of a picture of any size: a box of it, resampled, as part of its graph.

Face embeddings take 96×96 or 112×112 pixels of a face. Here the way from the whole picture to those pixels is two
matrix products with constants, so it has a gradient, costs little, and means what Pillow's antialiased resampling does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from engine.tape import OPSET, Tape, dims
from glaze_trt.graph.resampling import BILINEAR, resampling

Box = tuple[int, int, int, int]
"""x, y, width and height in pixels, from the left and the top."""


def through(net: ir.Model, shape: Sequence[int], box: Box | None, latent: str | None = None) -> ir.Model:
    """`net`, which takes one size, as a model that takes `image` (1, 3, H, W).

    Args:
        net: a canonical static model of one input.
        shape: of the picture, (1, 3, H, W).
        box: what of it the network sees; None for all.
        latent: the only output that is kept, under the name `latent`; None keeps all.
    """
    (image,) = net.graph.inputs
    height, width = dims(image)[2:]
    x, y, w, h = box or (0, 0, shape[3], shape[2])
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="sight")
    whole = ir.Value(name="image", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(whole)
    tape = Tape(graph)
    with tape.scope("sight", precision="fp32"):
        part = whole
        if (w, h) != (shape[3], shape[2]):
            part = tape.Slice(whole, [y, x], [y + h, x + w], [2, 3])
        if h != height:
            part = tape.MatMul(_line(h, height)[None, None], part)
        if w != width:
            part = tape.MatMul(part, np.ascontiguousarray(_line(w, width).T)[None, None])
    for name, value in tape.splice(net, {str(image.name): part}).items():
        if latent in (None, name):
            value.name = name if latent is None else "latent"
            graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)


def inside(box: Box, width: int, height: int) -> Box | None:
    """The part of a box that lies in a picture; None where none does."""
    x, y, w, h = box
    left, top, right, bottom = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
    return (left, top, right - left, bottom - top) if left < right and top < bottom else None


def _line(before: int, after: int) -> NDArray[np.float32]:
    return resampling(before, after, BILINEAR).astype(np.float32)
