"""The cloaking loop: a picture and a target in, a picture that keeps its budget out.

One `Cloaker` holds the engines for one choice of networks and can cloak many pictures; `cloak` is the short form.
The loop only tells the engine how many steps to run, and looks at the real SSIMULACRA2 twice on the way to correct
the limit that stands for it. The last word is had by the 8-bit picture: δ is scaled so that every measure holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import engine
from engine.tape import dims
from glaze_trt import models, styles
from glaze_trt import step as graphs
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.evaluate import SIZES_KEPT, Lpips, Network, padded, padded_shape, ssimulacra2
from glaze_trt.objective import INTENSITIES, Budget, Objective, visible_error, visible_score
from glaze_trt.picture import MAX_PIXELS
from glaze_trt.result import CloakReport, CloakResult, Levels, Picture, StepInfo, as_given, to_levels

Array = NDArray[np.float32]
OnStep = Callable[[StepInfo], None]

_CHECKS = (0.5, 0.75)
"""Parts of the steps after which the real SSIMULACRA2 is looked at."""

_FEW = 5
"""Steps after which it is too early to look: the first ones stay far inside the budget."""

_NEEDS_FP16 = ("fp16", "mixed")

_MARGIN = 0.998
"""Kept of the LPIPS budget, for what two engines may differ by."""

_SCORE_MARGIN = 0.05
"""Kept of the SSIMULACRA2 budget, in points."""

_TRIES = 12
"""Of lengths of δ; the first guesses usually land."""

_SCALED_RMS = 2.0**-4
"""Of a scaled fp16 gradient: about as far from 65504, where numbers end, as from 6e-8, where they vanish."""

_CALIBRATIONS = 5
"""Tries to find the loss scales; each takes a step that is thrown away."""

_CLOSE = 1.01
"""A length of δ is right where it could be this many times longer at most."""

_SHORTER = 0.9
"""A multiple of δ is tried once more where its best is this much shorter than the budget allows."""

_LONGEST = 4.0
"""How far δ may be stretched where the budget was not used up, as few steps do: after three, a third of it is used."""


def cloak(
    picture: Picture,
    *,
    target: Picture | None = None,
    style: str | None = None,
    model: str = "tiny",
    perceptual: str = "tiny",
    steps: int | None = None,
    intensity: str = "default",
    budget: Budget | None = None,
    seed: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    on_step: OnStep | None = None,
) -> CloakResult:
    """Cloaks one picture.

    Args:
        picture: (H, W, 3) RGB, uint8 levels or floats in [0,1], or a Pillow picture.
        target: what the encoder shall see instead, same size; made by `style` if absent.
        style: a built-in style (`glaze_trt.styles.available()`).
        model: an encoder by name, or a path to its `.onnx`.
        perceptual: a perceptual net by name, or a path.
        steps: how many; `Objective`'s default if None.
        intensity: `low`, `default` or `high`, the budget by name.
        budget: the budget itself; comes before `intensity`.
        seed: of the first δ and of the style.
        engine: `auto`, or an engine of `engine.available_engines()`.
        precision: `auto`, `fp32`, `bf16` or `fp16`, as the engine has them.
        on_step: called after every step.

    Raises:
        GlazeError: a picture, style, model or budget that cannot be used.
        EngineError: a graph that cannot be compiled or run.
    """
    objective = make_objective(intensity, budget, steps)
    cloaker = Cloaker(model, perceptual, objective, engine_name=engine, precision=precision)
    return cloaker(picture, target=target, style=style, seed=seed, on_step=on_step)


def make_objective(intensity: str = "default", budget: Budget | None = None, steps: int | None = None) -> Objective:
    """The default objective under a budget given by name or itself.

    Raises:
        UsageError: no such intensity, or no step at all.
    """
    if budget is None:
        if intensity not in INTENSITIES:
            raise UsageError(f"no intensity {intensity!r}; choose one of {', '.join(INTENSITIES)}")
        budget = INTENSITIES[intensity]
    objective = Objective(budget=budget)
    return objective if steps is None else replace(objective, steps=steps)


@dataclass(frozen=True)
class _Engines:
    """What is compiled for one picture size."""

    constants: engine.Program | None
    step: engine.Program


class Cloaker:
    """Compiled engines for one choice of networks and objective, kept per picture size."""

    def __init__(
        self,
        model: str = "tiny",
        perceptual: str = "tiny",
        objective: Objective | None = None,
        *,
        engine_name: str = "auto",
        precision: str = "auto",
        options: engine.Options | None = None,
    ) -> None:
        """Finds the networks; engines are compiled with the first picture of a size.

        Raises:
            ModelError: no such model.
        """
        self.objective = objective or Objective()
        self.encoder = Network(models.find(model, "encoder"), engine_name, options)
        self.perceptual = Network(models.find(perceptual, "perceptual"), engine_name, options)
        self._engine, self._precision, self._options = engine_name, precision, options
        self._compiled: dict[tuple[int, ...], _Engines] = {}

    def __call__(
        self,
        picture: Picture,
        *,
        target: Picture | None = None,
        style: str | None = None,
        seed: int = 0,
        on_step: OnStep | None = None,
    ) -> CloakResult:
        """Cloaks one picture; see `cloak`."""
        original = to_levels(picture)
        if original.shape[0] * original.shape[1] > MAX_PIXELS:
            raise PictureError(
                f"the picture is {_size(original)}; up to {MAX_PIXELS / 1e6:.2f} megapixels are taken for now"
            )
        goal = self._target(original, target, style, seed)
        began = time.perf_counter()
        engines = self._engines(self.grown(original).shape)
        compiled = time.perf_counter()
        run = _Run(self, engines, original, goal)
        levels, report = run(seed, on_step)
        notes = tuple(dict.fromkeys([*engines.step.notes, *report.notes]))
        seconds = {"compile": compiled - began, "optimize": time.perf_counter() - compiled}
        return CloakResult(levels, as_given(levels, picture), replace(report, notes=notes, seconds=seconds))

    def _target(self, original: Levels, target: Picture | None, style: str | None, seed: int) -> Levels:
        if target is not None and style is not None:
            raise UsageError("give a target picture or a style, not both")
        if target is None:
            return to_levels(styles.apply(style or styles.DEFAULT, original.astype(np.float32) / 255, seed))
        goal = to_levels(target)
        if goal.shape != original.shape:
            raise PictureError(
                f"the target is {_size(goal)} and the picture {_size(original)}; they must be of one size"
            )
        return goal

    def grown(self, levels: Levels) -> Array:
        """(1, 3, H', W') in [0,1], mirrored at the right and bottom to what both networks take."""
        return padded(levels, self._both)

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """What a picture of (height, width) grows to."""
        return padded_shape(size, self._both)

    @property
    def _both(self) -> models.Manifest:
        """The encoder's manifest, with sizes that the perceptual net takes too."""
        first, second = self.encoder.model.manifest, self.perceptual.model.manifest
        multiple = int(np.lcm(first.multiple, second.multiple))
        return replace(first, multiple=multiple, minimum=max(first.minimum, second.minimum))

    def narrow(self, precision: str, has: Sequence[str] | None = None) -> str:
        """The precision of the step: the one asked for, or the first that the model bears of what the engine has.

        Args:
            precision: `auto`, or the one.
            has: what the engine has, the fastest first; asked of it if None.

        Raises:
            UsageError: fp16 for a model that overflows in it.
            BackendError: there is no such engine here.
        """
        bears_fp16 = self.encoder.model.manifest.fp16 and self.perceptual.model.manifest.fp16
        if precision != "auto":
            if precision in _NEEDS_FP16 and not bears_fp16:
                raise UsageError(f"{self.encoder.model.name} overflows in fp16; choose --precision bf16 or fp32")
            return precision
        has = has or engine.precisions(self._engine)
        return next(each for each in has if bears_fp16 or each not in _NEEDS_FP16)

    def graphs(self, shape: tuple[int, ...], *, scaled: bool) -> tuple[ir.Model, ir.Model]:
        """What is computed of a picture once, and the step, for pictures of a shape; see `glaze_trt.step`."""
        nets = graphs.Nets(*(net.load("image", shape) for net in (self.encoder, self.perceptual)))
        names = constraints(self.objective)
        look = graphs.look(shape, names)
        known = {str(v.name): dims(v) for v in (*look.graph.outputs, *nets.features)}
        return look, graphs.step(nets, names, self.objective.update, known, scaled=scaled)

    def _engines(self, shape: tuple[int, ...]) -> _Engines:
        self.encoder.compile("image", shape)
        self.perceptual.compile("image", shape)
        if shape not in self._compiled:
            while len(self._compiled) >= SIZES_KEPT:
                del self._compiled[next(iter(self._compiled))]
            precision = self.narrow(self._precision)
            look, model = self.graphs(shape, scaled=precision == "fp16")
            step = engine.compile(model, self._engine, precision, self._options)
            constants = engine.compile(look, step.engine, "fp32", self._options) if look.graph.outputs else None
            self._compiled[shape] = _Engines(constants, step)
        return self._compiled[shape]


def constraints(objective: Objective) -> tuple[str, ...]:
    """Which constraints of `step.CONSTRAINTS` an objective uses."""
    budget = objective.budget
    used = {
        "lpips": budget.lpips is not None,
        "visibility": budget.ssimulacra2 is not None,
        "structure": budget.ssimulacra2 is not None and objective.structure is not None,
    }
    return tuple(name for name in graphs.CONSTRAINTS if used[name])


class _Run:
    """One picture's way through the loop."""

    def __init__(self, cloaker: Cloaker, engines: _Engines, original: Levels, goal: Levels) -> None:
        self._objective, self._engines, self._original = cloaker.objective, engines, original
        self._encoder = cloaker.encoder
        self._image = cloaker.grown(original)
        self._target = self._latent(cloaker.grown(goal))
        self._whole = float(np.linalg.norm(self._latent(self._image) - self._target))
        self._lpips = Lpips(cloaker.perceptual, original)
        self._seen = dict(engines.constants({"image": self._image})) if engines.constants else {}
        if cloaker.perceptual.takes(original) == self._image.shape:
            self._seen |= self._lpips.features
        else:  # the loop works on a larger picture, whose mirrored edges would thin LPIPS out
            self._seen |= cloaker.perceptual.run("image", self._image)
        height, width = original.shape[:2]
        levels = np.floor(self._objective.budget.linf * 255 + 1e-3)
        self._cap = np.zeros((1, 1, *self._image.shape[2:]), np.float32)
        self._cap[:, :, :height, :width] = levels / 255

    def __call__(self, seed: int, on_step: OnStep | None) -> tuple[Levels, CloakReport]:
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
        for count in self._rounds():
            self._advance(session, count - 1, on_step)
            judged = session.read("delta")  # the outputs of a step speak of the δ that came in
            self._advance(session, 1, on_step)
            if "visibility" in names and _FEW < session.steps < objective.steps:
                self._correct(session, judged, limits["visibility"])
        session.advance(1)  # judges the last δ; what it moves beyond is not used
        best = session.read("best_distance")
        delta = session.read("best_delta" if np.isfinite(best) else "delta")
        room = self._modelled_room(session) if best == session.read("distance") else 1.0
        levels, report = self._fit(delta, room)
        if report.scale > 1 and np.isfinite(best):
            return self._not_too_long(delta, levels, report, float(best) * self._target.size)
        return levels, report

    def _not_too_long(
        self, delta: Array, levels: Levels, report: CloakReport, at_one: float
    ) -> tuple[Levels, CloakReport]:
        """A stretched δ, or a shorter multiple of it if the target lies nearer there.

        Along δ the squared distance to the target is about a parabola: known at 0, at 1 (`at_one`) and at its end.
        """
        start, end = self._whole**2, ((1 - report.progress) * self._whole) ** 2
        scale = report.scale
        bend = ((end - start) / scale - (at_one - start)) / (scale - 1)
        nearest = 0.5 * (1 - (at_one - start) / bend) if bend > 0 else scale
        if nearest >= _SHORTER * scale:
            return levels, report
        shorter = self._levels(delta, nearest)
        costs = self._costs(shorter)
        if _room(costs, self._objective.budget) < 1:
            return levels, report
        other = self._report(shorter, nearest, costs)
        return (shorter, other) if other.progress > report.progress else (levels, report)

    def _modelled_room(self, session: engine.Session) -> float:
        """How much longer δ may be, by the graph's own terms: where to begin to look."""
        lpips, error = (
            float(session.read(name)) if name in self._engines.step.outputs else 0.0 for name in ("lpips", "visibility")
        )
        return _room(_Costs(lpips, visible_score(error)), self._objective.budget)

    def _calibrate(self, names: tuple[str, ...], constants: Mapping[str, Array], first: Array) -> dict[str, float]:
        """A power of two for every loss scale of an fp16 step, from its gradients at the first δ; empty for others."""
        step = self._engines.step
        scale = {name: 1.0 for name in graphs.scales(names) if f"scale_{name}" in step.inputs}
        for _ in range(_CALIBRATIONS if scale else 0):
            seen = step({**constants, **graphs.first_state(names, first, scale=scale)})
            if not np.isfinite(seen["distance"]):
                raise UsageError("the encoder overflows in fp16 on this picture; choose --precision bf16 or fp32")
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

    def _advance(self, session: engine.Session, count: int, on_step: OnStep | None) -> None:
        if on_step is None:
            session.advance(count)
            return
        for _ in range(count):
            session.advance(1)
            rest = float(np.sqrt(session.read("distance") * self._target.size))
            lpips = float(session.read("lpips")) if "lpips" in self._engines.step.outputs else None
            progress = 1 - rest / self._whole if self._whole else 0.0
            on_step(StepInfo(session.steps, self._objective.steps, progress, lpips))

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

    def _fit(self, delta: Array, scale: float) -> tuple[Levels, CloakReport]:
        """The largest multiple of δ whose 8-bit picture keeps every measure of the budget, looked for from `scale`."""
        kept, costs = 0.0, _Costs(lpips=0.0, ssimulacra2=100.0)
        broken = 1.01 * _LONGEST
        before: tuple[float, float] | None = None
        for _ in range(_TRIES):
            tried = self._costs(self._levels(delta, scale))
            room = _room(tried, self._objective.budget)
            if room >= 1.0:
                kept, costs = scale, tried
                if room < _CLOSE or scale >= _LONGEST:
                    break
            else:
                broken = scale
            if broken - kept < 0.01 * broken:
                break
            slope = 1.0 if before is None else _slope(before, (scale, room))
            before = (scale, room)
            guess = min(scale * (room / _CLOSE**0.5) ** (1 / slope), _LONGEST)
            scale = guess if kept < guess < broken else 0.5 * (kept + broken)
        levels = self._levels(delta, kept)
        return levels, self._report(levels, kept, costs)

    def _costs(self, levels: Levels) -> _Costs:
        return _Costs(self._lpips(levels), ssimulacra2(self._original, levels))

    def _report(self, levels: Levels, scale: float, costs: _Costs) -> CloakReport:
        height, width = levels.shape[:2]
        grown = [(0, full - side) for full, side in zip(self._image.shape[2:], (height, width), strict=True)]
        edged = np.pad(levels, [*grown, (0, 0)], mode="symmetric").transpose(2, 0, 1)[None]
        rest = float(np.linalg.norm(self._latent(edged.astype(np.float32) / np.float32(255)) - self._target))
        program = self._engines.step
        return CloakReport(
            engine=program.engine,
            device=program.device,
            precision=program.precision,
            steps=self._objective.steps,
            scale=scale,
            progress=1 - rest / self._whole if self._whole else 0.0,
            lpips=costs.lpips,
            linf=float(np.abs(levels.astype(np.int16) - self._original).max()) / 255,
            ssimulacra2=costs.ssimulacra2,
            budget=self._objective.budget,
            seconds={},
        )

    def _latent(self, image: Array) -> Array:
        return self._encoder.run("image", image)["latent"]


@dataclass(frozen=True)
class _Costs:
    """What a person may see of a picture."""

    lpips: float
    ssimulacra2: float


def _room(costs: _Costs, budget: Budget) -> float:
    """How much longer δ may be; 1 is exactly at the budget.

    LPIPS grows about as the square of δ, SSIMULACRA2's error about as its power 1.5.
    """
    room = _LONGEST
    if budget.lpips is not None and costs.lpips:
        room = min(room, (budget.lpips * _MARGIN / costs.lpips) ** 0.5)
    error = visible_error(costs.ssimulacra2)
    if budget.ssimulacra2 is not None and error > 0:
        room = min(room, (visible_error(budget.ssimulacra2 + _SCORE_MARGIN) / error) ** (1 / 1.5))
    return room


def _slope(before: tuple[float, float], now: tuple[float, float]) -> float:
    """How fast the room went with the length from one try to the next, in logarithms; 1 is as `_room` supposes."""
    length, room = (np.log(b / a) for a, b in zip(before, now, strict=True))
    return float(np.clip(-room / length, 0.5, 2.0)) if length else 1.0


def _rescale(rms: float) -> float:
    """A power of two that brings the RMS of a gradient close to `_SCALED_RMS`."""
    if not np.isfinite(rms):
        return 2.0**-10
    if rms == 0:
        return 2.0**10
    return float(2.0 ** round(np.log2(_SCALED_RMS / rms)))


def _scalar(value: float) -> Array:
    return np.asarray(value, np.float32)


def _size(levels: Levels) -> str:
    return f"{levels.shape[1]} x {levels.shape[0]}"
