"""One picture's way through: load -> target -> cloak -> save inside the budget -> contact sheet.

Knows nothing of the command line or of how results are shown; where results go is planned in `plan`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import Options, shipped
from engine.errors import BackendError
from engine.runtime.driver import open_driver, parse_device
from engine.runtime.select import BACKENDS
from glaze_trt import area, atomic, fit, handling, picture, report, styles
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import UsageError
from glaze_trt.evaluate import Judge
from glaze_trt.objective import Objective
from glaze_trt.plan import Job, refuse_outputs
from glaze_trt.result import StepInfo
from glaze_trt.sight import Box
from glaze_trt.targets import Targets, Wanted

_ON_PROCESSORS = frozenset(backend.name for backend in BACKENDS if not backend.needs_gpu)


@dataclass(frozen=True)
class Settings:
    """What holds for every picture of a run.

    Attributes:
        models: encoders and other extractors, by name or path.
        weights: how much each of them counts; alike if none are given.
        perceptual: the net for LPIPS.
        target: what pictures are moved toward.
        preset: whose objective.
        intensity: the budget, for the preset `glaze`.
        robust: transformations that cloaks shall outlast.
        steps: the preset's, if None.
        mask: a picture, white where the other may change.
        regions: boxes outside which nothing may change; what extractors of one fixed size look at.
        faces: whether these are to look at faces, where no region is given.
        seed: of styles, choices, and the first δ.
        engine: what runs the networks.
        precision: of the step.
        device: which GPU, as "cuda:1"; None for the first.
        engines: a folder made by `glaze-trt build`.
        overwrite: whether files that are there may be replaced.
    """

    models: tuple[str, ...] = ("tiny",)
    weights: tuple[float, ...] = ()
    perceptual: str = "tiny"
    target: Wanted = Wanted()
    preset: str = "glaze"
    intensity: str = "default"
    robust: tuple[str, ...] = ()
    steps: int | None = None
    mask: Path | None = None
    regions: tuple[Box, ...] = ()
    faces: bool = False
    seed: int = 0
    engine: str = "auto"
    precision: str = "auto"
    device: str | None = None
    engines: Path | None = None
    overwrite: bool = False


def make_options(settings: Settings, building: Callable[[str, float], None] | None = None) -> Options:
    """How engines are made and where they run; what was asked for and is not there is found out before any work.

    Args:
        settings: what holds for every picture.
        building: told how far a long build is; what it raises ends the build.

    Raises:
        UsageError: no device is called that, or the folder of engines is none.
        BackendError: there is no such GPU here.
    """
    if settings.engines is not None:
        _check_engines(settings.engines)
    device = 0 if settings.device is None else _gpu(settings.device, settings.engine)
    return Options(device=device, shipped=settings.engines, progress=building)


def make_cloaker(settings: Settings, options: Options) -> Cloaker:
    """The engines for a run; they are kept from one picture to the next of the same size.

    Raises:
        ModelError: there is no such model.
    """
    objective = make_objective(settings.intensity, steps=settings.steps, preset=settings.preset, robust=settings.robust)
    return Cloaker(
        settings.models,
        settings.perceptual,
        objective,
        engine_name=settings.engine,
        precision=settings.precision,
        options=options,
        weights=settings.weights,
    )


def run(
    job: Job,
    settings: Settings,
    cloaker: Cloaker,
    targets: Targets,
    options: Options,
    on_step: Callable[[StepInfo], None] | None = None,
    doing: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Cloak one picture; the returned report has the settings used and what was measured on the saved file.

    Args:
        job: the picture and where it goes.
        settings: what holds for every picture.
        cloaker: what `make_cloaker` made.
        targets: what pictures are moved toward.
        options: what the cloaker was made with.
        on_step: called as the optimisation goes on.
        doing: called with a word or two before each other stage.

    Raises:
        GlazeError: any of its kinds; nothing half-written is left behind.
        EngineError: the model cannot be compiled or run.
    """
    began = time.perf_counter()
    source = picture.load(job.input)
    refuse_outputs(job, source, settings.overwrite)
    mask, boxes = area.of(source.levels, settings.mask, settings.regions, faces=settings.faces)
    doing("target")
    target = targets.of(source, sized=not cloaker.rescales, faces=settings.faces)
    loaded = time.perf_counter()
    doing("compiling")
    result = cloaker(
        source.levels, target=target.levels or None, mask=mask, boxes=boxes, seed=settings.seed, on_step=on_step
    )
    cloaked = time.perf_counter()
    doing("measuring")
    made: dict[str, Any] = dict(result.report.as_dict())
    judge = Judge(
        source.levels,
        targets=target.levels,
        encoders=cloaker.looking(boxes),
        perceptual=cloaker.perceptual,
        features=cloaker.objective.features,
    )
    fitted = fit.within_budget(source, result.rgb, job.output, made["budget"], judge)
    if settings.robust:
        made["handled"] = handling.left(fitted.levels, judge.mean_progress)
    measured = time.perf_counter()
    atomic.write_bytes(job.output, fitted.data)
    saved = time.perf_counter()
    made |= {
        "input": str(job.input),
        "output": str(job.output),
        "model": "+".join(net.model.name for net in cloaker.encoders),
        "perceptual": settings.perceptual,
        "style": target.style,
        "style_percentile": target.percentile,
        "target": target.name,
        "target_image": ", ".join(map(str, settings.target.images)) or None,
        "preset": settings.preset,
        "intensity": settings.intensity if settings.preset == Objective.name else None,
        "robust": list(settings.robust),
        "regions": [list(box) for box in boxes],
        "size": [source.rgb.shape[1], source.rgb.shape[0]],
        "seed": settings.seed,
        "bytes": len(fitted.data),
        **fitted.measures.as_dict(),
        "notes": [
            *made.get("notes", ()),
            *source.notes,
            *fitted.notes,
            *_unmoved(fitted),
            *_unused(settings, made["engine"]),
        ],
        "demonstration": any(n.model.manifest.demonstration for n in (*cloaker.encoders, cloaker.perceptual)),
    }
    made["seconds"] = {
        "load": loaded - began,
        **{name: made.get("seconds", {}).get(name) for name in ("compile", "optimize")},
        "measure": measured - cloaked,
        "save": saved - measured,
        "total": saved - began,
    }
    if job.sheet is not None:
        doing("contact sheet")
        toward = target.levels[0] if target.levels else source.levels
        seen = report.Views(
            source.levels, fitted.levels, picture.to_levels(styles.target_from(toward, source.rgb.shape[:2]))
        )
        note = demonstration_note(cloaker)
        views = report.model_views(cloaker.encoders[0], seen, made["engine"], options)
        sheet = report.of_run(seen, views, made, note)
        report.save_sheet(job.sheet, sheet)
        made["sheet"] = str(job.sheet)
    return made


def demonstration_note(cloaker: Cloaker) -> str | None:
    """What must be said of a run with built-in models, or None."""
    for encoder in cloaker.encoders:
        if encoder.model.manifest.demonstration:
            return (
                f"The model '{encoder.model.name}' is a demonstration: this cloak is no protection against the real "
                "encoder. Get that once with `glaze-trt export sd-vae`, then cloak with `--model sd-vae`."
            )
    if cloaker.perceptual.model.manifest.demonstration:
        return (
            f"The perceptual net '{cloaker.perceptual.model.name}' is a demonstration: its LPIPS is not the published "
            "one. Get that once with `glaze-trt export lpips-alex`, then cloak with `--perceptual alex`."
        )
    return None


def _unmoved(fitted: fit.Fitted) -> list[str]:
    if fitted.measures.linf > 0:
        return []
    return ["the picture is unchanged: no cloak was found inside the budget; try more --steps or --intensity high"]


def _unused(settings: Settings, engine_name: str) -> list[str]:
    """What was asked of a GPU, where a processor did the work."""
    given = {"--device": settings.device, "--engines": settings.engines}
    if engine_name not in _ON_PROCESSORS:
        return []
    return [
        f"{option} {value} was not used: {engine_name} runs on the processor; see `glaze-trt doctor`"
        for option, value in given.items()
        if value is not None
    ]


def _check_engines(folder: Path) -> None:
    try:
        shipped.check(folder)
    except BackendError as error:
        raise UsageError(f"--engines {error}") from error


def _gpu(device: str, engine_name: str) -> int:
    """The number of a GPU that was asked for: it must be here, or the processor would do the work unasked."""
    try:
        number = parse_device(device)
    except BackendError as error:
        raise UsageError(str(error)) from error
    if engine_name not in _ON_PROCESSORS:
        open_driver(number).close()
    return number
