"""The geometry of a small line chart: where its curve, ticks and limit lie. What draws it is the page's template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MOST_POINTS = 240

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Of a scale, times powers of ten."""


@dataclass(frozen=True)
class Tick:
    """A place along an axis, in the chart's units, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """One curve over steps, drawn in a box of `width` by `height`; `left` to `bottom` bound its inside."""

    name: str
    remark: str
    summary: str
    points: str
    end: tuple[float, float]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    limit: Tick | None
    width: int = 440
    height: int = 220
    left: int = 48
    right: int = 430
    top: int = 14
    bottom: int = 186


def chart(
    name: str, values: Sequence[tuple[float, float]], form: str = "{:.2f}", limit: float | None = None
) -> Chart | None:
    """Lay out a curve; None where there are not two points.

    Args:
        name: of what is measured.
        values: (step, value), in the order of the steps.
        form: how a value is written.
        limit: a value that was not to be passed; drawn as a line.
    """
    known = [(float(step), float(value)) for step, value in values if math.isfinite(value)]
    if len(known) < 2 or known[0][0] == known[-1][0]:
        return None
    found = [value for _, value in known] + ([] if limit is None else [limit])
    across = _scale(min(known[0][0], 0.0), known[-1][0], 6, whole=True)
    up = _scale(min(0.0, *found), max(found) * 1.05 or 1.0, 5)
    size = Chart("", "", "", "", (0, 0), (), (), None)

    def x(step: float) -> float:
        share = (step - across[0]) / (known[-1][0] - across[0])
        return round(size.left + share * (size.right - size.left), 1)

    def y(value: float) -> float:
        share = (value - up[0]) / (up[-1] - up[0])
        return round(size.bottom - share * (size.bottom - size.top), 1)

    every = -(-len(known) // _MOST_POINTS)
    drawn = known[::every] if (len(known) - 1) % every == 0 else [*known[::every], known[-1]]
    first, last = known[0][1], known[-1][1]
    digits = max(0, -math.floor(math.log10(up[1] - up[0]) + 1e-9))
    digits += (round((up[1] - up[0]) * 10**digits, 6) % 1) != 0  # 0.25 needs one more than 0.2
    told = f"{form.format(first)} to {form.format(last)} in {known[-1][0]:.0f} steps"
    return Chart(
        name,
        told,
        f"{name} over the steps: from {told}" + ("" if limit is None else f"; the limit is {limit:.3g}"),
        " ".join(f"{x(step):g},{y(value):g}" for step, value in drawn),
        (x(known[-1][0]), y(last)),
        tuple(Tick(y(value), f"{value:.{digits}f}") for value in up),
        tuple(Tick(x(step), f"{step:.0f}") for step in across if step <= known[-1][0]),
        None if limit is None else Tick(y(limit), f"limit {limit:.3g}"),
    )


def _scale(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """Round values, `most` at most, from one not above `low` to one not below `high`."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / most))
    steps = [power * each for each in (*_STEPS, 20.0)]
    fitting = (
        step
        for step in steps
        if (not whole or step >= 1 and step % 1 == 0)
        and math.ceil(high / step - 1e-9) - math.floor(low / step + 1e-9) < most
    )
    step = next(fitting, steps[-1])
    return [i * step for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]
