"""The pace of reports, on a session whose program counts what it is asked for."""

from __future__ import annotations

import time

import numpy as np
import pytest

from engine.runtime import Session
from glaze_trt.loop import pace
from tests.engine.stand_in_driver import HalvingProgram, StandInDriver


def opened(driver: StandInDriver) -> Session:
    zeros = {"x": np.zeros((2, 3), np.float32), "n": np.zeros((), np.float32)}
    return Session(HalvingProgram(driver), {"x_next": "x", "n_next": "n"}, {"gain": np.ones((2, 3), np.float32)}, zeros)


def told_of(session: Session, count: int) -> list[int]:
    told: list[int] = []
    pace.advance(session, count, lambda: told.append(session.steps))
    return told


def test_fast_steps_are_replayed_although_somebody_is_told() -> None:
    driver = StandInDriver()
    session = opened(driver)
    told = told_of(session, 41)
    assert told[0] == 1
    assert told[-1] == session.steps == 41
    assert len(told) < 20
    assert session.read("n") == 41
    assert driver.calls.count("launch") >= 15
    start = driver.calls.count("launch")
    told_of(session, 19)
    assert driver.calls.count("launch") - start >= 5  # odd beginnings find back to whole turns
    assert session.steps == 60


def test_slow_steps_are_told_of_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(StandInDriver())
    run = session.advance

    def slowly(n: int = 1) -> None:
        time.sleep(0.12 * n)
        run(n)

    monkeypatch.setattr(session, "advance", slowly)
    assert told_of(session, 3) == [1, 2, 3]


def test_nobody_told_is_one_run_and_an_error_ends_it() -> None:
    driver = StandInDriver()
    session = opened(driver)
    pace.advance(session, 40, None)
    assert driver.calls.count("launch") == 19

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pace.advance(session, 40, stop)
    assert session.steps == 41
