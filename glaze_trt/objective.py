"""What a cloak optimises, as plain data: features, constraints, update, schedule, budget. No graph is built here.

    min over δ   Σ w·D(Φ(x+δ))   with   constraints,  |δ| ≤ c,  x+δ in [0,1]

Every published system of this kind is a value of `Objective` (see `glaze_trt.presets`). The default is Glaze's (Shan
et al., USENIX Security 2023) with two more limits: LPIPS alone is gamed by an optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from glaze_trt.errors import UsageError

Direction = Literal["toward", "away", "zero", "between"]
"""Toward the target's features, away from the picture's own, toward zero, or closer to the target than to its own."""

Metric = Literal["mean-squared", "sum-squared", "l2", "relative", "relative-squared", "cosine"]
"""Of two features a and b: mean (a−b)², Σ (a−b)², √Σ (a−b)², that over √Σ b², the square of this, or 1 − cos(a, b)."""

Measure = Literal["lpips", "visibility", "structure", "dssim", "l2"]
"""What may bound a cloak beside |δ|; `glaze_trt.graph.terms` says how each is written."""

How = Literal["multiplier", "hinge", "penalty", "doubling"]
"""How a bound acts: by a weight that follows its violation, by w·max(v − limit, 0), by w·v, or by w·max(v − limit, 0)²
with a w that doubles above 1.1 × limit and halves below 0.9 × limit. Where gradients are divided by their RMS, both
hinges pull with w above the limit and not at all below it."""


@dataclass(frozen=True)
class Budget:
    """What a cloak may cost, measured on the saved 8-bit picture.

    Attributes:
        lpips: LPIPS at most, by the perceptual net in use; None for no limit.
        linf: the largest change of a channel of a pixel, in [0,1].
        ssimulacra2: SSIMULACRA2 at least (90, 70, 50 and 30 are about JPEG 95, 65, 30 and 15); None for no limit.
        dssim: (1 − SSIM) / 2 at most; None for no limit.
    """

    lpips: float | None = 0.05
    linf: float = 16 / 255
    ssimulacra2: float | None = 70.0
    dssim: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.linf <= 1:
            raise UsageError(f"linf is in units of [0,1] and must lie in (0, 1]; got {self.linf}")
        for name, most in (("lpips", self.lpips), ("dssim", self.dssim)):
            if most is not None and not 0 < most < inf:
                raise UsageError(f"{name} must be positive and finite, or None for no limit; got {most}")
        if self.ssimulacra2 is not None and not -inf < self.ssimulacra2 < 100:
            raise UsageError(
                f"ssimulacra2 must be below 100, which is an unchanged picture, and finite; got {self.ssimulacra2}"
            )


INTENSITIES: Mapping[str, Budget] = {
    "low": Budget(lpips=0.03, linf=10 / 255, ssimulacra2=80.0),
    "default": Budget(),
    "high": Budget(lpips=0.1, linf=24 / 255, ssimulacra2=50.0),
}


@dataclass(frozen=True)
class Features:
    """What shall move, and where to.

    Attributes:
        direction: see `Direction`.
        metric: see `Metric`.
        unit: features are divided by their length first, as face embeddings are.
        margin: of `between`: max(D(target) − D(own) + margin, 0).
        blurred: the extractor also sees the picture through a Gaussian (7×7, σ 3), and both count.
        views: transformations of which the extractors see one after another (`glaze_trt.graph.views`).
        weight: of the features' term in a loss whose gradients are not normalised.
        balance: how much more an encoder weighs that lags, where gradients are normalised: its weight goes as this
            power of the distance that is left.
        unscaled: latents are compared as they are before the factor of their space (`losses.SCALING`), as papers do
            whose weights mean those.
    """

    direction: Direction = "toward"
    metric: Metric = "mean-squared"
    unit: bool = False
    margin: float = 0.0
    blurred: bool = False
    views: tuple[str, ...] = ()
    weight: float = 1.0
    balance: float = 8.0
    unscaled: bool = False


@dataclass(frozen=True)
class Constraint:
    """A bound, and how it acts.

    Attributes:
        measure: see `Measure`.
        how: see `How`.
        limit: what the measure may reach; 0 for a `penalty`.
        weight: fixed, or the first one; the features' is 1.
        octave: of `visibility`: how many times the whole picture was halved to become what the loop works on.
    """

    measure: Measure
    how: How = "multiplier"
    limit: float = 0.0
    weight: float = 1.0
    octave: int = 0


@dataclass(frozen=True)
class Update:
    """The step.

    Attributes:
        kind: `preconditioned`: every term's gradient is divided by its RMS, then g / (√v + ε) with momentum. The others
            take the gradient of the weighted sum of all terms, as published: `sign` of it, `adam`, `adadelta`.
        rate: first step, as a part of the budget's `linf` (of 1 where that is no limit).
        schedule: how the rate falls: along a `cosine` to 0, on a `line` to 1 %, or not at all (`constant`).
        momentum: β of m ← β·m + u; of `adam` β₁.
        memory: β of v ← β·v + (1−β)·g²; of `adam` β₂, of `adadelta` ρ.
        damping: ε of `preconditioned` and `adadelta`, in units of g's RMS.
        gain: how fast a multiplier follows its constraint: λ ← λ + gain·(value/limit − 1).
        ceiling: the largest multiplier; the features' weight is 1.
    """

    kind: Literal["preconditioned", "sign", "adam", "adadelta"] = "preconditioned"
    rate: float = 0.1
    schedule: Literal["cosine", "line", "constant"] = "cosine"
    momentum: float = 0.6
    memory: float = 0.9
    damping: float = 0.3
    gain: float = 0.3
    ceiling: float = 6.0


@dataclass(frozen=True)
class Search:
    """A binary search over the features' weight c, after Carlini and Wagner (2017): the smallest δ that succeeds.

    Attributes:
        rounds: whole runs.
        first: c of the first.
        amplify: the δ found is multiplied by this in the end.
    """

    rounds: int = 6
    first: float = 1.0
    amplify: float = 1.0


@dataclass(frozen=True)
class Objective:
    """Features, constraints, the update, and the budget that the saved file must keep.

    Attributes:
        name: of the preset.
        budget: the promise.
        features: what shall move.
        constraints: bounds in the graph, at most one a measure.
        steps: how many.
        update: how each step is made.
        start: the first δ is uniform in ± this.
        finish: `fit`: the best δ inside the constraints, as long as the budget allows; `last`: the last δ as it is.
        search: a search over the features' weight, or None.
    """

    name: str = "glaze"
    budget: Budget = field(default_factory=Budget)
    features: Features = field(default_factory=Features)
    constraints: tuple[Constraint, ...] | None = None
    steps: int = 40
    update: Update = field(default_factory=Update)
    start: float = 0.5 / 255
    finish: Literal["fit", "last"] = "fit"
    search: Search | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1; got {self.steps}")
        measures = [bound.measure for bound in self.bounds]
        if len(set(measures)) < len(measures):
            raise UsageError(f"one constraint a measure; got {', '.join(measures)}")
        between = self.features.direction == "between"
        if between and "l2" not in measures:
            raise UsageError("the direction between keeps the shortest change that succeeds: give it a constraint l2")
        if between and self.features.views:
            raise UsageError(
                f"{self.name} keeps the first change that succeeds, which is judged on the untouched picture: it does "
                "not go with transformations (--robust); leave them out, or choose another preset"
            )
        if self.search is not None and (self.normalises or not between):
            raise UsageError(
                "a search over the features' weight needs the direction between, and an update that is not "
                f"preconditioned, where that weight means nothing; got {self.features.direction}, {self.update.kind}"
            )
        if self.budget.dssim is not None and "dssim" not in measures:
            raise UsageError("a budget of DSSIM needs a constraint dssim, or nothing keeps the loop inside it")

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        """The constraints given, or those that stand for the budget."""
        return standing_for(self.budget) if self.constraints is None else self.constraints

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What the constraints measure."""
        return tuple(bound.measure for bound in self.bounds)

    @property
    def normalises(self) -> bool:
        """Whether every term's gradient is divided by its RMS."""
        return self.update.kind == "preconditioned"

    def of_octave(self, octave: int) -> Objective:
        """The same for the reduction of a picture that was halved so many times, with errors weighed as there."""
        if not octave:
            return self
        bounds = (replace(bound, octave=octave) if bound.measure == "visibility" else bound for bound in self.bounds)
        return replace(self, constraints=tuple(bounds))

    def with_views(self, views: tuple[str, ...]) -> Objective:
        """The same, for a cloak that shall outlast transformations, and those that it was published with.

        One view is seen a step, so there are twice the steps; at 512², `glaze` with all of them left 0.30 after JPEG 75
        and 0.22 after halving with 80 steps, 0.25 and 0.18 with 40. Views differ, so less momentum suits them: at 0.4
        it left 0.30 of noise, at 0.6 0.285.
        """
        seen = tuple(dict.fromkeys((*self.features.views, *views)))
        if self.features.views or self.finish == "last":  # as published
            return replace(self, features=replace(self.features, views=seen))
        update = replace(self.update, momentum=_MOMENTUM_OF_VIEWS)
        return replace(self, features=replace(self.features, views=seen), steps=2 * self.steps, update=update)


_MOMENTUM_OF_VIEWS = 0.4
"""Of updates whose views differ from step to step; see `Objective.with_views`."""

_STRUCTURE = 0.08
"""Limit of the structural term at SSIMULACRA2 = 70, which does not see slow drift of colour, and sees little of a weave
in a smooth sky. Pricing the drift alone gave 4 % more progress on paintings (0.417 for 0.399), and that weave."""


def standing_for(budget: Budget) -> tuple[Constraint, ...]:
    """The differentiable terms that stand for a budget: LPIPS, SSIMULACRA2's error, what that does not see, DSSIM."""
    bounds = []
    if budget.lpips is not None:
        bounds.append(Constraint("lpips", limit=budget.lpips))
    if budget.ssimulacra2 is not None:
        error = visible_error(budget.ssimulacra2)
        bounds.append(Constraint("visibility", limit=error))
        bounds.append(Constraint("structure", limit=_STRUCTURE * error / visible_error(70.0)))
    if budget.dssim is not None:
        bounds.append(Constraint("dssim", limit=budget.dssim))
    return tuple(bounds)


_POWER = 0.6276336467831387
"""Of SSIMULACRA2's last map: score = 100 − 10·error^power."""


def visible_error(score: float) -> float:
    """SSIMULACRA2's own error behind a score: 5.8 at 70, 0 at 100."""
    return float(max(0.0, (100.0 - score) / 10.0) ** (1 / _POWER))


def visible_score(error: float) -> float:
    """The score of an error: the inverse of `visible_error`."""
    return float(100.0 - 10.0 * max(0.0, error) ** _POWER)
