"""The terms of a step: what extractors see, what constraints measure, and how each enters the loss.

Pieces of the graph that `step` puts together; what the single terms are is written in `terms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from engine.tape import Tape, dims
from glaze_trt.graph import terms, views
from glaze_trt.graph.sight import Box
from glaze_trt.objective import Constraint, Objective

SCALING: Mapping[str, float] = {"sd1": 0.18215, "sdxl": 0.13025}
"""What latents of a space are multiplied by, so that they have about unit variance; 1 for features of another kind."""


@dataclass(frozen=True)
class Nets:
    """The networks at one picture size, as canonical static models (see `engine.load`).

    Attributes:
        encoders: each `image` (1, 3, H, W) in [0,1] → `latent`.
        perceptual: `image` → `feature_0`, `feature_1`, ...; None where LPIPS is not used.
        weights: of the encoders' features; alike if none are given.
        scaling: what each encoder's latents were multiplied by (`SCALING`); 1 if none are given.
    """

    encoders: tuple[ir.Model, ...]
    perceptual: ir.Model | None
    weights: tuple[float, ...] = ()
    scaling: tuple[float, ...] = ()

    @property
    def features(self) -> tuple[ir.Value, ...]:
        """The perceptual net's outputs, `feature_<i>`."""
        return () if self.perceptual is None else tuple(self.perceptual.graph.outputs)


@dataclass(frozen=True)
class Seen:
    """What the extractors say.

    Attributes:
        terms: `distance_<i>` → what is made small.
        distances: `distance_<i>` → mean squared distance to the target, to the original or to zero.
        hinge: of the direction `between`; 0 where every extractor is nearer the target.
        sign: −1 where the best δ has the largest distance.
    """

    terms: dict[str, ir.Value]
    distances: dict[str, ir.Value]
    hinge: ir.Value | None
    sign: float


def seen(graph: ir.Graph, objective: Objective, nets: Nets, x: ir.Value, count: ir.Value) -> Seen:
    """The features' terms at a picture `x`; `count` is the number of the step, for views."""
    wanted = objective.features
    tape = Tape(graph)
    pictures = [x]
    with tape.scope("views", precision="fp32"):
        if wanted.views:
            pictures = [views.sampled(tape, x, wanted.views, count, graph_input(graph, "seed", ()))]
        if wanted.blurred:
            pictures += [terms.gaussian(tape, picture, 3, 3.0) for picture in pictures]
    losses: dict[str, ir.Value] = {}
    distances: dict[str, ir.Value] = {}
    hinge: ir.Value | None = None
    for index, encoder in enumerate(nets.encoders):
        shape = dims(encoder.graph.outputs[0])
        latents = [tape.splice(encoder, {"image": picture})[str(encoder.graph.outputs[0].name)] for picture in pictures]
        with tape.scope("features", precision="fp32"):
            if wanted.unit:
                latents = [terms.unit(tape, latent) for latent in latents]
            goal = (
                tape.constant(np.zeros(shape, np.float32))
                if wanted.direction == "zero"
                else graph_input(graph, f"own_{index}" if wanted.direction == "away" else f"target_{index}", shape)
            )
            factor = 1 / nets.scaling[index] if wanted.unscaled and nets.scaling else 1.0

            def apart(latent: ir.Value, other: ir.Value, factor: float = factor) -> ir.Value:
                if factor != 1.0:
                    latent, other = tape.Mul(latent, factor), tape.Mul(other, factor)
                return terms.features(tape, latent, other, wanted.metric)

            loss = weighed(tape, [apart(latent, goal) for latent in latents], ())
            distances[f"distance_{index}"] = terms.features(tape, latents[0], goal, "mean-squared")
            if wanted.direction == "away":
                loss = tape.Neg(loss)
            elif wanted.direction == "between":
                own = graph_input(graph, f"own_{index}", shape)
                away = weighed(tape, [apart(latent, own) for latent in latents], ())
                loss = tape.Max(tape.Add(tape.Sub(loss, away), wanted.margin), 0.0)
                hinge = loss if hinge is None else tape.Add(hinge, loss)
        losses[f"distance_{index}"] = loss
    return Seen(losses, distances, hinge, -1.0 if wanted.direction == "away" else 1.0)


def constraint_values(
    tape: Tape,
    nets: Nets,
    objective: Objective,
    x: ir.Value,
    delta: ir.Value,
    picture: ir.Value,
    known: Mapping[str, ir.Value],
    window: Box | None = None,
) -> dict[str, ir.Value]:
    """One scalar a constraint, by its measure.

    Args:
        tape: where to write.
        nets: the networks, the perceptual one for pictures of the window's size.
        objective: whose constraints.
        x: the picture with δ, (1, 3, H, W).
        delta: δ.
        picture: the original.
        known: the constants that concern the original alone, of the window.
        window: x, y, width and height of what is measured; None for all of it.
    """
    if window is not None:
        x, delta, picture = (_cut(tape, value, window) for value in (x, delta, picture))
    values: dict[str, ir.Value] = {}
    for bound in objective.bounds:
        measure = bound.measure
        if measure == "lpips":
            assert nets.perceptual is not None
            maps = tape.splice(nets.perceptual, {"image": x})
            with tape.scope("lpips", precision="fp32"):
                values[measure] = terms.lpips(tape, list(maps.values()), [known[name] for name in maps])
            continue
        with tape.scope(measure, precision="fp32"):
            if measure == "visibility":
                values[measure] = terms.visibility(tape, x, known, bound.octave)
            elif measure == "structure":
                values[measure] = terms.structure(tape, delta, known)
            elif measure == "dssim":
                values[measure] = terms.dssim(tape, x, picture, known)
            else:
                values[measure] = terms.l2(tape, delta)
    return values


def acts(tape: Tape, bound: Constraint, value: ir.Value, limit: ir.Value, weight: ir.Value) -> ir.Value:
    """A constraint's part of the loss."""
    if bound.how in ("hinge", "doubling"):
        value = tape.Max(tape.Sub(value, limit), 0.0)
    if bound.how == "doubling":
        value = tape.Mul(value, value)
    return tape.Mul(value, weight)


def strength(tape: Tape, bound: Constraint, value: ir.Value, limit: ir.Value, weight: ir.Value) -> ir.Value:
    """What a constraint's gradient of unit RMS is multiplied by; nothing of a hinge inside its limit."""
    if bound.how in ("hinge", "doubling"):
        return tape.Where(tape.Greater(value, limit), weight, 0.0)
    return weight


def next_weight(
    tape: Tape, objective: Objective, bound: Constraint, value: ir.Value, limit: ir.Value, weight: ir.Value
) -> ir.Value:
    """A constraint's weight in the next step."""
    if bound.how == "multiplier":
        excess = tape.Sub(tape.Div(value, limit), 1.0)
        grown = tape.Add(weight, tape.Mul(excess, objective.update.gain))
        return tape.Min(tape.Max(grown, 0.0), objective.update.ceiling)
    if bound.how == "doubling":
        above, below = tape.Greater(value, tape.Mul(limit, 1.1)), tape.Less(value, tape.Mul(limit, 0.9))
        return tape.Where(above, tape.Mul(weight, 2.0), tape.Where(below, tape.Mul(weight, 0.5), weight))
    return weight


def weighed(tape: Tape, parts: Sequence[ir.Value], weights: Sequence[float]) -> ir.Value:
    """The weighted sum; no weights are ones."""
    total: ir.Value | None = None
    for part, weight in zip(parts, weights or [1.0] * len(parts), strict=True):
        scaled = part if weight == 1.0 else tape.Mul(part, weight)
        total = scaled if total is None else tape.Add(total, scaled)
    assert total is not None
    return total


def _cut(tape: Tape, value: ir.Value, window: Box) -> ir.Value:
    x, y, w, h = window
    return tape.Slice(value, [y, x], [y + h, x + w], [2, 3])


def graph_input(graph: ir.Graph, name: str, shape: Sequence[int]) -> ir.Value:
    """The float32 input of a graph with this name; made if there is none yet."""
    for known in graph.inputs:
        if known.name == name:
            return known
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(value)
    return value
