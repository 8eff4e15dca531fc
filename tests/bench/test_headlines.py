"""The headlines' arithmetic."""

import pytest

pytest.importorskip("torch")

from bench.quality.headlines import Point, first_reaching, headline_a, headline_b  # noqa: E402
from bench.quality.measure import Measures  # noqa: E402


def point(steps: int, seconds: float, progress: float, ssimulacra2: float, total: float | None = None) -> Point:
    return Point(steps, seconds, total or seconds, Measures(progress, 0.05, 16, ssimulacra2))


REFERENCE = [point(100, 100.0, 0.30, 20.0), point(400, 400.0, 0.52, 5.0), point(500, 500.0, 0.50, -10.0)]


def test_a_takes_the_references_first_time_at_its_final_progress():
    ours = [point(10, 5.0, 0.40, 10.0), point(20, 10.0, 0.55, 0.0, total=16.0)]
    speed = headline_a(REFERENCE, ours)
    assert speed is not None
    assert (speed.reference.steps, speed.ours.steps) == (400, 20)
    assert speed.ratio == pytest.approx(40.0)
    assert speed.ratio == pytest.approx(speed.steps_factor * speed.step_factor)
    assert speed.ratio_total == pytest.approx(25.0)


def test_a_refuses_a_picture_that_looks_worse_than_the_references():
    assert headline_a(REFERENCE, [point(20, 10.0, 0.6, -11.0)]) is None


def test_b_keeps_the_floor_and_names_both_times():
    scaled = [point(5, 5.0, 0.12, 70.5), point(500, 500.0, 0.10, 70.2)]
    ours = [point(3, 2.0, 0.2, 69.9), point(5, 4.0, 0.15, 70.0), point(30, 20.0, 0.32, 71.0)]
    found = headline_b(scaled, ours, floor=70.0)
    assert found is not None
    assert found.progress_ratio == pytest.approx(3.2)
    assert found.speed is not None
    assert found.speed.ratio == pytest.approx(125.0)
    assert found.speed_earliest is not None
    assert found.speed_earliest.ratio == pytest.approx(1.25)
    assert headline_b(scaled, ours[:1], floor=70.0) is None


def test_the_quickest_of_the_fit_points_is_first():
    points = [point(30, 9.0, 0.5, 80.0), point(10, 3.0, 0.4, 80.0)]
    found = first_reaching(points, 0.4)
    assert found is not None
    assert found.seconds == 3.0
    assert first_reaching(points, 0.6) is None
