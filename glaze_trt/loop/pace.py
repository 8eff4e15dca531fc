"""How many steps an engine runs before somebody is told: as many as pass in a moment.

A GPU replays steps by the hundred, two at a time, as one captured graph; being asked for a number after each of them
would cost more than the steps. On a processor one step takes longer than a moment, and each is told of.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import engine

_MOMENT = 0.1
"""Seconds between two reports, about."""


def advance(session: engine.Session, count: int, told: Callable[[], None] | None) -> None:
    """Run `count` steps, and tell of them on the way.

    Args:
        session: what is advanced.
        count: steps.
        told: called after the last step, and between others whenever about a tenth of a second has passed; None runs
            all steps at once. What it raises ends the run there.
    """
    if told is None:
        session.advance(count)
        return
    end, length = session.steps + count, 1
    while session.steps < end:
        began = time.perf_counter()
        ran = 1 if session.steps % 2 else min(length, end - session.steps)  # captured graphs hold two steps
        session.advance(ran)
        took = (time.perf_counter() - began) / ran
        length = max(1, min(2 * length, int(_MOMENT / max(took, 1e-9))))
        told()
