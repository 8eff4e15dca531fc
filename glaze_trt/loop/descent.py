"""One picture's way through the compiled loop: state, limits, steps, and the 8-bit picture that has the last word.

The loop only tells the engine how many steps to run, and, where a term with a multiplier stands for SSIMULACRA2, looks
at the real one twice on the way to correct that term's limit. In the end δ is scaled (`length`) so that every measure
of the budget holds, or saved as it is where the objective says so. Costs are those of where it may change
(`measure.window`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

import engine
from glaze_trt.errors import PrecisionError
from glaze_trt.evaluate import Lpips, linf
from glaze_trt.graph import step as graphs
from glaze_trt.loop import pace
from glaze_trt.loop.aim import Aim
from glaze_trt.loop.calibration import calibrated
from glaze_trt.loop.length import LONGEST, Costs, longest, nearest, room
from glaze_trt.loop.subject import Array, Engines, OnStep, Seed, Subject
from glaze_trt.measure import window
from glaze_trt.measure.ssim import ssim
from glaze_trt.objective import Budget, Objective, Search, visible_error, visible_score
from glaze_trt.result import CloakReport, Levels, StepInfo

Scalar = TypeVar("Scalar", bound=np.generic)

_CHECKS = (0.5, 0.75)
"""Parts of the steps after which the real SSIMULACRA2 is looked at."""

_CHECKS_OF_REDUCTIONS = (0.25, 0.5, 0.75)
"""The same, for a reduction of a larger picture, whose score the terms in the graph stand for less well."""

_FEW = 5
"""Steps after which it is too early to look: the first ones stay far inside the budget."""

_SMALL = 0.4
"""The best δ must have this part of the last one's size: a first one of half a level is inside any budget."""

_HELD = 4
"""Steps after which what must stay of δ is put back."""

_LEAST = 1e-12
"""Keeps quotients away from zero, where the target is the picture itself."""


class Run:
    """One picture's way through the loop."""

    def __init__(self, objective: Objective, engines: Engines, subject: Subject) -> None:
        """Look at the original and at the targets."""
        self._objective, self._engines, self._original = objective, engines, subject.original
        self._given, self._hold, self._score = subject.given, subject.hold, subject.score
        self._image = engines.grown(subject.original)
        self._aims = tuple(
            Aim.of(net, objective.features, self._image, subject.seen_by(net), engines.grown, subject.aligned)
            for net in engines.encoders
        )
        self._weights = engines.weights or (1 / len(self._aims),) * len(self._aims)
        self._window = window.around(subject.mask, objective.budget.linf, engines.perceptual)
        self._lpips = Lpips(engines.perceptual, self._within(self._original))
        measured = self._image
        if engines.window is not None:
            x, y, w, h = engines.window
            measured = np.ascontiguousarray(self._image[:, :, y : y + h, x : x + w])
        self._seen = dict(engines.constants({"image": measured})) if engines.constants else {}
        if engines.perceptual.takes(self._within(self._original)) == measured.shape:
            self._seen |= self._lpips.features
        else:  # the loop works on a larger picture, whose mirrored edges would thin LPIPS out
            self._seen |= engines.perceptual.run("image", measured)
        height, width = self._original.shape[:2]
        levels = np.floor(self._objective.budget.linf * 255 + 1e-3)
        self._cap = np.zeros((1, 1, *self._image.shape[2:]), np.float32)
        self._cap[:, :, :height, :width] = levels / 255
        if subject.mask is not None:
            self._cap[:, :, :height, :width] *= subject.mask

    def __call__(self, seed: int, on_step: OnStep | None) -> tuple[Levels, CloakReport]:
        """All steps from a first δ made by `seed`; the (H, W, 3) uint8 picture and what it was made with."""
        if self._objective.search is not None:
            return self._searched(self._objective.search, self._constants(seed), self._first(seed), on_step)
        session = self._run(seed, on_step)
        if self._objective.finish == "last":
            return self._as_it_is(session.read("delta"))
        return self._fit(*self._chosen(session))

    def delta(self, seed: Seed, on_step: OnStep | None) -> tuple[Array, float]:
        """All steps; δ as (H, W, 3) float32, and how much longer it may be by the graph's own terms."""
        session = self._run(seed, on_step)
        if self._objective.finish == "last":
            return self._cropped(session.read("delta")), 1.0
        delta, begin, _ = self._chosen(session)
        found: Array = self._cropped(delta)
        return found, begin

    def costs(self, levels: Levels) -> Costs:
        """What a picture in place of the original costs, (H, W, 3) uint8."""
        before, after = self._within(self._original), self._within(levels)
        dssim = (1 - ssim(before, after)) / 2 if self._objective.budget.dssim is not None else 0.0
        return Costs(self._lpips(after), self._ssimulacra2(levels), dssim)

    def _ssimulacra2(self, levels: Levels) -> float:
        return window.ssimulacra2(self._original, levels, self._window)

    def _within(self, levels: Levels) -> Levels:
        """The part that the budget speaks of."""
        return np.ascontiguousarray(window.cut(levels, self._window))

    @property
    def budget(self) -> Budget:
        """The objective's."""
        return self._objective.budget

    @property
    def aims(self) -> tuple[Aim, ...]:
        """The encoders' features of the original and of the target."""
        return self._aims

    def _run(self, seed: Seed, on_step: OnStep | None) -> engine.Session:
        constants = self._constants(seed)
        session = self._session(constants, self._first(seed))
        self._steps(session, constants, on_step)
        return session

    def _first(self, seed: Seed) -> Array:
        noise = np.random.default_rng(seed).uniform(-1, 1, self._image.shape) * self._objective.start
        if self._given is not None:
            self._cropped(noise)[:] += self._given
        return self._inside(noise)

    def _inside(self, delta: NDArray[np.floating]) -> Array:
        """A δ within the cap that keeps the picture in [0,1]."""
        moved = np.clip(delta, -self._cap, self._cap)
        return np.asarray(np.clip(self._image + moved, 0, 1).astype(np.float32) - self._image)

    def _cropped(self, delta: NDArray[Scalar]) -> NDArray[Scalar]:
        """(1, 3, H', W') as (H, W, 3), a view."""
        height, width = self._original.shape[:2]
        return delta[0, :, :height, :width].transpose(1, 2, 0)

    def _constants(self, seed: Seed) -> dict[str, Array]:
        objective = self._objective
        constants: dict[str, Array] = {
            "picture": self._image,
            "cap": self._cap,
            "steps": _scalar(objective.steps),
            "pull": _scalar(objective.features.weight),
            "seed": _scalar(np.random.default_rng(seed).uniform()),
            **{f"limit_{bound.measure}": _scalar(bound.limit) for bound in objective.bounds},
            **self._seen,
        }
        for index, aim in enumerate(self._aims):
            constants |= {f"own_{index}": aim.own, f"whole_{index}": _scalar(max(aim.whole, _LEAST))}
            constants |= {} if aim.goal is None else {f"target_{index}": aim.goal}
        return {name: value for name, value in constants.items() if name in self._engines.step.inputs}

    def _session(self, constants: Mapping[str, Array], first: Array) -> engine.Session:
        step, objective, count = self._engines.step, self._objective, len(self._aims)
        scales = {name: 1.0 for name in graphs.scales(objective, count) if f"scale_{name}" in step.inputs}
        state = calibrated(step, constants, graphs.first_state(objective, first, scales))
        return engine.Session(step, graphs.carried(objective, count, scaled=bool(scales)), constants, state)

    def _steps(self, session: engine.Session, constants: Mapping[str, Array], on_step: OnStep | None) -> None:
        """All steps, with a look at the real SSIMULACRA2 on the way where a term stands for it."""
        tell = self._teller(session, on_step)
        corrects = any((bound.measure, bound.how) == ("visibility", "multiplier") for bound in self._objective.bounds)
        for count in self._rounds() if corrects else [self._objective.steps]:
            self._advance(session, count - 1, tell)
            judged = session.read("delta")  # the outputs of a step speak of the δ that came in
            pace.advance(session, 1, tell)
            self._check(session)
            if corrects and _FEW < session.steps < self._objective.steps:
                self._correct(session, judged, float(constants["limit_visibility"]))

        if self._hold is not None:
            self._put_back(session)

    def _advance(self, session: engine.Session, count: int, tell: Callable[[], None] | None) -> None:
        if self._hold is None:
            return pace.advance(session, count, tell)
        end = session.steps + count
        while session.steps < end:
            pace.advance(session, min(_HELD, end - session.steps), tell)
            self._put_back(session)

    def _put_back(self, session: engine.Session) -> None:
        assert self._hold is not None
        delta = np.array(session.read("delta"))
        part = self._cropped(delta)
        part[:] = self._hold(part)
        session.write("delta", self._inside(delta))

    def _chosen(self, session: engine.Session) -> tuple[Array, float, float]:
        """What `_fit` takes: δ, the multiple of it to begin with, and how far δ itself is from the target."""
        session.advance(1)  # judges the last δ; what it moves beyond is not used
        self._check(session)
        if not graphs.keeps_best(self._objective):
            return session.read("delta"), self._modelled_room(session), float("inf")
        best = float(session.read("best_score"))
        delta = session.read("delta")
        if np.isfinite(best):
            kept = session.read("best_delta")
            if float(np.std(kept)) > _SMALL * float(np.std(delta)):
                delta = kept
            else:  # only the first δ, or one like it, was inside; what came later is worth more, shortened
                return delta, self._modelled_room(session), float("inf")
        distances = self._distances(session)
        left = self._weighed(d / max(aim.whole, _LEAST) for d, aim in zip(distances, self._aims, strict=True))
        last = -left if self._objective.features.direction == "away" else left
        begin = self._modelled_room(session) if abs(best - last) <= 1e-6 * abs(best) else 1.0
        return delta, begin, best

    def _searched(
        self, search: Search, constants: dict[str, Array], first: Array, on_step: OnStep | None
    ) -> tuple[Levels, CloakReport]:
        """The shortest δ that succeeds, over several weights of the features, amplified in the end."""
        low, high, pull = 0.0, np.inf, search.first
        shortest, found = np.inf, first * 0
        for _ in range(search.rounds):
            session = self._session({**constants, "pull": _scalar(pull)}, first)
            self._steps(session, constants, on_step)
            session.advance(1)
            length = float(session.read("best_score"))
            if length < shortest:
                shortest, found = length, session.read("best_delta")
            low, high = (low, min(high, pull)) if np.isfinite(length) else (max(low, pull), high)
            pull = (low + high) / 2 if np.isfinite(high) else pull * 10
        levels, report = self._as_it_is(found * np.float32(search.amplify))
        if np.isinf(shortest):
            note = f"no δ that is nearer the target, in {search.rounds} searches of {self._objective.steps} steps"
            report = replace(report, notes=(*report.notes, note))
        return levels, report

    def _as_it_is(self, delta: Array) -> tuple[Levels, CloakReport]:
        levels = self._levels(delta, 1.0)
        return levels, self._report(levels, 1.0, self.costs(levels))

    def _distances(self, session: engine.Session) -> list[float]:
        return [float(session.read(f"distance_{index}")) for index in range(len(self._aims))]

    def _weighed(self, values: Iterable[float]) -> float:
        """The mean over the encoders as the step's score has it."""
        return sum(weight * value for weight, value in zip(self._weights, values, strict=True))

    def _modelled_room(self, session: engine.Session) -> float:
        """How much longer δ may be, by the graph's own terms: where to begin to look."""
        lpips, error, dssim = (
            float(session.read(name)) if name in self._engines.step.outputs else 0.0
            for name in ("lpips", "visibility", "dssim")
        )
        return room(Costs(lpips, visible_score(error), dssim), self._objective.budget)

    def _rounds(self) -> Iterator[int]:
        done = 0
        for part in (*(_CHECKS if self._score is None else _CHECKS_OF_REDUCTIONS), 1.0):
            until = round(part * self._objective.steps)
            if until > done:
                yield until - done
            done = max(done, until)

    def _teller(self, session: engine.Session, on_step: OnStep | None) -> Callable[[], None] | None:
        if on_step is None:
            return None
        report = on_step

        def tell() -> None:
            ways = [aim.progress(d) for aim, d in zip(self._aims, self._distances(session), strict=True)]
            lpips = float(session.read("lpips")) if "lpips" in self._engines.step.outputs else None
            report(StepInfo(session.steps, self._objective.steps, float(np.mean(ways)), lpips))

        return tell

    def _check(self, session: engine.Session) -> None:
        """Raises `PrecisionError` where numbers went out of range."""
        if not (np.isfinite(self._distances(session)).all() and np.isfinite(session.read("delta")).all()):
            program = self._engines.step
            remedy = (
                "choose --precision fp32, or another model"
                if program.precision != "fp32"
                else "no precision is wider: a model gives infinite values for this picture, so choose another model"
            )
            raise PrecisionError(
                f"numbers went out of range in {program.precision} on {program.engine}, so no cloak was made; {remedy}"
            )

    def _correct(self, session: engine.Session, judged: Array, limit: float) -> None:
        """Moves the limit of the error in the graph by what the real score says of the δ it was computed for."""
        if self._score is None:
            real = visible_error(self._ssimulacra2(self._levels(judged, 1.0)))
        else:
            real = visible_error(self._score(self._cropped(judged)))
        modelled = float(session.read("visibility"))
        if real > 0 and modelled > 0:
            session.write("limit_visibility", _scalar(limit * float(np.clip(modelled / real, 0.5, 2.0))))
            if graphs.keeps_best(self._objective):
                session.write("best_score", _scalar(np.inf))

    def _levels(self, delta: Array, scale: float) -> Levels:
        moved = self._cropped(np.clip(delta * np.float32(scale), -self._cap, self._cap))
        levels = np.rint(np.clip(self._original.astype(np.float32) + moved * 255, 0, 255))
        return np.asarray(levels, np.uint8)

    def _fit(self, delta: Array, begin: float, at_one: float) -> tuple[Levels, CloakReport]:
        """The picture with the multiple of δ that the budget allows, or with a shorter one that is nearer the target.

        Args:
            delta: δ, (1, 3, H, W).
            begin: the multiple to begin with.
            at_one: squared distance of δ itself to the target, as a part of the original's; infinite if never judged.
        """
        budget = self._objective.budget
        furthest = LONGEST if self._objective.normalises else 1.0  # a published δ is shortened, and never made longer
        scale, costs = longest(
            lambda s: self.costs(self._levels(delta, s)), budget, min(begin, furthest), limit=furthest
        )
        levels = self._levels(delta, scale)
        report = self._report(levels, scale, costs)
        if scale <= 1 or not np.isfinite(at_one) or self._objective.features.direction != "toward":
            return levels, report
        shorter = nearest(1.0, at_one, self._weighed((1 - way) ** 2 for way in report.progresses.values()), scale)
        if shorter is None:
            return levels, report
        other = self._levels(delta, shorter)
        costs = self.costs(other)
        if room(costs, budget) < 1:
            return levels, report
        told = self._report(other, shorter, costs)
        return (other, told) if told.progress > report.progress else (levels, report)

    def _report(self, levels: Levels, scale: float, costs: Costs) -> CloakReport:
        image = self._engines.grown(levels)
        ways = {aim.name: aim.progress(aim.distance(image)) for aim in self._aims}
        program = self._engines.step
        return CloakReport(
            engine=program.engine,
            device=program.device,
            precision=program.precision,
            preset=self._objective.name,
            steps=self._objective.steps,
            scale=scale,
            progress=float(np.mean(list(ways.values()))),
            progresses=ways,
            lpips=costs.lpips,
            linf=linf(self._original, levels),
            ssimulacra2=costs.ssimulacra2,
            budget=self._objective.budget,
            seconds={},
            notes=tuple(program.notes),
        )


def _scalar(value: float) -> Array:
    return np.asarray(value, np.float32)
