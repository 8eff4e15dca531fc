"""Stages side by side: pictures are made ready ahead of the one in the loop, and finished behind it.

The loop stays in the calling thread, so that Ctrl-C and builders find it there; a thread before it prepares and one
after it finishes and delivers. Order is kept, each stage works on one picture at a time, and no stage shares a compiled
network with another: so results are those of one picture after the other. In memory are one picture a stage and one
between each two, and of large ones fewer (`MEGAPIXELS`).

Pictures of one size are not put into one step graph: in batches of 2 a picture took 0.91 to 1.11 of the time, of 4 it
took 0.69 to 1.21 (OpenVINO and ONNX Runtime, 96, 256 and 512 pixels a side, 2 cores): a processor is filled by one
picture. `python -m bench.batch` measures it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from glaze_trt.runs.handover import Room, Slot
from glaze_trt.runs.plan import Job
from glaze_trt.runs.shots import Finished, Moved, Shot

MEGAPIXELS = 24
"""What may be in the pipeline at once, beyond one picture."""

_LEAVING = 3.0
"""Seconds that stages get to come to an end in a hurry."""


@dataclass(frozen=True)
class Failure:
    """A picture that was not done, and why."""

    job: Job
    error: Exception


class Abandoned(Exception):
    """The run has ended, and nobody waits for this any more."""


class Work(Protocol):
    """What is done with pictures; see `stages.Stages`."""

    def pixels(self, job: Job) -> int:
        """How many a picture has, about, before it is read."""

    def prepare(self, job: Job) -> Iterator[Shot]:
        """In the thread before the loop."""

    def optimise(self, shot: Shot) -> Moved:
        """In the calling thread."""

    def finish(self, moved: Moved) -> Finished | None:
        """In the thread behind the loop."""

    def drop(self, job: Job) -> None:
        """In the same: a picture that was begun will not be finished."""

    def deliver(self, result: Finished | Failure) -> None:
        """In the same, in order; what it raises ends the run."""


class Pipeline:
    """One run through the stages."""

    def __init__(
        self,
        work: Work,
        *,
        overlapped: bool = True,
        stopped: Callable[[], bool] = lambda: False,
        hurried: Callable[[], bool] = lambda: False,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the work.

        Args:
            work: what is done.
            overlapped: whether stages run side by side; if not, all run in the calling thread.
            stopped: whether no further picture shall be begun.
            hurried: whether, after a `KeyboardInterrupt`, what is behind the loop shall be given up too.
            leave: ends the process, where a stage does not return in a hurry; it may, and then is waited for.
        """
        self._work, self._overlapped = work, overlapped
        self._stopped, self._hurried, self._leave = stopped, hurried, leave
        self._ready: Slot[Shot | Failure] = Slot()
        self._moved: Slot[Moved | Failure] = Slot()
        self._room = Room(MEGAPIXELS * 1_000_000)
        self._broken: deque[str] = deque(maxlen=16)  # pictures with frames that may still be under way
        self._fatal: BaseException | None = None
        self._ended: list[threading.Event] = []  # of the thread behind the loop, and of the one before it

    def run(self, jobs: Iterable[Job]) -> None:
        """Do all pictures, or those begun before `stopped` says so.

        What a stage raises is delivered as the picture's failure; what `deliver` raises is raised here.

        Raises:
            KeyboardInterrupt: of the loop; what was behind it is finished and delivered, unless `hurried`.
        """
        if not self._overlapped:
            self._one_by_one(jobs)
            return
        try:
            try:
                self._start("finish", self._finish)
                self._start("prepare", lambda: self._prepare(jobs))
                self._loop()
            finally:
                self._ready.abandon()
                self._room.open()
                self._moved.close()
            self._join()
        except KeyboardInterrupt:
            while not self._wound_up():
                pass
            raise
        if self._fatal is not None:
            raise self._fatal

    def check(self) -> None:
        """Raise here what ended the run in another thread; to be called between steps."""
        if self._fatal is not None:
            raise self._fatal

    def wanted(self) -> None:
        """Raise `Abandoned` in a stage whose result nobody will take; to be called before what takes long."""
        if self._ready.abandoned and threading.current_thread().name == "prepare" or self._moved.abandoned:
            raise Abandoned

    def settle(self, seconds: float) -> None:
        """Give what is behind the loop a time to be finished; from any thread, where the loop does not return."""
        self._moved.close()
        for ended in self._ended[:1]:
            ended.wait(seconds)

    def _one_by_one(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if self._stopped():
                return
            result: Finished | Failure | None = None
            try:
                for shot in self._work.prepare(job):
                    result = self._work.finish(self._work.optimise(shot))
            except Exception as error:  # whatever it is, it must not lose the other pictures
                self._work.drop(job)
                result = Failure(job, error)
            if result is not None:
                self._work.deliver(result)

    def _loop(self) -> None:
        """In the calling thread."""
        begun = ""
        while (item := self._ready.get()) is not None:
            if self._stopped() and item.job.name != begun:
                return
            if isinstance(item, Shot):
                begun = item.job.name
            moved = self._optimised(item)
            if moved is not None and not self._moved.put(moved):
                return
            del item, moved  # while it waits for the next

    def _optimised(self, item: Shot | Failure) -> Moved | Failure | None:
        if isinstance(item, Failure):
            return item
        if item.job.name in self._broken:  # by an earlier frame
            return None
        try:
            return self._work.optimise(item)
        except Exception as error:
            self.check()
            self._broken.append(item.job.name)
            return Failure(item.job, error)

    def _prepare(self, jobs: Iterable[Job]) -> None:
        """In a thread of its own, ahead of the loop."""
        try:
            for job in jobs:
                if not self._room.enter(job, self._work.pixels(job)):
                    return
                try:
                    for shot in self._work.prepare(job):
                        if job.name in self._broken:
                            break
                        if not self._ready.put(shot):
                            return
                        del shot
                except Exception as error:
                    if job.name not in self._broken and not self._ready.put(Failure(job, error)):
                        return
        except BaseException as error:
            self._end(error)
        finally:
            self._ready.close()

    def _finish(self) -> None:
        """In a thread of its own, behind the loop."""
        try:
            while (item := self._moved.get()) is not None:
                job = item.job if isinstance(item, Failure) else item.shot.job
                result = self._finished(item, job)
                del item
                if result is not None:
                    self._work.deliver(result)
                    self._room.leave(job)
                del result
        except BaseException as error:
            self._end(error)

    def _finished(self, item: Moved | Failure, job: Job) -> Finished | Failure | None:
        if isinstance(item, Failure):
            self._work.drop(job)
            return item
        if job.name in self._broken:
            return None
        try:
            return self._work.finish(item)
        except Abandoned:
            raise
        except Exception as error:
            self._broken.append(job.name)
            self._work.drop(job)
            return Failure(job, error)

    def _end(self, error: BaseException) -> None:
        """A thread has nobody else to tell."""
        if not isinstance(error, Abandoned):
            self._fatal = self._fatal or error
        self._ready.abandon()
        self._moved.abandon()
        self._room.open()

    def _wound_up(self) -> bool:
        """After an interrupt, wait for the threads to end; False where another one comes meanwhile."""
        try:
            if self._hurried():
                self._moved.abandon()
                self._join(_LEAVING)
                if not all(ended.is_set() for ended in self._ended):
                    self._leave()
            self._join()
        except KeyboardInterrupt:
            return False
        return True

    def _start(self, name: str, stage: Callable[[], None]) -> None:
        # Not `Thread.join`: where one is interrupted, Python before 3.13 takes the thread for ended, and would abort at
        # its own end while that is in compiled code.
        ended = threading.Event()

        def work() -> None:
            try:
                stage()
            finally:
                ended.set()

        threading.Thread(target=work, name=name, daemon=True).start()
        self._ended.append(ended)

    def _join(self, seconds: float | None = None) -> None:
        for ended in self._ended:
            ended.wait(seconds)
