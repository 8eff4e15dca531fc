"""One optimisation step as one static graph: forward, losses, backward, multipliers, update, projection.

The graph carries its own state from step to step (`carried`), so an engine can repeat it with no host work between.
`look` builds the graph of what is computed once a picture, outside the loop. What the terms are is for `terms`, how δ
moves for `update`, and which of them are used for the `Objective`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from engine.autodiff import backward
from engine.passes.lower import lower
from engine.tape import OPSET, Tape, dims
from glaze_trt.graph import losses, terms, update
from glaze_trt.graph.losses import Nets, Seen, graph_input, weighed
from glaze_trt.graph.sight import Box
from glaze_trt.objective import Objective

_TINY = 1e-12
_HUGE = 1e30
_SCALARS = ("step", "best_score")


def look(size: Sequence[int], objective: Objective) -> ir.Model:
    """`image` (1, 3, H, W) → the constants of the step that its constraints take from the original picture."""
    graph = _graph("look")
    tape = Tape(graph)
    image = graph_input(graph, "image", size)
    named: dict[str, ir.Value] = {}
    if "visibility" in objective.measures:
        named |= terms.visibility_reference(tape, image)
    if "structure" in objective.measures:
        named |= terms.structure_reference(tape, image)
    if "dssim" in objective.measures:
        named |= terms.dssim_reference(tape, image)
    return _finish(graph, tape, named)


def step(
    nets: Nets,
    objective: Objective,
    constants: Mapping[str, Sequence[int]],
    *,
    scaled: bool = False,
    window: Box | None = None,
) -> ir.Model:
    """The step graph.

    Inputs that stay: `picture` (1, 3, H, W) in [0,1]; `cap` (1, 1, H, W), the largest |δ| per pixel; for encoder i
    `target_<i>` and `own_<i>`, features wanted and features of the original, as the direction needs them, and
    `whole_<i>`, what its `distance_<i>` is divided by to be compared with others; `steps`, the length of the schedule;
    `limit_<measure>` scalars; `pull`, the features' weight, where gradients are not normalised; `seed`, where there are
    views; the perceptual net's features of the original, `feature_<j>`; and what `look` returns.
    Inputs that are carried: see `carried`. Outputs beside them, all at the δ that came in: for every encoder
    `distance_<i>`, the mean squared distance of its features to the target's, to the original's or to zero, as the
    direction says, of the picture as the view whose turn it is shows it; one scalar per constraint, of the untouched
    picture; and `hinge` for the direction `between`.

    In fp16 gradients vanish below 6e-8 and overflow above 65504. With `scaled`, every term that goes through a network
    (`scales`) has a loss scale of its own, carried from step to step: its gradient is multiplied by it on the way, and
    its size in the end does not depend on it, since gradients are divided by their RMS. A step in which one of them is
    not finite changes nothing but that scale, which it halves. `rms_<term>` is the RMS of the scaled gradient.

    Args:
        nets: the networks.
        objective: what is optimised, and how.
        constants: name → shape of the features and of what `look` returns.
        scaled: whether terms have loss scales; only for an objective that normalises.
        window: the part of the picture that constraints measure (x, y, width, height), which constants and the
            perceptual net are for; None for all of it.
    """
    graph = _graph("step")
    size = dims(nets.encoders[0].graph.inputs[0])
    picture, cap = graph_input(graph, "picture", size), graph_input(graph, "cap", (size[0], 1, *size[2:]))
    steps = graph_input(graph, "steps", ())
    limits = {str(bound.measure): graph_input(graph, f"limit_{bound.measure}", ()) for bound in objective.bounds}
    known = {name: graph_input(graph, name, shape) for name, shape in constants.items()}
    names = _state(objective)
    state = {name: graph_input(graph, name, () if name in _SCALARS else size) for name in names}
    weights = {str(name): graph_input(graph, f"weight_{name}", ()) for name in objective.measures}
    loss_scale = {
        name: graph_input(graph, f"scale_{name}", ()) for name in scales(objective, len(nets.encoders)) if scaled
    }

    tape = Tape(graph)
    delta = state["delta"]
    with tape.scope("image", precision="fp32"):
        x = tape.Add(picture, delta)
    seen = losses.seen(graph, objective, nets, x, state["step"])
    values = losses.constraint_values(tape, nets, objective, x, delta, picture, known, window)

    rms: dict[str, ir.Value] = {}
    if objective.normalises:
        pulls: dict[str, ir.Value] = {}
        for name, value in (*seen.terms.items(), *values.items()):
            pulls[name], rms[name] = _unit_rms(graph, value, delta, loss_scale.get(name))
        tape = Tape(graph)
        with tape.scope("update", precision="fp32"):
            pull = _pull(tape, graph, nets, objective, seen, pulls)
            for bound in objective.bounds:
                name = bound.measure
                strength = losses.strength(tape, bound, values[name], limits[name], weights[name])
                pull = tape.Add(pull, tape.Mul(pulls[name], strength))
    else:
        with tape.scope("loss", precision="fp32"):
            loss = tape.Mul(weighed(tape, list(seen.terms.values()), nets.weights), graph_input(graph, "pull", ()))
            for bound in objective.bounds:
                acts = losses.acts(tape, bound, values[bound.measure], limits[bound.measure], weights[bound.measure])
                loss = tape.Add(loss, acts)
        (pull,) = backward(graph, loss, [delta])
        tape = Tape(graph)
    with tape.scope("update", precision="fp32"):
        after = update.descend(tape, objective.update, pull, state, cap, picture, steps)
        for bound in objective.bounds:
            name = bound.measure
            after[f"weight_{name}"] = losses.next_weight(
                tape, objective, bound, values[name], limits[name], weights[name]
            )
        if loss_scale:
            before = state | {f"weight_{name}": weight for name, weight in weights.items()}
            after = _skip_overflow(tape, before, after, loss_scale, rms)
        if "best_score" in state:
            score, inside = _score(tape, graph, nets, seen, values, limits)
            after |= _keep_best(tape, state, delta, score, inside)
    outputs = {f"next_{name}": value for name, value in after.items()}
    told = {f"rms_{name}": rms[name] for name in loss_scale}
    hinge = {} if seen.hinge is None else {"hinge": seen.hinge}
    model = _finish(graph, tape, {**outputs, **seen.distances, **values, **hinge, **told})
    for value in list(graph.inputs):
        if not value.uses():  # a builder would drop it
            graph.inputs.remove(value)
    return model


def scales(objective: Objective, encoders: int = 1) -> tuple[str, ...]:
    """The terms that go through a network, which a `scaled` step has a loss scale for."""
    return (*(f"distance_{i}" for i in range(encoders)), *(name for name in objective.measures if name == "lpips"))


def carried(objective: Objective, encoders: int = 1, *, scaled: bool = False) -> dict[str, str]:
    """Output → input of everything that feeds back."""
    weights = [f"weight_{name}" for name in objective.measures]
    loss_scales = [f"scale_{name}" for name in scales(objective, encoders)] if scaled else []
    return {f"next_{name}": name for name in (*_state(objective), *weights, *loss_scales)}


def first_state(
    objective: Objective, delta: np.ndarray, scale: Mapping[str, float] | None = None
) -> dict[str, np.ndarray]:
    """The state before the first step.

    Args:
        objective: as the step was made with.
        delta: first δ, (1, 3, H, W).
        scale: term → first loss scale, for a `scaled` step.
    """
    zeros, scalar = np.zeros_like(delta), np.zeros((), np.float32)
    numbers = {f"weight_{bound.measure}": bound.weight for bound in objective.bounds}
    numbers |= {f"scale_{name}": value for name, value in (scale or {}).items()}
    state = {name: scalar if name in _SCALARS else zeros for name in _state(objective)} | {"delta": delta}
    if "best_score" in state:
        numbers["best_score"] = np.inf
    return state | {name: np.float32(value) * (scalar + 1) for name, value in numbers.items()}


def keeps_best(objective: Objective) -> bool:
    """Whether the step looks for the best δ: scores of different views cannot be compared."""
    return objective.features.direction == "between" or (objective.finish == "fit" and not objective.features.views)


def _state(objective: Objective) -> tuple[str, ...]:
    best = ("best_delta", "best_score") if keeps_best(objective) else ()
    return ("delta", *update.carried(objective.update), "step", *best)


def _pull(
    tape: Tape, graph: ir.Graph, nets: Nets, objective: Objective, seen: Seen, pulls: Mapping[str, ir.Value]
) -> ir.Value:
    """The features' gradient: those of several encoders weighed by what is left of each one's way, to move them alike.

    Gradients of unit RMS that have nothing in common add as squares do, so the squares of the weights add up to one.
    Powers of what is left are kept in logarithms until the largest is known: in fp32 they would overflow.
    """
    if len(seen.terms) == 1:
        (name,) = seen.terms
        return pulls[name]
    power = 0.5 * objective.features.balance * (-1.0 if objective.features.direction == "away" else 1.0)
    logs: list[ir.Value] = []
    for name, given in zip(seen.terms, nets.weights or [1.0] * len(seen.terms), strict=True):
        left = tape.Div(seen.distances[name], graph_input(graph, name.replace("distance", "whole"), ()))
        logs.append(tape.Add(tape.Mul(tape.Log(tape.Max(left, _TINY)), power), math.log(given)))
    most = functools.reduce(tape.Max, logs)
    weights = [tape.Exp(tape.Sub(log, most)) for log in logs]
    length = tape.Sqrt(weighed(tape, [tape.Mul(weight, weight) for weight in weights], ()))
    parts = [tape.Mul(pulls[name], tape.Div(weight, length)) for name, weight in zip(seen.terms, weights, strict=True)]
    return weighed(tape, parts, ())


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


def _score(
    tape: Tape,
    graph: ir.Graph,
    nets: Nets,
    seen: Seen,
    values: Mapping[str, ir.Value],
    limits: Mapping[str, ir.Value],
) -> tuple[ir.Value, ir.Value | None]:
    """What is least at the best δ, and whether a δ may be it at all."""
    if seen.hinge is not None:  # the shortest δ that is nearer the target
        return values["l2"], tape.LessOrEqual(seen.hinge, 0.0)
    weights = nets.weights or (1.0,) * len(seen.distances)
    parts = [
        tape.Div(distance, graph_input(graph, name.replace("distance", "whole"), ()))
        for name, distance in seen.distances.items()
    ]
    score = weighed(tape, parts, [weight / sum(weights) for weight in weights])
    inside: ir.Value | None = None
    for name, value in values.items():
        kept = tape.LessOrEqual(value, limits[name])
        inside = kept if inside is None else tape.And(inside, kept)
    return tape.Mul(score, seen.sign), inside


def _keep_best(
    tape: Tape, state: Mapping[str, ir.Value], delta: ir.Value, score: ir.Value, inside: ir.Value | None
) -> dict[str, ir.Value]:
    better = tape.Less(score, state["best_score"])
    if inside is not None:
        better = tape.And(better, inside)
    return {
        "best_delta": tape.Where(better, delta, state["best_delta"]),
        "best_score": tape.Where(better, score, state["best_score"]),
    }


def _graph(name: str) -> ir.Graph:
    return ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name=name)


def _finish(graph: ir.Graph, tape: Tape, named: Mapping[str, ir.Value]) -> ir.Model:
    for name, value in named.items():
        if value.is_graph_input() or value.is_initializer() or value.is_graph_output():
            value = tape.Identity(value)
        value.name = name
        graph.outputs.append(value)
    lower(graph)
    return ir.Model(graph, ir_version=10)
