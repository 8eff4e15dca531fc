"""`glaze-trt build`: TensorRT engines made ahead of time, for this machine or to be shipped to others.

For every model, picture size and GPU: the encoder, its companion backward, and everything that a cloak runs, so that
`glaze-trt cloak --engines FOLDER` builds nothing. TensorRT-RTX needs no GPU for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir

import engine
from engine import shipped
from engine.runtime.protocol import Build, Options, Precision
from engine.runtime.serial import signature
from engine.runtime.tensorrt import RTX, TENSORRT, TensorRt, precisions, short
from glaze_trt.cloak import Cloaker
from glaze_trt.errors import UsageError

_BACKENDS = {backend.name: backend for backend in (TENSORRT, RTX)}


@dataclass(frozen=True)
class Order:
    """What to build.

    Attributes:
        models: encoders, by name or path.
        perceptual: the perceptual net of the fused step.
        sizes: pictures as (height, width); multiples of what the networks take.
        batch: pictures at once, for the encoder and its backward; the fused step takes one.
        precision: of the encoder, its backward and the step; "auto" is "mixed" where the model allows fp16.
        engine: `tensorrt` or `tensorrt-rtx`.
        build: the builder's options; one engine is made for each of its capabilities.
    """

    models: Sequence[str]
    perceptual: str = "tiny"
    sizes: Sequence[tuple[int, int]] = ((512, 512),)
    batch: int = 1
    precision: str = "auto"
    engine: str = "tensorrt-rtx"
    build: Build = Build()


@dataclass(frozen=True)
class Part:
    """One graph of a model, and what it is compiled in."""

    name: str
    graph: ir.Model
    precision: Precision


def run(order: Order, folder: Path, say: Callable[[str], None], progress: Callable[[str, float], None]) -> list[Any]:
    """Build everything, into `folder`; what is there already and still right is kept.

    Args:
        order: what to build.
        folder: gets the plans and their index.
        say: told before each engine what it is.
        progress: told how far one is.

    Returns:
        One row an engine: file, seconds, bytes; ready for JSON.

    Raises:
        UsageError: no such engine, or a size that the networks do not take.
        GlazeError, EngineError: a model or a graph that cannot be used.
    """
    if order.engine not in _BACKENDS:
        raise UsageError(f"engines are built by {' or '.join(_BACKENDS)}, not {order.engine}")
    backend = _BACKENDS[order.engine]
    backend.version()
    rows = []
    for model in order.models:
        for size in order.sizes:
            for capability in order.build.capabilities or (backend.gpu(),):
                build = replace(order.build, capabilities=(capability,)) if order.build.capabilities else order.build
                for part in parts(order, model, size, precisions(capability)):
                    name = _file(model, size, part, capability)
                    say(name)
                    rows.append(_build(backend, part, build, capability, folder, name, progress))
    return rows


def parts(order: Order, model: str, size: tuple[int, int], has: Sequence[Precision]) -> Iterator[Part]:
    """The graphs that a cloak of this size runs, and the companion pair.

    Args:
        order: as `run` takes it.
        model: one of its models.
        size: one of its sizes.
        has: the precisions of the GPU, the fastest first.

    Raises:
        UsageError: the networks do not take pictures of this size.
    """
    cloaker = Cloaker(model, order.perceptual, engine_name=order.engine, precision=order.precision)
    precision = cloaker.narrow(has)
    shape = (1, 3, *size)
    if cloaker.shape(size) != shape:
        grown = cloaker.shape(size)[2:]
        raise UsageError(
            f"{model} with {order.perceptual} takes {size[1]}x{size[0]} as {grown[1]}x{grown[0]}: build that"
        )
    yield Part("encoder", cloaker.encoder.load("image", shape), "fp32")
    yield Part("perceptual", cloaker.perceptual.load("image", shape), "fp32")
    constants, step = cloaker.graphs(shape, scaled=precision == "fp16")
    if constants.graph.outputs:
        yield Part("constants", constants, "fp32")
    yield Part("step", step, precision)
    batched = cloaker.encoder.load("image", (order.batch, 3, *size))
    forward, backward = engine.companion(batched, "latent", ["image"])
    yield Part(f"forward-b{order.batch}", forward, precision)
    yield Part(f"backward-b{order.batch}", backward, precision)


def _build(
    backend: TensorRt,
    part: Part,
    build: Build,
    capability: str,
    folder: Path,
    name: str,
    progress: Callable[[str, float], None],
) -> dict[str, Any]:
    options = Options(build=build, progress=progress)
    key = backend.key(part.graph, part.precision, options, capability)
    began = time.perf_counter()
    kept = shipped.find(folder, key) if (folder / shipped.INDEX).is_file() else None
    plan = kept.plan if kept is not None else backend.build(part.graph, part.precision, options)
    seconds = time.perf_counter() - began
    inputs, outputs = signature(part.graph)
    facts = {
        "part": part.name,
        "precision": part.precision,
        "stripped": build.strip,
        "inputs": {n: str(spec) for n, spec in inputs.items()},
        "outputs": {n: str(spec) for n, spec in outputs.items()},
    }
    if kept is None:
        shipped.write(folder, name, plan, key, facts)
    return {"file": name, "part": part.name, "precision": part.precision, "device": key.device,
            "seconds": None if kept is not None else seconds, "bytes": len(plan)}  # fmt: skip


def _file(model: str, size: tuple[int, int], part: Part, capability: str) -> str:
    return f"{Path(model).stem}-{size[1]}x{size[0]}.{part.name}-{part.precision}-{short(capability.split()[0])}.plan"
