"""Progress against SSIMULACRA2: ours at each, plain sign descent by its cap, and published cloaks scaled to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.systems import equal
from bench.systems.equal import Curves, Spot, Versus
from bench.systems.subject import Subject
from bench.systems.system import System, ours_at, sign_descent
from bench.systems.work import Row, Work

CAPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32)
"""L∞ of sign descent, in 8-bit levels."""

OURS, FREE, SIGN = "glaze", "glaze, LPIPS not limited", "sign descent"

Spots = Mapping[str, Sequence[Spot]]
"""By subject."""


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        scores: SSIMULACRA2 of the curve.
        compared: those of them at which ours is held against the others.
        models: encoders.
        steps: of ours and of sign descent.
        rates: step sizes that are tried for sign descent, as parts of its cap.
        tuned_on: the first so many pictures, on which the best is found.
        free: whether ours is also run with no limit of LPIPS, as the others have none, at the scores compared.
    """

    scores: tuple[float, ...]
    compared: tuple[float, ...]
    models: tuple[str, ...]
    steps: int
    rates: tuple[float, ...]
    tuned_on: int
    free: bool


@dataclass(frozen=True)
class Found:
    """The curves by system, the step size chosen for sign descent, and what each tried one reached.

    Attributes:
        curves: by system.
        rate: chosen.
        tried: by step size, the mean progress at each score compared, or None.
        versus: by our curve and the other system, where both mean the same by progress.
    """

    curves: Mapping[str, Curves]
    rate: float
    tried: Mapping[float, Sequence[float | None]]
    versus: Mapping[tuple[str, str], Sequence[Versus]]


def measured(
    work: Work, plan: Plan, subjects: Sequence[Subject], others: Sequence[tuple[System, Sequence[Subject]]]
) -> Found:
    """All curves.

    Args:
        work: where cloaks are made and kept.
        plan: what is asked for.
        subjects: for ours and sign descent.
        others: published systems, each with its subjects. One that moves toward a text is given the subject's target
            instead, so that all mean the same by progress.
    """
    mine = {OURS: _ours(work, plan, subjects, plan.scores, lpips=True)}
    if plan.free:
        mine[FREE] = _ours(work, plan, subjects, plan.compared, lpips=False)
    tuning = subjects[: plan.tuned_on]
    tried = {rate: _curves(_sign(work, plan, rate, tuning), plan) for rate in plan.rates}
    rate = equal.best(tried, plan.compared)
    theirs = {SIGN: _sign(work, plan, rate, subjects)}
    elsewhere = []
    for system, several in others:
        aimed = replace(system, toward="target") if system.toward == "text" else system
        theirs[system.name] = _scaled(work, plan, aimed, several)
        elsewhere += [system.name] if system.objective.features.direction != "toward" else []
    return Found(
        mine | {name: _curves(spots, plan) for name, spots in theirs.items()},
        rate,
        {each: [_progress(equal.mean(found, score)) for score in plan.compared] for each, found in tried.items()},
        {
            (own, name): [v for score in plan.compared if (v := equal.versus(mine[own], spots, score)) is not None]
            for own in mine
            for name, spots in theirs.items()
            if name not in elsewhere
        },
    )


def _ours(work: Work, plan: Plan, subjects: Sequence[Subject], scores: Sequence[float], *, lpips: bool) -> Curves:
    found: dict[str, dict[float, Spot]] = {subject.name: {} for subject in subjects}
    for score in scores:
        system = ours_at(score, plan.models, plan.steps, lpips=lpips)
        for subject in subjects:
            found[subject.name][score] = _spot(work.cloaked(system, subject))
    return found


def _sign(work: Work, plan: Plan, rate: float, subjects: Sequence[Subject]) -> Spots:
    """Caps grow until every picture is below the lowest score."""
    spots: dict[str, list[Spot]] = {subject.name: [] for subject in subjects}
    lowest = min(plan.scores)
    for cap in CAPS:
        for subject in subjects:
            mine = spots[subject.name]
            if not mine or mine[-1].score > lowest:
                mine.append(_spot(work.cloaked(sign_descent(cap, rate, plan.models, plan.steps), subject)))
    return spots


def _scaled(work: Work, plan: Plan, system: System, subjects: Sequence[Subject]) -> Spots:
    """Every cloak as it is, and its change scaled to every score."""
    found = {}
    for subject in subjects:
        rows = [work.cloaked(system, subject)]
        for score in plan.scores:
            rows += work.around(score, system, subject)
        found[subject.name] = [_spot(row) for row in rows]
    return found


def _curves(spots: Spots, plan: Plan) -> Curves:
    return {
        name: {score: spot for score in plan.scores if (spot := equal.read_off(mine, score)) is not None}
        for name, mine in spots.items()
    }


def _spot(row: Row) -> Spot:
    return Spot(row["ssimulacra2"], row["progress"], row["flip"], row["lpips"])


def _progress(spot: Spot | None) -> float | None:
    return None if spot is None else spot.progress
