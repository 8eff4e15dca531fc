"""The file that is saved keeps the budget: encoded, decoded again and measured before it is written.

PNG and TIFF are written without loss, so the first try holds but where the picture's own colours round. A lossy format
changes pixels; tried are, in this order,

1. the source's own quality and subsampling, then better ones (`pictures.formats.ladder`), also where the budget is kept
   but too little is left of the cloak, as an encoder of low quality rounds a small change away;
2. at each, pulling back the single pixels that the encoder moved too far, which costs next to nothing, and weakening
   the cloak a little (the loop ends just inside the budget, so every loss is over it);
3. at the best, weakening it down to a half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glaze_trt.errors import BudgetError
from glaze_trt.evaluate import Judge, Measures
from glaze_trt.evaluate import linf as furthest
from glaze_trt.pictures import formats, picture
from glaze_trt.pictures.pixels import Encoding, Levels, Picture

_ROUNDING = 1e-4
"""What a measure may differ by between two engines."""

_NAMES = {"WEBP": "WebP"}

_LITTLE, _LEAST = 0.85, 0.5
"""How far a cloak is weakened before a better quality is tried, and at the best one."""

_ENOUGH = 2 / 3
"""Of the cloak's progress that has to be left, or a better quality is tried."""

_ROUNDS = 14
"""Of pulling pixels back; each encodes and decodes once."""

_HOPELESS = 0.02
"""Of all pixels; where more are over, the encoder is too coarse."""

_PULL = 2.0
"""Of what a pixel is over; as the encoder spreads a pixel's change over its block, more than 1 is needed."""


@dataclass(frozen=True)
class Fitted:
    """A file's bytes that keep the budget, and what was measured on the pixels they decode to.

    Attributes:
        data: the file.
        levels: what it decodes to, (H, W, 3) uint8 sRGB.
        measures: of those.
        notes: what had to be given up, one line each.
        picture: what the file holds: encoding it again without loss makes the same pixels.
        encoding: how.
    """

    data: bytes
    levels: NDArray[np.uint8]
    measures: Measures
    notes: tuple[str, ...]
    picture: Picture
    encoding: Encoding


def within_budget(
    original: Picture,
    cloaked: Levels,
    path: Path,
    budget: Mapping[str, float | None],
    judge: Judge,
    quality: int | None = None,
) -> Fitted:
    """Encode a cloaked picture for `path` so that the file keeps the budget.

    Args:
        original: the picture that was cloaked; all that it carries goes along.
        cloaked: (H, W, 3) uint8.
        path: its suffix names the format.
        budget: `lpips`, `linf` and `dssim` at most, `ssimulacra2` at least; None or missing is no limit.
        judge: measures against the original.
        quality: where a lossy format starts, 1 to 100; its source's, if None.

    Raises:
        BudgetError: no quality and no strength down to a half keeps it.
    """
    rungs = formats.ladder(original, path.suffix, quality)
    losses = picture.losses(original, path.suffix)
    whole: float | None = None
    spare: Fitted | None = None
    for encoding in rungs:
        strength, least = 1.0, _LEAST if encoding is rungs[-1] else _LITTLE
        while strength >= least:
            data, held = _settled(original, cloaked, strength, path, encoding, budget.get("linf"))
            measures = None if _too_far(original.levels, held.levels, budget) else judge(held.levels)
            if measures is None or not keeps(measures, budget):
                strength = _weaker(strength, measures, budget)
                continue
            if encoding.quality is not None and measures.progress is not None:
                whole = judge.mean_progress(cloaked) if whole is None else whole
            remarks = _remarks(original, path, encoding, strength, measures.progress, whole)
            fitted = Fitted(data, held.levels, measures, (*losses, *remarks), held, encoding)
            if whole is None or (measures.progress or 0) >= _ENOUGH * whole:
                return fitted
            if spare is None or (measures.progress or 0) > (spare.measures.progress or 0):
                spare = fitted
            break
    if spare is not None:
        return spare
    if rungs[-1].quality is None:
        raise BudgetError(f"{path}: the cloak breaks its budget even at half strength; try --intensity low")
    raise BudgetError(f"{path}: no {_name(path)} of this cloak keeps the budget; choose .png")


def keeps(measures: Measures, budget: Mapping[str, float | None]) -> bool:
    """Whether measures are inside a budget, but for rounding."""
    lpips, linf, ssimulacra2, dssim = (budget.get(name) for name in ("lpips", "linf", "ssimulacra2", "dssim"))
    return (
        (lpips is None or measures.lpips is None or measures.lpips <= lpips + _ROUNDING)
        and (linf is None or measures.linf <= linf + _ROUNDING)
        and (dssim is None or (1 - measures.ssim) / 2 <= dssim + _ROUNDING)
        and (ssimulacra2 is None or measures.ssimulacra2 >= ssimulacra2 - 100 * _ROUNDING)
    )


def _settled(
    original: Picture, cloaked: Levels, strength: float, path: Path, encoding: Encoding, linf: float | None
) -> tuple[bytes, Picture]:
    """A picture's file and what that holds, after pulling back what the encoder moved over `linf`."""
    before, bound = original.levels, None if linf is None else round(linf * 255)
    levels = cloaked if strength == 1 else _between(before, cloaked, strength)
    rounds = 1 if encoding.quality is None or bound is None else _ROUNDS
    for number in range(1, rounds + 1):
        data = picture.encode(original.with_levels(levels), path.suffix, encoding)
        read = picture.decode(data, path)
        decoded = read.levels
        if number == rounds or bound is None:
            break
        rows, columns = np.nonzero((np.abs(decoded.astype(np.int16) - before) > bound).any(axis=2))
        if not len(rows) or len(rows) > _HOPELESS * len(levels) * levels.shape[1]:
            break
        away = decoded[rows, columns].astype(int) - before[rows, columns]
        over = away - np.clip(away, -bound, bound)
        levels = levels.copy() if levels is cloaked else levels
        levels[rows, columns] = np.clip(np.rint(levels[rows, columns] - _PULL * over), 0, 255)
    return data, replace(original, levels=decoded, alpha=read.alpha, icc=read.icc, own=read.own)


def _between(before: Levels, cloaked: Levels, strength: float) -> Levels:
    change = cloaked.astype(np.float32) - before
    return np.asarray(np.rint(before + np.float32(strength) * change), np.uint8)


def _too_far(before: Levels, levels: Levels, budget: Mapping[str, float | None]) -> bool:
    """Whether one pixel alone breaks the budget, so that nothing else need be measured."""
    bound = budget.get("linf")
    return bound is not None and furthest(before, levels) > bound + _ROUNDING


def _weaker(strength: float, measures: Measures | None, budget: Mapping[str, float | None]) -> float:
    """A strength that may keep the budget: LPIPS and DSSIM go with its square, what SSIMULACRA2 lacks with itself."""
    factor = 0.97
    if measures is None:
        return strength * 0.93
    lpips, ssimulacra2, dssim = (budget.get(name) for name in ("lpips", "ssimulacra2", "dssim"))
    if lpips is not None and measures.lpips:
        factor = min(factor, (lpips / measures.lpips) ** 0.5)
    if dssim is not None and measures.ssim < 1:
        factor = min(factor, (dssim / ((1 - measures.ssim) / 2)) ** 0.5)
    if ssimulacra2 is not None and measures.ssimulacra2 < ssimulacra2:
        factor = min(factor, 1 - 1.2 * (ssimulacra2 - measures.ssimulacra2) / max(100 - measures.ssimulacra2, 1))
    return strength * max(factor, 0.5)


def _remarks(
    original: Picture, path: Path, encoding: Encoding, strength: float, progress: float | None, whole: float | None
) -> tuple[str, ...]:
    remarks = []
    source = original.source.encoding if original.source is not None else None
    if encoding.quality is not None:
        likened = ""
        if source is not None and source.tables is not None and _name(path) == "JPEG":
            better = f", better than the input's {source.quality}" if encoding.quality > (source.quality or 100) else ""
            likened = ", as the input" if encoding == source else better
        left = f"; {progress / whole:.0%} of the cloak's progress is left" if progress and whole and whole > 0 else ""
        remarks.append(
            f"{_name(path)} quality {encoding.quality}, {encoding.subsampling}{likened}{left}; .png keeps the cloak "
            "exactly"
        )
    elif _name(path) == "WebP" and original.source is not None and original.source.lossy:
        remarks.append("WebP without loss, as every lossy quality broke the budget or left too little of the cloak")
    if strength < 1:
        remarks.append(f"the cloak was weakened to {strength:.0%} to keep the budget in the file as saved")
    return tuple(remarks)


def _name(path: Path) -> str:
    kind = formats.FORMATS[path.suffix.lower()]
    return _NAMES.get(kind, kind)
