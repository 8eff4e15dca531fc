"""Systems at equal SSIMULACRA2: a change scaled, a curve read off, and the ratio of two. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.uint8]

LONGEST = 4.0
"""How far a change may be stretched."""

_ROUNDS = 9


@dataclass(frozen=True)
class Spot:
    """A picture on a curve: its SSIMULACRA2, and its progress, FLIP and LPIPS."""

    score: float
    progress: float
    flip: float
    lpips: float


UNCHANGED = Spot(100.0, 0.0, 0.0, 0.0)

Curves = Mapping[str, Mapping[float, Spot]]
"""By subject, and by the SSIMULACRA2 that was asked for."""


@dataclass(frozen=True)
class Versus:
    """Ours beside another system on the pictures that both have; means.

    Attributes:
        asked: the SSIMULACRA2 that ours had to keep; another limit may have stopped it above.
        pictures: how many.
        ours: what it made.
        theirs: the other at the SSIMULACRA2 that ours has, picture by picture.
        ratio: of the two progresses.
        theirs_at_asked: the other at the SSIMULACRA2 asked for.
        ratio_at_asked: of ours to that.
    """

    asked: float
    pictures: int
    ours: Spot
    theirs: Spot
    ratio: float
    theirs_at_asked: Spot
    ratio_at_asked: float


def scaled(before: Levels, after: Levels, holds: Callable[[Levels], bool]) -> list[Levels]:
    """A change, by bisection, with the largest multiple that holds and the next one that does not, both in 8 bits.

    Between the two lies a rounding, which a picture of large equal levels makes a wide step.

    Returns:
        Nothing where even `LONGEST` holds, so that no end was found.
    """
    start = before.astype(np.float32)
    change = after.astype(np.float32) - start

    def at(scale: float) -> Levels:
        return np.clip(np.rint(start + scale * change), 0, 255).astype(np.uint8)

    low, high = 0.0, 1.0
    while holds(at(high)):
        if high >= LONGEST:
            return []
        low, high = high, min(2 * high, LONGEST)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(at(middle)) else (low, middle)
    return [at(low), at(high)]


def read_off(spots: Sequence[Spot], score: float) -> Spot | None:
    """A curve at one SSIMULACRA2, on the line between its neighbours; the picture itself is at 100.

    Caps are whole 8-bit levels, so between two there is no picture of their kind, only mixtures of both.

    Returns:
        None below the lowest spot.
    """
    ordered = sorted([*spots, UNCHANGED], key=lambda spot: spot.score)
    scores = [spot.score for spot in ordered]
    if score < scores[0]:
        return None
    values = ([getattr(spot, name) for spot in ordered] for name in ("progress", "flip", "lpips"))
    return Spot(score, *(float(np.interp(score, scores, each)) for each in values))


def mean(curves: Curves, score: float) -> Spot | None:
    """Of all pictures at one SSIMULACRA2; None if one of them is not there, as a mean of the rest would flatter."""
    there = [curve[score] for curve in curves.values() if score in curve]
    return _mean(there) if there and len(there) == len(curves) else None


def versus(ours: Curves, theirs: Mapping[str, Sequence[Spot]], asked: float) -> Versus | None:
    """Ours beside another, whose spots are given by subject; None if no picture has both."""
    rows = []
    for name, spots in theirs.items():
        mine = ours.get(name, {}).get(asked)
        if mine is not None:
            rows.append((mine, read_off(spots, mine.score), read_off(spots, asked)))
    both = [(mine, equal, at) for mine, equal, at in rows if equal is not None and at is not None]
    if not both:
        return None
    mine, equal, at = (_mean(each) for each in zip(*both, strict=True))
    return Versus(asked, len(both), mine, equal, _ratio(mine, equal), at, _ratio(mine, at))


def best(tried: Mapping[float, Curves], scores: Sequence[float]) -> float:
    """The step size with the largest mean progress over several SSIMULACRA2; one that reaches none of them is last."""

    def worth(rate: float) -> float:
        found = [mean(tried[rate], score) for score in scores]
        return sum(spot.progress for spot in found if spot is not None)

    return max(tried, key=worth)


def _mean(spots: Sequence[Spot]) -> Spot:
    return Spot(*(float(np.mean([getattr(s, name) for s in spots])) for name in ("score", "progress", "flip", "lpips")))


def _ratio(ours: Spot, theirs: Spot) -> float:
    return ours.progress / theirs.progress if theirs.progress > 0 else float("inf")
