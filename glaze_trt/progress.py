"""The progress bar: steps, progress toward the target, LPIPS and the time left, on stderr, where a terminal is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from glaze_trt import console
from glaze_trt.result import StepInfo


class Bar:
    """One bar for one picture at a time; silent where stderr is not a terminal."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        """Show the bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away again."""
        self._progress.stop()

    def begin(self, name: str) -> None:
        """Start on a picture; nothing is known of its steps yet."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=None, state="preparing")

    def doing(self, what: str) -> None:
        """Say what goes on outside the steps."""
        if self._task is not None:
            self._progress.update(self._task, state=what)

    def building(self, phase: str, share: float) -> None:
        """Say how far an engine is; this is what a builder calls."""
        self.doing(f"{phase.lower()} {share:.0%}" if share else phase.lower())

    def say(self, line: str) -> None:
        """One line on stderr, above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def leave(self) -> None:
        """Take the bar away and end the process as interrupted; from another thread than the one that shows it."""
        self._progress.stop()
        console.leave()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while something is written to stdout."""
        self._progress.stop()
        yield
        self._progress.start()

    def on_step(self, info: StepInfo) -> None:
        """Move on; this is what the loop calls."""
        if self._task is not None:
            state = f"progress {info.progress:.2f}" + (f"  LPIPS {info.lpips:.3f}" if info.lpips is not None else "")
            self._progress.update(self._task, completed=info.step, total=info.steps, state=state)
