"""A large picture for extractors of one fixed size: the part that they look at, reduced to what the loop takes.

Such an extractor sees a face, or all of a picture, scaled down to a hundred pixels or so. It misses nothing where the
loop works on that part alone, or on a reduction of it, and the change is enlarged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from glaze_trt.evaluate import linf
from glaze_trt.graph.sight import Box
from glaze_trt.large import octaves, pooled, tiles
from glaze_trt.large.tiles import Tiling
from glaze_trt.loop.descent import Run
from glaze_trt.loop.length import Costs, longest
from glaze_trt.loop.subject import Engines, OnStep, Subject
from glaze_trt.measure import window
from glaze_trt.measure.ssim import ssim
from glaze_trt.objective import Objective
from glaze_trt.result import CloakReport, Levels

MakeEngines = Callable[[tuple[int, int], tuple[Box, ...]], Engines]
"""What runs for pictures of (height, width) of which extractors look at boxes."""


def cloak(
    objective: Objective,
    engines: MakeEngines,
    subject: Subject,
    boxes: Sequence[Box],
    tiling: Tiling,
    seed: int,
    on_step: OnStep | None,
) -> tuple[Levels, CloakReport]:
    """Cloak what extractors look at.

    Args:
        objective: what is optimised.
        engines: compiled when they are first asked for.
        subject: the picture; targets of any size, or of its size if the extractors take any.
        boxes: what extractors look at; the whole picture if none.
        tiling: `whole` is how many pixels the loop takes.
        seed: of the first δ.
        on_step: told of the steps.
    """
    original = subject.original
    part = _around(boxes, original)
    large = original[part]
    factor = min(1.0, math.sqrt(tiling.whole / (large.shape[0] * large.shape[1])))
    size = max(1, int(large.shape[0] * factor)), max(1, int(large.shape[1] * factor))
    small = large if factor == 1 else octaves.reduced(large, size)
    inner = tuple(_scaled(box, part, factor, size) for box in boxes)
    mask = None if subject.mask is None else subject.mask[part]
    small_mask = mask if mask is None or factor == 1 else octaves.averaged(mask, size)
    made = engines(size, inner)
    targets = tuple(
        octaves.reduced(target[part], size) if subject.aligned else _fitted(target, original, size, tiling)
        for target in subject.targets
    )
    run = Run(objective, made, Subject(small, targets, small_mask, aligned=subject.aligned))
    cloaked, report = run(seed, on_step)
    change = octaves.resampled(cloaked.astype(np.float32) - small, (large.shape[0], large.shape[1])) / np.float32(255)
    cap = np.float32(np.floor(objective.budget.linf * 255 + 1e-3) / 255)
    limit = np.full((1, 1, 1), cap) if mask is None else cap * mask[..., None]

    def levels(scale: float) -> Levels:
        found = original.copy()
        found[part] = octaves.added(large, np.clip(np.float32(scale) * change, -limit, limit))
        return found

    measured = window.around(subject.mask, objective.budget.linf, made.perceptual)
    before = np.ascontiguousarray(window.cut(original, measured))
    lpips = pooled.Lpips(made.perceptual, before, tiles.plan((before.shape[0], before.shape[1]), tiles.SIDE))

    def measure(scale: float) -> Costs:
        whole = levels(scale)
        after = np.ascontiguousarray(window.cut(whole, measured))
        dssim = (1 - ssim(before, after)) / 2 if objective.budget.dssim is not None else 0.0
        return Costs(lpips(after), window.ssimulacra2(original, whole, measured), dssim)

    if objective.finish == "last":
        scale, costs = 1.0, measure(1.0)
    else:
        scale, costs = longest(measure, objective.budget, 1.0, tries=_TRIES, limit=1.0)
    after = levels(scale)
    grown = made.grown(after[part] if factor == 1 else octaves.reduced(after[part], size))
    ways = {aim.name: aim.progress(aim.distance(grown)) for aim in run.aims}
    return after, replace(
        report,
        scale=scale * report.scale,
        progress=float(np.mean(list(ways.values()))),
        progresses=ways,
        lpips=costs.lpips,
        linf=linf(original, after),
        ssimulacra2=costs.ssimulacra2,
    )


_TRIES = 4
"""Of strengths."""


def _around(boxes: Sequence[Box], levels: Levels) -> tuple[slice, slice]:
    """The part of a picture that holds all boxes."""
    if not boxes:
        return slice(0, levels.shape[0]), slice(0, levels.shape[1])
    return (
        slice(min(y for _, y, _, _ in boxes), max(y + h for _, y, _, h in boxes)),
        slice(min(x for x, _, _, _ in boxes), max(x + w for x, _, w, _ in boxes)),
    )


def _scaled(box: Box, part: tuple[slice, slice], factor: float, size: tuple[int, int]) -> Box:
    """A box of the picture in a reduction of a part of it."""
    x, y, w, h = box
    left, top = (int((place - side.start) * factor) for place, side in zip((x, y), part[::-1], strict=True))
    left, top = min(left, size[1] - 1), min(top, size[0] - 1)
    return left, top, max(1, min(round(w * factor), size[1] - left)), max(1, min(round(h * factor), size[0] - top))


def _fitted(target: Levels, original: Levels, size: tuple[int, int], tiling: Tiling) -> Levels:
    """A target as extractors get to see it: of the size of the reduced picture, if it was of the picture's."""
    if target.shape == original.shape:
        return octaves.reduced(target, size)
    factor = math.sqrt(tiling.whole / (target.shape[0] * target.shape[1]))
    if factor >= 1:
        return target
    return octaves.reduced(target, (max(1, int(target.shape[0] * factor)), max(1, int(target.shape[1] * factor))))
