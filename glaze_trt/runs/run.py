"""A whole run: pictures found, earlier results taken over, the rest done here or on a cluster, each noted as it ends.

What is done with one picture is in `stages`; what a person is shown is the caller's (`Screen`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from glaze_trt.errors import OutputError, PictureError, UsageError
from glaze_trt.pictures import picture
from glaze_trt.result import Levels, StepInfo
from glaze_trt.runs import folder, jobs, parts, plan, ray_session
from glaze_trt.runs.manifest import NAME, RunManifest
from glaze_trt.runs.order import Order, Tally
from glaze_trt.runs.pipeline import Failure, Pipeline
from glaze_trt.runs.plan import Job
from glaze_trt.runs.settings import Settings
from glaze_trt.runs.shots import Finished, Moved, Shot
from glaze_trt.runs.stages import Stages
from glaze_trt.terminal.console import one_line
from glaze_trt.terminal.progress import Bar
from glaze_trt.terminal.stop import Stop

if TYPE_CHECKING:
    from glaze_trt.report.html_report import Entry, Page

_SETTLE = 30.0
"""Seconds that a picture behind the loop gets to be finished, where a builder has to be left."""

_NAMED = 20
"""Failures that a tally of a folder names; all are in the manifest."""


class Screen(Protocol):
    """What a person is shown of single pictures; called in order, from one thread."""

    def cloaked(self, made: dict[str, Any], bar: Bar, *, tree: bool) -> None:
        """A picture is done and in its place."""

    def failed(self, error: Exception, bar: Bar) -> None:
        """A picture was not done, or a folder cannot be read."""


def run(order: Order, settings: Settings, screen: Screen) -> Tally:
    """Cloak pictures. Nothing is written before all that was asked for is known to be there.

    Raises:
        GlazeError: something that was asked for is not there or cannot be; what is wrong with single pictures is told.
        BackendError: there is no such GPU.
    """
    if order.ray is not None:
        ray_session.find()
    own = [Path(place) for place in (order.wishes.output, order.wishes.sheet) if place and plan.is_folder(place)]
    own += [order.report] if order.report is not None else []
    inputs = folder.find(order.images, recursive=order.recursive, apart=own)
    planned = plan.plan(inputs, order.wishes)
    if order.resume and not (inputs.tree or order.manifest):
        raise UsageError("--resume goes on where a manifest ends: add --manifest FILE, as in the run before")
    if order.manifest is not None and order.manifest.suffix.lower() in picture.FORMATS:
        raise UsageError(f"{order.manifest}: has the name of a picture; call the manifest {NAME}, say")
    alone = len(planned) == 1 and not inputs.tree and order.ray is None
    tally = Tally(inputs.tree, len(planned), passed_over=inputs.passed_over)
    with contextlib.ExitStack() as opened:
        bar = opened.enter_context(Bar(None if alone else len(planned)))
        course = _Course(order, settings, screen, bar, tally)
        first = "stopping at the next step" if alone else "finishing the picture in hand, then stopping"
        stop = opened.enter_context(Stop(bar.say, course.leave, first))
        course.begin(opened, stop, inputs, planned, alone=alone)
        course.unread(inputs.unread)
        try:
            course.go(stop, alone=alone)
        except KeyboardInterrupt:
            tally.interrupted = True
        course.end()
    return tally


class _Course:
    """One run, from the first check to the last line."""

    def __init__(self, order: Order, settings: Settings, screen: Screen, bar: Bar, tally: Tally) -> None:
        self._order, self._settings, self._screen, self._bar, self._tally = order, settings, screen, bar, tally
        self._stages: Stages | None = None
        self._manifest: RunManifest | None = None
        self._page: Page | None = None
        self._pipeline: Pipeline | None = None
        self._todo: list[Job] = []

    def begin(
        self, opened: contextlib.ExitStack, stop: Stop, inputs: folder.Inputs, planned: Sequence[Job], *, alone: bool
    ) -> None:
        """Find what was asked for, make folders, and take over what an earlier run did."""
        order, settings, tally = self._order, self._settings, self._tally

        def building(phase: str, share: float) -> None:
            self._bar.building(phase, share)
            stop.building(phase, share)

        place = order.manifest or (Path(str(order.wishes.output)) / NAME if inputs.tree else None)
        told = settings.told() if place is not None or order.report is not None else {}
        self._stages = stages = Stages(
            settings,
            jobs.make_options(settings, building),
            self._bar.say,
            overlapped=not alone,
            identify=place is not None,
            page=order.report is not None,
        )
        tally.note = jobs.demonstration_note(stages.cloaker)
        if order.report is not None:
            self._page = opened.enter_context(self._open_page(order.report, told, len(planned)))
        if place is not None:
            output = os.path.relpath(str(order.wishes.output), place.parent) if inputs.tree else None
            manifest = RunManifest(
                place,
                told | {"output": output},
                resume=order.resume,
                overwrite=settings.overwrite,
                say=self._bar.say,
            )
            self._manifest = opened.enter_context(manifest)
            tally.manifest, stages.run = place, manifest.run
            if inputs.tree and manifest.done:
                planned = plan.plan(inputs, order.wishes, self._known(manifest))
        plan.make_folders(planned, inputs, order.wishes)
        places = {path.parent for job in planned for path in (job.output, job.sheet) if path is not None}
        opened.callback(parts.sweep, places, stages.run)
        self._todo = [job for job in map(self._left, planned) if job is not None]
        parts.sweep(places, stages.run)  # what a run that was killed had not finished
        self._bar.expect(len(self._todo))

    def unread(self, lines: Sequence[str]) -> None:
        """Tell of folders that cannot be read, so that nobody takes their pictures for cloaked."""
        self._tally.unread += lines
        for line in lines:
            if self._page is not None:
                self._page.fail("", line)
            self._screen.failed(PictureError(line), self._bar)

    def go(self, stop: Stop, *, alone: bool) -> None:
        """All pictures that are left."""
        stages = self._stages
        assert stages is not None
        if not self._todo:
            return
        began = time.perf_counter()
        try:
            if self._order.ray is not None:
                from glaze_trt.runs import cluster  # needs the extra `ray`

                cluster.run(self._order.ray, self._todo, self._settings, stages.run, self.deliver, lambda: stop.asked)
            else:
                work = _Work(stages, self._bar, self.deliver, stop, alone=alone)
                self._pipeline = work.pipeline = Pipeline(
                    work,
                    overlapped=not alone,
                    stopped=lambda: stop.asked,
                    hurried=lambda: stop.hurried,
                    leave=self._bar.leave,
                )
                self._pipeline.run(self._todo)
        finally:
            self._tally.seconds = time.perf_counter() - began
        if stop.asked and self._tally.cloaked + self._tally.failed < len(self._todo):
            raise KeyboardInterrupt

    def deliver(self, result: Finished | Failure) -> None:
        """Note a picture, put its files in place, and tell of it.

        Raises:
            OutputError: the manifest or the page cannot be written.
        """
        if isinstance(result, Failure):
            self._failed(result.job, result.error)
            return
        job, made, tree = result.job, result.made, self._tally.tree
        if tree:
            made["name"] = job.name
        if self._manifest is not None and result.identity is not None:
            self._manifest.finished(job.name, result.identity, result.files, made)
        try:
            for file in result.files:
                file.place()
        except OutputError as error:
            self._failed(job, error)
            return
        finally:
            Stages.discard(result.files)
        self._show(job, made, result.entry)
        self._tally.cloaked += 1
        self._screen.cloaked(made, self._bar, tree=tree)
        self._bar.end()

    def end(self) -> None:
        """Write the page."""
        if self._page is not None:
            self._tally.page = self._page.close()

    def leave(self) -> None:
        """From another thread, where a builder does not return: finish what is behind the loop, and end the process."""
        if self._pipeline is not None:
            self._pipeline.settle(_SETTLE)
        self._bar.leave()

    def _failed(self, job: Job, error: Exception) -> None:
        line = one_line(error)
        if self._manifest is not None:
            self._manifest.failed(job.name, type(error).__name__, line)
        if self._page is not None:
            self._page.fail(job.name if self._tally.tree else job.input.name, line)
        self._tally.failed += 1
        if not self._tally.tree or len(self._tally.failures) < _NAMED:
            self._tally.failures.append({"input": str(job.input), "error": line})
        self._screen.failed(error, self._bar)
        self._bar.end(failed=True)

    def _known(self, manifest: RunManifest) -> dict[str, Path]:
        """What the run that is gone on with called its results, below the output folder."""
        output = str(self._order.wishes.output)
        return {name: Path(os.path.relpath(done.files[0].path, output)) for name, done in manifest.done.items()}

    def _left(self, job: Job) -> Job | None:
        """A picture that is still to be done; None where an earlier run did it."""
        if self._manifest is None:
            return job
        done = self._manifest.done.get(job.name)
        if done is None or os.path.realpath(done.files[0].path) != os.path.realpath(job.output):
            return job
        if done.stale or not (done.identity.fits(job.input) and done.restore()):
            return replace(job, replace=done.ours)
        self._tally.earlier += 1
        if self._page is not None:
            self._show(job, self._manifest.report(done))
        return None

    def _show(self, job: Job, made: dict[str, Any], entry: Entry | None = None) -> None:
        """Put a picture on the page, if there is one; without its target, which is not made again, if not at hand.

        Raises:
            OutputError: the page cannot be written.
        """
        if self._page is None:
            return
        from glaze_trt.report.html_report import Entry

        def levels(path: Path) -> Levels:
            return (picture.frames(path)[0] if self._settings.frames == "all" else picture.load(path)).levels

        with contextlib.suppress(PictureError):  # it is only shown
            self._page.add(entry or Entry(levels(job.input), levels(job.output), None, None, made))

    def _open_page(self, place: Path, told: dict[str, Any], expected: int) -> Page:
        from glaze_trt.report.html_report import Page, is_page

        assert self._stages is not None
        cloaker = self._stages.cloaker
        return Page(
            place,
            told,
            models=[net.model for net in (*cloaker.encoders, cloaker.perceptual)],
            note=self._tally.note,
            expected=expected,
            overwrite=self._settings.overwrite or (self._order.resume and is_page(place)),
        )


class _Work:
    """What the pipeline does with pictures, and what is shown meanwhile; see `pipeline.Work`."""

    pipeline: Pipeline

    def __init__(
        self, stages: Stages, bar: Bar, deliver: Callable[[Finished | Failure], None], stop: Stop, *, alone: bool
    ) -> None:
        self._stages, self._bar, self._stop, self._alone = stages, bar, stop, alone
        self.deliver = deliver

    def pixels(self, job: Job) -> int:
        return self._stages.pixels(job)

    def prepare(self, job: Job) -> Iterator[Shot]:
        if self._alone:
            self._bar.begin(job.input.name)
        return self._stages.prepare(job, self._aside)

    def optimise(self, shot: Shot) -> Moved:
        if not self._alone or shot.count > 1:
            frame = f", frame {shot.number + 1} of {shot.count}" if shot.count > 1 else ""
            self._bar.begin(f"{shot.job.input.name}{frame}")
        return self._stages.optimise(shot, self._on_step, self._doing)

    def finish(self, moved: Moved) -> Finished | None:
        return self._stages.finish(moved, self._aside)

    def drop(self, job: Job) -> None:
        self._stages.drop(job)

    def _doing(self, what: str) -> None:
        """In the loop's thread."""
        self._bar.doing(what)
        if self._alone:
            self._stop.check()

    def _aside(self, what: str) -> None:
        """In a thread of its own, unless the picture is alone."""
        if self._alone:
            self._doing(what)
        else:
            self.pipeline.wanted()

    def _on_step(self, info: StepInfo) -> None:
        self._bar.on_step(info)
        if self._alone:
            self._stop.check()
        else:
            self._stop.idle()
            self.pipeline.check()
