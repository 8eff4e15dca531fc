"""Gradient rules of activations, each from whichever of input and output makes it cheapest; kinks as in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from engine.passes.decompose import decomposition
from engine.passes.lower import lowering
from engine.tape import Tape, attribute
from engine.vjp.registry import Cotangents, Gradients, vjp


@vjp("Relu")
def relu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Where(t.Greater(node.outputs[0], 0.0), g, 0.0),)


@vjp("LeakyRelu")
def leaky_relu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Where(t.Greater(node.inputs[0], 0.0), g, t.Mul(g, attribute(node, "alpha", 0.01))),)


@vjp("PRelu")
def prelu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x, slope = node.inputs
    positive = t.Greater(x, 0.0)
    gx = t.Where(positive, g, t.Mul(g, slope)) if t.needs(x) else None
    return gx, t.Where(positive, 0.0, t.Mul(g, x)) if t.needs(slope) else None


@vjp("ThresholdedRelu")
def thresholded_relu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Where(t.Greater(node.inputs[0], attribute(node, "alpha", 1.0)), g, 0.0),)


@vjp("Elu")
def elu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """α·eˣ = y + α where x ≤ 0."""
    (g,) = cotangents
    slope = t.Add(node.outputs[0], attribute(node, "alpha", 1.0))
    return (t.Where(t.Greater(node.inputs[0], 0.0), g, t.Mul(g, slope)),)


@decomposition("Celu", early=True)
def celu(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    """α·elu(x/α): the standard has Celu in fp32 only."""
    x, alpha = node.inputs[0], attribute(node, "alpha", 1.0)
    return (t.Elu(x) if alpha == 1.0 else t.Mul(t.Elu(t.Mul(x, 1.0 / alpha)), alpha),)


@decomposition("Swish", early=True)
def swish(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    """x·σ(αx)."""
    x, alpha = node.inputs[0], attribute(node, "alpha", 1.0)
    return (t.Mul(x, t.Sigmoid(x if alpha == 1.0 else t.Mul(x, alpha))),)


@vjp("Selu")
def selu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """γ·α·eˣ = y + γ·α where x ≤ 0, γ elsewhere."""
    (g,) = cotangents
    alpha, gamma = attribute(node, "alpha", 1.6732632), attribute(node, "gamma", 1.0507010)
    slope = t.Where(t.Greater(node.inputs[0], 0.0), gamma, t.Add(node.outputs[0], gamma * alpha))
    return (t.Mul(g, slope),)


@vjp("Sigmoid")
def sigmoid(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    y = node.outputs[0]
    return (t.Mul(g, t.Mul(y, t.Sub(1.0, y))),)


@vjp("HardSigmoid")
def hard_sigmoid(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    y = node.outputs[0]
    inside = t.And(t.Greater(y, 0.0), t.Less(y, 1.0))
    return (t.Where(inside, t.Mul(g, attribute(node, "alpha", 0.2)), 0.0),)


@vjp("HardSwish")
def hard_swish(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """x·h with h = clip(x/6 + ½, 0, 1): the slope is x/3 + ½ inside, h (0 or 1) outside."""
    (g,) = cotangents
    x = node.inputs[0]
    h = t.HardSigmoid(x, alpha=1 / 6, beta=0.5)
    inside = t.Less(t.Abs(x), 3.0)
    return (t.Mul(g, t.Where(inside, t.Add(t.Mul(x, 1 / 3), 0.5), h)),)


@vjp("Softplus")
def softplus(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(g, t.Sigmoid(node.inputs[0])),)


@vjp("Softsign")
def softsign(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    denominator = t.Add(t.Abs(node.inputs[0]), 1.0)
    return (t.Div(g, t.Mul(denominator, denominator)),)


@vjp("Shrink")
def shrink(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Where(t.Greater(t.Abs(node.inputs[0]), attribute(node, "lambd", 0.5)), g, 0.0),)


@vjp("Gelu")
def gelu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Φ(x) + x·φ(x), or the derivative of its tanh approximation."""
    (g,) = cotangents
    x = node.inputs[0]
    if attribute(node, "approximate", "none") == "tanh":
        c, k = math.sqrt(2 / math.pi), 0.044715
        square = t.Mul(x, x)
        h = t.Tanh(t.Mul(x, t.Add(t.Mul(square, c * k), c)))
        inner = t.Mul(x, t.Add(t.Mul(square, 1.5 * c * k), 0.5 * c))
        cdf, rest = t.Add(t.Mul(h, 0.5), 0.5), t.Mul(inner, t.Sub(1.0, t.Mul(h, h)))
    else:
        cdf = t.Add(t.Mul(t.Erf(t.Mul(x, math.sqrt(0.5))), 0.5), 0.5)
        rest = t.Mul(x, t.Mul(t.Exp(t.Mul(t.Mul(x, x), -0.5)), 1 / math.sqrt(2 * math.pi)))
    return (t.Mul(g, t.Add(cdf, rest)),)


@vjp("Mish")
def mish(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """x·h with h = tanh(softplus(x)): the slope is h + x·σ(x)·(1 − h²)."""
    (g,) = cotangents
    x = node.inputs[0]
    h = t.Tanh(t.Softplus(x))
    return (t.Mul(g, t.Add(h, t.Mul(t.Mul(x, t.Sigmoid(x)), t.Sub(1.0, t.Mul(h, h))))),)


@vjp("Softmax")
def softmax(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    y, axis = node.outputs[0], attribute(node, "axis", -1)
    weighted = t.Mul(g, y)
    return (t.Sub(weighted, t.Mul(y, t.ReduceSum(weighted, [axis], keepdims=1))),)


@vjp("LogSoftmax")
def log_softmax(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    y, axis = node.outputs[0], attribute(node, "axis", -1)
    return (t.Sub(g, t.Mul(t.Exp(y), t.ReduceSum(g, [axis], keepdims=1))),)


@lowering("HardSwish")
def lower_hard_swish(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    """TensorRT has no HardSwish, Mish or Shrink in bf16."""
    x = node.inputs[0]
    return (t.Mul(x, t.HardSigmoid(x, alpha=1 / 6, beta=0.5)),)


@lowering("Mish")
def lower_mish(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x = node.inputs[0]
    return (t.Mul(x, t.Tanh(t.Softplus(x))),)


@lowering("Shrink")
def lower_shrink(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, limit, bias = node.inputs[0], attribute(node, "lambd", 0.5), attribute(node, "bias", 0.0)
    shrunk = t.Sub(x, t.Mul(t.Sign(x), bias)) if bias else x
    return (t.Where(t.Greater(t.Abs(x), limit), shrunk, 0.0),)
