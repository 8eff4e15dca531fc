"""What a cloak optimises, as plain data: the perceptual budget, the terms and the update. No graph is built here.

    min over δ   ‖Φ(x+δ) − Φ(Ω(x))‖²   with   LPIPS ≤ p,  SSIMULACRA2 ≥ q,  |δ| ≤ c,  x+δ in [0,1]

The objective is Glaze's (Shan et al., USENIX Security 2023). LPIPS alone is gamed by an optimizer, so two more
limits stand beside it; `glaze_trt.terms` says how each is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from glaze_trt.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """What a cloak may cost, measured on the saved 8-bit picture.

    Attributes:
        lpips: LPIPS at most, by the perceptual net in use; None for no limit.
        linf: the largest change of a channel of a pixel, in [0,1].
        ssimulacra2: SSIMULACRA2 at least (90, 70, 50 and 30 are about JPEG 95, 65, 30 and 15); None for no limit.
    """

    lpips: float | None = 0.05
    linf: float = 16 / 255
    ssimulacra2: float | None = 70.0

    def __post_init__(self) -> None:
        if not 0 < self.linf <= 1:
            raise UsageError(f"linf is in units of [0,1] and must lie in (0, 1]; got {self.linf}")
        if self.lpips is not None and self.lpips <= 0:
            raise UsageError(f"lpips must be positive; got {self.lpips}")
        if self.ssimulacra2 is not None and not self.ssimulacra2 < 100:
            raise UsageError(f"ssimulacra2 must be below 100, which is an unchanged picture; got {self.ssimulacra2}")


INTENSITIES: Mapping[str, Budget] = {
    "low": Budget(lpips=0.03, linf=10 / 255, ssimulacra2=80.0),
    "default": Budget(),
    "high": Budget(lpips=0.1, linf=24 / 255, ssimulacra2=50.0),
}


@dataclass(frozen=True)
class Update:
    """The step: gradients divided by their RMS and weighed, preconditioned, with momentum.

    Attributes:
        rate: first step, as a part of the budget's `linf`; it falls to zero along a cosine.
        momentum: β of m ← β·m + u.
        memory: β of v ← β·v + (1−β)·g².
        damping: ε of u = g / (√v + ε), where g has unit RMS.
        gain: how fast a constraint's weight follows its violation: λ ← λ + gain·(value/limit − 1).
        ceiling: the largest weight of a constraint; the features' weight is 1.
    """

    rate: float = 0.1
    momentum: float = 0.6
    memory: float = 0.9
    damping: float = 0.3
    gain: float = 0.3
    ceiling: float = 6.0


@dataclass(frozen=True)
class Objective:
    """A budget, the terms that stand for it in the graph, and the update.

    Attributes:
        budget: the promise.
        structure: limit of the structural term (see `terms.structure`) at SSIMULACRA2 = 70; None leaves it out.
        steps: how many.
        update: how each step is made.
    """

    budget: Budget = field(default_factory=Budget)
    structure: float | None = 0.08
    steps: int = 40
    update: Update = field(default_factory=Update)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1; got {self.steps}")


_POWER = 0.6276336467831387
"""Of SSIMULACRA2's last map: score = 100 − 10·error^power."""


def visible_error(score: float) -> float:
    """SSIMULACRA2's own error behind a score: 5.8 at 70, 0 at 100."""
    return float(max(0.0, (100.0 - score) / 10.0) ** (1 / _POWER))


def visible_score(error: float) -> float:
    """The score of an error: the inverse of `visible_error`."""
    return float(100.0 - 10.0 * max(0.0, error) ** _POWER)
