"""Any feature extractor that exists as an ONNX file: wrapped so that it takes pictures in [0,1] as an encoder does.

The network itself is left as it is, but for half-precision tensors, which become float32. Which precision it runs in
is for the engine to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from export import keep, weights
from export.check import TOLERANCE, Array, Check, directions, input_gradient, judged, picture, relative, run
from export.graph import tidy
from glaze_trt.errors import ModelError
from glaze_trt.models import Manifest, ModelFile

_AFFINE: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "0,1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "-1,1": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation that a picture in [0,1] is standardised by."""

_HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_SIDES = (64, 112, 224, 96, 160, 299, 384)
"""Heights and widths that a network with free axes is tried at."""

HALF_ROUNDING = 1e-2
"""Largest error of an output against a file that computes in half precision."""

DIFFERENCES = 2e-2
"""Largest error of a gradient against finite differences in float32, which are themselves off by about 1e-3."""


def wrap(name: str, path: Path, input_range: str, folder: Path, progress: Callable[[str], None]) -> ModelFile:
    """Keep an extractor as the encoder `name`.

    Args:
        name: What it will be called.
        path: An ONNX file with one picture input (B, 3, H, W); of several outputs the first is used.
        input_range: `0,1`, `-1,1` or `imagenet`.
        folder: Where it is kept.
        progress: Called with one line before each stage.

    Raises:
        ModelError: Not an ONNX file, not such a network, or one that the engine cannot differentiate.
    """
    progress(f"reading {path.name}")
    model = _read(path)
    batch, height, width = _rewire(model, path, input_range)
    size = (height, width) if height is not None and width is not None else None
    progress(f"checking {name} against the file itself")
    source = weights.describe([path, *_external(path)])
    manifest = Manifest(
        name,
        "encoder",
        input_range=input_range,
        size=size,
        source=path.name,
        licence=source.licence,
        weights_sha256=source.sha256,
        versions=keep.versions("onnx", "onnx-ir", "onnxruntime"),
    )
    judge = partial(_against_file, path, input_range, batch, _sides(height, width))
    return keep.model_file(tidy(model, name), manifest, name, folder, judge)


def _read(path: Path) -> ir.Model:
    if not path.is_file():
        raise ModelError(f"{path}: {'is a folder, not an ONNX file' if path.is_dir() else 'no such file'}")
    try:
        proto = onnx.load(path)
        if not proto.graph.node:
            raise ValueError("it holds no graph")
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return ir.from_proto(proto)
    except Exception as error:  # protobuf, the data loader and the runtime each raise families of their own
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path}: not a readable ONNX file ({line})") from error


def _external(path: Path) -> list[Path]:
    """Files that hold the weights of `path`."""
    entries = (tensor.external_data for tensor in onnx.load(path, load_external_data=False).graph.initializer)
    names = {item.value for entry in entries for item in entry if item.key == "location"}
    return [path.parent / name for name in sorted(names)]


def _rewire(model: ir.Model, path: Path, input_range: str) -> tuple[int | None, int | None, int | None]:
    """Give the graph an input `image` in [0,1] and one float32 output `latent`; its fixed batch, height and width."""
    graph = model.graph
    inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    if len(inputs) != 1:
        raise ModelError(f"{path}: it has {len(inputs)} inputs, and one picture is what a cloak can give")
    (theirs,) = inputs
    shape = theirs.shape
    if shape is None or len(shape) != 4 or not _channels_first(shape):
        raise ModelError(f"{path}: its input `{theirs.name}` is {shape}; a picture is (B, 3, H, W)")
    floating = (ir.DataType.FLOAT, *_HALVES)
    if theirs.dtype not in floating or graph.outputs[0].dtype not in floating:
        raise ModelError(f"{path}: input and output must be floating point: no gradient passes through others")
    _widen(model)
    _free_names(graph, {"image", "latent"} - {theirs.name, graph.outputs[0].name})
    axes = [axis if isinstance(axis, int) else None for axis in shape]
    mean, deviation = _affine(input_range)
    theirs.name = "image"
    theirs.shape = ir.Shape([axes[0] or "batch", 3, axes[2] or "height", axes[3] or "width"])
    if input_range != "0,1":
        factor = _constant("input:factor", np.reciprocal(deviation))
        offset = _constant("input:offset", np.divide(-mean, deviation, dtype=np.float32))
        scaled = ir.node("Mul", [theirs, factor], name="input:scaled")
        shifted = ir.node("Add", [scaled.outputs[0], offset], name="input:shifted")
        for node in (scaled, shifted):
            node.outputs[0].name = node.name
            node.outputs[0].dtype = ir.DataType.FLOAT
        users = [(use.node, use.idx) for use in theirs.uses() if use.node is not scaled]
        for node, index in users:
            node.replace_input_with(index, shifted.outputs[0])
        for constant in (factor, offset):
            graph.register_initializer(constant)
        graph.insert_before(graph[0], [scaled, shifted])
    graph.outputs[1:] = []
    graph.outputs[0].name = "latent"
    return axes[0], axes[2], axes[3]


def _channels_first(shape: ir.Shape) -> bool:
    if isinstance(shape[1], int):
        return shape[1] == 3
    return shape[3] != 3


def _widen(model: ir.Model) -> None:
    """Half-precision tensors become float32, wherever a graph or a local function says so."""
    graph = model.graph
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype in _HALVES:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
    for value in (*graph.inputs, *graph.initializers.values()):
        _as_float(value)
    for body in (graph, *(function.graph for function in model.functions.values())):
        for node in ir.traversal.RecursiveGraphIterator(body):
            for output in node.outputs:
                _as_float(output)
            for key, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in _HALVES:
                    node.attributes[key] = ir.AttrTensor(key, ir.tensor(attribute.value.numpy().astype(np.float32)))
                elif key in ("to", "dtype") and attribute.value in _HALVES:
                    node.attributes[key] = ir.AttrInt64(key, int(ir.DataType.FLOAT))


def _as_float(value: ir.Value) -> None:
    if value.dtype in _HALVES:
        value.dtype = ir.DataType.FLOAT


def _free_names(graph: ir.Graph, wanted: Collection[str]) -> None:
    """Rename values inside that already carry one of the names that the ends will take."""
    for value in list(graph.initializers.values()):
        if value.name in wanted:
            value.name = f"{value.name}:inner"
    for node in graph:
        for value in node.outputs:
            if value.name in wanted:
                value.name = f"{value.name}:inner"


def _constant(name: str, array: Array) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(array.shape)
    return value


def _affine(input_range: str) -> tuple[Array, Array]:
    mean, deviation = (np.asarray(values, dtype=np.float32).reshape(1, 3, 1, 1) for values in _AFFINE[input_range])
    return mean, deviation


def _sides(height: int | None, width: int | None) -> list[tuple[int, int]]:
    if height is None and width is None:
        return [(side, side) for side in _SIDES]
    return [(height or width or 0, width or height or 0)]


def _against_file(path: Path, input_range: str, batch: int | None, sizes: list[tuple[int, int]], made: Path) -> Check:
    """Outputs against the original file's own, and the gradient against finite differences of the outputs."""
    mean, deviation = _affine(input_range)
    original = onnx.load(path, load_external_data=False).graph
    fixed = {tensor.name for tensor in original.initializer}
    theirs = next(value for value in original.input if value.name not in fixed)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(theirs.type.tensor_type.elem_type)
    failure: Exception | None = None
    for height, width in sizes:
        example = picture(batch or 1, 3, height, width)
        try:
            expected = run(path, {theirs.name: ((example - mean) / deviation).astype(dtype)})[0]
        except Exception as error:  # onnxruntime has no public root for what a graph raises when it runs
            failure = failure or error
            continue
        (found,) = run(made, {"image": example})
        checked = Check(relative(found, expected.astype(np.float32)), _slope_error(path, made, example, found))
        tolerance = TOLERANCE if dtype == np.float32 else HALF_ROUNDING
        return judged(checked, path.name, output_tolerance=tolerance, gradient_tolerance=DIFFERENCES)
    line = str(failure).strip().splitlines()[0]
    raise ModelError(f"{path}: it runs at none of {', '.join(f'{h}×{w}' for h, w in sizes)} pixels ({line})")


def _slope_error(path: Path, made: Path, example: Array, latent: Array) -> float:
    """Relative error of directional derivatives along the gradient, masked at random, over steps of several lengths."""
    (weight,) = directions([latent.shape])
    gradient = input_gradient(made, "image", example.shape, [weight])(example).astype(np.float64)
    if not gradient.any():
        raise ModelError(f"{path}: its gradient is zero everywhere: there is nothing to cloak against")
    generator = np.random.default_rng(13)

    def scalar(step: NDArray[np.float64]) -> float:
        (value,) = run(made, {"image": (example + step).astype(np.float32)})
        return float((value.astype(np.float64) * weight).sum())

    worst = 0.0
    for keep_all in (True, False):
        direction = gradient * (keep_all | (generator.random(gradient.shape) < 0.5))
        direction = direction / max(float(np.sqrt((direction**2).mean())), 1e-30)
        expected = float((gradient * direction).sum())
        slopes = [(scalar(h * direction) - scalar(-h * direction)) / (2 * h) for h in (1e-2, 3e-3, 1e-3, 3e-4)]
        worst = max(worst, min(abs(slope - expected) for slope in slopes) / max(abs(expected), 1e-30))
    return worst
