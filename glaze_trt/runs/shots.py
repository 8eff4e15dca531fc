"""What passes from stage to stage: a picture made ready, one that has been through the loop, one that is finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glaze_trt.graph.sight import Box
from glaze_trt.network import Network
from glaze_trt.pictures.picture import Picture
from glaze_trt.result import Levels
from glaze_trt.runs.identity import Identity
from glaze_trt.runs.parts import Part
from glaze_trt.runs.plan import Job
from glaze_trt.targets import Target

if TYPE_CHECKING:
    from glaze_trt.report.html_report import Entry


@dataclass(frozen=True)
class Shot:
    """A picture, or one frame of several, that is ready for the loop.

    Attributes:
        job: where it comes from and goes.
        source: the picture.
        mask: (H, W) in [0,1], where it may change; None for all of it.
        boxes: what extractors of one fixed size look at.
        target: what it is moved toward.
        number: of the frame, from 0.
        count: of frames.
        identity: of its file; None where nobody asked.
        seconds: that this took.
    """

    job: Job
    source: Picture
    mask: NDArray[np.float32] | None
    boxes: tuple[Box, ...]
    target: Target
    number: int
    count: int
    identity: Identity | None
    seconds: float

    @property
    def last(self) -> bool:
        """Whether no frame of its file comes after it."""
        return self.number == self.count - 1


@dataclass(frozen=True)
class Moved:
    """A shot that has been through the loop: its levels, (H, W, 3) uint8, the loop's report, and who looked at it."""

    shot: Shot
    levels: Levels
    report: Mapping[str, Any]
    curve: list[dict[str, Any]]
    encoders: tuple[Network, ...]


@dataclass(frozen=True)
class Finished:
    """A picture whose result files are whole.

    Attributes:
        job: where it comes from and goes.
        made: its report.
        files: the cloaked picture, and then the contact sheet where one is wanted.
        identity: of the file it was made from; None where nobody asked.
        entry: what a page shows of it; None where there is no page.
    """

    job: Job
    made: dict[str, Any]
    files: tuple[Part, ...]
    identity: Identity | None
    entry: Entry | None
