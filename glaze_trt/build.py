"""`glaze-trt build`: TensorRT engines made ahead of time, for this machine or to be shipped to others.

For every model, picture size and GPU: all that a cloak runs, so that `glaze-trt cloak --engines FOLDER` builds nothing,
and the encoder's companion pair. TensorRT-RTX needs no GPU for it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import onnx_ir as ir

import engine
from engine import shipped
from engine.cache import Key
from engine.errors import BackendError
from engine.runtime.protocol import Build, Options, Precision
from engine.runtime.serial import signature
from engine.runtime.tensorrt import RTX, TENSORRT, TensorRt, precisions, short
from engine.runtime.tensorrt_build import configure, logger
from engine.tape import dims
from glaze_trt.cloak import Cloaker
from glaze_trt.errors import UsageError
from glaze_trt.large.tiles import Tiling
from glaze_trt.network import Network, padded_shape
from glaze_trt.report import contact_sheet

_BACKENDS = {backend.name: backend for backend in (TENSORRT, RTX)}


@dataclass(frozen=True)
class Order:
    """What to build.

    Attributes:
        models: encoders, by name or path.
        perceptual: the perceptual net, by name or path.
        sizes: pictures as (height, width), any that `cloak` takes.
        batch: pictures at once, for the companion pair; a cloak takes one.
        precision: of the step and the companion pair; "auto" is "mixed" where the models allow fp16.
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
    """One graph, and what it is compiled in.

    Attributes:
        name: what it is of, such as `encoder` or `step`.
        subject: whose, for a person: the networks and the size of the pictures in them.
        graph: for one shape.
        precision: what it is computed in.
    """

    name: str
    subject: str
    graph: ir.Model
    precision: Precision


def run(order: Order, folder: Path, say: Callable[[str], None], progress: Callable[[str, float], None]) -> list[Any]:
    """Build everything, into `folder`; what was built there from the same graph with the same options is kept.

    Args:
        order: what to build.
        folder: gets the plans and their index.
        say: told before each engine what it is.
        progress: told how far one is; what it raises ends the build.

    Returns:
        One row an engine: file, seconds, bytes; ready for JSON.

    Raises:
        UsageError: an order that cannot be carried out; nothing was built.
        GlazeError, EngineError: a model or a graph that cannot be used.
    """
    for size in order.sizes:
        _check_size(size)
    backend = _backend(order)
    gpus = _gpus(order, backend)
    _check_options(order.build, backend)
    cloakers = [
        Cloaker(model, order.perceptual, engine_name=order.engine, precision=order.precision) for model in order.models
    ]
    for cloaker, gpu in product(cloakers, gpus):
        _check_precision(cloaker, gpu)
    rows = []
    for cloaker, size, gpu in product(cloakers, order.sizes, gpus):
        build = replace(order.build, capabilities=(gpu,)) if order.build.capabilities else order.build
        for part in parts(cloaker, size, precisions(gpu), order.batch):
            key = backend.key(part.graph, part.precision, Options(build=build), gpu)
            file = _file(part, key)
            say(file)
            rows.append(_build(backend, part, Options(build=build, progress=progress), key, folder / file))
    return rows


def parts(cloaker: Cloaker, size: tuple[int, int], has: Sequence[Precision], batch: int = 1) -> Iterator[Part]:
    """Every graph that a cloak of a picture runs, its measures and contact sheet too; then the companion pair.

    Args:
        cloaker: for one encoder and perceptual net.
        size: of the picture, (height, width).
        has: the precisions of the GPU, the fastest first.
        batch: pictures at once, for the pair.
    """
    grown, precision = cloaker.shape(size), cloaker.narrow(has)
    for network in (*cloaker.encoders, cloaker.perceptual):
        kind = network.model.kind
        for shape in dict.fromkeys((grown, padded_shape(size, network.model.manifest))):  # in the loop, and to measure
            yield Part(kind, _of([network], shape), network.load("image", shape), "fp32")
    constants, step = cloaker.graphs(grown, scaled=precision == "fp16")
    if constants.graph.outputs:
        yield Part("constants", _of([], grown), constants, "fp32")
    yield Part("step", _of([*cloaker.encoders, cloaker.perceptual], grown), step, precision)
    for encoder in cloaker.encoders:
        yield from _of_encoder(encoder, padded_shape(size, encoder.model.manifest), precision, batch)


def _of_encoder(encoder: Network, shape: tuple[int, ...], precision: Precision, batch: int) -> Iterator[Part]:
    """Its decoder, for the contact sheet, and its companion pair."""
    decoder = contact_sheet.decoder_of(encoder.model)
    if decoder is not None:
        decode = Network(decoder)
        latent = next(dims(value) for value in encoder.load("image", shape).graph.outputs if value.name == "latent")
        yield Part("decoder", _of([decode], shape), decode.load("latent", latent), "fp32")
    batched = encoder.load("image", (batch, *shape[1:]))
    for name, graph in zip(("forward", "backward"), engine.companion(batched, "latent", ["image"]), strict=True):
        yield Part(f"{name}-b{batch}", _of([encoder], shape), graph, precision)


def capability(text: str) -> str:
    """A compute capability as "8.9", from that or from 89, sm89 or sm_89.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(?:sm_?)?([1-9][0-9]?)\.?([0-9])", text.strip().lower())
    if found is None:
        raise UsageError(
            f"--compute-capability {text}: give a number such as 8.9, or sm89 (RTX 30: 8.6; RTX 40: 8.9; RTX 50: 12.0)"
        )
    return f"{found[1]}.{found[2]}"


def _backend(order: Order) -> TensorRt:
    if order.engine not in _BACKENDS:
        raise UsageError(f"engines are built by {' or '.join(_BACKENDS)}, not {order.engine}")
    backend = _BACKENDS[order.engine]
    backend.version()
    return backend


def _gpus(order: Order, backend: TensorRt) -> Sequence[str]:
    """What to build for, as compute capabilities ("8.9"); or the GPU at hand, as the backend names it."""
    if order.build.capabilities:
        return list(dict.fromkeys(capability(text) for text in order.build.capabilities))
    try:
        return [backend.gpu()]
    except BackendError as error:
        if backend is not RTX:
            raise
        raise UsageError(
            f"{error}; or name the GPU to build for, which need not be here: --compute-capability 8.9"
        ) from error


def _check_options(build: Build, backend: TensorRt) -> None:
    """What the library does not have is found before anything is built."""
    if not build.capabilities:
        return  # a builder without them wants the GPU, and says so itself
    library = backend.library()
    try:
        named = replace(build, capabilities=tuple(capability(text) for text in build.capabilities))
        configure(library, library.Builder(logger(library)).create_builder_config(), named)
    except BackendError as error:
        raise UsageError(str(error)) from error


def _check_size(size: tuple[int, int]) -> None:
    height, width = size
    if height < 1 or width < 1 or height * width > Tiling.whole:
        raise UsageError(
            f"no engine takes {width}x{height}: pictures of more than {Tiling.whole / 1e6:.2f} megapixels are cut into "
            "tiles; build --size 512 for these"
        )


def _check_precision(cloaker: Cloaker, gpu: str) -> None:
    has = precisions(gpu)
    wanted = cloaker.narrow(has)
    if wanted not in has:
        raise UsageError(f"{short(gpu.split()[0])} does not compute {wanted}; choose --precision {', '.join(has)}")


def _build(backend: TensorRt, part: Part, options: Options, key: Key, file: Path) -> dict[str, Any]:
    began = time.perf_counter()
    kept = shipped.kept(file.parent, key)
    plan = kept.plan if kept is not None else backend.build(part.graph, part.precision, options)
    seconds = time.perf_counter() - began
    inputs, outputs = signature(part.graph)
    facts = {
        "part": part.name,
        "precision": part.precision,
        "stripped": options.build.strip,
        "inputs": {n: str(spec) for n, spec in inputs.items()},
        "outputs": {n: str(spec) for n, spec in outputs.items()},
    }
    if kept is None:
        shipped.write(file.parent, file.name, plan, key, facts)
    return {"file": file.name, "part": part.name, "precision": part.precision, "device": key.device,
            "seconds": None if kept is not None else seconds, "bytes": len(plan)}  # fmt: skip


def _file(part: Part, key: Key) -> str:
    """A name for a person, made unique by the key, of which options, versions and the weights are parts too."""
    gpu = re.sub(r"[^a-z0-9.]+", "-", key.device.lower())
    return f"{part.subject}.{part.name}-{part.precision}.{key.backend}-{gpu}-{key.digest[:8]}.plan"


def _of(networks: Sequence[Network], shape: Sequence[int]) -> str:
    """Whose graph, for pictures of which size."""
    names = [re.sub(r"[^\w.-]+", "-", network.model.name) for network in networks]
    return f"{'+'.join(names) or 'pictures'}-{shape[3]}x{shape[2]}"
