"""Mixed precision written into the graph: which nodes compute in bf16 or fp16, with explicit casts (strongly typed).

    bf16     8 bits of mantissa, the range of fp32
    fp16     11 bits, 6e-8 to 65504: gradients need a loss scale
    mixed    forward in fp16, backward in bf16: what a gradient loses, it loses where rounding in the forward flips the
             sign before a ReLU, and what overflows or vanishes are gradients; so each half has the type that suits it

Convolutions, matrix products and the elementwise work between them are narrowed; everything else stays in fp32, as do
nodes marked as islands (`metadata_props["precision"] == "fp32"`), what leads a picture into its first convolution, and
constants that the narrow type cannot hold. Inputs and outputs of the graph stay fp32, so callers notice nothing. Which
nodes are the backward, `engine.autodiff` has marked (`tape.BACKWARD`).

For engines that obey the types in a graph (TensorRT, ONNX Runtime's CUDA provider). OpenVINO lowers by itself.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from engine.errors import EngineError
from engine.passes.tidy import remove_dead
from engine.tape import BACKWARD, Tape, constant, dims, is_float

_FLOAT, _BF16, _FP16 = ir.DataType.FLOAT, ir.DataType.BFLOAT16, ir.DataType.FLOAT16

NARROW: dict[str, tuple[ir.DataType, ir.DataType]] = {
    "bf16": (_BF16, _BF16),
    "fp16": (_FP16, _FP16),
    "mixed": (_FP16, _BF16),
}
"""The types of the forward and of the backward."""

_PRODUCTS = frozenset({"Conv", "MatMul"})
_ELEMENTWISE = frozenset("Abs Add Clip Div LeakyRelu Max Min Mul Neg PRelu Relu Sigmoid Sub Tanh Where".split())
_COMPARISONS = frozenset("Equal Greater GreaterOrEqual Less LessOrEqual".split())
_MOVES = frozenset(
    "Concat DepthToSpace Expand Flatten Gather Identity Pad Reshape Slice SpaceToDepth Split Squeeze Tile Transpose "
    "Unsqueeze".split()
)
_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "Resize"})
_CHANNELS = 4
"""Of a picture, at most."""
_SMALL = 16
"""A statistic has this many times fewer elements than what it is of."""
_FEW = 64
"""Numbers in a constant that is looked at one by one."""


def typed(model: ir.Model, precision: str, *, emulate: bool = False) -> ir.Model:
    """A strongly typed twin of an fp32 model.

    Args:
        model: canonical and static; left unchanged.
        precision: `fp32` (a plain copy) or one of `NARROW`.
        emulate: compute in fp32 and only round what the narrow nodes read and write, for engines that have no narrow
            kernels; the results are those of an engine that accumulates in fp32.

    Raises:
        EngineError: no such precision.
    """
    if precision != "fp32" and precision not in NARROW:
        raise EngineError(f"no precision {precision!r}; choose fp32, {', '.join(NARROW)}")
    result = model.clone()
    if precision != "fp32":
        _Typing(result.graph, NARROW[precision], emulate).run()
        remove_dead(result.graph)
    return result


class _Typing:
    def __init__(self, graph: ir.Graph, narrow: tuple[ir.DataType, ir.DataType], emulate: bool) -> None:
        self._graph, self._narrow, self._emulate = graph, narrow, emulate
        self._tape = Tape(graph)
        self._first = next(iter(graph), None)
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._types: dict[ir.Value, ir.DataType] = {}
        """Of values that are narrow, or have been rounded to it."""

    def run(self) -> None:
        nodes = list(self._graph)
        chosen = self._choose(nodes)
        for node in nodes:
            dtype = self._type(node) if node in chosen else _FLOAT
            self._feed(node, dtype)
            if dtype == _FLOAT:
                continue
            if node.op_type == "Cast" and not self._emulate:
                node.attributes["to"] = ir.AttrInt64("to", int(dtype))
            for output in node.outputs:
                if output.dtype == _FLOAT:
                    self._round(output, dtype)

    def _type(self, node: ir.Node) -> ir.DataType:
        """The type a narrow node computes in: its half's, or its operands' where it only moves or compares."""
        if node.op_type in _MOVES | _COMPARISONS:
            kinds = {self._types.get(v, _FLOAT) for v in node.inputs if v is not None and _is_computed(v)}
            if len(kinds) == 1:
                return kinds.pop()
            if node.op_type in _COMPARISONS:
                return _FLOAT
        return self._narrow[_is_backward(node)]

    def _choose(self, nodes: list[ir.Node]) -> set[ir.Node]:
        """The nodes that compute in the narrow type."""
        pictures = self._pictures(nodes)
        able: set[ir.Node] = set()
        for node in nodes:
            marked = node.metadata_props.get("precision") == "fp32"
            if not marked and node not in pictures and self._can(node) and not self._follows(node, able):
                able.add(node)
        chosen: set[ir.Node] = set()
        for node in reversed(nodes):
            if node in able and (node.op_type in _PRODUCTS or self._is_read_narrow(node, chosen)):
                chosen.add(node)
        return chosen

    def _follows(self, node: ir.Node, able: set[ir.Node]) -> bool:
        """Whether a node is better in fp32 because of what it reads.

        It reads nothing narrow (so that ties in a pool, say, are not made by rounding), or it scales or shifts a tensor
        by a statistic of it.
        """
        computed = [v for v in node.inputs if v is not None and _is_computed(v)]
        wide = [v for v in computed if v.producer() not in able]
        if node.op_type in _PRODUCTS or not wide:
            return False
        size = max(math.prod(dims(v)) for v in node.outputs)
        return len(wide) == len(computed) or any(_SMALL * math.prod(dims(v)) <= size for v in wide)

    def _can(self, node: ir.Node) -> bool:
        floats = [v for v in (*node.inputs, *node.outputs) if v is not None and is_float(v)]
        if not floats or any(v.dtype != _FLOAT for v in floats):
            return False
        if node.op_type == "Cast":
            return not is_float(node.inputs[0])
        if node.op_type not in _PRODUCTS | _ELEMENTWISE | _COMPARISONS | _MOVES | _POOLS:
            return False
        return all(self._holds(v, _is_backward(node)) for v in node.inputs if v is not None and v.dtype == _FLOAT)

    def _holds(self, value: ir.Value, backward: bool) -> bool:
        """Whether a constant survives: no number overflows, and none of a few (an ε, say) vanishes."""
        array = constant(value)
        if array is None:
            return True
        with np.errstate(over="ignore"):
            narrow = array.astype(self._narrow[backward].numpy()).astype(np.float32)
        overflows = (np.isfinite(array) & ~np.isfinite(narrow)).any()
        vanishes = array.size <= _FEW and ((narrow == 0) & (array != 0)).any()
        return not (overflows or vanishes)

    def _is_read_narrow(self, node: ir.Node, chosen: set[ir.Node]) -> bool:
        """Whether anything reads the result as narrow; what is only widened again need not be rounded before."""
        return any(use.node in chosen for output in node.outputs for use in output.uses())

    def _pictures(self, nodes: list[ir.Node]) -> set[ir.Node]:
        """What leads pictures (B, few channels, H, W) from inputs into convolutions, and these convolutions.

        A cloak changes a picture by a few 8-bit levels; numbers in bf16 are a whole level apart below 1.
        """
        shown = {v for v in self._graph.inputs if _is_picture(v)}
        found: set[ir.Node] = set()
        for node in nodes:
            if not any(v in shown for v in node.inputs if v is not None):
                continue
            if node.op_type == "Conv" and node.inputs[0] in shown:
                found.add(node)
            elif node.op_type in _ELEMENTWISE | {"Pad"} and _is_picture(node.outputs[0]):
                found.add(node)
                shown.update(node.outputs)
        return found

    def _feed(self, node: ir.Node, dtype: ir.DataType) -> None:
        """Has a node read every real operand in `dtype`."""
        for index, value in enumerate(node.inputs):
            is_scale = node.op_type == "Resize" and index > 0  # fp32 by definition
            if value is None or is_scale or not is_float(value) or value.dtype == ir.DataType.DOUBLE:
                continue
            held = self._types.get(value, _FLOAT)
            if held == dtype or (self._emulate and dtype == _FLOAT):
                continue
            converted = self._cast(value, dtype)
            node.replace_input_with(index, self._cast(converted, _FLOAT) if self._emulate else converted)

    def _round(self, output: ir.Value, dtype: ir.DataType) -> None:
        """Makes a result of a narrow node narrow, for whoever reads it; outputs of the graph are widened again."""
        if self._emulate:
            exact, output = output, self._renew(output)
            self._written(self._written(exact, dtype), _FLOAT, into=output)
        else:
            wide = self._renew(output) if output.is_graph_output() else None
            output.type = ir.TensorType(dtype)
            if wide is not None:
                self._written(output, _FLOAT, into=wide)
        self._types[output] = dtype

    def _renew(self, value: ir.Value) -> ir.Value:
        """A new value in the place of `value` for all its readers, with its name if it is an output of the graph."""
        twin = ir.Value(name=f"{value.name}/twin", shape=value.shape, type=value.type)
        if value.is_graph_output():
            value.name, twin.name = twin.name, value.name
        value.replace_all_uses_with(twin, replace_graph_outputs=True)
        return twin

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if (value, dtype) not in self._casts:
            array = constant(value)
            if array is None:
                self._casts[value, dtype] = self._written(value, dtype)
            else:
                self._casts[value, dtype] = self._tape.constant(array.astype(dtype.numpy()), dtype)
        return self._casts[value, dtype]

    def _written(self, value: ir.Value, dtype: ir.DataType, into: ir.Value | None = None) -> ir.Value:
        """A Cast right after `value` is known."""
        result = into or ir.Value(name=f"{value.name}/{dtype.name.lower()}", shape=value.shape)
        result.type = ir.TensorType(dtype)
        attributes = [ir.AttrInt64("to", int(dtype))]
        cast = ir.Node("", "Cast", [value], attributes, outputs=[result], name=f"cast/{result.name}")
        producer = value.producer()
        if producer is not None:
            self._graph.insert_after(producer, cast)
        elif self._first is not None:
            self._graph.insert_before(self._first, cast)
        return result


def _is_computed(value: ir.Value) -> bool:
    return is_float(value) and value.producer() is not None


def _is_backward(node: ir.Node) -> bool:
    return BACKWARD in node.metadata_props


def _is_picture(value: ir.Value) -> bool:
    shape = dims(value)
    return value.dtype == _FLOAT and len(shape) == 4 and shape[1] <= _CHANNELS
