"""How the threads of a pipeline wait for one another: one place between two of them, and room for so many pixels."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from glaze_trt.runs.plan import Job

Item = TypeVar("Item")


class Slot(Generic[Item]):
    """One place between two threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: list[Item] = []
        self._closed = self._abandoned = False

    @property
    def abandoned(self) -> bool:
        """Whether nothing will be taken any more."""
        return self._abandoned

    def put(self, item: Item) -> bool:
        """Wait for the place to be free; False where nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._items or self._abandoned)
            if not self._abandoned:
                self._items.append(item)
                self._changed.notify_all()
            return not self._abandoned

    def get(self) -> Item | None:
        """Wait for what comes next; None where nothing will."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed or self._abandoned)
            item = self._items.pop() if self._items and not self._abandoned else None
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Say that nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Say that nothing will be taken any more."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()


class Room:
    """How many pixels may be under way."""

    def __init__(self, limit: int) -> None:
        self._changed = threading.Condition()
        self._limit = limit
        self._inside: dict[str, int] = {}
        self._open = False

    def enter(self, job: Job, pixels: int) -> bool:
        """Wait until a picture fits in, or is alone; False where the run ends."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._open or not self._inside or sum(self._inside.values()) + pixels <= self._limit
            )
            self._inside[job.name] = pixels
            return not self._open

    def leave(self, job: Job) -> None:
        """Make room."""
        with self._changed:
            self._inside.pop(job.name, None)
            self._changed.notify_all()

    def open(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._open = True
            self._changed.notify_all()
