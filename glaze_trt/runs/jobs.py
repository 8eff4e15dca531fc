"""What a run is made of before its first picture: options of the engines, and the cloaker; and what is said of them.

One picture's way through is in `stages`. Knows nothing of the command line or of how results are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine import Options, shipped
from engine.errors import BackendError
from engine.runtime.driver import open_driver, parse_device
from engine.runtime.select import BACKENDS
from glaze_trt import demonstration
from glaze_trt.cloak import Cloaker, make_objective
from glaze_trt.errors import UsageError
from glaze_trt.runs.remembered import Memory, Remembering
from glaze_trt.runs.settings import Settings

_ON_PROCESSORS = frozenset(backend.name for backend in BACKENDS if not backend.needs_gpu)


def make_options(
    settings: Settings, building: Callable[[str, float], None] | None = None, threads: int | None = None
) -> Options:
    """How engines are made and where they run; what was asked for and is not there is found out before any work.

    Args:
        settings: what holds for every picture.
        building: told how far a long build is; what it raises ends the build.
        threads: on a processor; one per core if None.

    Raises:
        UsageError: no device is called that, or the folder of engines is none.
        BackendError: there is no such GPU here.
    """
    if settings.engines is not None:
        _check_engines(settings.engines)
    device = 0 if settings.device is None else _gpu(settings.device, settings.engine)
    return Options(device=device, shipped=settings.engines, progress=building, threads=threads)


def make_cloaker(settings: Settings, options: Options) -> Cloaker:
    """The engines for a run; they are kept from one picture to the next of the same size.

    Raises:
        ModelError: there is no such model.
        UsageError: no such preset, intensity or transformation, ones that do not go together, or weights that do not
            fit the models.
    """
    objective = make_objective(settings.intensity, steps=settings.steps, preset=settings.preset, robust=settings.robust)
    cloaker = Cloaker(
        settings.models,
        settings.perceptual,
        objective,
        engine_name=settings.engine,
        precision=settings.precision,
        options=options,
        weights=settings.weights,
    )
    memory = Memory()
    cloaker.encoders = tuple(Remembering(net, memory) for net in cloaker.encoders)
    return cloaker


def demonstration_note(cloaker: Cloaker) -> str | None:
    """What must be said of a run with built-in models, or None."""
    return demonstration.note([net.model.manifest for net in cloaker.encoders], cloaker.perceptual.model.manifest)


def unused(settings: Settings, engine_name: str) -> list[str]:
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
