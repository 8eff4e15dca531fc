"""A picture and a target in, a picture that keeps its budget out.

One `Cloaker` holds the engines for one choice of networks and can cloak many pictures; `cloak` is the short form. What
happens to one picture is in `loop`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import engine
from engine.tape import dims
from glaze_trt import models, presets, styles, views
from glaze_trt import step as graphs
from glaze_trt.errors import PictureError, PrecisionError, UsageError
from glaze_trt.loop import Array, Engines, OnStep, Run, Subject
from glaze_trt.losses import Nets
from glaze_trt.network import SIZES_KEPT, Network, padded, padded_shape
from glaze_trt.objective import INTENSITIES, Budget, Objective
from glaze_trt.picture import MAX_PIXELS
from glaze_trt.result import CloakResult, Levels, Picture, as_given, to_levels
from glaze_trt.sight import Box, inside

Mask = NDArray[np.floating]
"""(H, W) in [0,1]."""

_NEEDS_FP16 = ("fp16", "mixed")


def cloak(
    picture: Picture,
    *,
    target: Picture | Sequence[Picture] | None = None,
    style: str | None = None,
    model: str | Sequence[str] = "tiny",
    perceptual: str = "tiny",
    preset: str = "glaze",
    steps: int | None = None,
    intensity: str = "default",
    budget: Budget | None = None,
    robust: Sequence[str] = (),
    mask: Mask | None = None,
    boxes: Sequence[Box] = (),
    seed: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    on_step: OnStep | None = None,
) -> CloakResult:
    """Cloaks one picture.

    Args:
        picture: (H, W, 3) RGB, uint8 levels or floats in [0,1], or a Pillow picture.
        target: what the encoder shall see instead, same size; several are met in the middle; made by `style` if absent.
        style: a built-in style (`glaze_trt.styles.available()`).
        model: an encoder by name, or a path to its `.onnx`; or several, all of which are moved.
        perceptual: a perceptual net by name, or a path.
        preset: whose objective (`glaze_trt.presets.PRESETS`).
        steps: how many; the preset's if None.
        intensity: `low`, `default` or `high`, the budget by name; for the preset `glaze`.
        budget: the budget itself; comes before `intensity`.
        robust: transformations that the cloak shall outlast (`glaze_trt.views.NAMES`).
        mask: (H, W) in [0,1], where the picture may change, and how much of the budget's `linf` each pixel may use.
        boxes: faces, as (x, y, width, height), for extractors that take one fixed size; the whole picture if none.
        seed: of the first δ and of the style.
        engine: `auto`, or an engine of `engine.available_engines()`.
        precision: `auto`, `fp32`, `bf16`, `fp16` or `mixed`, as the engine has them.
        on_step: called as the steps go on, about ten times a second at most.

    Raises:
        GlazeError: a picture, style, model or budget that cannot be used.
        EngineError: a graph that cannot be compiled or run.
    """
    objective = make_objective(intensity, budget, steps, preset=preset, robust=robust)
    cloaker = Cloaker(model, perceptual, objective, engine_name=engine, precision=precision)
    return cloaker(picture, target=target, style=style, mask=mask, boxes=boxes, seed=seed, on_step=on_step)


def make_objective(
    intensity: str = "default",
    budget: Budget | None = None,
    steps: int | None = None,
    *,
    preset: str = "glaze",
    robust: Sequence[str] = (),
) -> Objective:
    """A preset's objective, under a budget given by name or itself.

    Raises:
        UsageError: no such preset, intensity or transformation; no step at all; or a budget for a preset that has its
            own.
    """
    objective = presets.find(preset)
    if preset == Objective.name:
        if budget is None:
            if intensity not in INTENSITIES:
                raise UsageError(f"no intensity {intensity!r}; choose one of {', '.join(INTENSITIES)}")
            budget = INTENSITIES[intensity]
        objective = replace(objective, budget=budget)
    elif budget is not None or intensity != "default":
        raise UsageError(f"the preset {preset} has the budget it was published with; leave --intensity out")
    unknown = [name for name in robust if name not in views.NAMES]
    if unknown:
        raise UsageError(f"no transformation {', '.join(unknown)}; choose from {', '.join(views.NAMES)}")
    if robust:
        objective = objective.with_views(tuple(robust))
    return objective if steps is None else replace(objective, steps=steps)


class Cloaker:
    """Compiled engines for one choice of networks and objective, kept per picture size."""

    def __init__(
        self,
        model: str | Sequence[str] = "tiny",
        perceptual: str = "tiny",
        objective: Objective | None = None,
        *,
        engine_name: str = "auto",
        precision: str = "auto",
        options: engine.Options | None = None,
        weights: Sequence[float] = (),
    ) -> None:
        """Finds the networks; engines are compiled with the first picture of a size.

        Args:
            model: encoders, by name or path.
            perceptual: a perceptual net, by name or path.
            objective: what is optimised.
            engine_name: `auto`, or an engine of `engine.available_engines()`.
            precision: of the step, or `auto`.
            options: how engines are built and where they run.
            weights: how much each encoder counts; alike if none are given.

        Raises:
            ModelError: no such model.
            UsageError: no model, or two of one name.
        """
        names = [model] if isinstance(model, str) else list(model)
        self.objective = objective or Objective()
        self.encoders = tuple(Network(models.find(name, "encoder"), engine_name, options) for name in names)
        called = [net.model.name for net in self.encoders]
        if not called or len(set(called)) < len(called):  # progress is told by name
            raise UsageError(f"models: {', '.join(called) or 'none'}; give each encoder once, under a name of its own")
        if weights and (len(weights) != len(called) or min(weights) <= 0):
            raise UsageError(f"{len(called)} encoders need as many weights above 0; got {', '.join(map(str, weights))}")
        self._weights = tuple(float(weight) for weight in weights)
        self.perceptual = Network(models.find(perceptual, "perceptual"), engine_name, options)
        self._engine, self._precision, self._options = engine_name, precision, options
        self._compiled: dict[tuple[tuple[int, ...], tuple[Box, ...]], Engines] = {}
        self._overflowed: dict[str, str] = {}

    def __call__(
        self,
        picture: Picture,
        *,
        target: Picture | Sequence[Picture] | None = None,
        style: str | None = None,
        mask: Mask | None = None,
        boxes: Sequence[Box] = (),
        seed: int = 0,
        on_step: OnStep | None = None,
    ) -> CloakResult:
        """Cloaks one picture; see `cloak`."""
        original = to_levels(picture)
        if original.shape[0] * original.shape[1] > MAX_PIXELS:
            raise PictureError(
                f"the picture is {_size(original)}; up to {MAX_PIXELS / 1e6:.2f} megapixels are taken for now"
            )
        subject = Subject(original, self._targets(original, target, style, seed), _checked(mask, original))
        began = time.perf_counter()
        shape = self.grown(original).shape
        boxes = _inside(boxes, original)
        if not boxes and shape[2:] != original.shape[:2]:
            boxes = ((0, 0, original.shape[1], original.shape[0]),)  # extractors of one size see no mirrored edge
        engines = self._engines(shape, boxes if any(net.model.manifest.size for net in self.encoders) else ())
        compiled = time.perf_counter()
        try:
            levels, report = Run(self.objective, engines, subject)(seed, on_step)
        except PrecisionError as error:
            if self._precision != "auto" or engines.step.precision == "fp32":
                raise
            self._overflowed[engines.step.precision] = str(error)
            self._compiled.clear()
            return self(picture, target=target, style=style, mask=mask, boxes=boxes, seed=seed, on_step=on_step)
        notes = tuple(dict.fromkeys([*self._overflowed.values(), *engines.step.notes, *report.notes]))
        seconds = {"compile": compiled - began, "optimize": time.perf_counter() - compiled}
        return CloakResult(levels, as_given(levels, picture), replace(report, notes=notes, seconds=seconds))

    @property
    def rescales(self) -> bool:
        """Whether every extractor takes one fixed size, so that targets of any size are resampled to it."""
        return all(net.model.manifest.size is not None for net in self.encoders)

    def _targets(
        self, original: Levels, target: Picture | Sequence[Picture] | None, style: str | None, seed: int
    ) -> tuple[Levels, ...]:
        if target is not None and style is not None:
            raise UsageError("give a target picture or a style, not both")
        if self.objective.features.direction in ("away", "zero"):
            return ()
        if target is None:
            return (to_levels(styles.apply(style or styles.DEFAULT, original.astype(np.float32) / 255, seed)),)
        several: Sequence[Picture] = target if isinstance(target, list | tuple) else [cast(Picture, target)]
        goals = tuple(to_levels(each) for each in several)
        for goal in goals:
            if goal.shape != original.shape and not self.rescales:
                raise PictureError(
                    f"the target is {_size(goal)} and the picture {_size(original)}; they must be of one size"
                )
        return goals

    def grown(self, levels: Levels) -> Array:
        """(1, 3, H', W') in [0,1], mirrored at the right and bottom to what all networks take."""
        return padded(levels, self._all)

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """What a picture of (height, width) grows to."""
        return padded_shape(size, self._all)

    @property
    def _all(self) -> models.Manifest:
        """The perceptual net's manifest, with sizes that all encoders take too."""
        own = self.perceptual.model.manifest
        free = [own, *(net.model.manifest for net in self.encoders if net.model.manifest.size is None)]
        return replace(
            own,
            size=None,
            multiple=int(np.lcm.reduce([each.multiple for each in free])),
            minimum=max(each.minimum for each in free),
        )

    def narrow(self, has: Sequence[engine.Precision]) -> engine.Precision:
        """The precision of the step: the one asked for, or the first that the networks bear.

        Args:
            has: what an engine computes, the fastest first.

        Raises:
            UsageError: fp16 for a model that overflows in it, or a precision that is none.
        """
        weak = [net.model.name for net in (*self.encoders, self.perceptual) if not net.model.manifest.fp16]
        if self._precision != "auto":
            if self._precision in _NEEDS_FP16 and weak:
                raise UsageError(f"{', '.join(weak)} overflows in fp16; choose --precision bf16 or fp32")
            if self._precision == "fp16" and not self.objective.normalises:
                raise UsageError(
                    f"the preset {self.objective.name} has no loss scales, which fp16 needs; choose another"
                )
            for known in engine.PRECISIONS:
                if known == self._precision:
                    return known
            raise UsageError(f"no precision {self._precision!r}; choose auto, {', '.join(engine.PRECISIONS)}")
        barred = {*self._overflowed, *(_NEEDS_FP16 if weak else ()), *(() if self.objective.normalises else ["fp16"])}
        return next((each for each in has if each not in barred), "fp32")

    def graphs(self, shape: tuple[int, ...], *, scaled: bool, boxes: Sequence[Box] = ()) -> tuple[ir.Model, ir.Model]:
        """What is computed of a picture once, and the step, for pictures of a shape; see `glaze_trt.step`."""
        looking = self.looking(boxes)
        shares = dict(zip([net.model.name for net in self.encoders], self._weights, strict=False))
        nets = Nets(
            tuple(net.load("image", shape) for net in looking),
            self.perceptual.load("image", shape) if "lpips" in self.objective.measures else None,
            tuple(shares[net.model.name] for net in looking) if shares else (),
        )
        look = graphs.look(shape, self.objective)
        known = {str(v.name): dims(v) for v in (*look.graph.outputs, *nets.features)}
        return look, graphs.step(nets, self.objective, known, scaled=scaled)

    def looking(self, boxes: Sequence[Box]) -> tuple[Network, ...]:
        """Every encoder, those of one fixed size once for every box; as they were compiled, if they were."""
        for (_, known), engines in self._compiled.items():
            if known == tuple(boxes):
                return engines.encoders
        found: list[Network] = []
        for net in self.encoders:
            found += [net.at(box) for box in boxes] if boxes and net.model.manifest.size is not None else [net]
        return tuple(found)

    def _engines(self, shape: tuple[int, ...], boxes: tuple[Box, ...]) -> Engines:
        compiled = self._compiled.pop((shape, boxes), None) or self._compile(shape, boxes)
        self._compiled[shape, boxes] = compiled
        if len(self._compiled) > SIZES_KEPT:
            del self._compiled[next(iter(self._compiled))]
        return compiled

    def _compile(self, shape: tuple[int, ...], boxes: tuple[Box, ...]) -> Engines:
        made: dict[bool, tuple[ir.Model, ir.Model]] = {}

        def step_for(precision: str) -> ir.Model:
            scaled = precision == "fp16"
            if scaled not in made:
                made[scaled] = self.graphs(shape, scaled=scaled, boxes=boxes)
            return made[scaled][1]

        encoders = self.looking(boxes)
        for net in (*encoders, self.perceptual):
            net.compile("image", shape)
        step = engine.compile(step_for, self._engine, self.narrow, self._options)
        look, _ = made[step.precision == "fp16"]
        constants = engine.compile(look, step.engine, "fp32", self._options) if look.graph.outputs else None
        return Engines(encoders, self.perceptual, constants, step, self.grown)


def _checked(mask: Mask | None, original: Levels) -> Array | None:
    """A mask as (H, W) float32."""
    if mask is None:
        return None
    found = np.asarray(mask, np.float32)
    if found.shape != original.shape[:2]:
        raise PictureError(f"the mask is {found.shape}, and the picture is {original.shape[:2]}, height first")
    if not (np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1):
        raise PictureError("a mask must lie in [0,1]")
    if not found.any():
        raise PictureError("the mask is black all over, so nothing may change; white is where the picture may")
    return found


def _inside(boxes: Sequence[Box], original: Levels) -> tuple[Box, ...]:
    """Boxes as tuples, cut to the picture."""
    height, width = original.shape[:2]
    found = []
    for box in boxes:
        part = inside(box, width, height)
        if part is None:
            raise PictureError(
                "the box {},{},{},{} lies outside the picture, which is {} x {}".format(*box, width, height)
            )
        found.append(part)
    return tuple(found)


def _size(levels: Levels) -> str:
    return f"{levels.shape[1]} x {levels.shape[0]}"
