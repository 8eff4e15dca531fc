"""Which backend compiles a graph here: the fastest that works, or the one asked for, with a reason when it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from engine.errors import BackendError
from engine.runtime.onnxruntime import OnnxRuntime
from engine.runtime.onnxruntime_cuda import OnnxRuntimeCuda
from engine.runtime.openvino import OpenVino
from engine.runtime.protocol import PRECISIONS, Backend, Options, Precision, Program
from engine.runtime.tensorrt import RTX, TENSORRT

BACKENDS: tuple[Backend, ...] = (TENSORRT, RTX, OnnxRuntimeCuda(), OpenVino(), OnnxRuntime())
"""In the order that `auto` tries them: GPUs first. On a processor OpenVINO comes first: it alone has bf16 there, and
fuses elementwise chains; on convolutions in fp32 the two are about equal."""


@dataclass(frozen=True)
class EngineInfo:
    """One line of `available_engines`.

    Attributes:
        name: what `engine=` accepts.
        version: of its library, or None where it is not installed.
        precisions: what it computes on this machine, the fastest first; empty where it cannot be used.
        device: the device in words.
        reason: why it cannot be used, or None.
        needs_gpu: whether it runs on nothing else.
    """

    name: str
    version: str | None
    precisions: tuple[Precision, ...]
    device: str
    reason: str | None
    needs_gpu: bool


def available_engines() -> list[EngineInfo]:
    """Every backend this package knows, usable here or not, the preferred first."""
    return [_inspect(backend) for backend in BACKENDS]


def _inspect(backend: Backend) -> EngineInfo:
    version: str | None = None
    try:
        version = backend.version()
        return EngineInfo(backend.name, version, backend.precisions(), backend.device(), None, backend.needs_gpu)
    except BackendError as error:
        return EngineInfo(backend.name, version, (), "", str(error), backend.needs_gpu)


def compile(  # noqa: A001  (the engine's own verb; nothing here needs the builtin)
    model: ir.Model | Callable[[Precision], ir.Model],
    engine: str = "auto",
    precision: str | Callable[[Sequence[Precision]], Precision] = "auto",
    options: Options | None = None,
) -> Program:
    """Compile a static-shape graph.

    Args:
        model: canonical form, every shape known (see `engine.load`); or what makes it for a precision.
        engine: a backend's name, or "auto": the first of `BACKENDS` that can be used here and accepts the graph; which
            ones refused the graph, and why, is in the program's `notes`.
        precision: one of `PRECISIONS`, or "auto": the fastest that the device computes in hardware; or what chooses
            from those, which are given the fastest first.
        options: how to build and where to run.

    Raises:
        BackendError: unknown names, a backend that is not installed, a precision the device would emulate, or a
            graph that no backend accepts.
        DynamicShapeError: an input or output shape is not fully known.
    """
    backends = _candidates(engine)
    if isinstance(precision, str) and precision not in ("auto", *PRECISIONS):
        raise BackendError(f"no precision {precision!r}; choose auto, {', '.join(PRECISIONS)}")
    options = options or Options()
    absent: list[str] = []
    refused: list[str] = []
    for backend in backends:
        try:
            backend.version()
            has = backend.precisions(options.device)
        except BackendError as error:
            if len(backends) == 1:
                raise
            (absent if backend.needs_gpu else refused).append(str(error))  # most machines have no GPU: no news
            continue
        chosen = _chosen(precision, has)
        graph = model(chosen) if callable(model) else model
        try:
            program = backend.compile(graph, chosen, options)
        except BackendError as error:
            if len(backends) == 1:
                raise
            refused.append(str(error))
            continue
        program.notes = (*refused, *program.notes)
        return program
    raise BackendError("no engine could compile the graph: " + "; ".join(refused or absent))


def _chosen(precision: str | Callable[[Sequence[Precision]], Precision], has: Sequence[Precision]) -> Precision:
    if callable(precision):
        return precision(has)
    return next((known for known in PRECISIONS if known == precision), has[0])


def _candidates(engine: str) -> Sequence[Backend]:
    if engine == "auto":
        return BACKENDS
    found = [backend for backend in BACKENDS if backend.name == engine]
    if not found:
        raise BackendError(f"no engine {engine!r}; choose auto, {', '.join(backend.name for backend in BACKENDS)}")
    return found
