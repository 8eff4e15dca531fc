"""Stages side by side, with work that only waits: what is behind the loop is finished, however often one is asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from glaze_trt.runs.pipeline import Failure, Pipeline
from glaze_trt.runs.plan import Job
from glaze_trt.runs.shots import Finished, Moved, Shot


class Slow:
    """Work whose last stage takes its time; shots stand for themselves."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.delivered: list[str] = []

    def pixels(self, job: Job) -> int:
        return 1

    def prepare(self, job: Job) -> Iterator[Shot]:
        yield Shot(job, cast(Any, None), None, (), cast(Any, None), 0, 1, None, 0.0)

    def optimise(self, shot: Shot) -> Moved:
        return Moved(shot, cast(Any, None), {}, [], ())

    def finish(self, moved: Moved) -> Finished:
        self.begun.set()
        time.sleep(0.6)
        return Finished(moved.shot.job, {}, (), None, None)

    def drop(self, job: Job) -> None:
        """Nothing is kept."""

    def deliver(self, result: Finished | Failure) -> None:
        self.delivered.append(result.job.name)


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_while_the_last_picture_is_finished_waits_for_it(times: int) -> None:
    """Left alone, its thread would abort the process at its end (`Thread.join` of Python before 3.13)."""
    work, over = Slow(), threading.Event()

    def interrupt() -> None:
        work.begun.wait(10)
        for _ in range(times):
            time.sleep(0.1)
            if not over.is_set():
                os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            Pipeline(work).run([Job(Path("a.png"), Path("out.png"), name="a")])
    finally:
        over.set()
    assert work.delivered == ["a"]
