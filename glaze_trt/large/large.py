"""A large picture's way: a reduction of it first, then tiles of it at full size, inside one budget.

The reduction has 1024 pixels and is shown to the encoders at 512 too, so that the cloak outlasts being scaled down; it
may use up a part of the visible error of the full-size picture. SSIMULACRA2 weighs coarse changes most, so what the
loop sees of a reduction is weighed as that octave of the large one. Tiles begin with that change and leave it as it is.
In the end their own part is made weaker, or all of it stronger, as the measures of the whole picture allow. Only a few
copies of the picture are held at once, none of them in floating point but the tiles' change, in float16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.runtime.select import BACKENDS
from glaze_trt.evaluate import linf
from glaze_trt.large import octaves, pooled, tiles
from glaze_trt.large.tiles import Tiling
from glaze_trt.loop.aim import Aim
from glaze_trt.loop.descent import Run
from glaze_trt.loop.length import Costs, longest, room
from glaze_trt.loop.subject import Array, Engines, OnStep, Subject
from glaze_trt.measure import ssimulacra, window
from glaze_trt.measure.ssim import ssim
from glaze_trt.objective import Objective, visible_error, visible_score
from glaze_trt.result import CloakReport, Levels, StepInfo

MakeEngines = Callable[[tuple[int, int], int, tuple[tuple[int, int], ...]], Engines]
"""What runs for pictures of (height, width) that are an octave of a larger one, also seen at smaller sizes."""

_APART = 1.5
"""A reduction that is not this much smaller than the next is left out."""

_NARROWEST = 32
"""Pixels of a reduction's shorter side, below which it is left out."""

_CLEAN = 0.6
"""Of the structural limit, on reductions: slow drifts of hue, which SSIMULACRA2 takes lightly, are seen first here."""

_SEEN = 2
"""A change made on a reduction is judged on the picture at this many times its size: finer octaves do not see it."""

_LONGEST = 1.25
"""How much stronger all of the change may be in the end than each tile alone allows."""

_TRIES = 4
"""Of strengths."""

_WEAKER = (0.5, 0.25, 0.125)
"""Strengths of the tiles' part that are tried where those will not do: the cost of the base does not shrink with it."""

_SIDE_ON_GPU = 1024
_ON_GPU = frozenset(backend.name for backend in BACKENDS if backend.needs_gpu)


class Large:
    """One large picture's way."""

    def __init__(self, objective: Objective, engines: MakeEngines, subject: Subject, tiling: Tiling) -> None:
        """Take the picture; nothing is optimised yet.

        Args:
            objective: what is optimised.
            engines: compiled when they are first asked for.
            subject: the picture, targets of its size, and where it may change.
            tiling: how the picture is cut.
        """
        self._objective, self._engines, self._subject, self._tiling = objective, engines, subject, tiling
        self._size = (subject.original.shape[0], subject.original.shape[1])
        self._cap = np.float32(np.floor(objective.budget.linf * 255 + 1e-3) / 255)
        self._coarse = coarse_sides(self._size, tiling)
        self._plan = tiles.plan(self._size, tiling.side or self._side(), tiling)
        self._tile_steps = max(1, round(tiling.steps * objective.steps))
        self._used = [part for part in self._plan if subject.mask is None or subject.mask[part].any()]
        self._done, self._base = 0, np.zeros((1, 1, 3), np.float32)

    def __call__(self, seed: int, on_step: OnStep | None) -> tuple[Levels, CloakReport]:
        """All octaves and tiles; the (H, W, 3) uint8 picture and what it was made with."""
        self._coarsely(seed, on_step)
        fine, aims, engines = self._tiles(seed, on_step)
        scale, costs = self._fitted(fine, engines)
        levels = self._levels(fine, scale)
        ways = [
            {aim.name: aim.progress(aim.distance(engines.grown(levels[part]))) for aim in mine}
            for part, mine in zip(self._used, aims, strict=True)
        ]
        progresses = {name: float(np.mean([way[name] for way in ways])) for name in ways[0]}
        return levels, CloakReport(
            engine=engines.step.engine,
            device=engines.step.device,
            precision=engines.step.precision,
            preset=self._objective.name,
            steps=self._objective.steps,
            scale=scale,
            progress=float(np.mean(list(progresses.values()))),
            progresses=progresses,
            lpips=costs.lpips,
            linf=linf(self._subject.original, levels),
            ssimulacra2=costs.ssimulacra2,
            budget=self._objective.budget,
            seconds={},
            notes=tuple(engines.step.notes),
            tiles=len(self._plan),
            progress_at={str(side): self._progress_at(side, levels, engines) for side in self._coarse},
        )

    def _side(self) -> int:
        """Of a tile, by what runs the largest reduction."""
        return _SIDE_ON_GPU if self._coarse and self._first().step.engine in _ON_GPU else tiles.SIDE

    def _coarsely(self, seed: int, on_step: OnStep | None) -> None:
        """Finds the base: a change of the largest reduction, which moves the smaller ones too."""
        if not self._coarse:
            return
        side = self._coarse[-1]
        size, engines = octaves.reduced_size(self._size, side), self._first()
        original, targets = self._small(size)
        mask = self._subject.mask
        mask = None if mask is None else octaves.averaged(mask, size)
        objective = _shared(self._objective, self._tiling, self._octave)
        judge = _Reduced(self._subject.original, side)
        run = Run(objective, engines, Subject(original, targets, mask, score=judge.score))
        delta, begin = run.delta([seed, 0], self._teller(on_step, self._objective.steps))
        scale = 1.0
        if objective.finish == "fit":
            limit = _limit(objective, mask)

            def measure(scale: float) -> Costs:
                change = np.clip(np.float32(scale) * delta, -limit, limit)
                costs = run.costs(octaves.added(original, change))
                return replace(costs, ssimulacra2=min(costs.ssimulacra2, judge.score(change)))

            scale, _ = longest(measure, objective.budget, begin, tries=_TRIES)
        self._base = np.float32(scale) * delta
        self._done += self._objective.steps

    def _first(self) -> Engines:
        """What runs for the largest reduction."""
        *smaller, largest = (octaves.reduced_size(self._size, side) for side in self._coarse)
        return self._engines(largest, self._octave, tuple(smaller))

    @property
    def _octave(self) -> int:
        """Of the picture, that the largest reduction is; the finer one of two, as the coarser would miss errors."""
        return min(int(math.log2(max(self._size) / self._coarse[-1])), ssimulacra.OCTAVES - 1)

    def _small(self, size: tuple[int, int]) -> tuple[Levels, tuple[Levels, ...]]:
        """The picture and its targets at a reduced (height, width)."""
        subject = self._subject
        return octaves.reduced(subject.original, size), tuple(octaves.reduced(x, size) for x in subject.targets)

    def _tiles(self, seed: int, on_step: OnStep | None) -> tuple[NDArray[np.float16], list[tuple[Aim, ...]], Engines]:
        """The tiles' own part of the change, (H, W, 3), with every tile's aims."""
        subject, plan = self._subject, self._plan
        engines = self._engines(plan.tile, 0, ())
        objective = replace(self._objective, steps=self._tile_steps)
        factor = max(self._size) / self._coarse[-1] if self._coarse else 1.0
        fine = np.zeros((*self._size, 3), np.float16)
        aims = []
        for index, part in enumerate(self._used):
            base = self._based(part)
            hold = octaves.holding(base, factor) if self._coarse else None
            mask = None if subject.mask is None else subject.mask[part]
            original, targets = subject.original[part], tuple(target[part] for target in subject.targets)
            run = Run(objective, engines, Subject(original, targets, mask, base, hold))
            delta, begin = run.delta([seed, 1, index], self._teller(on_step, self._tile_steps))
            finer = (delta if hold is None else hold(delta)) - base
            if objective.finish == "fit":
                finer = finer * np.float32(_strength(run, original, base, finer, _limit(objective, mask), begin))
            fine[part] = tiles.join(fine[part].astype(np.float32), finer, plan.fades(*part))
            aims.append(run.aims)
            self._done += self._tile_steps
        return fine, aims, engines

    def _fitted(self, fine: NDArray[np.float16], engines: Engines) -> tuple[float, Costs]:
        """How strong the tiles' part is, over 1 with the base, and what the whole picture then costs."""
        budget = self._objective.budget
        measured = window.around(self._subject.mask, budget.linf, engines.perceptual)
        original = np.ascontiguousarray(window.cut(self._subject.original, measured))
        size = (original.shape[0], original.shape[1])
        plan = self._plan if measured is None else tiles.plan(size, max(self._plan.tile), self._tiling)
        lpips = pooled.Lpips(engines.perceptual, original, plan)

        def measure(scale: float) -> Costs:
            whole = self._levels(fine, scale)
            levels = np.ascontiguousarray(window.cut(whole, measured))
            dssim = (1 - ssim(original, levels)) / 2 if budget.dssim is not None else 0.0
            return Costs(lpips(levels), window.ssimulacra2(self._subject.original, whole, measured), dssim)

        if self._objective.finish == "last":
            return 1.0, measure(1.0)
        scale, costs = longest(measure, budget, 1.0, tries=_TRIES, limit=_LONGEST)
        if scale > 0:
            return scale, costs
        for scale in _WEAKER:
            costs = measure(scale)
            if room(costs, budget) >= 1.0:
                return scale, costs
        found = self._base

        def without_tiles(scale: float) -> Costs:
            self._base = np.float32(scale) * found
            return measure(0.0)

        kept, costs = longest(without_tiles, budget, 1.0, tries=_TRIES, limit=1.0)
        self._base = np.float32(kept) * found
        return 0.0, costs

    def _levels(self, fine: NDArray[np.float16], scale: float) -> Levels:
        """The picture with a multiple of the tiles' part, and of the base if it is over 1; made in bands of rows."""
        levels = np.empty_like(self._subject.original)
        for top in range(0, self._size[0], 256):
            part = slice(top, min(top + 256, self._size[0])), slice(0, self._size[1])
            limit = self._cap if self._subject.mask is None else self._cap * self._subject.mask[part][..., None]
            change = np.float32(max(scale, 1.0)) * self._based(part) + np.float32(scale) * fine[part].astype(np.float32)
            levels[part] = octaves.added(self._subject.original[part], np.clip(change, -limit, limit))
        return levels

    def _based(self, part: tuple[slice, slice]) -> Array:
        """The octaves' change in a part of the picture."""
        return octaves.resampled(self._base, self._size, part=part)

    def _progress_at(self, side: int, levels: Levels, engines: Engines) -> float:
        """The progress of a picture scaled down, the mean over the encoders."""
        size = octaves.reduced_size(self._size, side)
        original, targets = self._small(size)
        after = engines.grown(octaves.reduced(levels, size))
        image, features = engines.grown(original), self._objective.features
        aims = [Aim.of(net, features, image, targets, engines.grown) for net in engines.encoders]
        return float(np.mean([aim.progress(aim.distance(after)) for aim in aims]))

    def _teller(self, on_step: OnStep | None, steps: int) -> OnStep | None:
        if on_step is None:
            return None
        tell = on_step
        total = (self._objective.steps if self._coarse else 0) + len(self._used) * self._tile_steps
        return lambda info: tell(StepInfo(self._done + min(info.step, steps), total, info.progress, info.lpips))


class _Reduced:
    """Judges changes made on a reduction by the SSIMULACRA2 of the full-size picture, without its finest octaves."""

    def __init__(self, original: Levels, side: int) -> None:
        self._first = 0
        while self._first < ssimulacra.OCTAVES - 1 and max(original.shape) >= 2 ** (self._first + 1) * _SEEN * side:
            self._first += 1
        self._original = np.asarray(Image.fromarray(original).reduce(2**self._first))

    def score(self, change: Array) -> float:
        size = self._original.shape[0], self._original.shape[1]
        return ssimulacra.score(
            self._original, octaves.added(self._original, octaves.resampled(change, size)), first=self._first
        )


def coarse_sides(size: Sequence[int], tiling: Tiling) -> tuple[int, ...]:
    """The longer sides of the reductions that a picture of (height, width) is cloaked at first."""
    return tuple(
        side
        for side in tiling.coarse
        if max(size) >= _APART * side and min(octaves.reduced_size(size, side)) >= _NARROWEST
    )


def _shared(objective: Objective, tiling: Tiling, octave: int) -> Objective:
    """An objective that may use a part of the budget, for an octave of the picture that has the budget."""
    whole, share, cap = objective.budget, tiling.share, tiling.cap
    budget = replace(
        whole,
        linf=max(cap * whole.linf, min(1 / 255, whole.linf)),
        ssimulacra2=None if whole.ssimulacra2 is None else visible_score(share * visible_error(whole.ssimulacra2)),
        dssim=None if whole.dssim is None else share * whole.dssim,
    )
    part = replace(objective, budget=budget).of_octave(octave)
    bounds = (replace(b, limit=_CLEAN * b.limit) if b.measure == "structure" else b for b in part.bounds)
    return replace(part, constraints=tuple(bounds))


def _strength(run: Run, original: Levels, base: Array, finer: Array, limit: Array, begin: float) -> float:
    """How strong a tile's own change may be beside the base."""

    def measure(scale: float) -> Costs:
        return run.costs(octaves.added(original, np.clip(base + np.float32(scale) * finer, -limit, limit)))

    return longest(measure, run.budget, min(max(begin, 0.5), 2.0), tries=_TRIES)[0]


def _limit(objective: Objective, mask: Array | None) -> Array:
    cap = np.float32(np.floor(objective.budget.linf * 255 + 1e-3) / 255)
    return np.full((1, 1, 1), cap) if mask is None else cap * mask[..., None]
