"""Which systems are compared, as plain data: an objective, its encoders, and what it moves a picture toward.

Ours under its budgets, plain sign descent, the published presets, several encoders, and cloaks made to last. Nothing is
run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from glaze_trt.objective import INTENSITIES, Budget, Features, Objective, Update
from glaze_trt.presets import PRESETS

Toward = Literal["target", "people", "text", "none"]
"""The subject's target, several other people's faces, a high-contrast text pattern, or nothing."""


@dataclass(frozen=True)
class System:
    """One way to cloak.

    Attributes:
        name: for a person.
        objective: its settings.
        models: encoders that it moves, by name or path.
        toward: what it moves them to.
        faces: whether its encoders are face embeddings.
    """

    name: str
    objective: Objective
    models: tuple[str, ...]
    toward: Toward = "target"
    faces: bool = False


LINES = (40.0, 50.0, 70.0, 80.0, 85.0)
"""SSIMULACRA2 at which the limits below hold; those of 50, 70 and 80 are the intensities'."""

_LPIPS = (0.125, 0.1, 0.05, 0.03, 0.02)
_LEVELS = (24.0, 24.0, 16.0, 10.0, 10.0)


def ours(models: Sequence[str], intensity: str = "default", steps: int = Objective.steps) -> System:
    """This package's own, by intensity."""
    name = "glaze" if intensity == "default" else f"glaze {intensity}"
    return System(name, Objective(budget=INTENSITIES[intensity], steps=steps), tuple(models))


def ours_at(score: float, models: Sequence[str], steps: int = Objective.steps, *, lpips: bool = True) -> System:
    """This package's own with SSIMULACRA2 ≥ `score`, and the other limits between those of the intensities.

    Args:
        score: SSIMULACRA2.
        models: as in `System`.
        steps: how many.
        lpips: whether LPIPS is limited too.
    """
    budget = Budget(
        lpips=float(np.interp(score, LINES, _LPIPS)) if lpips else None,
        linf=int(np.interp(score, LINES, _LEVELS)) / 255,
        ssimulacra2=float(score),
    )
    return System(f"glaze at {score:g}", Objective(budget=budget, steps=steps), tuple(models))


def sign_descent(levels: int, rate: float, models: Sequence[str], steps: int = Objective.steps) -> System:
    """Plain L∞ descent on the same distance: steps of the gradient's sign that shrink on a line, the last δ as it is.

    Args:
        levels: the cap, of 255.
        rate: the first step, as a part of the cap.
        models: as in `System`.
        steps: how many.
    """
    objective = Objective(
        name="sign descent",
        budget=Budget(lpips=None, linf=levels / 255, ssimulacra2=None),
        features=Features(),
        constraints=(),
        steps=steps,
        update=Update("sign", rate=rate, schedule="line"),
        finish="last",
    )
    return System(f"sign descent, rate {rate:g}, L∞ {levels}", objective, tuple(models))


def published(name: str, models: Sequence[str], most_steps: int | None = None) -> System:
    """A preset as it was published.

    Args:
        name: a key of `PRESETS`.
        models: as in `System`.
        most_steps: cut to this many, for a quick look.
    """
    preset = PRESETS[name]
    objective = preset.objective
    if most_steps is not None:
        objective = replace(objective, steps=min(objective.steps, most_steps))
    toward: Toward = "target"
    if objective.features.direction in ("away", "zero"):
        toward = "none"
    elif preset.target == "text":
        toward = "text"
    elif name == "foggysight":
        toward = "people"
    return System(name, objective, tuple(models), toward, preset.faces)


def lasting(robust: Sequence[str], models: Sequence[str], steps: int = Objective.steps) -> System:
    """This package's default, made to outlast transformations."""
    plain = ours(models, steps=steps)
    if not robust:
        return plain
    return replace(plain, name=f"--robust {','.join(robust)}", objective=plain.objective.with_views(tuple(robust)))
