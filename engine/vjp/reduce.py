"""Gradient rules of reductions and running sums.

A reduction's gradient comes out with the reduced axes of length one wherever it is the same along them;
`engine.autodiff` expands it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import onnx_ir as ir

from engine.errors import UnsupportedOpError
from engine.passes.decompose import decomposition
from engine.passes.upgrade import REDUCTIONS
from engine.tape import Tape, attribute, constant, dims
from engine.vjp.registry import Cotangents, Gradients, vjp


def reduced_axes(node: ir.Node) -> tuple[int, ...]:
    """The axes, not negative, that a reduction node reduces; empty if it does nothing."""
    rank = len(dims(node.inputs[0]))
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = constant(given)
    if given is not None and axes is None:
        raise UnsupportedOpError(f"{node.op_type} {node.name!r} computes its axes; they must be constant")
    if axes is None or axes.size == 0:
        return () if attribute(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(int(a) % rank for a in axes.reshape(-1)))


def _kept(t: Tape, node: ir.Node, value: ir.Value | None) -> ir.Value:
    """`value`, shaped as the node's output, with the reduced axes put back at length one."""
    axes = reduced_axes(node)
    return t.Reshape(value, [1 if i in axes else d for i, d in enumerate(dims(node.inputs[0]))])


def _indicator(t: Tape, condition: ir.Value, like: ir.Value | None) -> ir.Value:
    """One where the condition holds, zero elsewhere."""
    assert like is not None
    return t.Where(condition, t.constant(1.0, like.dtype), t.constant(0.0, like.dtype))


_WITHOUT_AXES: dict[str, Callable[[Tape, ir.Value | None], ir.Value]] = {
    "ReduceL1": lambda t, x: t.Abs(x),
    "ReduceL2": lambda t, x: t.Abs(x),
    "ReduceLogSum": lambda t, x: t.Log(x),
    "ReduceSumSquare": lambda t, x: t.Mul(x, x),
}


@decomposition(*REDUCTIONS)
def reduce_nothing(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """Over no axes, or of a scalar, only what is applied to each element remains; engines differ on this corner."""
    if reduced_axes(node):
        return None
    x, alone = node.inputs[0], _WITHOUT_AXES.get(node.op_type)
    return (t.Identity(x) if alone is None else alone(t, x),)


@vjp("ReduceSum")
def reduce_sum(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (_kept(t, node, g),)


@vjp("ReduceMean")
def reduce_mean(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    count = math.prod(dims(node.inputs[0])[a] for a in reduced_axes(node))
    return (_kept(t, node, t.Mul(g, 1.0 / count)),)


@vjp("ReduceMax", "ReduceMin")
def reduce_extremum(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Elements that tie share the gradient evenly, as in `torch.amax`."""
    (g,) = cotangents
    x, axes = node.inputs[0], list(reduced_axes(node))
    hit = t.Equal(x, _kept(t, node, node.outputs[0]))
    count = t.ReduceSum(_indicator(t, hit, x), axes, keepdims=1)
    return (t.Where(hit, t.Div(_kept(t, node, g), count), 0.0),)


@vjp("ReduceProd")
def reduce_prod(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """The product of the other elements, exact also where one or more of them are zero."""
    (g,) = cotangents
    x, axes = node.inputs[0], list(reduced_axes(node))
    zero = t.Equal(x, 0.0)
    zeros = t.ReduceSum(_indicator(t, zero, x), axes, keepdims=1)
    filled = t.Where(zero, 1.0, x)
    rest = t.Mul(_kept(t, node, g), t.ReduceProd(filled, axes, keepdims=1))
    without, only = t.Where(t.Less(zeros, 0.5), rest, 0.0), t.Where(t.Less(zeros, 1.5), rest, 0.0)
    return (t.Where(zero, only, t.Div(without, filled)),)


@vjp("ReduceL1")
def reduce_l1(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(t.Sign(node.inputs[0]), _kept(t, node, g)),)


@vjp("ReduceL2")
def reduce_l2(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """x/‖x‖, and zero where the norm is."""
    (g,) = cotangents
    y = node.outputs[0]
    nonzero = t.Greater(y, 0.0)
    scale = t.Where(nonzero, t.Div(g, t.Where(nonzero, y, 1.0)), 0.0)
    return (t.Mul(node.inputs[0], _kept(t, node, scale)),)


@vjp("ReduceSumSquare")
def reduce_sum_square(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(node.inputs[0], _kept(t, node, t.Mul(g, 2.0))),)


@vjp("ReduceLogSum")
def reduce_log_sum(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (_kept(t, node, t.Div(g, t.Exp(node.outputs[0]))),)


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    share = t.Exp(t.Sub(node.inputs[0], _kept(t, node, node.outputs[0])))
    return (t.Mul(share, _kept(t, node, g)),)


@vjp("CumSum")
def cum_sum(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """The running sum from the other end."""
    (g,) = cotangents
    exclusive, backwards = attribute(node, "exclusive", 0), attribute(node, "reverse", 0)
    return (t.CumSum(g, node.inputs[1], exclusive=exclusive, reverse=1 - backwards),)


@vjp("TopK")
def top_k(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Each chosen element gets its cotangent; indices along the axis are distinct, so nothing is summed."""
    g = cotangents[0]
    if g is None:
        return (None,)
    zeros = t.Expand(t.constant(0.0, g.dtype), dims(node.inputs[0]))
    return (t.ScatterElements(zeros, node.outputs[1], g, axis=attribute(node, "axis", -1)),)
