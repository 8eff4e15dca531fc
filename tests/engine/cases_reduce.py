"""Reductions and running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from tests.engine.case import Builder, Case

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": torch.sum,
    "ReduceMean": torch.mean,
    "ReduceMax": torch.amax,
    "ReduceMin": torch.amin,
    "ReduceL1": lambda x, dim, keepdim: x.abs().sum(dim, keepdim),
    "ReduceL2": lambda x, dim, keepdim: torch.linalg.vector_norm(x, 2, dim, keepdim),
    "ReduceSumSquare": lambda x, dim, keepdim: (x * x).sum(dim, keepdim),
    "ReduceLogSum": lambda x, dim, keepdim: x.sum(dim, keepdim).log(),
    "ReduceLogSumExp": torch.logsumexp,
}


def of(op_type: str) -> list[Case]:
    """Two axes dropped; a negative one kept; every axis; none (opset 13 form where the axes were attributes)."""
    function = REDUCTIONS[op_type]

    def x(g: Builder) -> ir.Value:
        return g.input("x", 2, 3, 4, low=0.1, high=2.0, distinct=True)

    old = {"axes": [0, 2]} if op_type != "ReduceSum" else {}
    operands = [[0, 2]] if op_type == "ReduceSum" else []
    return [
        Case(
            f"reduce/{op_type}/opset-13",
            lambda g: g.op(op_type, x(g), *operands, keepdims=0, **old),
            lambda x: function(x, (0, 2), False),
            opset=13,
        ),
        Case(f"reduce/{op_type}/negative", lambda g: g.op(op_type, x(g), [-2]), lambda x: function(x, (1,), True)),
        Case(
            f"reduce/{op_type}/all", lambda g: g.op(op_type, x(g), keepdims=0), lambda x: function(x, (0, 1, 2), False)
        ),
        Case(f"reduce/{op_type}/none", lambda g: g.op(op_type, g.Mul(x(g), 2.0), None, noop_with_empty_axes=1)),
    ]


CASES = [
    *(case for op_type in REDUCTIONS for case in of(op_type)),
    Case("reduce/ReduceProd", lambda g: g.ReduceProd(g.input("x", 2, 3), [1], keepdims=0), lambda x: x.prod(1)),
    Case("reduce/ReduceProd/all", lambda g: g.ReduceProd(g.input("x", 2, 3), keepdims=0), torch.prod, opset=13),
    Case(
        "reduce/ReduceProd/zeros",
        lambda g: g.ReduceProd(g.input("x", values=[[2.0, 0.0, 3.0], [0.0, 0.0, 5.0], [1.0, 2.0, 4.0]]), [1]),
        lambda x: x.prod(1, keepdim=True),
    ),
    Case(
        "reduce/ReduceMax/ties",
        lambda g: g.ReduceMax(g.input("x", values=[[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]), [1], keepdims=0),
        lambda x: x.amax(1),
        differences=False,
    ),
    Case(
        "reduce/ReduceL2/at-zero",
        lambda g: g.ReduceL2(g.input("x", values=[[0.0, 0.0], [3.0, 4.0]]), [1], keepdims=0),
        lambda x: torch.linalg.vector_norm(x, 2, 1),
        differences=False,
    ),
    *(
        Case(
            f"reduce/CumSum/{exclusive}{reverse}",
            lambda g, e=exclusive, r=reverse: g.CumSum(
                g.input("x", 2, 4), g.const(np.asarray(-1, np.int64)), exclusive=e, reverse=r
            ),
            (lambda x: x.cumsum(-1)) if (exclusive, reverse) == (0, 0) else None,
            opset=14,
        )
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
    Case(
        "reduce/TopK",
        lambda g: g.op("TopK", g.input("x", 2, 6, distinct=True), [3], outputs=2)[0],
        lambda x: x.topk(3).values,
    ),
    Case(
        "reduce/TopK/smallest-of-axis",
        lambda g: g.op("TopK", g.input("x", 5, 3, distinct=True), [2], outputs=2, axis=0, largest=0)[0],
        lambda x: x.topk(2, 0, largest=False).values,
    ),
]
