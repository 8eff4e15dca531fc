"""The two headline numbers, each with its factors, from judged curves. Pure arithmetic: nothing is run or read here.

A: the reference's time to its final progress over ours to the same progress, at no lower SSIMULACRA2 than its own.
B: both at SSIMULACRA2 ≥ 70 (the reference's change scaled down until it holds): progress reached, and the reference's
   time over our time to what it ends with there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.quality.measure import Measures


@dataclass(frozen=True)
class Point:
    """A judged picture on a curve."""

    steps: int
    seconds: float
    total: float
    measures: Measures
    scale: float = 1.0


@dataclass(frozen=True)
class SpeedUp:
    """Times to one progress, and the ratio as (steps factor) × (seconds-a-step factor).

    Attributes:
        goal: the progress both reach.
        reference: the reference's point.
        ours: our first point at or beyond the goal.
        ratio: seconds of the loops.
        ratio_total: the same with our loading, compiling and verifying counted, and nothing of the kind for theirs.
        steps_factor: their steps over ours.
        step_factor: their seconds a step over ours.
    """

    goal: float
    reference: Point
    ours: Point
    ratio: float
    ratio_total: float
    steps_factor: float
    step_factor: float


@dataclass(frozen=True)
class HeadlineB:
    """What each reaches at the visual floor, and the time to what the reference ends with there.

    Attributes:
        reference: the reference's last iterate, scaled down.
        ours: our best point on or above the floor.
        progress_ratio: ours over theirs.
        speed: times, the reference's being that of its whole run, as it is published.
        speed_earliest: the same with the reference stopped as soon as a scaled iterate is as good as its last.
    """

    reference: Point
    ours: Point
    progress_ratio: float
    speed: SpeedUp | None
    speed_earliest: SpeedUp | None


def first_reaching(
    points: Sequence[Point], goal: float, floor: float = -math.inf, lpips: float = math.inf
) -> Point | None:
    """The quickest point with at least this progress and SSIMULACRA2, and at most this LPIPS."""
    kept = [p for p in points if p.measures.ssimulacra2 >= floor and p.measures.lpips <= lpips]
    fit = [p for p in kept if p.measures.progress >= goal]
    return min(fit, key=lambda p: p.seconds, default=None)


def headline_a(reference: Sequence[Point], ours: Sequence[Point], lpips: float = math.inf) -> SpeedUp | None:
    """Headline A, or None if we never reach the reference's final progress at its SSIMULACRA2 and under `lpips`."""
    last = reference[-1]
    theirs = first_reaching(reference, last.measures.progress)
    mine = first_reaching(ours, last.measures.progress, last.measures.ssimulacra2, lpips)
    return None if theirs is None or mine is None else _speed_up(last.measures.progress, theirs, mine)


def headline_b(scaled: Sequence[Point], ours: Sequence[Point], floor: float) -> HeadlineB | None:
    """Headline B from the reference's scaled points and ours, or None where we have no point above the floor."""
    fit = [p for p in ours if p.measures.ssimulacra2 >= floor]
    if not fit or not scaled:
        return None
    last, best = scaled[-1], max(fit, key=lambda p: p.measures.progress)
    goal = last.measures.progress
    mine, early = first_reaching(fit, goal), first_reaching(scaled, goal)
    return HeadlineB(
        last,
        best,
        best.measures.progress / goal if goal > 0 else float("inf"),
        None if mine is None else _speed_up(goal, last, mine),
        None if mine is None or early is None else _speed_up(goal, early, mine),
    )


def _speed_up(goal: float, theirs: Point, mine: Point) -> SpeedUp:
    return SpeedUp(
        goal,
        theirs,
        mine,
        theirs.seconds / mine.seconds,
        theirs.seconds / mine.total,
        theirs.steps / mine.steps,
        (theirs.seconds / theirs.steps) / (mine.seconds / mine.steps),
    )
