"""A picture and a target in, a picture that keeps its budget out.

One `Cloaker` holds the engines for one choice of networks and can cloak many pictures; `cloak` is the short form. What
happens to one picture is in `loop`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

import engine
from engine.tape import dims
from glaze_trt import models, styles
from glaze_trt import step as graphs
from glaze_trt.errors import PictureError, PrecisionError, UsageError
from glaze_trt.evaluate import SIZES_KEPT, Network, padded, padded_shape
from glaze_trt.loop import Array, Engines, OnStep, Run, constraints
from glaze_trt.objective import INTENSITIES, Budget, Objective
from glaze_trt.picture import MAX_PIXELS
from glaze_trt.result import CloakResult, Levels, Picture, as_given, to_levels

_NEEDS_FP16 = ("fp16", "mixed")


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
        precision: `auto`, `fp32`, `bf16`, `fp16` or `mixed`, as the engine has them.
        on_step: called as the steps go on, about ten times a second at most.

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
        self._compiled: dict[tuple[int, ...], Engines] = {}
        self._overflowed: dict[str, str] = {}

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
        try:
            levels, report = Run(self.objective, engines, original, goal)(seed, on_step)
        except PrecisionError as error:
            if self._precision != "auto" or engines.step.precision == "fp32":
                raise
            self._overflowed[engines.step.precision] = str(error)
            self._compiled.clear()
            return self(picture, target=target, style=style, seed=seed, on_step=on_step)
        notes = tuple(dict.fromkeys([*self._overflowed.values(), *engines.step.notes, *report.notes]))
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

    def narrow(self, has: Sequence[engine.Precision]) -> engine.Precision:
        """The precision of the step: the one asked for, or the first that the networks bear.

        Args:
            has: what an engine computes, the fastest first.

        Raises:
            UsageError: fp16 for a model that overflows in it, or a precision that is none.
        """
        bears_fp16 = self.encoder.model.manifest.fp16 and self.perceptual.model.manifest.fp16
        if self._precision != "auto":
            if self._precision in _NEEDS_FP16 and not bears_fp16:
                raise UsageError(f"{self.encoder.model.name} overflows in fp16; choose --precision bf16 or fp32")
            for known in engine.PRECISIONS:
                if known == self._precision:
                    return known
            raise UsageError(f"no precision {self._precision!r}; choose auto, {', '.join(engine.PRECISIONS)}")
        borne = [each for each in has if each not in self._overflowed and (bears_fp16 or each not in _NEEDS_FP16)]
        return borne[0] if borne else "fp32"

    def graphs(self, shape: tuple[int, ...], *, scaled: bool) -> tuple[ir.Model, ir.Model]:
        """What is computed of a picture once, and the step, for pictures of a shape; see `glaze_trt.step`."""
        nets = graphs.Nets(*(net.load("image", shape) for net in (self.encoder, self.perceptual)))
        names = constraints(self.objective)
        look = graphs.look(shape, names)
        known = {str(v.name): dims(v) for v in (*look.graph.outputs, *nets.features)}
        return look, graphs.step(nets, names, self.objective.update, known, scaled=scaled)

    def _engines(self, shape: tuple[int, ...]) -> Engines:
        self.encoder.compile("image", shape)
        self.perceptual.compile("image", shape)
        compiled = self._compiled.pop(shape, None) or self._compile(shape)
        self._compiled[shape] = compiled
        if len(self._compiled) > SIZES_KEPT:
            del self._compiled[next(iter(self._compiled))]
        return compiled

    def _compile(self, shape: tuple[int, ...]) -> Engines:
        made: dict[bool, tuple[ir.Model, ir.Model]] = {}

        def step_for(precision: str) -> ir.Model:
            scaled = precision == "fp16"
            if scaled not in made:
                made[scaled] = self.graphs(shape, scaled=scaled)
            return made[scaled][1]

        step = engine.compile(step_for, self._engine, self.narrow, self._options)
        look, _ = made[step.precision == "fp16"]
        constants = engine.compile(look, step.engine, "fp32", self._options) if look.graph.outputs else None
        return Engines(self.encoder, self.perceptual, constants, step, self.grown)


def _size(levels: Levels) -> str:
    return f"{levels.shape[1]} x {levels.shape[0]}"
