"""Each rewrite: the operators that remain, and that the numbers do not change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from engine.gradient import add_output
from engine.passes.simplify import simplify
from engine.passes.tidy import tidy
from engine.tape import OPSET, Tape

FLOAT, HALF = int(ir.DataType.FLOAT), int(ir.DataType.FLOAT16)

Write = Callable[[Tape, ir.Value, ir.Value], ir.Value]

REWRITES: dict[str, tuple[Write, list[str]]] = {
    "times one": (lambda t, x, _: t.Neg(t.Mul(x, 1.0)), ["Neg"]),
    "plus zeros": (lambda t, x, _: t.Neg(t.Add(np.zeros((3, 4), np.float32), x)), ["Neg"]),
    "minus zero, over one, to the first": (lambda t, x, _: t.Neg(t.Pow(t.Div(t.Sub(x, 0.0), 1.0), 1.0)), ["Neg"]),
    "zero minus stays": (lambda t, x, _: t.Sub(0.0, x), ["Sub"]),
    "one that broadcasts stays": (lambda t, x, _: t.Mul(x, np.ones((2, 3, 4), np.float32)), ["Mul"]),
    "chain of factors": (lambda t, x, _: t.Mul(3.0, t.Div(t.Mul(x, 2.0), 4.0)), ["Mul"]),
    "chain of terms": (lambda t, x, _: t.Add(t.Add(x, 2.0), np.ones((1, 4), np.float32)), ["Add"]),
    "factors whose product is larger stay": (
        lambda t, x, _: t.Mul(t.Mul(x, np.full((3, 1), 2, np.float32)), np.full((1, 4), 3, np.float32)),
        ["Mul", "Mul"],
    ),
    "factor of a negation": (lambda t, x, _: t.Neg(t.Mul(t.Neg(x), 2.0)), ["Mul"]),
    "double negation": (lambda t, x, _: t.Exp(t.Neg(t.Neg(x))), ["Exp"]),
    "negated difference": (lambda t, x, y: t.Neg(t.Sub(x, y)), ["Sub"]),
    "plus a negation": (lambda t, x, y: t.Add(x, t.Neg(y)), ["Sub"]),
    "a negation plus": (lambda t, x, y: t.Add(t.Neg(x), y), ["Sub"]),
    "minus a negation": (lambda t, x, y: t.Sub(x, t.Neg(y)), ["Add"]),
    "reshapes": (lambda t, x, _: t.Reshape(t.Unsqueeze(t.Flatten(x, axis=0), [0]), [4, 3]), ["Reshape"]),
    "reshapes there and back": (lambda t, x, _: t.Neg(t.Reshape(t.Reshape(x, [12]), [3, 4])), ["Neg"]),
    "transposes": (
        lambda t, x, _: t.Transpose(t.Transpose(t.Reshape(x, [3, 2, 2]), perm=[1, 2, 0]), perm=[1, 0, 2]),
        ["Reshape", "Transpose"],
    ),
    "transposes there and back": (lambda t, x, _: t.Neg(t.Transpose(t.Transpose(x))), ["Neg"]),
    "transpose of axes of length one": (
        lambda t, x, _: t.Neg(t.Transpose(t.Reshape(x, [1, 3, 1, 4]), perm=[1, 0, 3, 2])),
        ["Reshape", "Neg"],
    ),
    "a cast that widens": (
        lambda t, x, _: t.Cast(t.Cast(t.Cast(x, to=HALF), to=FLOAT), to=HALF),
        ["Cast"],
    ),
    "a cast that narrows stays": (lambda t, x, _: t.Cast(t.Cast(x, to=HALF), to=FLOAT), ["Cast", "Cast"]),
    "expand into a full operand": (lambda t, x, y: t.Mul(t.Expand(_row(t, y), [3, 4]), x), ["ReduceSum", "Mul"]),
    "expand after": (lambda t, x, _: t.Mul(t.Expand(_row(t, x), [3, 4]), 0.3), ["ReduceSum", "Mul", "Expand"]),
    "expand after a function": (lambda t, x, _: t.Exp(t.Expand(_row(t, x), [3, 4])), ["ReduceSum", "Exp", "Expand"]),
    "expand under a condition": (
        lambda t, x, y: t.Where(t.Greater(x, 0.0), t.Expand(_row(t, y), [3, 4]), 0.0),
        ["Greater", "ReduceSum", "Where"],
    ),
    "three slices meet": (
        lambda t, x, y: t.Add(t.Add(t.Pad(x, [0, 8, 0, 0]), t.Pad(y, [0, 4, 0, 4])), t.Pad(t.Exp(x), [0, 0, 0, 8])),
        ["Exp", "Concat"],
    ),
    "two slices meet in the middle": (
        lambda t, x, y: t.Add(t.Pad(x, [0, 1, 0, 5]), t.Pad(y, [0, 5, 0, 1])),
        ["Concat", "Pad"],
    ),
    "slices that overlap stay": (
        lambda t, x, y: t.Add(t.Pad(x, [0, 1, 0, 0]), t.Pad(y, [0, 0, 0, 1])),
        ["Pad", "Pad", "Add"],
    ),
    "slices of different axes stay": (
        lambda t, x, y: t.Add(t.Reshape(t.Pad(x, [0, 4, 0, 0]), [6, 4]), t.Pad(y, [0, 0, 3, 0])),
        ["Pad", "Reshape", "Pad", "Add"],
    ),
    "pads that are not of zeros stay": (
        lambda t, x, y: t.Add(t.Pad(x, [0, 4, 0, 0], 1.0), t.Pad(y, [0, 0, 0, 4])),
        ["Pad", "Pad", "Add"],
    ),
    "concats": (
        lambda t, x, y: t.Concat(x, t.Concat(y, x, axis=1), axis=-1),
        ["Concat"],
    ),
    "concats of different axes stay": (
        lambda t, x, y: t.Concat(t.Reshape(x, [6, 2]), t.Reshape(t.Concat(y, x, axis=1), [6, 4]), axis=1),
        ["Reshape", "Concat", "Reshape", "Concat"],
    ),
    "expands": (
        lambda t, x, _: t.Expand(t.Expand(_row(t, x), [3, 4]), [2, 3, 4]),
        ["ReduceSum", "Expand"],
    ),
    "sum of an expand": (
        lambda t, x, _: t.ReduceSum(t.Expand(_row(t, x), [2, 3, 4]), [0, 1], keepdims=0),
        ["ReduceSum", "Mul", "Reshape"],
    ),
    "sum of an expand over other axes": (
        lambda t, x, _: t.ReduceSum(t.Expand(_row(t, x), [3, 4]), [1], keepdims=1),
        ["ReduceSum", "Expand", "ReduceSum"],
    ),
    "mean of an expand": (
        lambda t, x, _: t.ReduceMean(t.Expand(_row(t, x), [3, 4]), [0], keepdims=1),
        ["ReduceSum"],
    ),
    "sum over axes of length one": (
        lambda t, x, _: t.ReduceSum(t.Reshape(x, [3, 1, 4]), [1], keepdims=0),
        ["Identity"],
    ),
    "sum of scaled": (lambda t, x, _: t.ReduceSum(t.Mul(x, 3.0), [1], keepdims=1), ["ReduceSum", "Mul"]),
    "sum of scaled down": (lambda t, x, _: t.ReduceSum(t.Mul(x, 0.1), [1], keepdims=0), ["ReduceMean", "Mul"]),
    "mean of scaled": (lambda t, x, _: t.ReduceMean(t.Mul(x, 0.1), [1], keepdims=0), ["ReduceMean", "Mul"]),
    "sum of scaled per column stays": (
        lambda t, x, _: t.ReduceSum(t.Mul(x, np.arange(4, dtype=np.float32)), [1], keepdims=1),
        ["Mul", "ReduceSum"],
    ),
}


def _row(t: Tape, x: ir.Value) -> ir.Value:
    return t.ReduceSum(x, [0], keepdims=1)


def model(write: Write) -> ir.Model:
    graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name="case")
    inputs = [ir.Value(name=n, shape=ir.Shape((3, 4)), type=ir.TensorType(ir.DataType.FLOAT)) for n in "xy"]
    graph.inputs.extend(inputs)
    add_output(graph, write(Tape(graph), *inputs), "out")
    return ir.Model(graph, ir_version=10)


def run(written: ir.Model) -> np.ndarray:
    random = np.random.default_rng(3)
    feeds = {n: random.uniform(-1, 1, (3, 4)).astype(np.float32) for n in "xy"}
    return np.asarray(ReferenceEvaluator(ir.to_proto(written)).run(None, feeds)[0])


@pytest.mark.parametrize(("write", "left"), REWRITES.values(), ids=REWRITES)
def test_rewrite(write: Write, left: Sequence[str]) -> None:
    changed = model(write)
    before = run(changed)
    simplify(changed.graph)
    tidy(changed.graph)
    assert [node.op_type for node in changed.graph] == list(left)
    np.testing.assert_allclose(run(changed), before, rtol=1e-5, atol=1e-6)


def test_what_others_read_stays() -> None:
    """A factor is not merged into a product whose first factor is also an output: that would add work."""
    graph = model(lambda t, x, _: t.Mul(x, 2.0)).graph
    add_output(graph, Tape(graph).Mul(graph.outputs[0], 3.0), "more")
    simplify(graph)
    assert [node.inputs[0] for node in graph][1] is graph.outputs[0]


def test_precision_islands_are_not_merged() -> None:
    """A factor applied in fp32 stays apart from one applied in the network's own precision."""
    graph = model(lambda t, x, _: t.Mul(t.Mul(x, 2.0), 3.0)).graph
    graph[0].metadata_props["precision"] = "fp32"
    simplify(graph)
    assert [node.op_type for node in graph] == ["Mul", "Mul"]


def test_precision_is_kept() -> None:
    graph = model(lambda t, x, _: t.Neg(t.Mul(x, 2.0))).graph
    for node in graph:
        node.metadata_props["precision"] = "fp32"
    simplify(graph)
    assert [node.metadata_props["precision"] for node in graph] == ["fp32"]
