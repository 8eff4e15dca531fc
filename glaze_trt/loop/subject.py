"""What is cloaked and what runs for it, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import engine
from glaze_trt.graph.sight import Box
from glaze_trt.network import Network
from glaze_trt.result import Levels, StepInfo

Array = NDArray[np.float32]
OnStep = Callable[[StepInfo], None]
Seed = int | Sequence[int]


@dataclass(frozen=True)
class Engines:
    """What runs for pictures of one size.

    Attributes:
        encoders: in fp32.
        perceptual: in fp32.
        constants: what `graph.step.look` computes of a picture once; None where the objective needs nothing of it.
        step: the step.
        grown: a picture as (1, 3, H', W') in [0,1], mirrored at the right and bottom to what all networks take.
        weights: how much each encoder counts, 1 in all; alike if none are given.
        window: the part of the picture that the step's constraints measure (x, y, width, height); None for all of it.
    """

    encoders: tuple[Network, ...]
    perceptual: Network
    constants: engine.Program | None
    step: engine.Program
    grown: Callable[[Levels], Array]
    weights: tuple[float, ...] = ()
    window: Box | None = None


@dataclass(frozen=True)
class Subject:
    """What is cloaked.

    Attributes:
        original: the picture, (H, W, 3) uint8.
        targets: pictures whose features, or their mean, are moved toward; none for other directions. Of the same size,
            unless the extractors take one fixed size.
        mask: (H, W) in [0,1], how much of the cap each pixel may use; None for all of it.
        given: a δ to begin with, beside the noise; (H, W, 3).
        hold: puts back into a (H, W, 3) δ what of it must stay; asked every few steps.
        score: SSIMULACRA2 of the larger picture that this one is a reduction of, with this one's (H, W, 3) δ.
        aligned: whether targets show what the picture shows in the same places, as styles made of it do: an extractor
            that looks at a box of the picture then looks at that box of them too.
        close: targets as extractors of one fixed size see them, of any size; none where all see the same.
    """

    original: Levels
    targets: tuple[Levels, ...] = ()
    mask: Array | None = None
    given: Array | None = None
    hold: Callable[[Array], Array] | None = None
    score: Callable[[Array], float] | None = None
    aligned: bool = False
    close: tuple[Levels, ...] = ()

    def seen_by(self, net: Network) -> tuple[Levels, ...]:
        """The targets of an extractor."""
        return self.close if self.close and net.model.manifest.size is not None else self.targets
