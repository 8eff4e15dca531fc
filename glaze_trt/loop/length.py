"""How long a cloak may be: the largest multiple of a change δ that keeps the budget, and the one nearest the target.

The loop finds a direction under limits that stand for the budget. What a saved file really costs is measured here, by
whoever calls, at one length after another; nothing here knows networks or pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from glaze_trt.objective import Budget, visible_error

_MARGIN = 0.998
"""Kept of the LPIPS budget, for what two engines may differ by."""

_SCORE_MARGIN = 0.05
"""Kept of the SSIMULACRA2 budget, in points."""

_TRIES = 12
"""Of lengths; the first guesses usually land."""

_CLOSE = 1.01
"""A length is right where it could be this many times longer at most."""

LONGEST = 4.0
"""How far δ may be stretched where the budget was not used up, as few steps do: after three, a third of it is used."""

_SHORTER = 0.9
"""A multiple of δ is worth a try where its best is this much shorter than the budget allows."""


@dataclass(frozen=True)
class Costs:
    """What a person may see of a picture."""

    lpips: float
    ssimulacra2: float
    dssim: float = 0.0


def room(costs: Costs, budget: Budget) -> float:
    """How much longer δ may be; 1 is exactly at the budget.

    LPIPS and DSSIM grow about as the square of δ, SSIMULACRA2's error about as its power 1.5.
    """
    found = LONGEST
    if budget.lpips is not None and costs.lpips:
        found = min(found, (budget.lpips * _MARGIN / costs.lpips) ** 0.5)
    if budget.dssim is not None and costs.dssim > 0:
        found = min(found, (budget.dssim * _MARGIN / costs.dssim) ** 0.5)
    error = visible_error(costs.ssimulacra2)
    if budget.ssimulacra2 is not None and error > 0:
        found = min(found, (visible_error(budget.ssimulacra2 + _SCORE_MARGIN) / error) ** (1 / 1.5))
    return found


def longest(
    measure: Callable[[float], Costs], budget: Budget, scale: float, *, tries: int = _TRIES, limit: float = LONGEST
) -> tuple[float, Costs]:
    """The largest multiple of δ inside a budget, and what it costs.

    Args:
        measure: what the picture with that multiple of δ costs.
        budget: what it may cost.
        scale: where to begin to look.
        tries: how many are measured at most.
        limit: the largest multiple to be tried.

    Returns:
        0 and no costs where no length keeps the budget.
    """
    kept, costs = 0.0, Costs(lpips=0.0, ssimulacra2=100.0)
    broken = 1.01 * limit
    before: tuple[float, float] | None = None
    for _ in range(tries):
        tried = measure(scale)
        left = room(tried, budget)
        if left >= 1.0:
            kept, costs = scale, tried
            if left < _CLOSE or scale >= limit:
                break
        else:
            broken = scale
        if broken - kept < 0.01 * broken:
            break
        slope = 1.0 if before is None else _slope(before, (scale, left))
        before = (scale, left)
        guess = min(scale * (left / _CLOSE**0.5) ** (1 / slope), limit)
        scale = guess if kept < guess < broken else 0.5 * (kept + broken)
    return kept, costs


def nearest(start: float, at_one: float, end: float, scale: float) -> float | None:
    """The multiple of δ at which the target is nearest, if it is well short of `scale`.

    Along δ the squared distance to the target is about a parabola, known at 0, at 1 and at `scale`.
    """
    bend = ((end - start) / scale - (at_one - start)) / (scale - 1)
    best = 0.5 * (1 - (at_one - start) / bend) if bend > 0 else scale
    return best if best < _SHORTER * scale else None


def _slope(before: tuple[float, float], now: tuple[float, float]) -> float:
    """How fast the room went with the length from one try to the next, in logarithms; 1 is as `room` supposes."""
    length, left = (np.log(b / a) for a, b in zip(before, now, strict=True))
    return float(np.clip(-left / length, 0.5, 2.0)) if length else 1.0
