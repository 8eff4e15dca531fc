"""Arithmetic and functions of each element, with broadcasting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch

from tests.engine.case import Builder, Case


def unary(op_type: str, torch_name: str, low: float = -1.0, high: float = 1.0, opset: int = 23) -> Case:
    return Case(
        f"elementwise/{op_type}",
        lambda g: g.op(op_type, g.input("x", 3, 4, low=low, high=high, away_from=(0.0,))),
        getattr(torch, torch_name),
        opset=opset,
    )


def binary(op_type: str, torch_name: str, low: float = -1.0) -> list[Case]:
    """Same shape; broadcast both ways; a rank less; a constant on either side."""
    function = getattr(torch, torch_name)

    def build(g: Builder, a: tuple[int, ...], b: tuple[int, ...], constants: str = "") -> ir.Value:
        one = g.weight(*a, low=low, high=2.0) if "a" in constants else g.input("a", *a, low=low, high=2.0)
        two = g.weight(*b, low=low, high=2.0) if "b" in constants else g.input("b", *b, low=low, high=2.0)
        return g.op(op_type, one, two)

    return [
        Case(f"elementwise/{op_type}/same", lambda g: build(g, (2, 3), (2, 3)), function),
        Case(f"elementwise/{op_type}/both-ways", lambda g: build(g, (2, 1, 3), (4, 1)), function, opset=13),
        Case(f"elementwise/{op_type}/scalar", lambda g: build(g, (), (2, 3)), function),
        Case(f"elementwise/{op_type}/constant-left", lambda g: build(g, (3,), (2, 3), "a"), function),
        Case(f"elementwise/{op_type}/constant-right", lambda g: build(g, (2, 3), (1, 3), "b"), function),
    ]


def pow_by(exponent: float) -> Case:
    return Case(
        f"elementwise/Pow/{exponent}",
        lambda g: g.Pow(g.input("x", 2, 5, low=0.3, high=2.0), exponent),
        lambda x: x**exponent,
    )


def several(op_type: str, reference: str) -> list[Case]:
    def build(g: Builder) -> ir.Value:
        return g.op(op_type, g.input("a", 2, 3), g.input("b", 3), g.input("c", 2, 1))

    def in_torch(*tensors: torch.Tensor) -> torch.Tensor:
        stacked = torch.stack(torch.broadcast_tensors(*tensors))
        return getattr(stacked, reference)(0)

    return [
        Case(f"elementwise/{op_type}/three", build, in_torch),
        Case(f"elementwise/{op_type}/one", lambda g: g.op(op_type, g.Mul(g.input("x", 2, 3), 2.0)), opset=13),
    ]


TIED = [[1.0, 2.0, -1.0], [0.5, -2.0, 3.0]]

CASES = [
    *binary("Add", "add"),
    *binary("Sub", "sub"),
    *binary("Mul", "mul"),
    *binary("Div", "div", low=0.5),
    *binary("Pow", "pow", low=0.3),
    *(pow_by(p) for p in (-1.0, -0.5, 0.0, 0.5, 1.0, 1.7, 2.0, 3.0)),
    Case(
        "elementwise/Pow/of-negative",
        lambda g: g.Pow(g.input("x", 2, 5, away_from=(0.0,)), np.asarray([0.0, 1.0, 2.0, 3.0, 4.0])),
        lambda x: x ** torch.arange(5.0, dtype=x.dtype),
    ),
    Case(
        "elementwise/Pow/integer-exponent",
        lambda g: g.Pow(g.input("x", 2, 3), g.const(np.asarray(2, np.int64))),
        lambda x: x**2,
        opset=13,
    ),
    Case(
        "elementwise/Pow/zero-to-zero",
        lambda g: g.Pow(g.input("x", 4, values=[0.0, 0.0, 0.0, 2.0]), g.input("p", 4, values=[0.0, 1.0, 2.0, 0.0])),
        torch.pow,
        differences=False,
    ),
    Case("elementwise/square", lambda g: g.Mul(x := g.input("x", 2, 3), x), lambda x: x * x),
    Case(
        "elementwise/SiLU",
        lambda g: g.Mul(x := g.Mul(g.input("x", 2, 3), 2.0), g.Sigmoid(x)),
        lambda x: torch.nn.functional.silu(2 * x),
    ),
    Case(
        "elementwise/SiLU/gate-first",
        lambda g: g.Add(g.Mul(s := g.Sigmoid(x := g.input("x", 2, 3)), x), s),
        lambda x: torch.nn.functional.silu(x) + torch.sigmoid(x),
    ),
    unary("Neg", "neg"),
    unary("Abs", "abs"),
    unary("Exp", "exp"),
    unary("Log", "log", 0.2, 2.0),
    unary("Sqrt", "sqrt", 0.2, 2.0),
    unary("Reciprocal", "reciprocal", 0.3, 2.0),
    replace(unary("Erf", "erf", -2.0, 2.0), differences=False),  # the reference computes it in fp32
    unary("Sin", "sin", -3.0, 3.0),
    unary("Cos", "cos", -3.0, 3.0),
    unary("Tan", "tan"),
    unary("Asin", "asin", -0.9, 0.9),
    unary("Acos", "acos", -0.9, 0.9),
    unary("Atan", "atan", -3.0, 3.0),
    unary("Sinh", "sinh"),
    unary("Cosh", "cosh"),
    unary("Tanh", "tanh", -2.0, 2.0, opset=13),
    unary("Asinh", "asinh", -2.0, 2.0),
    unary("Acosh", "acosh", 1.3, 3.0),
    unary("Atanh", "atanh", -0.8, 0.8),
    *several("Max", "amax"),
    *several("Min", "amin"),
    *several("Sum", "sum"),
    *several("Mean", "mean"),
    Case(
        "elementwise/Max/ties",
        lambda g: g.Max(g.input("a", values=TIED), g.input("b", values=np.abs(TIED))),
        torch.maximum,
        differences=False,
    ),
    Case(
        "elementwise/Where",
        lambda g: g.Where(g.const(np.asarray([True, False, True])), g.input("a", 2, 3), g.input("b", 2, 1)),
        lambda a, b: torch.where(torch.tensor([True, False, True]), a, b),
    ),
    Case(
        "elementwise/Where/computed",
        lambda g: g.Where(g.Greater(x := g.input("x", 2, 3, away_from=(0.1,)), 0.1), g.Mul(x, x), 0.5),
        lambda x: torch.where(x > 0.1, x * x, torch.tensor(0.5, dtype=x.dtype)),
    ),
    Case(
        "elementwise/Clip",
        lambda g: g.Clip(g.input("x", 3, 5, away_from=(-0.3, 0.4)), g.weight(values=-0.3), g.weight(values=0.4)),
        torch.clamp,
    ),
    Case(
        "elementwise/Clip/at-bounds",
        lambda g: g.Clip(g.input("x", values=[0.0, 0.5, 1.0, 2.0, -1.0]), 0.0, 1.0),
        lambda x: torch.clamp(x, 0, 1),
        differences=False,
    ),
    Case(
        "elementwise/Clip/upper-only",
        lambda g: g.Clip(g.input("x", 3, 5, away_from=(0.4,)), None, 0.4),
        lambda x: torch.clamp(x, max=0.4),
        opset=13,
    ),
    Case(
        "elementwise/Clip/computed-bounds",
        lambda g: g.Clip(g.input("x", 3, 5), g.input("low", low=-0.5, high=-0.4), g.input("high", low=0.4, high=0.5)),
        torch.clamp,
    ),
    Case(
        "elementwise/Clip/crossed-bounds",
        lambda g: g.Clip(g.input("x", 3, 5), g.input("low", low=0.4, high=0.5), g.input("high", low=-0.5, high=-0.4)),
        torch.clamp,
    ),
    Case(
        "elementwise/Cast",
        lambda g: g.Cast(
            g.Mul(g.Cast(g.input("x", 2, 3), to=int(ir.DataType.FLOAT)), g.const(np.float32(3.0))), to=int(g.dtype)
        ),
        differences=False,
        torch=lambda x: 3.0 * x,
    ),
    Case(
        "elementwise/CastLike",
        lambda g: g.CastLike(g.Mul(x := g.input("x", 2, 3), x), x),
        lambda x: x * x,
    ),
    Case(
        "elementwise/Mod",
        lambda g: g.Mod(g.input("a", 3, 4, low=-5, high=5), g.input("b", 1, 4, low=1, high=2), fmod=1),
        torch.fmod,
    ),
    Case(
        "elementwise/no-gradient-through",
        lambda g: g.Mul(
            g.Add(g.Sign(x := g.input("x", 2, 3, low=0.1)), g.Add(g.Floor(x), g.Add(g.Ceil(x), g.Round(x)))), x
        ),
        lambda x: (x.sign() + x.floor() + x.ceil() + x.round()) * x,
    ),
]
