"""Small graphs that every engine for GPUs is held to: what networks are made of, its gradients, and a whole step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import engine
import glaze_trt
from engine.runtime.protocol import EMULATE
from engine.tape import OPSET, Tape
from glaze_trt.cloak import Cloaker
from tests.glaze_trt.scene import waves

SIZE = (1, 3, 64, 96)

LEAST = {"fp32": 0.9999, "fp16": 0.999, "mixed": 0.999, "bf16": 0.99}
"""Cosine of a gradient with that of fp32; what `tests.engine.test_gpu_graphs` finds by rounding alone is above."""

LOSS = {"fp32": 1e-4, "fp16": 1e-2, "mixed": 1e-2, "bf16": 3e-2}
"""Relative error of a loss."""


@dataclass(frozen=True)
class Example:
    """A loss and its gradient (`loss`, `grad:x`), and data for them."""

    model: ir.Model
    feeds: dict[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """A whole cloaking step with the built-in networks, and all that a `Session` takes."""

    model: ir.Model
    carry: dict[str, str]
    constants: dict[str, np.ndarray]
    state: dict[str, np.ndarray]

    @property
    def distance(self) -> str:
        """The output that falls."""
        return next(str(v.name) for v in self.model.graph.outputs if str(v.name).startswith("distance"))

    def open(self, program: engine.Program) -> engine.Session:
        return engine.Session(program, self.carry, self.constants, self.state)


def gradient(session: engine.Session) -> np.ndarray:
    """Up to a factor, the gradient that the first step took, from the state that it left.

    From zeros, the second moment is g² times a number, and the momentum has g's signs.
    """
    return np.sign(session.read("momentum")) * np.sqrt(session.read("second"))


def convolution() -> Example:
    return _example(
        lambda t, x: t.Conv(
            t.Relu(t.Conv(x, _weight(32, 16, 3, 3), pads=[1] * 4, strides=[2, 2])),
            _weight(16, 32, 3, 3),
            pads=[1] * 4,
        )
    )


def max_pool() -> Example:
    return _example(
        lambda t, x: t.Conv(
            t.MaxPool(t.Conv(x, _weight(32, 16, 3, 3)), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
            _weight(16, 32, 1, 1),
        )
    )


def group_norm() -> Example:
    scale, offset = _weight(32, 1).reshape(-1) + 1, _weight(32, 1).reshape(-1)

    def net(t: Tape, x: ir.Value) -> ir.Value:
        y = t.GroupNormalization(t.Conv(x, _weight(32, 16, 3, 3), pads=[1] * 4), scale, offset, num_groups=4)
        return t.Conv(t.Mul(y, t.Sigmoid(y)), _weight(16, 32, 3, 3), pads=[1] * 4)

    return _example(net)


def resize() -> Example:
    def net(t: Tape, x: ir.Value) -> ir.Value:
        y = t.Conv(x, _weight(16, 16, 3, 3), pads=[1] * 4)
        up = t.Resize(y, None, np.float32([1, 1, 2, 2]), mode="nearest", nearest_mode="floor",
                      coordinate_transformation_mode="asymmetric")  # fmt: skip
        down = t.Resize(y, None, np.float32([1, 1, 0.5, 0.5]), mode="linear")
        smaller = t.AveragePool(t.Conv(up, _weight(16, 16, 3, 3), pads=[1] * 4), kernel_shape=[4, 4], strides=[4, 4])
        return t.Add(smaller, t.Conv(down, _weight(16, 16, 1, 1)))

    return _example(net)


EXAMPLES: dict[str, Callable[[], Example]] = {
    "strided convolution": convolution,
    "max-pool": max_pool,
    "group norm": group_norm,
    "resize": resize,
}


@cache
def step(*, scaled: bool) -> Step:
    """The step of a cloak with the built-in networks at 64 × 96, and what the cloak itself opens a session with.

    With loss scales, found as in fp16, if `scaled`.
    """
    opened: list[Step] = []
    _, model = Cloaker("tiny", "tiny").graphs(SIZE, scaled=scaled)

    class Recorded(engine.Session):
        def __init__(self, program: Any, carry: Any, constants: Any, state: Any) -> None:
            opened.append(Step(model, dict(carry), dict(constants), dict(state)))
            super().__init__(program, carry, constants, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "Session", Recorded)
        patch.setenv(EMULATE, "1")
        precision = "fp16" if scaled else "fp32"
        glaze_trt.cloak(
            waves(*SIZE[2:]), target=waves(*SIZE[2:], 5), steps=2, engine="onnxruntime", precision=precision
        )
    return replace(opened[0], constants=opened[0].constants | {"steps": np.asarray(30, np.float32)})


def _example(net: Callable[[Tape, ir.Value], ir.Value]) -> Example:
    """A multiple of the mean square of what a net makes of `x`, large enough for gradients in fp16."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="example")
    shape = (1, 16, 24, 32)
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(x)
    tape = Tape(graph)
    y = net(tape, x)
    with tape.scope("loss", precision="fp32"):
        loss = tape.Mul(tape.ReduceMean(tape.Mul(y, y), [0, 1, 2, 3], keepdims=0), 64.0)
    loss.name = "loss"
    graph.outputs.append(loss)
    model = engine.value_and_grad(ir.Model(graph, ir_version=10), "loss", ["x"])
    return Example(model, {"x": np.random.default_rng(1).standard_normal(shape).astype(np.float32)})


def _weight(*shape: int) -> np.ndarray:
    """Seeded by its shape; keeps the size of what goes through."""
    rng = np.random.default_rng(shape)
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
