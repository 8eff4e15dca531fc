"""Gradient rules of trigonometric and hyperbolic functions and their inverses."""

from __future__ import annotations

import onnx_ir as ir

from engine.tape import Tape
from engine.vjp.registry import Cotangents, Gradients, vjp


@vjp("Sin")
def sin(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(g, t.Cos(node.inputs[0])),)


@vjp("Cos")
def cos(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Neg(t.Mul(g, t.Sin(node.inputs[0]))),)


@vjp("Tan")
def tan(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    y = node.outputs[0]
    return (t.Mul(g, t.Add(t.Mul(y, y), 1.0)),)


@vjp("Asin")
def asin(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    return (t.Div(g, t.Sqrt(t.Sub(1.0, t.Mul(x, x)))),)


@vjp("Acos")
def acos(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    return (t.Neg(t.Div(g, t.Sqrt(t.Sub(1.0, t.Mul(x, x))))),)


@vjp("Atan")
def atan(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    return (t.Div(g, t.Add(t.Mul(x, x), 1.0)),)


@vjp("Sinh")
def sinh(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(g, t.Cosh(node.inputs[0])),)


@vjp("Cosh")
def cosh(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(g, t.Sinh(node.inputs[0])),)


@vjp("Tanh")
def tanh(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    y = node.outputs[0]
    return (t.Mul(g, t.Sub(1.0, t.Mul(y, y))),)


@vjp("Asinh")
def asinh(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    return (t.Div(g, t.Sqrt(t.Add(t.Mul(x, x), 1.0))),)


@vjp("Acosh")
def acosh(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    return (t.Div(g, t.Sqrt(t.Sub(t.Mul(x, x), 1.0))),)


@vjp("Atanh")
def atanh(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x = node.inputs[0]
    return (t.Div(g, t.Sub(1.0, t.Mul(x, x))),)
