"""Rewrites of what moves or repeats elements: reshapes, transposes, pads, expands and the reductions that undo them."""

from __future__ import annotations

import math

import onnx_ir as ir

from engine.passes.rewrite import all_equal, made_by, only_for, rewrite, split_constant
from engine.tape import Tape, attribute, constant, dims, is_float

_ELEMENTWISE = (
    *("Abs", "Cast", "Ceil", "Clip", "Cos", "Erf", "Exp", "Floor", "Log", "Neg", "Not", "Reciprocal", "Relu", "Round"),
    *("Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Tanh", "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual"),
    *("Less", "LessOrEqual", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Where", "Xor"),
)
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@rewrite(*_RESHAPES, "Expand")
def same_shape(t: Tape, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    return x if dims(x) == dims(node.outputs[0]) else None


@rewrite(*_RESHAPES)
def reshape_of_reshape(t: Tape, node: ir.Node) -> ir.Value | None:
    inner = made_by(node.inputs[0], *_RESHAPES)
    return None if inner is None else t.Reshape(inner.inputs[0], dims(node.outputs[0]))


@rewrite("Transpose")
def transpose_of_transpose(t: Tape, node: ir.Node) -> ir.Value | None:
    inner = made_by(node.inputs[0], "Transpose")
    if inner is None:
        return None
    first, second = _permutation(inner), _permutation(node)
    return t.Transpose(inner.inputs[0], perm=[first[i] for i in second])


@rewrite("Transpose")
def transpose_of_units(t: Tape, node: ir.Node) -> ir.Value | None:
    """Only axes of length one move: nothing does in memory."""
    shape = dims(node.inputs[0])
    moving = [i for i in _permutation(node) if shape[i] != 1]
    return t.Reshape(node.inputs[0], dims(node.outputs[0])) if moving == sorted(moving) else None


def _permutation(node: ir.Node) -> list[int]:
    rank = len(dims(node.inputs[0]))
    return [int(i) for i in attribute(node, "perm", range(rank)[::-1])]


@rewrite("Add")
def add_of_pads(t: Tape, node: ir.Node) -> ir.Value | None:
    """Two pieces that zeros bring to one length, side by side, are a Concat: as when gradients of slices meet."""
    pieces = [_padded(node, position) for position in (0, 1)]
    if pieces[0] is None or pieces[1] is None or pieces[0][1] != pieces[1][1]:
        return None
    (x, axis, before, _), (y, _, start, after) = sorted((p for p in pieces if p), key=lambda piece: piece[2])
    if before + dims(x)[axis] != start:
        return None
    joined = t.Concat(x, y, axis=axis)
    rank = len(dims(x))
    amounts = [amount if i == axis else 0 for amount in (before, after) for i in range(rank)]
    return t.Pad(joined, amounts) if any(amounts) else joined


def _padded(node: ir.Node, position: int) -> tuple[ir.Value, int, int, int] | None:
    """(what is padded, axis, zeros before, zeros after), for an operand that is a Pad along one axis."""
    pad = only_for(node, ["Pad"], position)
    amounts = constant(pad.inputs[1]) if pad is not None else None
    if pad is None or amounts is None or attribute(pad, "mode", "constant") != "constant" or amounts.min() < 0:
        return None
    if any(v is not None for v in pad.inputs[3:]) or not (
        len(pad.inputs) < 3 or pad.inputs[2] is None or all_equal(pad.inputs[2], 0.0)
    ):
        return None
    before, after = amounts.reshape(2, -1).tolist()
    axes = [i for i, pair in enumerate(zip(before, after, strict=True)) if any(pair)]
    x = pad.inputs[0]
    return (x, axes[0], before[axes[0]], after[axes[0]]) if len(axes) == 1 and x is not None else None


@rewrite("Concat")
def concat_of_concat(t: Tape, node: ir.Node) -> ir.Value | None:
    axis, rank = attribute(node, "axis", 0), len(dims(node.outputs[0]))
    flat: list[ir.Value | None] = []
    for position, value in enumerate(node.inputs):
        inner = only_for(node, ["Concat"], position)
        same = inner is not None and (attribute(inner, "axis", 0) - axis) % rank == 0
        flat.extend(inner.inputs if inner is not None and same else [value])
    return t.Concat(*flat, axis=axis) if len(flat) > len(node.inputs) else None


@rewrite(*_ELEMENTWISE)
def expand_last(t: Tape, node: ir.Node) -> ir.Value | None:
    """Operators of each element take an operand before its Expand; what is still too small is expanded after."""
    if not any(made_by(v, "Expand") for v in node.inputs):
        return None
    small = [v if (e := made_by(v, "Expand")) is None else e.inputs[0] for v in node.inputs]
    options = {name: attr.value for name, attr in node.attributes.items()}
    result = t.op(node.op_type, *small, **options)
    full = dims(node.outputs[0])
    return result if dims(result) == full else t.Expand(result, full)


@rewrite("Expand")
def expand_of_expand(t: Tape, node: ir.Node) -> ir.Value | None:
    inner = made_by(node.inputs[0], "Expand")
    return None if inner is None else t.Expand(inner.inputs[0], dims(node.outputs[0]))


@rewrite("ReduceSum", "ReduceMean")
def reduce_of_expand(t: Tape, node: ir.Node) -> ir.Value | None:
    """Equal elements need no summing: the sum is their number times one of them."""
    expand, axes = made_by(node.inputs[0], "Expand"), _reduced(node)
    if expand is None or axes is None:
        return None
    full, shape = dims(node.inputs[0]), dims(expand.inputs[0])
    shape = (1,) * (len(full) - len(shape)) + shape
    if not any(full[a] != shape[a] for a in axes):
        return None
    x = expand.inputs[0]
    if node.op_type == "ReduceSum":
        x = t.Mul(x, float(math.prod(full[a] // shape[a] for a in axes)))
    result = t.op(node.op_type, t.Reshape(x, shape), list(axes), keepdims=1)
    kept = [1 if i in axes else d for i, d in enumerate(full)]
    return t.Reshape(t.Expand(result, kept), dims(node.outputs[0]))


@rewrite("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp")
def reduce_of_units(t: Tape, node: ir.Node) -> ir.Value | None:
    """Over axes of length one only the shape changes."""
    axes, shape = _reduced(node), dims(node.inputs[0])
    if axes is None or any(shape[a] != 1 for a in axes):
        return None
    return t.Reshape(node.inputs[0], dims(node.outputs[0]))


@rewrite("ReduceSum", "ReduceMean")
def reduce_of_scaled(t: Tape, node: ir.Node) -> ir.Value | None:
    """Σ(x·c) = c·Σx: the factor is applied to the smaller tensor. A factor that tamed the sum becomes a mean."""
    inner = only_for(node, ["Mul"], 0)
    scaled = split_constant(inner) if inner is not None else None
    axes, full = _reduced(node), dims(node.inputs[0])
    if inner is None or scaled is None or axes is None or scaled[1].size != 1 or not is_float(node.outputs[0]):
        return None
    x, factor = inner.inputs[scaled[0]], float(scaled[1].reshape(()))
    if dims(x) != full:
        return None
    op_type = node.op_type
    if op_type == "ReduceSum" and abs(factor) < 1:  # in fp16 the plain sum might overflow
        op_type, factor = "ReduceMean", factor * math.prod(full[a] for a in axes)
    return t.Mul(t.op(op_type, x, list(axes), keepdims=attribute(node, "keepdims", 1)), factor)


def _reduced(node: ir.Node) -> tuple[int, ...] | None:
    """The axes of a reduction, not negative; None where they are computed or where nothing is reduced."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes, rank = constant(given), len(dims(node.inputs[0]))
    if given is None:
        return None if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return None if axes is None or axes.size == 0 else tuple(sorted(int(a) % rank for a in axes.reshape(-1)))
