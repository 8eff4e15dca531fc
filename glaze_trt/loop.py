"""One picture's way through the compiled loop: state, limits, steps, and the 8-bit picture that has the last word.

The loop only tells the engine how many steps to run, and looks at the real SSIMULACRA2 twice on the way to correct the
limit that stands for it. In the end δ is scaled (`length`) so that every measure of the budget holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import engine
from glaze_trt import pace
from glaze_trt import step as graphs
from glaze_trt.errors import PrecisionError
from glaze_trt.evaluate import Lpips, Network, linf, ssimulacra2
from glaze_trt.length import Costs, longest, nearest, room
from glaze_trt.objective import Objective, visible_error, visible_score
from glaze_trt.result import CloakReport, Levels, StepInfo

Array = NDArray[np.float32]
OnStep = Callable[[StepInfo], None]

_CHECKS = (0.5, 0.75)
"""Parts of the steps after which the real SSIMULACRA2 is looked at."""

_FEW = 5
"""Steps after which it is too early to look: the first ones stay far inside the budget."""

_SCALED_RMS = 2.0**-4
"""Of a scaled fp16 gradient: about as far from 65504, where numbers end, as from 6e-8, where they vanish."""

_CALIBRATIONS = 5
"""Tries to find the loss scales; each takes a step that is thrown away."""


@dataclass(frozen=True)
class Engines:
    """What runs for pictures of one size.

    Attributes:
        encoder: in fp32.
        perceptual: in fp32.
        constants: what `step.look` computes of a picture once; None where the objective needs nothing of it.
        step: the step.
        grown: a picture as (1, 3, H', W') in [0,1], mirrored at the right and bottom to what both networks take.
    """

    encoder: Network
    perceptual: Network
    constants: engine.Program | None
    step: engine.Program
    grown: Callable[[Levels], Array]


def constraints(objective: Objective) -> tuple[str, ...]:
    """Which constraints of `step.CONSTRAINTS` an objective uses."""
    budget = objective.budget
    used = {
        "lpips": budget.lpips is not None,
        "visibility": budget.ssimulacra2 is not None,
        "structure": budget.ssimulacra2 is not None and objective.structure is not None,
    }
    return tuple(name for name in graphs.CONSTRAINTS if used[name])


class Run:
    """One picture's way through the loop."""

    def __init__(self, objective: Objective, engines: Engines, original: Levels, goal: Levels) -> None:
        """Look at the original and at the target, (H, W, 3) uint8 of one size."""
        self._objective, self._engines, self._original = objective, engines, original
        self._image = engines.grown(original)
        self._target = self._latent(engines.grown(goal))
        self._whole = float(np.linalg.norm(self._latent(self._image) - self._target))
        self._lpips = Lpips(engines.perceptual, original)
        self._seen = dict(engines.constants({"image": self._image})) if engines.constants else {}
        if engines.perceptual.takes(original) == self._image.shape:
            self._seen |= self._lpips.features
        else:  # the loop works on a larger picture, whose mirrored edges would thin LPIPS out
            self._seen |= engines.perceptual.run("image", self._image)
        height, width = original.shape[:2]
        levels = np.floor(self._objective.budget.linf * 255 + 1e-3)
        self._cap = np.zeros((1, 1, *self._image.shape[2:]), np.float32)
        self._cap[:, :, :height, :width] = levels / 255

    def __call__(self, seed: int, on_step: OnStep | None) -> tuple[Levels, CloakReport]:
        """All steps from a first δ made by `seed`; the (H, W, 3) uint8 picture and what it was made with."""
        objective = self._objective
        names = constraints(objective)
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, self._image.shape) / 255
        first = np.clip(self._image + noise * (self._cap > 0), 0, 1).astype(np.float32) - self._image
        limits = self._limits(names)
        constants: dict[str, Array] = {
            "picture": self._image,
            "cap": self._cap,
            "target": self._target,
            "steps": _scalar(objective.steps),
            **{f"limit_{name}": _scalar(limit) for name, limit in limits.items()},
            **{name: value for name, value in self._seen.items() if name in self._engines.step.inputs},
        }
        scale = self._calibrate(names, constants, first)
        carry, state = graphs.carried(names, scaled=bool(scale)), graphs.first_state(names, first, scale=scale)
        session = engine.Session(self._engines.step, carry, constants, state)
        tell = self._teller(session, on_step)
        for count in self._rounds():
            pace.advance(session, count - 1, tell)
            judged = session.read("delta")  # the outputs of a step speak of the δ that came in
            pace.advance(session, 1, tell)
            self._check(session)
            if "visibility" in names and _FEW < session.steps < objective.steps:
                self._correct(session, judged, limits["visibility"])
        session.advance(1)  # judges the last δ; what it moves beyond is not used
        best = session.read("best_distance")
        delta = session.read("best_delta" if np.isfinite(best) else "delta")
        begin = self._modelled_room(session) if best == session.read("distance") else 1.0
        return self._fit(delta, begin, float(best) * self._target.size)

    def _modelled_room(self, session: engine.Session) -> float:
        """How much longer δ may be, by the graph's own terms: where to begin to look."""
        lpips, error = (
            float(session.read(name)) if name in self._engines.step.outputs else 0.0 for name in ("lpips", "visibility")
        )
        return room(Costs(lpips, visible_score(error)), self._objective.budget)

    def _calibrate(self, names: tuple[str, ...], constants: Mapping[str, Array], first: Array) -> dict[str, float]:
        """A power of two for every loss scale of an fp16 step, from its gradients at the first δ; empty for others."""
        step = self._engines.step
        scale = {name: 1.0 for name in graphs.scales(names) if f"scale_{name}" in step.inputs}
        for _ in range(_CALIBRATIONS if scale else 0):
            seen = step({**constants, **graphs.first_state(names, first, scale=scale)})
            if not np.isfinite(seen["distance"]):
                raise PrecisionError("the encoder overflows in fp16 on this picture; choose --precision bf16 or fp32")
            wanted = {name: old * _rescale(float(seen[f"rms_{name}"])) for name, old in scale.items()}
            if wanted == scale:
                break
            scale = wanted
        return scale

    def _limits(self, names: tuple[str, ...]) -> dict[str, float]:
        budget, limits = self._objective.budget, {}
        if "lpips" in names and budget.lpips is not None:
            limits["lpips"] = budget.lpips
        if budget.ssimulacra2 is not None:
            error = visible_error(budget.ssimulacra2)
            if "visibility" in names:
                limits["visibility"] = error
            if "structure" in names and self._objective.structure is not None:
                limits["structure"] = self._objective.structure * error / visible_error(70.0)
        return limits

    def _rounds(self) -> Iterator[int]:
        done = 0
        for part in (*_CHECKS, 1.0):
            until = round(part * self._objective.steps)
            if until > done:
                yield until - done
            done = max(done, until)

    def _teller(self, session: engine.Session, on_step: OnStep | None) -> Callable[[], None] | None:
        if on_step is None:
            return None
        report = on_step

        def tell() -> None:
            rest = float(np.sqrt(session.read("distance") * self._target.size))
            lpips = float(session.read("lpips")) if "lpips" in self._engines.step.outputs else None
            report(StepInfo(session.steps, self._objective.steps, self._progress(rest), lpips))

        return tell

    def _check(self, session: engine.Session) -> None:
        """Raises `PrecisionError` where numbers went out of range."""
        if not (np.isfinite(session.read("distance")) and np.isfinite(session.read("delta")).all()):
            program = self._engines.step
            raise PrecisionError(
                f"numbers went out of range in {program.precision} on {program.engine}, so no cloak was made; choose "
                "--precision fp32, or another model"
            )

    def _correct(self, session: engine.Session, judged: Array, limit: float) -> None:
        """Moves the limit of the error in the graph by what the real score says of the δ it was computed for."""
        real = visible_error(ssimulacra2(self._original, self._levels(judged, 1.0)))
        modelled = float(session.read("visibility"))
        if real > 0 and modelled > 0:
            session.write("limit_visibility", _scalar(limit * float(np.clip(modelled / real, 0.5, 2.0))))
            session.write("best_distance", _scalar(np.inf))

    def _levels(self, delta: Array, scale: float) -> Levels:
        height, width = self._original.shape[:2]
        moved = np.clip(delta * np.float32(scale), -self._cap, self._cap)[0, :, :height, :width].transpose(1, 2, 0)
        levels = np.rint(np.clip(self._original.astype(np.float32) + moved * 255, 0, 255))
        return np.asarray(levels, np.uint8)

    def _fit(self, delta: Array, begin: float, at_one: float) -> tuple[Levels, CloakReport]:
        """The picture with the multiple of δ that the budget allows, or with a shorter one that is nearer the target.

        Args:
            delta: δ, (1, 3, H, W).
            begin: the multiple to begin with.
            at_one: squared distance of δ itself to the target; infinite if it was never judged.
        """
        budget = self._objective.budget
        scale, costs = longest(lambda s: self._costs(self._levels(delta, s)), budget, begin)
        levels = self._levels(delta, scale)
        report = self._report(levels, scale, costs)
        if scale <= 1 or not np.isfinite(at_one):
            return levels, report
        shorter = nearest(self._whole**2, at_one, ((1 - report.progress) * self._whole) ** 2, scale)
        if shorter is None:
            return levels, report
        other = self._levels(delta, shorter)
        costs = self._costs(other)
        if room(costs, budget) < 1:
            return levels, report
        told = self._report(other, shorter, costs)
        return (other, told) if told.progress > report.progress else (levels, report)

    def _costs(self, levels: Levels) -> Costs:
        return Costs(self._lpips(levels), ssimulacra2(self._original, levels))

    def _report(self, levels: Levels, scale: float, costs: Costs) -> CloakReport:
        rest = float(np.linalg.norm(self._latent(self._engines.grown(levels)) - self._target))
        program = self._engines.step
        return CloakReport(
            engine=program.engine,
            device=program.device,
            precision=program.precision,
            steps=self._objective.steps,
            scale=scale,
            progress=self._progress(rest),
            lpips=costs.lpips,
            linf=linf(self._original, levels),
            ssimulacra2=costs.ssimulacra2,
            budget=self._objective.budget,
            seconds={},
        )

    def _latent(self, image: Array) -> Array:
        return self._engines.encoder.run("image", image)["latent"]

    def _progress(self, rest: float) -> float:
        return 1 - rest / self._whole if self._whole else 0.0


def _rescale(rms: float) -> float:
    """A power of two that brings the RMS of a gradient close to `_SCALED_RMS`."""
    if not np.isfinite(rms):
        return 2.0**-10
    if rms == 0:
        return 2.0**10
    return float(2.0 ** round(np.log2(_SCALED_RMS / rms)))


def _scalar(value: float) -> Array:
    return np.asarray(value, np.float32)
