"""One picture's way through, in three stages that may run side by side for several pictures.

    prepare     load -> where it may change -> target
    optimise    the loop
    finish      fit into the budget as saved -> measure the file -> contact sheet -> report

A file of several frames passes frame by frame and is written with its last one. Result files are made whole and not yet
put in place (see `parts`). How stages are overlapped is for `pipeline`.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from engine import Options
from glaze_trt import area, styles
from glaze_trt.errors import GlazeError
from glaze_trt.evaluate import Judge
from glaze_trt.graph.sight import Box
from glaze_trt.measure import handling
from glaze_trt.network import Network
from glaze_trt.objective import Objective
from glaze_trt.pictures import decoding, picture, sequence
from glaze_trt.pictures.picture import Picture
from glaze_trt.report import contact_sheet
from glaze_trt.report.curve import Curve
from glaze_trt.result import Levels, StepInfo
from glaze_trt.runs import fit, jobs, parts
from glaze_trt.runs.identity import Identity
from glaze_trt.runs.parts import Part
from glaze_trt.runs.plan import Job, refuse_outputs
from glaze_trt.runs.remembered import Remembering
from glaze_trt.runs.settings import Settings
from glaze_trt.runs.shots import Finished, Moved, Shot
from glaze_trt.targets import Targets

Doing = Callable[[str], None]
"""Told a word or two before what takes long."""


class Stages:
    """The three stages of a run. A stage runs in one thread at a time.

    Attributes:
        run: what files in the making are called after.
        cloaker: the loop's engines.
        targets: what pictures are moved toward.
    """

    def __init__(
        self,
        settings: Settings,
        options: Options,
        say: Callable[[str], None],
        *,
        overlapped: bool = False,
        identify: bool = False,
        page: bool = False,
    ) -> None:
        """Find models and targets; engines are compiled with the first picture of a size.

        Args:
            settings: what holds for every picture.
            options: how engines are made.
            say: told lines for a person.
            overlapped: whether every stage runs in a thread of its own; a compiled network has one set of buffers, so
                each thread then has networks of its own.
            identify: whether a manifest will want to know the files that pictures came from.
            page: whether pictures will be shown on a page.

        Raises:
            GlazeError: a model, a style or a target that is not there.
        """
        self._settings, self._options = settings, options
        self.run = secrets.token_hex(4)
        self._overlapped, self._identify, self._page = overlapped, identify, page
        self.cloaker = jobs.make_cloaker(settings, options)
        self._own: dict[tuple[int, str, Box | None], Network] = {}
        self.targets = Targets(settings.target, settings.preset, self._apart(0, self.cloaker.encoders[0]), say)
        self._before: dict[str, list[tuple[Picture, dict[str, Any]]]] = {}

    def pixels(self, job: Job) -> int:
        """How many a picture has, and its frames together, by its header."""
        every = self._settings.frames == "all"

        def counted(image: Image.Image, head: bytes) -> int:
            return image.width * image.height * (getattr(image, "n_frames", 1) if every else 1)

        with contextlib.suppress(GlazeError, OSError):
            if job.input.is_file():
                with job.input.open("rb") as file:
                    return decoding.opened(file, job.input, counted)
        return 0  # it will not be read either

    def prepare(self, job: Job, doing: Doing = lambda what: None) -> Iterator[Shot]:
        """Load a picture, or the frames of a file, and make what each is moved toward.

        Raises:
            GlazeError: it cannot be read, its results could not be written, or its target cannot be made.
        """
        began = time.perf_counter()
        settings = self._settings
        identity = Identity.of(job.input) if self._identify else None
        sources = picture.frames(job.input) if settings.frames == "all" else [picture.load(job.input)]
        sequence.refuse(job.output, sources)
        for number, source in enumerate(sources):
            refuse_outputs(job, source, settings.overwrite)
            mask, boxes = area.of(source.levels, settings.mask, settings.regions, faces=settings.faces)
            doing("target")
            target = self.targets.of(
                source, sized=not self.cloaker.rescales, faces=settings.faces, on_step=lambda *_: doing("target")
            )
            seconds = time.perf_counter() - began
            yield Shot(job, source, mask, boxes, target, number, len(sources), identity, seconds)
            began = time.perf_counter()

    def optimise(
        self, shot: Shot, on_step: Callable[[StepInfo], None] | None = None, doing: Doing = lambda what: None
    ) -> Moved:
        """Send a shot through the loop.

        Raises:
            GlazeError: numbers out of range, or sizes that do not fit.
            EngineError: the model cannot be compiled or run.
        """
        curve = Curve()

        def told(info: StepInfo) -> None:
            curve.add(info)
            if on_step is not None:
                on_step(info)

        doing("compiling")
        result = self.cloaker(
            shot.source.levels,
            target=shot.target.levels or None,
            mask=shot.mask,
            boxes=shot.boxes,
            seed=self._settings.seed,
            on_step=told,
            aligned=shot.target.aligned,
            close=shot.target.close,
        )
        return Moved(shot, result.rgb, result.report.as_dict(), curve.points, self.cloaker.looking(shot.boxes))

    def finish(self, moved: Moved, doing: Doing = lambda what: None) -> Finished | None:
        """Make the result files of a picture; None for a frame with others to come.

        Raises:
            GlazeError: the file as saved would break the budget, or cannot be written; nothing is left behind.
        """
        shot = moved.shot
        job, source, target = shot.job, shot.source, shot.target
        doing("measuring")
        began = time.perf_counter()
        cloaker = self.cloaker
        judge = Judge(
            source.levels,
            targets=target.levels,
            encoders=[self._apart(2, net) for net in moved.encoders],
            perceptual=self._apart(2, cloaker.perceptual),
            features=cloaker.objective.features,
            window=cloaker.window(shot.mask),
            aligned=target.aligned,
            close=target.close,
        )
        fitted = fit.within_budget(source, moved.levels, job.output, moved.report["budget"], judge)
        # Four passes of the encoders: 2 % of a default run's processor time, measured at 96, 256 and 512 pixels a side.
        handled = handling.left(fitted.levels, judge.mean_progress)
        made = self._report(moved, fitted, handled, time.perf_counter() - began)
        if shot.count > 1:
            self._before.setdefault(job.name, []).append((fitted.picture, made))
            if not shot.last:
                return None
            frames = self._before.pop(job.name)
            data = picture.encode_frames([frame for frame, _ in frames], job.output.suffix)
            sequence.check_kept(data, job.output, [frame for frame, _ in frames])
            made = sequence.together([each for _, each in frames])
        else:
            data = fitted.data
        made["bytes"] = len(data)
        files: list[Part] = []
        try:
            began = time.perf_counter()
            files.append(parts.write(job.output, data, self.run))
            made["seconds"]["save"] = time.perf_counter() - began
            made["seconds"]["total"] += made["seconds"]["save"]
            seen = self._seen(moved, fitted.levels) if job.sheet is not None or self._page else None
            if job.sheet is not None and seen is not None:
                doing("contact sheet")
                files.append(parts.write(job.sheet, self._sheet(seen, made), self.run))
                made["sheet"] = str(job.sheet)
        except BaseException:
            self.discard(files)
            raise
        entry = None
        if self._page and seen is not None:
            toward = seen[0].target if target.levels else None
            from glaze_trt.report.html_report import Entry  # what draws pages need not be installed where none is drawn

            entry = Entry(source.levels, fitted.levels, toward, seen[1], made)
        return Finished(job, made, tuple(files), shot.identity, entry)

    def drop(self, job: Job) -> None:
        """Forget the frames of a file that will not be finished."""
        self._before.pop(job.name, None)

    @staticmethod
    def discard(files: Sequence[Part]) -> None:
        """Remove files that shall not be put in place."""
        for file in files:
            file.discard()

    def _apart(self, stage: int, net: Network) -> Network:
        """A network for a stage of its own."""
        if not self._overlapped:
            return net
        key = stage, str(net.model.path), net.box
        if key not in self._own:
            quiet = replace(self._options, progress=None)  # what a builder's progress raises is for the main thread
            self._own[key] = (
                net.apart(quiet)
                if isinstance(net, Remembering)
                else Network(net.model, self._settings.engine, quiet, net.box)
            )
        return self._own[key]

    def _report(
        self, moved: Moved, fitted: fit.Fitted, handled: Mapping[str, float], measured: float
    ) -> dict[str, Any]:
        shot, settings, cloaker = moved.shot, self._settings, self.cloaker
        made, target = dict(moved.report), shot.target
        loop = {name: made.get("seconds", {}).get(name) or 0.0 for name in ("compile", "optimize")}
        made |= {
            "input": str(shot.job.input),
            "output": str(shot.job.output),
            "model": "+".join(net.model.name for net in cloaker.encoders),
            "perceptual": settings.perceptual,
            "style": target.style,
            "style_percentile": target.percentile,
            "target": target.name,
            "target_image": ", ".join(map(str, settings.target.images)) or None,
            "preset": settings.preset,
            "intensity": settings.intensity if settings.preset == Objective.name else None,
            "robust": list(settings.robust),
            "regions": [list(box) for box in shot.boxes],
            "size": list(shot.source.size),
            "seed": settings.seed,
            **fitted.measures.as_dict(),
            "handled": dict(handled),
            "curve": moved.curve,
            "notes": [
                *made.get("notes", ()),
                *shot.source.notes,
                *fitted.notes,
                *_outside(shot, fitted),
                *_unmoved(fitted),
                *jobs.unused(settings, made["engine"]),
            ],
            "demonstration": any(net.model.manifest.demonstration for net in (*cloaker.encoders, cloaker.perceptual)),
        }
        times = {"load": shot.seconds, **loop, "measure": measured, "save": 0.0}
        made["seconds"] = times | {"total": sum(times.values())}
        return made

    def _seen(self, moved: Moved, levels: Levels) -> tuple[contact_sheet.Views, contact_sheet.Views | None]:
        """What a person and what the model sees of a picture and its target."""
        source, target = moved.shot.source, moved.shot.target
        toward = target.levels[0] if target.levels else source.levels
        fitting = picture.to_levels(styles.target_from(toward, source.levels.shape[:2]))
        person = contact_sheet.Views(source.levels, levels, fitting)
        encoder = self._apart(2, self.cloaker.encoders[0])
        quiet = replace(self._options, progress=None) if self._overlapped else self._options
        return person, contact_sheet.model_views(encoder, person, moved.report["engine"], quiet)

    def _sheet(self, seen: tuple[contact_sheet.Views, contact_sheet.Views | None], made: Mapping[str, Any]) -> bytes:
        sheet = contact_sheet.of_run(*seen, made, jobs.demonstration_note(self.cloaker))
        file = io.BytesIO()
        sheet.save(file, "PNG")
        return file.getvalue()


def _outside(shot: Shot, fitted: fit.Fitted) -> list[str]:
    if shot.mask is None or fitted.encoding.quality is None or shot.mask.all():
        return []
    kind = shot.job.output.suffix.lower()
    return [f"{kind} compresses all of a picture, so pixels outside the mask or region changed too; .png keeps them"]


def _unmoved(fitted: fit.Fitted) -> list[str]:
    if fitted.measures.linf > 0:
        return []
    return ["the picture is unchanged: no cloak was found inside the budget; try more --steps or a larger budget"]
