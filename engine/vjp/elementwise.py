"""Gradient rules of arithmetic, of powers and of choices between operands, element by element.

Gradients come out in the broadcast shape: `engine.autodiff` sums them back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import onnx_ir as ir

from engine.passes.decompose import decomposition
from engine.passes.lower import lowering
from engine.tape import Tape, constant, dims
from engine.vjp.registry import Cotangents, Gradients, vjp


@vjp("Add")
def add(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return g, g


@vjp("Sub")
def sub(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return g, t.Neg(g) if t.needs(node.inputs[1]) else None


@vjp("Mul")
def mul(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    a, b = node.inputs
    if t.needs(a) and _is_sigmoid_of(b, a):
        return silu(t, g, node.outputs[0], b), None
    if t.needs(b) and _is_sigmoid_of(a, b):
        return None, silu(t, g, node.outputs[0], a)
    return t.Mul(g, b) if t.needs(a) else None, t.Mul(g, a) if t.needs(b) else None


def _is_sigmoid_of(s: ir.Value | None, x: ir.Value | None) -> bool:
    producer = None if s is None else s.producer()
    return producer is not None and producer.op_type == "Sigmoid" and producer.inputs[0] is x


def silu(t: Tape, g: ir.Value | None, y: ir.Value, s: ir.Value | None) -> ir.Value:
    """Gradient of y = x·s with s = σ(x): four operations where the product rule and then σ's take six."""
    return t.Mul(g, t.Add(s, t.Mul(y, t.Sub(1.0, s))))


@vjp("Div")
def div(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    _, b = node.inputs
    ga = t.Mul(g, t.Reciprocal(b)) if constant(b) is not None else t.Div(g, b)
    return ga, t.Neg(t.Mul(ga, node.outputs[0])) if t.needs(b) else None


@vjp("Pow")
def power(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x, p = node.inputs
    y = node.outputs[0]
    exponent = constant(p)
    if exponent is not None and exponent.size == 1:
        return _constant_power(t, g, x, y, float(exponent.reshape(()))), None
    assert x is not None
    p = t.Cast(p, to=int(x.dtype or ir.DataType.FLOAT))
    zero = t.Equal(p, 0.0)
    slope = t.Mul(p, t.Pow(x, t.Where(zero, p, t.Sub(p, 1.0))))  # 0·x⁰ where p = 0, so that 0·∞ never appears
    gx = t.Mul(g, slope) if t.needs(x) else None
    if not t.needs(node.inputs[1]):
        return gx, None
    positive = t.Greater(x, 0.0)
    return gx, t.Where(positive, t.Mul(g, t.Mul(y, t.Log(t.Where(positive, x, 1.0)))), 0.0)


def _constant_power(t: Tape, g: ir.Value | None, x: ir.Value | None, y: ir.Value, p: float) -> ir.Value:
    if p == 0.0:
        return t.Mul(g, 0.0)
    if p == 0.5:
        return t.Div(t.Mul(g, 0.5), y)
    if p == 1.0:
        return t.Identity(g)
    if p == 2.0:
        return t.Mul(g, t.Mul(x, 2.0))
    if p == 3.0:
        return t.Mul(g, t.Mul(t.Mul(x, x), 3.0))
    return t.Mul(g, t.Mul(t.Pow(x, p - 1.0), p))


@lowering("Pow")
def _power_of_small(t: Tape, node: ir.Node) -> list[ir.Value] | None:
    """The powers that are a product or a root: a general power costs a logarithm and an exponential."""
    x, exponent = node.inputs[0], constant(node.inputs[1])
    if exponent is None or exponent.size != 1 or len(exponent.shape) > len(dims(x)):
        return None
    match float(exponent.reshape(())):
        case 1.0:
            return [t.Identity(x)]
        case 2.0:
            return [t.Mul(x, x)]
        case 3.0:
            return [t.Mul(t.Mul(x, x), x)]
        case 0.5:
            return [t.Sqrt(x)]
        case -0.5:
            return [t.Reciprocal(t.Sqrt(x))]
        case -1.0:
            return [t.Reciprocal(x)]
    return None


@vjp("Neg")
def neg(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Neg(g),)


@vjp("Abs")
def absolute(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(g, t.Sign(node.inputs[0])),)


@vjp("Exp")
def exp(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(g, node.outputs[0]),)


@vjp("Log")
def log(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Div(g, node.inputs[0]),)


@vjp("Sqrt")
def sqrt(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Div(t.Mul(g, 0.5), node.outputs[0]),)


@vjp("Reciprocal")
def reciprocal(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    y = node.outputs[0]
    return (t.Neg(t.Mul(g, t.Mul(y, y))),)


@vjp("Erf")
def erf(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    return (t.Mul(g, t.Mul(t.Exp(t.Neg(t.Mul(x, x))), 2.0 / math.sqrt(math.pi))),)


@vjp("Max", "Min")
def extremum(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Operands that tie share the gradient evenly, as in `torch.maximum`."""
    (g,) = cotangents
    y = node.outputs[0]
    if len(node.inputs) == 1:
        return (g,)
    one, zero = (t.constant(c, y.dtype) for c in (1.0, 0.0))
    hits = [t.Where(t.Equal(x, y), one, zero) for x in node.inputs]
    share = t.Div(g, reduce(t.Add, hits))
    return [t.Mul(share, hit) if t.needs(x) else None for x, hit in zip(node.inputs, hits, strict=True)]


@vjp("Sum")
def total(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return [g] * len(node.inputs)


@vjp("Mean")
def mean(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return [t.Mul(g, 1.0 / len(node.inputs))] * len(node.inputs)


@vjp("Where")
def where(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    condition, a, b = node.inputs
    ga = t.Where(condition, g, 0.0) if t.needs(a) else None
    return None, ga, t.Where(condition, 0.0, g) if t.needs(b) else None


@vjp("Clip")
def clip(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Nothing flows where x is at a bound, as in `torch.clamp`; the upper bound wins where the bounds cross."""
    (g,) = cotangents
    x, low, high = (*node.inputs, None, None)[:3]
    within = [t.Greater(x, low)] if low is not None else []
    within += [t.Less(x, high)] if high is not None else []
    gx = t.Where(reduce(t.And, within), g, 0.0) if within else g
    below = t.Less(x, low) if t.needs(low) else None
    above = t.Greater(x, high) if t.needs(high) else None
    if low is not None and high is not None:
        crossed = t.Less(high, low)
        below = None if below is None else t.And(below, t.Not(crossed))
        above = None if above is None else t.Or(above, crossed)
    return gx, *(None if outside is None else t.Where(outside, g, 0.0) for outside in (below, above))


@decomposition("CastLike")
def cast_like(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, like = node.inputs
    assert like is not None
    return (t.Cast(x, to=int(like.dtype or ir.DataType.FLOAT)),)


@vjp("Cast")
def cast(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    assert x is not None
    return (t.Cast(g, to=int(x.dtype or ir.DataType.FLOAT)),)


@vjp("Mod")
def mod(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Here y = a − q·b with an integer q, whose derivative is zero."""
    (g,) = cotangents
    a, b = node.inputs
    quotient = t.Div(t.Sub(a, node.outputs[0]), b) if t.needs(b) else None
    return g, None if quotient is None else t.Neg(t.Mul(g, quotient))
