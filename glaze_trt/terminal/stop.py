"""Ctrl-C, taken at the next safe place: compiled code is never left in the middle of a step.

An exception thrown into a running engine would free memory that the engine still writes to. So the first Ctrl-C is
only noted and said, and whoever owns the run looks: `check`, called between steps and stages, ends it there, and a run
of many pictures reads `asked` between two of them. A second one ends it at once.

A builder of engines may be in its own code for minutes, in which Python takes no signal. So a thread listens too: it
answers at once, and where a builder does not return within a moment, it ends the process. Lost by that are the engine
in the making and a document that `--json` had yet to print. No file is written while a builder works: none is cut off.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

PATIENCE = 1.0
"""Seconds that a builder gets to return by itself."""


class Stop:
    """While it is open, Ctrl-C is noted; outside the main thread, and where none is open, all is as always."""

    def __init__(
        self, say: Callable[[str], None], leave: Callable[[], None], first: str = "stopping at the next step"
    ) -> None:
        """Take what a person and the process are told.

        Args:
            say: tells the person that it was heard.
            leave: called in another thread, with the builder still busy: ends the process, and does not return.
            first: what the first Ctrl-C will do, in words.
        """
        self._say, self._leave, self._first = say, leave, first
        self._asked = 0
        self._building = False
        self._closed = threading.Event()
        self._previous: Any = None
        self._listener: _Listener | None = None

    @property
    def asked(self) -> bool:
        """Whether Ctrl-C was pressed since the start."""
        return self._asked > 0

    @property
    def hurried(self) -> bool:
        """Whether it was pressed again."""
        return self._asked > 1

    def check(self) -> None:
        """End the run here if that was asked for.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed since the start.
        """
        self.idle()
        if self._asked:
            raise KeyboardInterrupt

    def idle(self) -> None:
        """Note that no builder is at work, whatever the last one said."""
        self._building = False

    def building(self, phase: str, share: float) -> None:
        """`check` for a builder to call, which is busy from then on until it has come to a share of 1.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed since the start.
        """
        self.check()
        self._building = share < 1

    def __enter__(self) -> Stop:
        """Take over Ctrl-C."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)
            self._listener = _Listener(self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._closed.set()
        if self._listener is not None:
            self._listener.close()
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, when it is next in Python code."""
        self._asked += 1
        if self._asked > 1 and not self._building:  # nothing may be raised through a builder's own frames
            raise KeyboardInterrupt

    def _heard(self, times: int) -> None:
        """In the listener's thread, at once."""
        if times == 1:
            self._say(f"{self._first}; Ctrl-C again stops at once")
        if self._building and not self._closed.wait(PATIENCE) and self._building:
            self._leave()


class _Listener:
    """A thread that Ctrl-C reaches while the main one is in compiled code; Python writes signals to a socket for it."""

    def __init__(self, heard: Callable[[int], None]) -> None:
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        self._previous = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, args=(heard,), name="Ctrl-C", daemon=True)
        self._thread.start()

    def close(self) -> None:
        signal.set_wakeup_fd(self._previous)
        self._write.close()
        self._thread.join()
        self._read.close()

    def _listen(self, heard: Callable[[int], None]) -> None:
        times = 0
        while number := self._read.recv(1):
            if number[0] == signal.SIGINT:
                times += 1
                heard(times)
