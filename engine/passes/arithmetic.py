"""Rewrites of sums, products and casts: neutral operands, chains of constants, signs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.passes.rewrite import all_equal, made_by, only_for, rewrite, split_constant
from engine.tape import Tape, attribute, constant, dims, is_float


@rewrite("Mul", "Add", "Sub", "Div", "Pow")
def neutral_operand(t: Tape, node: ir.Node) -> ir.Value | None:
    """x·1, x + 0, x − 0, x/1, x¹."""
    a, b = node.inputs
    number = 0.0 if node.op_type in ("Add", "Sub") else 1.0
    pairs = [(a, b), (b, a)] if node.op_type in ("Mul", "Add") else [(a, b)]
    for x, other in pairs:
        if x is not None and all_equal(other, number) and dims(x) == dims(node.outputs[0]):
            return x
    return None


@rewrite("Div")
def divide_by_constant(t: Tape, node: ir.Node) -> ir.Value | None:
    """x/c = x·(1/c), which merges with other factors; not where 1/c overflows, as of 1e-5 in fp16."""
    x, c = node.inputs[0], constant(node.inputs[1])
    if c is None or not is_float(x):
        return None
    with np.errstate(divide="ignore", over="ignore"):
        factor = (1.0 / c.astype(np.float64)).astype(c.dtype)
    return t.Mul(x, factor) if np.isfinite(factor).all() else None


@rewrite("Mul", "Add")
def merge_constants(t: Tape, node: ir.Node) -> ir.Value | None:
    """(x·c)·d = x·(c·d) and (x + c) + d = x + (c + d)."""
    outer = split_constant(node)
    inner = only_for(node, [node.op_type], outer[0]) if outer is not None else None
    deeper = split_constant(inner) if inner is not None else None
    if outer is None or inner is None or deeper is None:
        return None
    c, d = deeper[1].astype(np.float64), outer[1].astype(np.float64)
    merged = c * d if node.op_type == "Mul" else c + d
    if merged.size > max(c.size, d.size):
        return None
    return t.op(node.op_type, inner.inputs[deeper[0]], merged.astype(outer[1].dtype))


@rewrite("Mul")
def factor_of_negation(t: Tape, node: ir.Node) -> ir.Value | None:
    """(−x)·c = x·(−c)."""
    outer = split_constant(node)
    inner = only_for(node, ["Neg"], outer[0]) if outer is not None else None
    return None if outer is None or inner is None else t.Mul(inner.inputs[0], -outer[1])


@rewrite("Neg")
def negation(t: Tape, node: ir.Node) -> ir.Value | None:
    """−(−x) = x, −(x·c) = x·(−c), −(a − b) = b − a."""
    double = made_by(node.inputs[0], "Neg")
    if double is not None:
        return double.inputs[0]
    inner = only_for(node, ["Mul", "Sub"], 0)
    if inner is not None and inner.op_type == "Sub":
        return t.Sub(inner.inputs[1], inner.inputs[0])
    scaled = split_constant(inner) if inner is not None else None
    return None if inner is None or scaled is None else t.Mul(inner.inputs[scaled[0]], -scaled[1])


@rewrite("Add", "Sub")
def add_negation(t: Tape, node: ir.Node) -> ir.Value | None:
    """Here a + (−b) = a − b and a − (−b) = a + b."""
    a, b = node.inputs
    right = made_by(b, "Neg")
    if right is not None:
        return t.op("Sub" if node.op_type == "Add" else "Add", a, right.inputs[0])
    left = made_by(a, "Neg")
    return t.Sub(b, left.inputs[0]) if left is not None and node.op_type == "Add" else None


@rewrite("Cast")
def cast_of_cast(t: Tape, node: ir.Node) -> ir.Value | None:
    """The first may go if it only widened."""
    inner = made_by(node.inputs[0], "Cast")
    x = inner.inputs[0] if inner is not None else None
    if inner is None or x is None or not _widens(x.dtype, inner.outputs[0].dtype):
        return None
    return x if x.dtype == node.outputs[0].dtype else t.Cast(x, to=attribute(node, "to", 1))


def _widens(narrow: ir.DataType | None, wide: ir.DataType | None) -> bool:
    halves = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    if wide == ir.DataType.FLOAT:
        return narrow in halves
    return wide == ir.DataType.DOUBLE and narrow in (*halves, ir.DataType.FLOAT)
