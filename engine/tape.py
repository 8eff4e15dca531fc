"""Writes ONNX nodes into a graph: every value that leaves here has a known dtype and a static shape.

One `Tape` serves the gradient rules, the passes and whoever writes a loss or an optimizer as a graph.
It is not an optimizer: repeated or dead nodes are left to `engine.passes`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from engine.errors import DynamicShapeError, InvalidModelError, UnsupportedOpError
from engine.fold import evaluate, foldable

OPSET = 23
"""The version of the standard operator set that every graph of this package is written in."""

BACKWARD = "backward"
"""Key in `ir.Node.metadata_props`, with any value: reverse mode wrote this node, or one that it stands for."""

MARKS = ("precision", BACKWARD)
"""Keys in `ir.Node.metadata_props` that go on to the nodes which take a node's place."""

_DATA_LIMIT = 4096
"""Constants up to this many elements are shown to shape inference (axes, shapes, scales, pads)."""

Operand = ir.Value | np.ndarray | np.generic | float | int | Sequence[int] | Sequence[float] | None


def dims(value: ir.Value | None) -> tuple[int, ...]:
    """Static shape of `value`.

    Raises:
        DynamicShapeError: the rank or an axis is unknown; the message names the value and the axis.
    """
    if value is None:
        raise InvalidModelError("a required operand is absent")
    if value.shape is None:
        raise DynamicShapeError(f"the shape of {value.name!r} is unknown; pin the model's inputs with shapes={{...}}")
    for axis, dim in enumerate(value.shape):
        if not isinstance(dim, int):
            raise DynamicShapeError(
                f"axis {axis} ({dim}) of {value.name!r} is not static; pin the model's inputs with shapes={{...}}"
            )
    return tuple(int(d) for d in value.shape)  # type: ignore[arg-type]


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array behind an initializer, or None if `value` is absent or computed."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def attribute(node: ir.Node, name: str, default: Any) -> Any:
    """Value of a node's attribute, or `default` where the node does not set it."""
    attr = node.attributes.get(name)
    return default if attr is None else attr.value


def operand(node: ir.Node, index: int) -> ir.Value:
    """An input that the operator cannot do without.

    Raises:
        InvalidModelError: the node lacks it.
    """
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        raise InvalidModelError(f"{node.op_type} {node.name!r} lacks input {index}")
    return value


def numpy_dtype(value: ir.Value) -> np.dtype[Any]:
    """Dtype of `value`, for constants that go with it."""
    if value.dtype is None:
        raise InvalidModelError(f"the dtype of {value.name!r} is unknown")
    return value.dtype.numpy()


def is_float(value: ir.Value | None) -> bool:
    """Whether `value` carries real numbers, so that a gradient may flow through it."""
    return value is not None and value.dtype is not None and value.dtype.is_floating_point()


class Tape:
    """Emits nodes at the end of a graph, or before a given node.

    `tape.op("Add", a, b)` and `tape.Add(a, b)` are the same. Operands may be values, arrays, numbers (taken in
    the dtype of the first floating operand) or lists (of integers: int64, as shapes and axes are). Small constant
    expressions are evaluated at once.

    Args:
        graph: where the nodes go.
        before: emit before this node instead of at the end.
        needed: values whose gradient is wanted; `None` means all (see `needs`).
    """

    def __init__(self, graph: ir.Graph, before: ir.Node | None = None, needed: set[ir.Value] | None = None) -> None:
        self.graph = graph
        self.before = before
        self._needed = needed
        self._scope = ""
        self._marks: dict[str, str] = {}
        self._constants: dict[tuple[Any, ...], ir.Value] = {}

    def needs(self, value: ir.Value | None) -> bool:
        """Whether a gradient with respect to `value` is of any use."""
        return value is not None and (self._needed is None or value in self._needed)

    @contextlib.contextmanager
    def scope(self, name: str, precision: str | None = None, *, backward: bool = False) -> Iterator[None]:
        """Names the nodes written inside after `name`; pins their precision (`"fp32"`), marks them as `BACKWARD`."""
        saved = self._scope, self._marks
        self._scope = f"{saved[0]}/{name}" if saved[0] else name
        given = ({"precision": precision} if precision else {}) | ({BACKWARD: "1"} if backward else {})
        self._marks = saved[1] | given
        try:
            yield
        finally:
            self._scope, self._marks = saved

    @contextlib.contextmanager
    def instead_of(self, node: ir.Node) -> Iterator[None]:
        """Names the nodes written inside after `node`, whose place they take, and gives them its `MARKS`."""
        props = node.metadata_props
        with self.scope(str(node.name), props.get("precision"), backward=BACKWARD in props):
            yield

    def op(self, op_type: str, *inputs: Operand, **attributes: Any) -> ir.Value:
        """Emits one node with one output and returns that output."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: Operand, outputs: int, **attributes: Any) -> tuple[ir.Value, ...]:
        """Emits one node with `outputs` outputs and returns them."""
        values = self._operands(inputs)
        node = ir.Node("", op_type, values, ir.convenience.convert_attributes(attributes), num_outputs=outputs)
        folded = evaluate(node) if foldable(node) else None
        if folded is not None:
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)  # or the operands would count this node among their uses
            return tuple(self.constant(array) for array in folded)
        node.name = self._name(op_type)
        for index, output in enumerate(node.outputs):
            output.name = f"{node.name}:{index}"
        node.metadata_props.update(self._marks)
        infer(node)
        if self.before is None:
            self.graph.append(node)
        else:
            self.graph.insert_before(self.before, node)
        return tuple(node.outputs)

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        """`tape.Mul(a, b)` for `tape.op("Mul", a, b)`."""
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return lambda *inputs, **attributes: self.op(op_type, *inputs, **attributes)

    def constant(self, array: np.ndarray | np.generic | float | int, dtype: ir.DataType | None = None) -> ir.Value:
        """An initializer; equal small arrays share one."""
        array = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.numpy())
        key = (array.dtype.str, array.dtype.name, array.shape, array.tobytes()) if array.size <= 64 else None
        if key is not None and key in self._constants:
            return self._constants[key]
        name = f"const_{len(self.graph.initializers)}"
        while name in self.graph.initializers:
            name += "_"
        tensor = ir.tensor(array, name=name, dtype=dtype)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.register_initializer(value)
        if key is not None:
            self._constants[key] = value
        return value

    def splice(self, model: ir.Model, feeds: Mapping[str, ir.Value]) -> dict[str, ir.Value]:
        """Copies `model`'s nodes into this graph, fed by `feeds` (input name → value); returns output name → value."""
        twin: dict[ir.Value, ir.Value] = {}
        for value in model.graph.inputs:
            if value.name not in feeds:
                raise InvalidModelError(f"input {value.name!r} of the spliced model is not fed")
            given = feeds[str(value.name)]
            if dims(given) != dims(value):
                raise InvalidModelError(f"input {value.name!r} takes {dims(value)}, got {dims(given)}")
            twin[value] = given
        for value in model.graph.initializers.values():
            array = constant(value)
            assert array is not None
            twin[value] = self.constant(array, value.dtype)
        for node in model.graph:
            inputs = [None if v is None else twin[v] for v in node.inputs]
            copy = ir.Node(
                "",
                node.op_type,
                inputs,
                node.attributes.values(),
                num_outputs=len(node.outputs),
                metadata_props=dict(node.metadata_props),
            )
            copy.name = self._name(str(node.name))
            copy.metadata_props.update(self._marks)
            for old, new in zip(node.outputs, copy.outputs, strict=True):
                new.name, new.shape, new.type = f"{copy.name}:{new.index()}", old.shape, old.type
                twin[old] = new
            if self.before is None:
                self.graph.append(copy)
            else:
                self.graph.insert_before(self.before, copy)
        return {str(v.name): twin[v] for v in model.graph.outputs}

    def _name(self, label: str) -> str:
        """A node name no other tape on this graph gives."""
        number = self.graph.meta["written"] = self.graph.meta.get("written", 0) + 1
        return f"{self._scope}/{label}.{number}" if self._scope else f"{label}.{number}"

    def _operands(self, inputs: Sequence[Operand]) -> list[ir.Value | None]:
        values = [v for v in inputs if isinstance(v, ir.Value)]
        leader = next((v for v in values if is_float(v)), values[0] if values else None)

        def as_value(item: Operand) -> ir.Value | None:
            if item is None or isinstance(item, ir.Value):
                return item
            if isinstance(item, np.ndarray | np.generic):
                return self.constant(item)
            if isinstance(item, Sequence):
                return self.constant(
                    np.asarray(item, np.int64 if all(isinstance(i, int | np.integer) for i in item) else np.float32)
                )
            if leader is None:
                raise TypeError(f"the number {item!r} has no operand to take its dtype from")
            return self.constant(item, leader.dtype)

        return [as_value(item) for item in inputs]


_AS_FIRST_INPUT = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
"""Operators whose output is as their first input, and for which ONNX has no inference."""


def infer(node: ir.Node) -> None:
    """Sets dtype and shape of a node's outputs, by ONNX' own inference.

    Raises:
        UnsupportedOpError: the standard has no such operator at `OPSET`.
        InvalidModelError: the operands do not fit the operator.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, OPSET, "")
    except onnx.defs.SchemaError as error:
        raise UnsupportedOpError(f"{node.op_type} (node {node.name!r}) is no operator of opset {OPSET}") from error
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    proto = ir.to_proto(node)
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        name = f"in{index}"
        proto.input[index] = name
        types[name] = _type_proto(value)
        array = constant(value)
        if array is not None and array.size <= _DATA_LIMIT and array.dtype.kind in "iufb":
            data[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
    del proto.output[:]
    proto.output.extend(f"out{i}" for i in range(len(node.outputs)))
    imports = [onnx.helper.make_opsetid("", OPSET)]
    try:
        inferred = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
    except Exception as error:  # the C++ side raises several kinds
        shapes = ", ".join("-" if v is None else f"{v.dtype}{v.shape}" for v in node.inputs)
        raise InvalidModelError(f"{node.op_type} {node.name!r} does not take ({shapes}): {error}") from error
    for index, value in enumerate(node.outputs):
        if node.op_type in _AS_FIRST_INPUT:
            value.type, value.shape = node.inputs[0].type, node.inputs[0].shape  # type: ignore[union-attr]
            continue
        tensor = inferred[f"out{index}"].tensor_type if f"out{index}" in inferred else None
        if tensor is None:
            continue
        value.type = ir.TensorType(ir.DataType(tensor.elem_type))
        if tensor.HasField("shape"):
            value.shape = ir.Shape(
                [d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim]
            )


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    if value.dtype is None:
        raise InvalidModelError(f"the dtype of {value.name!r} is unknown")
    shape = None if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
    return onnx.helper.make_tensor_type_proto(int(value.dtype), shape)
