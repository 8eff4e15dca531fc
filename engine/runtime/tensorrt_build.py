"""From a strongly typed graph to a serialised TensorRT plan, for TensorRT and TensorRT-RTX alike.

TensorRT-RTX needs no GPU where it is told for which to build, so what is built here can be shipped to a machine that
has one. Nothing is run here: `tensorrt` does that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from engine.errors import BackendError
from engine.passes.precision import typed
from engine.runtime.protocol import Build, Precision
from engine.runtime.serial import reason, serialise

_KEPT_LINES = 8
"""Of a builder's log, for an error message: the first errors name the node, later ones only follow from them."""


def build_plan(
    trt: Any, model: ir.Model, precision: Precision, build: Build, progress: Callable[[str, float], None] | None = None
) -> bytes:
    """The plan of a canonical, static fp32 graph.

    Args:
        trt: the `tensorrt` or `tensorrt_rtx` module.
        model: as `engine.load` or `value_and_grad` return it.
        precision: written into the graph before it is built.
        build: the builder's options.
        progress: told the phase and the share of it that is done, now and then.

    Raises:
        BackendError: the parser or the builder refused; the message names the node and the builder's own reason.
    """
    log = logger(trt)
    start = len(log.lines)
    builder = trt.Builder(log)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, log)
    blob, _ = serialise(typed(model, precision))
    if not parser.parse(blob):
        raise BackendError(_parse_error(trt, parser))
    config = builder.create_builder_config()
    configure(trt, config, build)
    watch = _monitor(trt, progress)
    if watch is not None:
        config.progress_monitor = watch
    plan = builder.build_serialized_network(network, config)
    if watch is not None and watch.stopped is not None:
        raise watch.stopped
    if plan is None:
        elsewhere = "" if build.capabilities or not _is_portable(trt) else ", or name a --compute-capability"
        raise BackendError(
            f"{trt.__name__} {trt.__version__} did not build the graph in {precision}: {errors(log, start)}. Choose "
            f"another --precision, or another --engine{elsewhere}"
        )
    return bytes(plan)


def network_flags(trt: Any) -> int:
    """Strongly typed; from TensorRT 11 on the flag is gone and every network is."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def configure(trt: Any, config: Any, build: Build) -> None:
    """Writes the options into a builder's configuration.

    Raises:
        BackendError: an option that this library does not have.
    """
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32: islands are there for their low bits
    if build.level is not None:
        config.builder_optimization_level = build.level
    if build.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, build.workspace)
    if build.tiling != "none":
        config.tiling_optimization_level = _member(trt, "TilingOptimizationLevel", build.tiling.upper(), build.tiling)
    if build.strip:
        for flag in ("STRIP_PLAN", "REFIT_IDENTICAL"):
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if _is_portable(trt):
        _target(trt, config, build.capabilities)
    elif build.capabilities:
        raise BackendError(f"{trt.__name__} builds for the GPU it runs on; compute capabilities are for tensorrt-rtx")


def _is_portable(trt: Any) -> bool:
    """Whether a library builds for other GPUs than the one at hand."""
    return hasattr(trt, "ComputeCapability")


def _target(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    """Builds for these GPUs, or for the one at hand: told nothing, the library leaves out those before 8.0."""
    names = [f"SM{capability.removeprefix('sm').replace('.', '')}" for capability in capabilities] or ["CURRENT"]
    config.num_compute_capabilities = len(names)
    for index, (name, given) in enumerate(zip(names, capabilities or names, strict=True)):
        if not config.set_compute_capability(_member(trt, "ComputeCapability", name, given), index):
            raise BackendError(f"{trt.__name__} {trt.__version__} does not build for compute capability {given}")


def _member(trt: Any, enum: str, name: str, given: str) -> Any:
    found = getattr(getattr(trt, enum, None), name, None)
    if found is None:
        members = getattr(getattr(trt, enum, None), "__members__", {})
        known = ", ".join(m.lower() for m in members if m not in ("NONE", "CURRENT")) or "none"
        raise BackendError(f"{trt.__name__} {trt.__version__} has no {enum} {given!r}; it has {known}")
    return found


def _parse_error(trt: Any, parser: Any) -> str:
    told = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        told.append(f"{error.node_operator()} (node {error.node_name()!r}): {reason(Exception(error.desc()))}")
    return f"{trt.__name__} {trt.__version__} does not take the graph: {'; '.join(told)}. Choose another --engine"


@functools.cache
def logger(trt: Any) -> Any:
    """The one logger of a library in this process: it takes the first that it is given, and no other after it."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps errors in `lines`, in the order they came, from every build and engine; see `errors`."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.lines.append(reason(Exception(message)))

    return Log()


def errors(log: Any, start: int) -> str:
    """What went wrong since, each line once, for an error message.

    Args:
        log: of `logger`.
        start: how many `lines` it had before; what others do meanwhile in this process is heard too.
    """
    return "; ".join(list(dict.fromkeys(log.lines[start:]))[:_KEPT_LINES]) or "no reason was given"


def _monitor(trt: Any, progress: Callable[[str, float], None] | None) -> Any:
    """Tells `progress` of the outermost phase; what it raises, Ctrl-C say, ends the build and is kept in `stopped`."""
    if progress is None:
        return None
    tell = progress

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.stopped: BaseException | None = None
            self._steps: dict[str, int] = {}
            self._outer: str | None = None
            self._share = 0.0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = max(1, steps)
            if parent is None:
                self._outer, self._share = phase, 0.0
                self._tell(0.0)

        def step_complete(self, phase: str, step: int) -> bool:
            if phase == self._outer:
                self._share = min(0.99, (step + 1) / self._steps[phase])
            self._tell(self._share)  # inner steps too, as each is an occasion to stop
            return self.stopped is None

        def phase_finish(self, phase: str) -> None:
            if phase == self._outer:
                self._tell(1.0)

        def _tell(self, share: float) -> None:
            try:
                tell(str(self._outer), share)
            except BaseException as error:  # must not cross the library's own frames
                self.stopped = error

    return Monitor()
