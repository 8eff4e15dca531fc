"""A view as a model of its own, with the gradient of a weighed sum of what it shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import engine
from engine.tape import OPSET, Tape

Levels = NDArray[np.uint8]
Shown = Callable[[Tape, ir.Value, ir.Value, ir.Value], ir.Value]
"""Tape, picture, draw and seed to what is shown."""


def view_model(shown: Shown, size: tuple[int, int]) -> ir.Model:
    """`image`, `draw`, `seed`, `weight` → `shown`, `sum` and `grad:image`."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="view")
    for name, shape in (("image", (1, 3, *size)), ("draw", ()), ("seed", ()), ("weight", (1, 3, *size))):
        graph.inputs.append(ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    picture, draw, seed, weight = graph.inputs
    result = shown(tape, picture, draw, seed)
    total = tape.ReduceSum(tape.Mul(result, weight), [0, 1, 2, 3], keepdims=0)
    result.name, total.name = "shown", "sum"
    graph.outputs.extend([result, total])
    return engine.value_and_grad(ir.Model(graph, ir_version=10), "sum", ["image"])


class View:
    """A compiled view."""

    def __init__(self, shown: Shown, size: tuple[int, int], engine_name: str = "onnxruntime") -> None:
        self._program = engine.compile(view_model(shown, size), engine_name, "fp32")

    def __call__(
        self, picture: NDArray[np.float32], draw: int = 0, seed: float = 0.0, weight: NDArray[np.float32] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        weight = np.ones_like(picture) if weight is None else weight
        feeds = {"image": picture, "draw": np.float32(draw), "seed": np.float32(seed), "weight": weight}
        return dict(self._program({name: np.asarray(value) for name, value in feeds.items()}))


def levels(shown: NDArray[np.float32]) -> NDArray[np.int64]:
    """(1, 3, H, W) in [0,1] as (H, W, 3) whole levels."""
    return np.rint(np.clip(shown[0].transpose(1, 2, 0), 0, 1) * 255).astype(np.int64)
