from __future__ import annotations

import math

import pytest

from glaze_trt.report.chart import chart


@pytest.mark.parametrize(
    "values",
    [
        [(1, 0.0), (40, 0.45)],
        [(1, 0.0), (2, 0.0)],
        [(1, -0.3), (2, 0.2), (3, math.nan), (4, 0.1)],
        [(n, 1e-5 * n) for n in range(1, 2000)],
        [(5, 1.0), (6, 250.0)],
    ],
)
@pytest.mark.parametrize("limit", [None, 0.05])
def test_a_curve_stays_inside_and_its_ticks_are_few_and_differ(
    values: list[tuple[float, float]], limit: float | None
) -> None:
    made = chart("Progress", values, limit=limit)
    assert made is not None
    points = [tuple(map(float, point.split(","))) for point in made.points.split()]
    assert 2 <= len(points) <= 241
    assert all(made.left <= x <= made.right and made.top <= y <= made.bottom for x, y in points)
    assert points[-1] == made.end
    assert made.end[0] == made.right
    for ticks in (made.rows, made.columns):
        assert 2 <= len(ticks) <= 6
        assert len({tick.text for tick in ticks}) == len(ticks)
    assert (made.limit is None) == (limit is None)
    assert made.limit is None or made.top <= made.limit.at <= made.bottom


@pytest.mark.parametrize("values", [[], [(1, 0.5)], [(1, math.nan), (2, 0.3)], [(3, 0.1), (3, 0.2)]])
def test_no_curve_without_two_points(values: list[tuple[float, float]]) -> None:
    assert chart("Progress", values) is None
