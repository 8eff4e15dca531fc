"""How a gradient rule is put to the test: one small model a case, written with `Builder`.

    Case("conv/stride", lambda g: g.Conv(g.input("x", 1, 3, 8, 8), g.weight(4, 3, 3, 3), strides=[2, 2]),
         torch=lambda x, w: F.conv2d(x, w, stride=2))

`tests/engine/test_vjp.py` runs every `CASES` list of the `cases_<family>.py` files beside this one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class Case:
    """One model, built anew in each dtype it is tested in.

    Attributes:
        id: "family/what is special about it".
        build: writes the model; returns its output, or several. Outputs that are not floats are ignored.
        torch: the same function in torch, of the inputs and weights in the order in which `build` declares them.
            It returns one tensor or a tuple (as many as `build`'s floating outputs).
        opset: the version of the operator set that `build` writes.
        wrt: the inputs to differentiate; all floating ones where None.
        differences: whether central differences are taken; a case leaves them out only where they mean nothing
            (a kink, a tie), and then needs `torch`.
        as_written: whether ONNX Runtime takes the model as it is written, before anything is lowered, to compare
            outputs with.
        half: whether the case is also built for TensorRT in bf16.
        tolerance: relative error allowed in fp32, against float64 and torch.
        engines: those that must agree in fp32 ("onnxruntime", "openvino", "tensorrt"); a case leaves one out
            only where the engine itself lacks the *forward* operator.
    """

    id: str
    build: Callable[[Builder], ir.Value | Sequence[ir.Value]]
    torch: Callable[..., Any] | None = None
    opset: int = 23
    wrt: tuple[str, ...] | None = None
    differences: bool = True
    as_written: bool = True
    half: bool = True
    tolerance: float = 2e-5
    engines: tuple[str, ...] = ("onnxruntime", "openvino", "tensorrt")


class Builder:
    """Writes the nodes of one case: `g.Conv(x, w, strides=[2, 2])`, or `g.op("Split", x, outputs=2)`.

    Operands may be values, arrays (floats are brought to the case's dtype; see `const` to keep theirs), numbers (of
    the case's dtype), lists of integers (int64) and None. Data is random, and the same each time.
    """

    def __init__(self, case: Case, dtype: ir.DataType) -> None:
        self.dtype = dtype
        self.opset = case.opset
        self.random = np.random.default_rng(zlib.crc32(case.id.encode()))
        self.feeds: dict[str, np.ndarray] = {}
        """Graph inputs and their data, in the case's dtype."""
        self.arguments: list[tuple[str | None, np.ndarray]] = []
        """What `Case.torch` takes: (input name, data) or (None, weight), in order of declaration."""
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": case.opset}, name=case.id)

    def input(
        self,
        name: str,
        *shape: int,
        low: float = -1.0,
        high: float = 1.0,
        away_from: Sequence[float] = (),
        distinct: bool = False,
        values: Any = None,
        dtype: ir.DataType | None = None,
    ) -> ir.Value:
        """A graph input, with uniform data in [low, high].

        Args:
            name: of the input.
            *shape: of the input.
            low: smallest entry.
            high: largest entry.
            away_from: kinks; entries nearer than 0.05 to one of them are moved away.
            distinct: entries all differ by at least (high − low) / (size − 1), for maxima and sorting.
            values: the data itself, instead of random numbers.
            dtype: of the input, instead of the case's.
        """
        if values is not None:
            data = np.asarray(values)
        elif distinct:
            data = np.linspace(low, high, int(np.prod(shape)))
            data = self.random.permutation(data).reshape(shape)
        else:
            data = self.random.uniform(low, high, shape)
            for kink in away_from:
                near = np.abs(data - kink) < 0.05
                data = np.where(near, kink + np.where(data < kink, -0.05, 0.05) * 1.5, data)
        dtype = dtype or self.dtype
        data = rounded(np.asarray(data)).astype(dtype.numpy())
        value = ir.Value(name=name, shape=ir.Shape(data.shape), type=ir.TensorType(dtype))
        self.graph.inputs.append(value)
        self.feeds[name] = data
        self.arguments.append((name, data))
        return value

    def weight(self, *shape: int, low: float = -1.0, high: float = 1.0, values: Any = None) -> ir.Value:
        """A constant of the case's dtype, uniform in [low, high], that is also handed to `Case.torch`."""
        data = self.random.uniform(low, high, shape) if values is None else np.asarray(values)
        data = rounded(data).astype(self.dtype.numpy())
        self.arguments.append((None, data))
        return self.const(data)

    def const(self, array: Any) -> ir.Value:
        """An initializer of the array's own dtype."""
        array = np.asarray(array)
        tensor = ir.tensor(array, name=f"weight_{len(self.graph.initializers)}")
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.graph.register_initializer(value)
        return value

    def op(self, op_type: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns its output, or a tuple of them where there are several."""
        values = [self._operand(item) for item in inputs]
        node = ir.Node("", op_type, values, ir.convenience.convert_attributes(attributes), num_outputs=outputs)
        node.name = f"{op_type}_{len(self.graph)}"
        for index, value in enumerate(node.outputs):
            value.name = f"{node.name}:{index}"
        self.graph.append(node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        """`g.Mul(a, b)` for `g.op("Mul", a, b)`."""
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return lambda *inputs, **attributes: self.op(op_type, *inputs, **attributes)

    def _operand(self, item: Any) -> ir.Value | None:
        if item is None or isinstance(item, ir.Value):
            return item
        if isinstance(item, list | tuple) and all(isinstance(i, int) for i in item):
            return self.const(np.asarray(item, np.int64))
        array = np.asarray(item)
        return self.const(
            array if array.dtype.kind in "biu" and array.ndim else rounded(array).astype(self.dtype.numpy())
        )


def rounded(data: np.ndarray) -> np.ndarray:
    """Through float32, so that a case computes with the same numbers in every dtype."""
    return data.astype(np.float32).astype(np.float64) if data.dtype.kind == "f" else data


@dataclass(frozen=True)
class Built:
    """A case in one dtype: the model with floating outputs `out_0`, `out_1`, ..., and the data for its inputs."""

    model: ir.Model
    feeds: dict[str, np.ndarray]
    arguments: list[tuple[str | None, np.ndarray]]
    wrt: tuple[str, ...]


def build(case: Case, dtype: ir.DataType = ir.DataType.FLOAT) -> Built:
    """Writes the case's model in `dtype`."""
    builder = Builder(case, dtype)
    result = case.build(builder)
    outputs = [result] if isinstance(result, ir.Value) else list(result)
    for index, value in enumerate(outputs):
        value.name = f"out_{index}"
        if value.type is None:
            value.type = ir.TensorType(dtype)
    builder.graph.outputs.extend(outputs)
    model = ir.Model(builder.graph, ir_version=10)
    floating = tuple(str(v.name) for v in builder.graph.inputs if v.dtype is dtype)
    return Built(model, builder.feeds, builder.arguments, case.wrt or floating)
