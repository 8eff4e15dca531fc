"""How δ moves in one step, as graph pieces: one function a kind of update, then cap and range.

Each takes the gradient and the state it carries, and returns the direction to go against with the next state. All stay
in fp32. What the gradient is of is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from engine.tape import Tape
from glaze_trt.objective import Update

Named = dict[str, ir.Value]

_EPSILON = 1e-8
"""ε of Adam; Adadelta's is `Update.damping`."""

_LEAST_RMS = 1e-12
"""Keeps a gradient that is zero from being divided by zero."""

_LEAST = 0.01
"""Where a `line` ends, as a part of the first rate."""


def carried(update: Update) -> tuple[str, ...]:
    """The names of the state that an update carries, each shaped as δ, from zeros."""
    return () if update.kind == "sign" else ("momentum", "second")


def descend(
    t: Tape,
    update: Update,
    gradient: ir.Value,
    state: Mapping[str, ir.Value],
    cap: ir.Value,
    picture: ir.Value,
    steps: ir.Value,
) -> Named:
    """The state after a step: `delta`, `step`, and what `carried` names.

    Args:
        t: where to write.
        update: the constants.
        gradient: of what shall fall, shaped as δ.
        state: before the step.
        cap: the largest |δ| per pixel; a rate is a part of it.
        picture: in [0,1], which picture + δ stays in.
        steps: the length of the schedule.
    """
    count = t.Add(state["step"], 1.0)
    direction, after = _KINDS[update.kind](t, update, gradient, state, count)
    moved = t.Sub(state["delta"], t.Mul(t.Mul(cap, _rate(t, update, state["step"], steps)), direction))
    capped = t.Max(t.Min(moved, cap), t.Neg(cap))
    inside = t.Max(t.Min(capped, t.Sub(1.0, picture)), t.Neg(picture))
    return {"delta": inside, **after, "step": count}


def _rate(t: Tape, update: Update, step: ir.Value, steps: ir.Value) -> ir.Value:
    phase = t.Min(t.Div(step, steps), 1.0)
    if update.schedule == "cosine":
        return t.Mul(t.Add(t.Cos(t.Mul(phase, float(np.pi))), 1.0), 0.5 * update.rate)
    if update.schedule == "line":
        return t.Mul(t.Sub(1.0, t.Mul(phase, 1.0 - _LEAST)), update.rate)
    return t.constant(np.float32(update.rate))


def _preconditioned(
    t: Tape, update: Update, gradient: ir.Value, state: Mapping[str, ir.Value], count: ir.Value
) -> tuple[ir.Value, Named]:
    second = t.Add(t.Mul(state["second"], update.memory), t.Mul(t.Mul(gradient, gradient), 1 - update.memory))
    root = t.Sqrt(t.Div(second, _unbias(t, update.memory, count)))
    momentum = t.Add(t.Mul(state["momentum"], update.momentum), t.Div(gradient, t.Add(root, update.damping)))
    return momentum, {"momentum": momentum, "second": second}


def _adam(
    t: Tape, update: Update, gradient: ir.Value, state: Mapping[str, ir.Value], count: ir.Value
) -> tuple[ir.Value, Named]:
    """Kingma and Ba, ICLR 2015."""
    first = t.Add(t.Mul(state["momentum"], update.momentum), t.Mul(gradient, 1 - update.momentum))
    second = t.Add(t.Mul(state["second"], update.memory), t.Mul(t.Mul(gradient, gradient), 1 - update.memory))
    root = t.Sqrt(t.Div(second, _unbias(t, update.memory, count)))
    mean = t.Div(first, _unbias(t, update.momentum, count))
    return t.Div(mean, t.Add(root, _EPSILON)), {"momentum": first, "second": second}


def _adadelta(
    t: Tape, update: Update, gradient: ir.Value, state: Mapping[str, ir.Value], count: ir.Value
) -> tuple[ir.Value, Named]:
    """Zeiler, arXiv 1212.5701; `momentum` holds the running mean of squared moves.

    The gradient is divided by its RMS first, so that ε means the same for every loss. The running means then weigh all
    steps alike, where Adadelta's own weigh those with larger gradients more.
    """
    size = t.Sqrt(t.ReduceMean(t.Mul(gradient, gradient), [0, 1, 2, 3], keepdims=0))
    gradient = t.Div(gradient, t.Add(size, _LEAST_RMS))
    second = t.Add(t.Mul(state["second"], update.memory), t.Mul(t.Mul(gradient, gradient), 1 - update.memory))
    ratio = t.Div(t.Add(state["momentum"], update.damping), t.Add(second, update.damping))
    move = t.Mul(t.Sqrt(ratio), gradient)
    moves = t.Add(t.Mul(state["momentum"], update.memory), t.Mul(t.Mul(move, move), 1 - update.memory))
    return move, {"momentum": moves, "second": second}


def _sign(
    t: Tape, update: Update, gradient: ir.Value, state: Mapping[str, ir.Value], count: ir.Value
) -> tuple[ir.Value, Named]:
    """Projected sign descent (Madry et al., ICLR 2018)."""
    return t.Sign(gradient), {}


def _unbias(t: Tape, beta: float, count: ir.Value) -> ir.Value:
    return t.Sub(1.0, t.Pow(t.constant(np.float32(beta)), count))


_KINDS: Mapping[str, Callable[[Tape, Update, ir.Value, Mapping[str, ir.Value], ir.Value], tuple[ir.Value, Named]]] = {
    "preconditioned": _preconditioned,
    "sign": _sign,
    "adam": _adam,
    "adadelta": _adadelta,
}
