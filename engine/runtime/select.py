"""Which backend compiles a graph here: the fastest that works, or the one asked for, with a reason when it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from engine.errors import BackendError
from engine.runtime.onnxruntime import OnnxRuntime
from engine.runtime.openvino import OpenVino
from engine.runtime.protocol import PRECISIONS, Backend, Options, Precision, Program

BACKENDS: tuple[Backend, ...] = (OpenVino(), OnnxRuntime())
"""In the order that `auto` tries them. OpenVINO first: it alone has bf16 here, and fuses elementwise chains; on
convolutions in fp32 the two are about equal."""


@dataclass(frozen=True)
class EngineInfo:
    """One line of `available_engines`.

    Attributes:
        name: what `engine=` accepts.
        version: of its library, or None where it cannot be used.
        precisions: what it computes on this machine, the fastest first; empty where it cannot be used.
        device: the device in words.
        reason: why it cannot be used, or None.
    """

    name: str
    version: str | None
    precisions: tuple[Precision, ...]
    device: str
    reason: str | None


def available_engines() -> list[EngineInfo]:
    """Every backend this package knows, usable here or not, the preferred first."""
    return [_inspect(backend) for backend in BACKENDS]


def _inspect(backend: Backend) -> EngineInfo:
    try:
        return EngineInfo(backend.name, backend.version(), backend.precisions(), backend.device(), None)
    except BackendError as error:
        return EngineInfo(backend.name, None, (), "", str(error))


def compile(  # noqa: A001  (the engine's own verb; nothing here needs the builtin)
    model: ir.Model,
    engine: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Program:
    """Compile a static-shape graph.

    Args:
        model: canonical form, every shape known (see `engine.load`).
        engine: a backend's name, or "auto": the first of `BACKENDS` that accepts the graph; what was passed over,
            and why, is in the program's `notes`.
        precision: one of `PRECISIONS`, or "auto": the fastest that the device computes in hardware.
        threads: on a processor; None for one per physical core.
        cache_dir: where a backend may keep compiled programs between runs.

    Raises:
        BackendError: unknown names, a backend that is not installed, a precision the device would emulate, or a
            graph that no backend accepts.
        DynamicShapeError: an input or output shape is not fully known.
    """
    backends = _candidates(engine)
    if precision != "auto" and precision not in PRECISIONS:
        raise BackendError(f"no precision {precision!r}; choose auto, {', '.join(PRECISIONS)}")
    options = Options(threads, cache_dir)
    refused: list[str] = []
    for backend in backends:
        try:
            backend.version()
            chosen = next((p for p in PRECISIONS if p == precision), backend.precisions()[0])
            program = backend.compile(model, chosen, options)
        except BackendError as error:
            if len(backends) == 1:
                raise
            refused.append(str(error))
            continue
        program.notes = (*refused, *program.notes)
        return program
    raise BackendError("no engine could compile the graph: " + "; ".join(refused))


def precision_of(engine: str = "auto", precision: str = "auto") -> str:
    """The precision that `compile` will try first here: the one asked for, or what "auto" stands for.

    Raises:
        BackendError: no such engine, or none that can be used.
    """
    if precision != "auto":
        return precision
    refused: list[str] = []
    for backend in _candidates(engine):
        try:
            backend.version()
            return backend.precisions()[0]
        except BackendError as error:
            refused.append(str(error))
    raise BackendError("; ".join(refused))


def _candidates(engine: str) -> Sequence[Backend]:
    if engine == "auto":
        return BACKENDS
    found = [backend for backend in BACKENDS if backend.name == engine]
    if not found:
        raise BackendError(f"no engine {engine!r}; choose auto, {', '.join(backend.name for backend in BACKENDS)}")
    return found
