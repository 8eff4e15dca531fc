"""Every activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from tests.engine.case import Case


def activation(
    op_type: str,
    function: Callable[..., Any],
    kinks: Sequence[float] = (),
    name: str = "",
    opset: int = 23,
    **options: Any,
) -> Case:
    return Case(
        f"activation/{op_type}{name}",
        lambda g: g.op(op_type, g.input("x", 4, 6, low=-4.0, high=4.0, away_from=kinks), **options),
        function,
        opset=opset,
    )


CASES = [
    activation("Relu", F.relu, [0.0]),
    Case("activation/Relu/at-zero", lambda g: g.Relu(g.input("x", values=[-1.0, 0.0, 1.0])), F.relu, differences=False),
    activation("LeakyRelu", lambda x: F.leaky_relu(x, 0.01), [0.0]),
    activation("LeakyRelu", lambda x: F.leaky_relu(x, 0.2), [0.0], name="/alpha", opset=13, alpha=0.2),
    Case(
        "activation/PRelu",
        lambda g: g.PRelu(g.input("x", 2, 3, 4, away_from=[0.0]), g.weight(3, 1)),
        lambda x, w: F.prelu(x, w.reshape(3)),
    ),
    Case(
        "activation/PRelu/computed-slope",
        lambda g: g.PRelu(g.input("x", 2, 3, 4, away_from=[0.0]), g.input("w", 1)),
        F.prelu,
        opset=13,
    ),
    activation("Elu", F.elu, [0.0]),
    activation("Elu", lambda x: F.elu(x, 0.5), [0.0], name="/alpha", alpha=0.5),
    activation("Celu", F.celu, [0.0]),
    activation("Celu", lambda x: F.celu(x, 0.5), [0.0], name="/alpha", alpha=0.5),
    activation("Selu", F.selu, [0.0]),
    activation("Sigmoid", torch.sigmoid),
    activation("HardSigmoid", lambda x: (0.2 * x + 0.5).clamp(0, 1), [-2.5, 2.5]),
    activation("HardSigmoid", F.hardsigmoid, [-3.0, 3.0], name="/as-torch", alpha=1 / 6),
    activation("HardSwish", F.hardswish, [-3.0, 3.0]),
    activation("Softplus", F.softplus),
    activation("Softsign", F.softsign),
    activation("ThresholdedRelu", lambda x: F.threshold(x, 1.0, 0.0), [1.0]),
    activation("ThresholdedRelu", lambda x: F.threshold(x, 0.3, 0.0), [0.3], name="/alpha", alpha=0.3),
    replace(activation("Gelu", F.gelu), differences=False),  # the reference computes Erf in fp32
    activation("Gelu", lambda x: F.gelu(x, approximate="tanh"), name="/tanh", approximate="tanh"),
    activation("Mish", F.mish),
    activation("Swish", F.silu, opset=24),
    replace(
        activation("Swish", lambda x: x * torch.sigmoid(1.7 * x), name="/alpha", opset=25, alpha=1.7),
        as_written=False,
    ),
    activation("Shrink", lambda x: F.hardshrink(x, 0.5), [-0.5, 0.5]),
    activation("Shrink", lambda x: F.softshrink(x, 0.7), [-0.7, 0.7], name="/soft", lambd=0.7, bias=0.7),
    Case("activation/Softmax", lambda g: g.Softmax(g.input("x", 2, 3, 5)), lambda x: x.softmax(-1)),
    Case(
        "activation/Softmax/axis", lambda g: g.Softmax(g.input("x", 2, 3, 5), axis=1), lambda x: x.softmax(1), opset=13
    ),
    Case("activation/LogSoftmax", lambda g: g.LogSoftmax(g.input("x", 2, 5)), lambda x: x.log_softmax(-1)),
    Case("activation/LogSoftmax/axis", lambda g: g.LogSoftmax(g.input("x", 2, 5), axis=0), lambda x: x.log_softmax(0)),
    Case("activation/Hardmax", lambda g: g.Mul(g.Hardmax(x := g.input("x", 2, 5, distinct=True)), x)),
]
