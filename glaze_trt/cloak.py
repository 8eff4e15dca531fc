"""A picture and a target in, a picture that keeps its budget out.

One `Cloaker` holds the engines for one choice of networks and can cloak many pictures; `cloak` is the short form. What
happens to one picture is in `loop`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

import engine
from engine.tape import dims
from glaze_trt import models, presets, styles
from glaze_trt.errors import PictureError, PrecisionError, UsageError
from glaze_trt.graph import reduction, views
from glaze_trt.graph import step as graphs
from glaze_trt.graph.losses import SCALING, Nets
from glaze_trt.graph.reduction import Reduced
from glaze_trt.graph.sight import Box, inside
from glaze_trt.large import regional
from glaze_trt.large.large import Large
from glaze_trt.large.tiles import Tiling
from glaze_trt.loop.descent import Run
from glaze_trt.loop.subject import Array, Engines, OnStep, Subject
from glaze_trt.measure import window
from glaze_trt.network import SIZES_KEPT, Network, padded, padded_shape
from glaze_trt.objective import INTENSITIES, Budget, Objective
from glaze_trt.result import CloakReport, CloakResult, Levels, Picture, as_given, to_levels
from glaze_trt.styles.pattern import pattern

Sizes = tuple[tuple[int, int], ...]

Mask = NDArray[np.floating]
"""(H, W) in [0,1]."""

_NEEDS_FP16 = ("fp16", "mixed")

_WHERE = {"away": "away from itself", "zero": "to zero"}
"""Directions without a target, in words."""


def cloak(
    picture: Picture,
    *,
    target: Picture | Sequence[Picture] | None = None,
    style: str | None = None,
    model: str | Sequence[str] = "tiny",
    weights: Sequence[float] = (),
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
        target: what the encoder shall see instead, same size; several are met in the middle. If absent it is made by
            `style`, or is what the preset brings; some presets need one, and some have no use for one.
        style: a built-in style (`glaze_trt.styles.available()`).
        model: an encoder by name, or a path to its `.onnx`; or several, all of which are moved.
        weights: how much each encoder counts; alike if none are given.
        perceptual: a perceptual net by name, or a path.
        preset: whose objective (`glaze_trt.presets.PRESETS`).
        steps: how many; the preset's if None.
        intensity: `low`, `default` or `high`, the budget by name; for the preset `glaze`.
        budget: the budget itself; comes before `intensity`.
        robust: transformations that the cloak shall outlast (`glaze_trt.graph.views.NAMES`).
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
    cloaker = Cloaker(model, perceptual, objective, engine_name=engine, precision=precision, weights=weights)
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
        tiling: Tiling | None = None,
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
            tiling: how large pictures are cut.

        Raises:
            ModelError: no such model.
            UsageError: no model, or two of one name; weights that are not as many, or not above 0.
        """
        names = [model] if isinstance(model, str) else list(model)
        self.objective = objective or Objective()
        self.encoders = tuple(Network(models.find(name, "encoder"), engine_name, options) for name in names)
        called = [net.model.name for net in self.encoders]
        if not called or len(set(called)) < len(called):  # progress is told by name
            raise UsageError(f"models: {', '.join(called) or 'none'}; give each encoder once, under a name of its own")
        if weights and (len(weights) != len(called) or not all(0 < weight < math.inf for weight in weights)):
            raise UsageError(
                f"{len(called)} encoders need as many finite weights above 0; got {', '.join(map(str, weights))}"
            )
        self._weights = tuple(float(weight) for weight in weights)
        self.perceptual = Network(models.find(perceptual, "perceptual"), engine_name, options)
        self._engine, self._precision, self._options = engine_name, precision, options
        self.tiling = tiling or Tiling()
        self._compiled: dict[tuple[tuple[int, ...], tuple[Box, ...], int, Box | None, Sizes], Engines] = {}
        self._compiling = 0.0
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
        aligned: bool = False,
        close: Sequence[Levels] = (),
    ) -> CloakResult:
        """Cloaks one picture; see `cloak`.

        Args:
            picture: see `cloak`, as all that is not named here.
            target: see there.
            style: see there.
            mask: see there.
            boxes: see there.
            seed: see there.
            on_step: see there.
            aligned: whether the target given is the picture itself in a style; extractors then see its boxes too.
            close: the targets as extractors of one fixed size see them, cut to faces; as all others, if none.
        """
        original = to_levels(picture)
        goals, made = self._targets(original, target, style, seed)
        subject = Subject(original, goals, _checked(mask, original), aligned=made or aligned, close=tuple(close))
        boxes = _inside(boxes, original)
        self._refuse_unseen(boxes)
        while True:
            began = time.perf_counter()
            self._compiling = 0.0
            try:
                levels, report = self._cloaked(subject, boxes, seed, on_step)
                break
            except PrecisionError as error:
                tried = next(reversed(self._compiled.values())).step.precision
                if self._precision != "auto" or tried == "fp32":
                    raise
                self._overflowed[tried] = str(error)
                self._compiled.clear()
        measured = self.window(subject.mask)
        told = () if measured is None else (window.note(measured),)
        notes = tuple(dict.fromkeys([*self._overflowed.values(), *report.notes, *told]))
        seconds = {"compile": self._compiling, "optimize": time.perf_counter() - began - self._compiling}
        return CloakResult(levels, as_given(levels, picture), replace(report, notes=notes, seconds=seconds))

    def _cloaked(
        self, subject: Subject, boxes: tuple[Box, ...], seed: int, on_step: OnStep | None
    ) -> tuple[Levels, CloakReport]:
        """In one piece, by tiles, or by the part that extractors of one fixed size look at."""
        size = (subject.original.shape[0], subject.original.shape[1])
        if not self.tiling.cuts(size):
            return Run(self.objective, self._fitting(size, boxes, self.window(subject.mask)), subject)(seed, on_step)
        fixed = [net.model.name for net in self.encoders if net.model.manifest.size is not None]
        if self.rescales or (self.objective.search is not None and not fixed):
            return regional.cloak(self.objective, self._fitting, subject, boxes, self.tiling, seed, on_step)
        if fixed or self.objective.search is not None:
            raise PictureError(
                f"the picture is {_size(subject.original)}; over {self.tiling.whole / 1e6:.2f} megapixels, extractors "
                f"of one fixed size ({', '.join(fixed)}) do not go together with others: cloak for each kind in turn"
            )
        return Large(self.objective, self._reduced, subject, self.tiling)(seed, on_step)

    @property
    def rescales(self) -> bool:
        """Whether every extractor takes one fixed size, so that targets of any size are resampled to it."""
        return all(net.model.manifest.size is not None for net in self.encoders)

    def _targets(
        self, original: Levels, target: Picture | Sequence[Picture] | None, style: str | None, seed: int
    ) -> tuple[tuple[Levels, ...], bool]:
        """What is moved toward, and whether it was made of the picture itself."""
        name, direction = self.objective.name, self.objective.features.direction
        if target is not None and style is not None:
            raise UsageError("give a target picture or a style, not both")
        if direction in ("away", "zero"):
            if target is not None or style is not None:
                raise UsageError(
                    f"the preset {name} moves a picture {_WHERE[direction]}, not toward a target; leave "
                    f"{'style' if target is None else 'target'} out"
                )
            return (), False
        brings = presets.PRESETS[name].target if name in presets.PRESETS else "style"
        if target is None and style is None and brings == "text":
            return (pattern(original.shape[0], original.shape[1]),), False
        if target is None and style is None and brings == "none":
            raise UsageError(f"the preset {name} moves a face toward other people's: give them as target")
        if target is None:
            return (to_levels(styles.apply(style or styles.DEFAULT, original.astype(np.float32) / 255, seed)),), True
        several: Sequence[Picture] = target if isinstance(target, list | tuple) else [cast(Picture, target)]
        goals = tuple(to_levels(each) for each in several)
        for goal in goals:
            if goal.shape != original.shape and not self.rescales:
                raise PictureError(
                    f"the target is {_size(goal)} and the picture {_size(original)}; they must be of one size"
                )
        return goals, False

    def _refuse_unseen(self, boxes: Sequence[Box]) -> None:
        """Boxes that nothing would look at: only extractors of one fixed size do."""
        free = [net.model.name for net in self.encoders if net.model.manifest.size is None]
        bare = [net.model.name for net in self.encoders if net.model.manifest.size is None and net.model.manifest.ports]
        if boxes and (bare or len(free) == len(self.encoders)):
            raise UsageError(
                f"{', '.join(bare or free)} takes pictures of any size, so it would see all of the picture and not the "
                "face or region: give an extractor whose file has one fixed height and width, or a --mask alone"
            )

    def window(self, mask: Mask | None) -> Box | None:
        """The part of a picture with this mask that the budget speaks of, (x, y, width, height); None for all of it."""
        return window.around(mask, self.objective.budget.linf, self.perceptual)

    def grown(self, levels: Levels) -> Array:
        """(1, 3, H', W') in [0,1], mirrored at the right and bottom to what all networks take."""
        return padded(levels, self._all)

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """What a picture of (height, width) grows to."""
        return padded_shape(size, self._all)

    @property
    def _all(self) -> models.Manifest:
        """The perceptual net's manifest, with sizes that all encoders and the objective's views take too."""
        own = self.perceptual.model.manifest
        free = [own, *(net.model.manifest for net in self.encoders if net.model.manifest.size is None)]
        blocks = views.MULTIPLE if self.objective.features.views else 1
        return replace(
            own,
            size=None,
            multiple=int(np.lcm.reduce([blocks, *(each.multiple for each in free)])),
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
                    f"the preset {self.objective.name} has no loss scales, which fp16 needs; choose --precision auto, "
                    "mixed, bf16 or fp32"
                )
            for known in engine.PRECISIONS:
                if known == self._precision:
                    return known
            raise UsageError(f"no precision {self._precision!r}; choose auto, {', '.join(engine.PRECISIONS)}")
        barred = {*self._overflowed, *(_NEEDS_FP16 if weak else ()), *(() if self.objective.normalises else ["fp16"])}
        return next((each for each in has if each not in barred), "fp32")

    def graphs(
        self,
        shape: tuple[int, ...],
        *,
        scaled: bool,
        boxes: Sequence[Box] = (),
        octave: int = 0,
        measured: Box | None = None,
        seen: Sizes = (),
    ) -> tuple[ir.Model, ir.Model]:
        """What is computed of a picture once, and the step, for pictures of a shape; see `glaze_trt.graph.step`.

        Args:
            shape: as the networks take it.
            scaled: whether terms have loss scales.
            boxes: what extractors of one fixed size look at.
            octave: how many times a larger picture was halved to become this one.
            measured: the part that constraints measure; None for all of it.
            seen: (height, width) of the picture, and smaller ones at which encoders see it too.
        """
        objective = self.objective.of_octave(octave)
        looking = (*self.looking(boxes), *self._reductions(seen))
        inner = shape if measured is None else (*shape[:2], measured[3], measured[2])
        spaces = [net.model.manifest.latent_space or "" for net in looking]
        nets = Nets(
            tuple(net.load("image", shape) for net in looking),
            self.perceptual.load("image", inner) if "lpips" in objective.measures else None,
            self._shares(looking),
            tuple(SCALING.get(space, 1.0) for space in spaces),
        )
        look = graphs.look(inner, objective)
        known = {str(v.name): dims(v) for v in (*look.graph.outputs, *nets.features)}
        return look, graphs.step(nets, objective, known, scaled=scaled, window=measured)

    def _shares(self, looking: Sequence[Network]) -> tuple[float, ...]:
        """How much each that looks counts: an encoder's weight, spread over boxes and sizes; none if all are alike."""
        names = [net.model.name for net in looking]
        weights = self._weights or (1.0,) * len(self.encoders)
        given = dict(zip([net.model.name for net in self.encoders], weights, strict=True))
        shares = tuple(
            given[name] / names.count(name) * (reduction.WEIGHT if isinstance(net, Reduced) else 1.0)
            for name, net in zip(names, looking, strict=True)
        )
        return shares if self._weights or len(set(shares)) > 1 else ()

    def looking(self, boxes: Sequence[Box]) -> tuple[Network, ...]:
        """Every encoder, those of one fixed size once for every box; as they were compiled, if they were."""
        for (_, known, _, _, seen), engines in self._compiled.items():
            if known == tuple(boxes) and not seen:
                return engines.encoders
        found: list[Network] = []
        for net in self.encoders:
            found += [net.at(box) for box in boxes] if boxes and net.model.manifest.size is not None else [net]
        return tuple(found)

    def _reductions(self, seen: Sizes) -> tuple[Network, ...]:
        """Every encoder at every smaller size."""
        return tuple(Reduced(net, seen[0], size) for size in seen[1:] for net in self.encoders)

    def _fitting(self, size: tuple[int, int], boxes: tuple[Box, ...], measured: Box | None = None) -> Engines:
        """What runs for pictures of (height, width) of which extractors look at boxes, and constraints at a part."""
        shape = self.shape(size)
        if not any(net.model.manifest.size for net in self.encoders):
            boxes = ()
        elif not boxes and shape[2:] != size:
            boxes = ((0, 0, size[1], size[0]),)  # extractors of one size see no mirrored edge
        if self.perceptual.model.manifest.size is None and self.perceptual.model.manifest.multiple > 1:
            measured = None  # the part would have to grow, into what the loop only mirrors
        return self._engines(shape, boxes, 0, measured)

    def _reduced(self, size: tuple[int, int], octave: int, smaller: tuple[tuple[int, int], ...]) -> Engines:
        """What runs for pictures of (height, width) that are an octave of a larger one, also seen at smaller sizes."""
        return self._engines(self.shape(size), (), octave, seen=(size, *smaller) if smaller else ())

    def _engines(
        self,
        shape: tuple[int, ...],
        boxes: tuple[Box, ...],
        octave: int,
        measured: Box | None = None,
        seen: Sizes = (),
    ) -> Engines:
        began = time.perf_counter()
        key = shape, boxes, octave, measured, seen
        compiled = self._compiled.pop(key, None) or self._compile(*key)
        self._compiled[key] = compiled
        if len(self._compiled) > SIZES_KEPT:
            del self._compiled[next(iter(self._compiled))]
        self._compiling += time.perf_counter() - began
        return compiled

    def _compile(
        self, shape: tuple[int, ...], boxes: tuple[Box, ...], octave: int, measured: Box | None, seen: Sizes
    ) -> Engines:
        made: dict[bool, tuple[ir.Model, ir.Model]] = {}

        def step_for(precision: str) -> ir.Model:
            scaled = precision == "fp16"
            if scaled not in made:
                made[scaled] = self.graphs(
                    shape, scaled=scaled, boxes=boxes, octave=octave, measured=measured, seen=seen
                )
            return made[scaled][1]

        encoders = (*self.looking(boxes), *self._reductions(seen))
        for net in encoders:
            net.compile("image", shape)
        self.perceptual.compile("image", shape if measured is None else (*shape[:2], measured[3], measured[2]))
        step = engine.compile(step_for, self._engine, self.narrow, self._options)
        look, _ = made[step.precision == "fp16"]
        constants = engine.compile(look, step.engine, "fp32", self._options) if look.graph.outputs else None
        shares = self._shares(encoders)
        weights = tuple(share / sum(shares) for share in shares)
        return Engines(encoders, self.perceptual, constants, step, self.grown, weights, measured)


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
    """Boxes as tuples, cut to the picture, each once."""
    height, width = original.shape[:2]
    found = []
    for box in boxes:
        part = inside(box, width, height)
        if part is None:
            raise PictureError(
                "the box {},{},{},{} lies outside the picture, which is {} x {}".format(*box, width, height)
            )
        found.append(part)
    return tuple(dict.fromkeys(found))


def _size(levels: Levels) -> str:
    return f"{levels.shape[1]} x {levels.shape[0]}"
