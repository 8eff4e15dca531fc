"""The progress bar, on stderr where a terminal is.

One picture     steps, progress toward the target, LPIPS and the time left
Many            one bar for all: pictures done, how many a minute, the time left, and where the one in the loop stands
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from glaze_trt.result import StepInfo
from glaze_trt.terminal import console


class Bar:
    """One bar, of one picture's steps or of many pictures; silent where stderr is not a terminal."""

    def __init__(self, pictures: int | None = None) -> None:
        """Take the number of pictures; None for one at a time, whose steps are shown."""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TextColumn("{task.fields[state]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._pictures, self._ended, self._failed, self._done = pictures, 0, 0, 0.0
        self._name, self._began = "", time.monotonic()
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        """Show the bar."""
        self._progress.start()
        if self._pictures is not None:
            self.expect(self._pictures)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away again."""
        self._progress.stop()

    def begin(self, name: str) -> None:
        """Start on a picture; nothing is known of its steps yet."""
        self._name = console.shown(name)
        if self._pictures is None:
            self._start(self._name, None, "")
        else:
            self.doing("preparing")

    def expect(self, pictures: int) -> None:
        """So many pictures are to be done from now on; of no account where it is one, whose steps are shown."""
        if self._pictures is not None:
            self._pictures, self._ended, self._failed, self._done = pictures, 0, 0, 0.0
            self._start("pictures", pictures, f"0/{pictures}")

    def end(self, *, failed: bool = False) -> None:
        """One of many pictures is done, or has failed, which mostly takes no time."""
        self._ended += 1
        self._failed += failed
        self._show_many(0.0)

    def doing(self, what: str) -> None:
        """Say what goes on outside the steps."""
        if self._task is not None:
            state = what if self._pictures is None else f"{self._name}: {what}"
            self._progress.update(self._task, state=state)

    def building(self, phase: str, share: float) -> None:
        """Say how far an engine is; this is what a builder calls."""
        self.doing(f"{phase.lower()} {share:.0%}" if share else phase.lower())

    def say(self, line: str) -> None:
        """One line on stderr, above the bar."""
        self._progress.console.print(console.shown(line), markup=False, highlight=False, soft_wrap=True)

    def leave(self) -> None:
        """Take the bar away and end the process as interrupted; from another thread than the one that shows it."""
        self._progress.stop()
        console.leave()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while something is written to stdout."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def on_step(self, info: StepInfo) -> None:
        """Move on; this is what the loop calls."""
        if self._task is None:
            return
        if self._pictures is not None:
            self.doing(f"{info.step}/{info.steps}")
            self._show_many(info.step / max(info.steps, 1))
            return
        state = f"progress {info.progress:.2f}" + (f"  LPIPS {info.lpips:.3f}" if info.lpips is not None else "")
        count, left = f"{info.step}/{info.steps}", _left(info.step, info.steps, time.monotonic() - self._began)
        self._progress.update(self._task, completed=info.step, total=info.steps, count=count, state=state, left=left)
        if info.step <= 1:
            self._began = time.monotonic()  # what came before were no steps

    def _start(self, name: str, total: int | None, count: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=total, state="preparing", count=count, left="")
        self._began = time.monotonic()

    def _show_many(self, share: float) -> None:
        """Of many pictures, `share` of the one in the loop is done."""
        if self._task is None or self._pictures is None:
            return
        # one that is behind the loop is not forgotten while the next is in it
        self._done = max(self._done, self._ended + share)
        done, took = min(self._done, self._pictures), time.monotonic() - self._began
        cloaked = self._ended - self._failed
        rate = f"  {console.per_minute(cloaked, took)} a minute" if cloaked and took > 0 else ""
        self._progress.update(
            self._task,
            completed=done,
            count=f"{self._ended}/{self._pictures}{rate}",
            left=_left(done - self._failed, self._pictures - self._failed, took),
        )


def _left(done: float, total: float, seconds: float) -> str:
    """The time left, as 0:01:30."""
    if done <= 0 or seconds <= 0:
        return ""
    return str(timedelta(seconds=round(max(0.0, total - done) * seconds / done)))
