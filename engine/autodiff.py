"""Reverse mode over a static ONNX graph: the gradient of a scalar is written into the graph as more ONNX nodes.

Only nodes that lie on a path from the wanted inputs to the scalar are visited. The rules live in `engine.vjp`; what
they write is marked (`tape.BACKWARD`), as some passes treat the two halves of a graph differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import InvalidModelError, UnsupportedOpError
from engine.tape import Tape, dims, is_float
from engine.vjp import NO_GRADIENT, RULES


def backward(
    graph: ir.Graph, of: ir.Value, wrt: Sequence[ir.Value], cotangent: ir.Value | None = None
) -> list[ir.Value]:
    """Appends to `graph` the nodes that compute the vector-Jacobian product of `of` with respect to `wrt`.

    Args:
        graph: a canonical static graph (see `engine.load`).
        of: the value to differentiate; a scalar (no axes, or one element) unless `cotangent` is given.
        wrt: values of `graph` upstream of `of`.
        cotangent: the vector of the product, shaped as `of`; ones if absent.

    Returns:
        One value per entry of `wrt`, of its dtype and shape; zeros where `of` does not depend on it.

    Raises:
        InvalidModelError: `of` is not a floating scalar and no cotangent is given.
        UnsupportedOpError: an operator on the path has no rule.
    """
    if not is_float(of) or (cotangent is None and any(d != 1 for d in dims(of))):
        raise InvalidModelError(f"{of.name!r} is {of.dtype}{of.shape}; a gradient needs a floating scalar")
    nodes = list(graph)
    needed = _downstream(nodes, wrt)
    tape = Tape(graph, needed=needed)
    cotangents: dict[ir.Value, ir.Value] = {}
    if of in needed:
        cotangents[of] = cotangent if cotangent is not None else _ones(tape, of)
    for node in reversed(nodes):
        arriving = [cotangents.get(v) for v in node.outputs]
        if node.op_type in NO_GRADIENT or not any(arriving) or not any(v in needed for v in node.inputs if v):
            continue
        with tape.scope(f"grad/{node.name}", precision=node.metadata_props.get("precision"), backward=True):
            _visit(tape, node, arriving, cotangents)
    with tape.scope("grad", backward=True):
        return [cotangents[v] if v in cotangents else _zeros(tape, v) for v in wrt]


def _visit(
    tape: Tape, node: ir.Node, arriving: Sequence[ir.Value | None], cotangents: dict[ir.Value, ir.Value]
) -> None:
    rule = RULES.get(node.op_type)
    if rule is None:
        raise UnsupportedOpError(
            f"no gradient rule for {node.op_type} (node {node.name!r}); supported: {', '.join(sorted(RULES))}"
        )
    gradients = rule(tape, node, arriving)
    for value, gradient in zip(node.inputs, gradients, strict=False):
        if value is None or gradient is None or not tape.needs(value):
            continue
        gradient = _unbroadcast(tape, gradient, value)
        known = cotangents.get(value)
        cotangents[value] = gradient if known is None else tape.Add(known, gradient)


def _downstream(nodes: Sequence[ir.Node], wrt: Sequence[ir.Value]) -> set[ir.Value]:
    """Floating values that depend on `wrt`."""
    reached = {v for v in wrt if is_float(v)}
    for node in nodes:
        if node.op_type not in NO_GRADIENT and any(v in reached for v in node.inputs if v is not None):
            reached.update(v for v in node.outputs if is_float(v))
    return reached


def _unbroadcast(tape: Tape, gradient: ir.Value, value: ir.Value) -> ir.Value:
    """Brings a gradient to `value`'s shape: sums over the axes along which `value` was broadcast (numpy's rule).

    A rule may also return a gradient smaller than `value` (one number for a whole axis); it is expanded.
    """
    want = dims(value)
    rank = max(len(want), len(dims(gradient)))
    have = (1,) * (rank - len(dims(gradient))) + dims(gradient)
    padded = (1,) * (rank - len(want)) + want
    axes = [i for i, (h, w) in enumerate(zip(have, padded, strict=True)) if w == 1 and h != 1]
    if axes:
        gradient = tape.ReduceSum(gradient, [a - rank for a in axes], keepdims=1)
    if len(dims(gradient)) > len(want):
        gradient = tape.Reshape(gradient, want)
    return gradient if dims(gradient) == want else tape.Expand(gradient, want)


def _ones(tape: Tape, of: ir.Value) -> ir.Value:
    return tape.constant(np.ones(dims(of)), of.dtype)


def _zeros(tape: Tape, value: ir.Value) -> ir.Value:
    return tape.Expand(tape.constant(0.0, value.dtype), dims(value))
