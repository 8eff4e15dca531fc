"""Ctrl-C, taken at the next safe place: compiled code is never left in the middle of a step.

An exception thrown into a running engine would free memory that the engine still writes to. So the first Ctrl-C is
only noted and said, and `check`, called between steps and stages, ends the run. A second one ends it at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """While it is open, Ctrl-C is noted; outside the main thread, and where none is open, all is as always."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Take what tells the person that it was heard."""
        self._say = say
        self._asked = False
        self._previous: Any = None

    def check(self) -> None:
        """End the run here if that was asked for.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed since the start.
        """
        if self._asked:
            raise KeyboardInterrupt

    def __enter__(self) -> Stop:
        """Take over Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._say("stopping at the next step; Ctrl-C again stops at once")
