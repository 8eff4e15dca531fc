"""One optimisation step as one static graph: forward, losses, backward, multipliers, update, projection.

The graph carries its own state from step to step (`CARRY`), so an engine can repeat it with no host work between.
`look` builds the graph of what is computed once a picture, outside the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engine.autodiff import backward
from engine.passes.lower import lower
from engine.tape import OPSET, Tape, dims
from glaze_trt import terms
from glaze_trt.objective import Update

CONSTRAINTS = ("lpips", "visibility", "structure")
"""What may bound a cloak beside |δ|: each has a limit and a weight that adapts."""

_TINY = 1e-12
_HUGE = 1e30
_STATE = ("delta", "momentum", "second", "step", "best_delta", "best_distance")
_SCALARS = ("step", "best_distance")


@dataclass(frozen=True)
class Nets:
    """The two networks at one picture size, as canonical static models (see `engine.load`).

    Attributes:
        encoder: `image` (1, 3, H, W) in [0,1] → `latent`.
        perceptual: `image` → `feature_0`, `feature_1`, ...; None where LPIPS is not used.
    """

    encoder: ir.Model
    perceptual: ir.Model | None

    @property
    def features(self) -> tuple[ir.Value, ...]:
        """The perceptual net's outputs, `feature_<i>`."""
        return () if self.perceptual is None else tuple(self.perceptual.graph.outputs)


def look(size: Sequence[int], constraints: Sequence[str]) -> ir.Model:
    """`image` (1, 3, H, W) → the constants of the step that visibility and structure take from the original picture."""
    graph = _graph("look")
    tape = Tape(graph)
    image = _input(graph, "image", size)
    named: dict[str, ir.Value] = {}
    if "visibility" in constraints:
        named |= terms.visibility_reference(tape, image)
    if "structure" in constraints:
        named |= terms.structure_reference(tape, image)
    return _finish(graph, tape, named)


def step(
    nets: Nets,
    constraints: Sequence[str],
    update: Update,
    constants: Mapping[str, Sequence[int]],
    *,
    scaled: bool = False,
) -> ir.Model:
    """The step graph.

    Inputs that stay: `picture` (1, 3, H, W) in [0,1]; `cap` (1, 1, H, W), the largest |δ| per pixel; `target`, the
    wanted latent; `steps`, the length of the schedule; `limit_<constraint>` scalars; the perceptual net's features of
    the original, `feature_<i>`; and what `look` returns.
    Inputs that are carried: see `carried`. Outputs beside them: `distance`, the mean squared feature distance, and
    one scalar per constraint, all at the δ that came in.

    In fp16 gradients vanish below 6e-8 and overflow above 65504. With `scaled`, every term that goes through a network
    (`scales`) has a loss scale of its own, carried from step to step: its gradient is multiplied by it on the way, and
    its size in the end does not depend on it, since gradients are divided by their RMS. A step in which one of them is
    not finite changes nothing but that scale, which it halves. `rms_<term>` is the RMS of the scaled gradient.

    Args:
        nets: the networks.
        constraints: a selection of `CONSTRAINTS`.
        update: the constants of the update.
        constants: name → shape of the features and of what `look` returns.
        scaled: whether terms have loss scales.
    """
    graph = _graph("step")
    size = dims(nets.encoder.graph.inputs[0])
    one_channel = (size[0], 1, *size[2:])
    picture, cap = _input(graph, "picture", size), _input(graph, "cap", one_channel)
    target = _input(graph, "target", dims(nets.encoder.graph.outputs[0]))
    steps = _input(graph, "steps", ())
    limits = {name: _input(graph, f"limit_{name}", ()) for name in constraints}
    known = {name: _input(graph, name, shape) for name, shape in constants.items()}
    state = {name: _input(graph, name, () if name in _SCALARS else size) for name in _STATE}
    weights = {name: _input(graph, f"weight_{name}", ()) for name in constraints}
    scale = {name: _input(graph, f"scale_{name}", ()) for name in scales(constraints)} if scaled else {}

    tape = Tape(graph)
    delta = state["delta"]
    with tape.scope("image", precision="fp32"):
        x = tape.Add(picture, delta)
    latent = tape.splice(nets.encoder, {"image": x})[str(nets.encoder.graph.outputs[0].name)]
    with tape.scope("features", precision="fp32"):
        distance = terms.features(tape, latent, target)
    values = _constraint_values(tape, nets, x, delta, known, constraints)

    sizes: dict[str, ir.Value] = {}
    pulls: dict[str, ir.Value] = {}
    for name, value in (("distance", distance), *values.items()):
        pulls[name], sizes[name] = _unit_rms(graph, value, delta, scale.get(name))
    tape = Tape(graph)
    with tape.scope("update", precision="fp32"):
        pull = pulls["distance"]
        for name in values:
            pull = tape.Add(pull, tape.Mul(pulls[name], weights[name]))
        after = _descend(tape, update, pull, state, cap, picture, steps)
        for name, value in values.items():
            excess = tape.Sub(tape.Div(value, limits[name]), 1.0)
            grown = tape.Add(weights[name], tape.Mul(excess, update.gain))
            after[f"weight_{name}"] = tape.Min(tape.Max(grown, 0.0), update.ceiling)
        if scale:
            before = state | {f"weight_{name}": weight for name, weight in weights.items()}
            after = _skip_overflow(tape, before, after, scale, sizes)
        after |= _keep_best(tape, state, delta, distance, values, limits)
    outputs = {f"next_{name}": value for name, value in after.items()}
    rms = {f"rms_{name}": sizes[name] for name in scale}
    model = _finish(graph, tape, {**outputs, "distance": distance, **values, **rms})
    for value in known.values():
        if not value.uses():
            graph.inputs.remove(value)
    return model


def scales(constraints: Sequence[str]) -> tuple[str, ...]:
    """The terms that go through a network, which a `scaled` step has a loss scale for."""
    return ("distance", *(name for name in constraints if name == "lpips"))


def carried(constraints: Sequence[str], *, scaled: bool = False) -> dict[str, str]:
    """Output → input of everything that feeds back."""
    weights = [f"weight_{name}" for name in constraints]
    loss_scales = [f"scale_{name}" for name in scales(constraints)] if scaled else []
    return {f"next_{name}": name for name in (*_STATE, *weights, *loss_scales)}


def first_state(
    constraints: Sequence[str], delta: np.ndarray, weight: float = 1.0, scale: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """The state before the first step.

    Args:
        constraints: as the step was made with.
        delta: first δ, (1, 3, H, W).
        weight: first weight of every constraint.
        scale: term → first loss scale, for a `scaled` step.
    """
    zeros, scalar = np.zeros_like(delta), np.zeros((), np.float32)
    state = {name: zeros for name in ("momentum", "second", "best_delta")}
    numbers = {f"weight_{name}": weight for name in constraints}
    numbers |= {f"scale_{name}": value for name, value in (scale or {}).items()} | {"best_distance": np.inf}
    return {
        "delta": delta,
        "step": scalar,
        **state,
        **{name: np.float32(v) * (scalar + 1) for name, v in numbers.items()},
    }


def _constraint_values(
    tape: Tape, nets: Nets, x: ir.Value, delta: ir.Value, known: Mapping[str, ir.Value], constraints: Sequence[str]
) -> dict[str, ir.Value]:
    values: dict[str, ir.Value] = {}
    if "lpips" in constraints and nets.perceptual is not None:
        maps = tape.splice(nets.perceptual, {"image": x})
        with tape.scope("lpips", precision="fp32"):
            values["lpips"] = terms.lpips(tape, list(maps.values()), [known[name] for name in maps])
    with tape.scope("visibility", precision="fp32"):
        if "visibility" in constraints:
            values["visibility"] = terms.visibility(tape, x, known)
    with tape.scope("structure", precision="fp32"):
        if "structure" in constraints:
            values["structure"] = terms.structure(tape, delta, known)
    return values


def _unit_rms(graph: ir.Graph, value: ir.Value, wrt: ir.Value, scale: ir.Value | None) -> tuple[ir.Value, ir.Value]:
    """The gradient of a scalar, divided by its root mean square; and that, times `scale` if there is one."""
    (gradient,) = backward(graph, value, [wrt], scale)
    tape = Tape(graph)
    with tape.scope("update", precision="fp32"):
        rms = tape.Sqrt(tape.ReduceMean(tape.Mul(gradient, gradient), [0, 1, 2, 3], keepdims=0))
        return tape.Div(gradient, tape.Add(rms, _TINY)), rms


def _skip_overflow(
    tape: Tape,
    before: Mapping[str, ir.Value],
    after: Mapping[str, ir.Value],
    scale: Mapping[str, ir.Value],
    rms: Mapping[str, ir.Value],
) -> dict[str, ir.Value]:
    """The state after a step; the state before it, with a scale halved, where a gradient is not finite."""
    finite = {name: tape.Less(rms[name], _HUGE) for name in scale}  # false for NaN
    whole: ir.Value | None = None
    for fine in finite.values():
        whole = fine if whole is None else tape.And(whole, fine)
    kept = {name: tape.Where(whole, value, before[name]) for name, value in after.items()}
    halved = {f"scale_{name}": tape.Where(finite[name], s, tape.Mul(s, 0.5)) for name, s in scale.items()}
    return {**kept, **halved}


def _descend(
    tape: Tape,
    update: Update,
    gradient: ir.Value,
    state: Mapping[str, ir.Value],
    cap: ir.Value,
    picture: ir.Value,
    steps: ir.Value,
) -> dict[str, ir.Value]:
    count = tape.Add(state["step"], 1.0)
    second = tape.Add(
        tape.Mul(state["second"], update.memory), tape.Mul(tape.Mul(gradient, gradient), 1 - update.memory)
    )
    unbias = tape.Sub(1.0, tape.Pow(tape.constant(np.float32(update.memory)), count))
    root = tape.Sqrt(tape.Div(second, unbias))
    momentum = tape.Add(
        tape.Mul(state["momentum"], update.momentum), tape.Div(gradient, tape.Add(root, update.damping))
    )
    phase = tape.Min(tape.Div(state["step"], steps), 1.0)
    fall = tape.Mul(tape.Add(tape.Cos(tape.Mul(phase, float(np.pi))), 1.0), 0.5 * update.rate)
    moved = tape.Sub(state["delta"], tape.Mul(tape.Mul(cap, fall), momentum))
    capped = tape.Max(tape.Min(moved, cap), tape.Neg(cap))
    inside = tape.Max(tape.Min(capped, tape.Sub(1.0, picture)), tape.Neg(picture))
    return {"delta": inside, "momentum": momentum, "second": second, "step": count}


def _keep_best(
    tape: Tape,
    state: Mapping[str, ir.Value],
    delta: ir.Value,
    distance: ir.Value,
    values: Mapping[str, ir.Value],
    limits: Mapping[str, ir.Value],
) -> dict[str, ir.Value]:
    """The δ of least distance among those inside every limit."""
    better = tape.Less(distance, state["best_distance"])
    for name, value in values.items():
        better = tape.And(better, tape.LessOrEqual(value, limits[name]))
    return {
        "best_delta": tape.Where(better, delta, state["best_delta"]),
        "best_distance": tape.Where(better, distance, state["best_distance"]),
    }


def _graph(name: str) -> ir.Graph:
    return ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name=name)


def _input(graph: ir.Graph, name: str, shape: Sequence[int]) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(value)
    return value


def _finish(graph: ir.Graph, tape: Tape, named: Mapping[str, ir.Value]) -> ir.Model:
    for name, value in named.items():
        if value.is_graph_input() or value.is_initializer() or value.is_graph_output():
            value = tape.Identity(value)
        value.name = name
        graph.outputs.append(value)
    lower(graph)
    return ir.Model(graph, ir_version=10)
