"""Reads any ONNX model into the one form the rest of the engine works on.

Canonical form: one graph of standard-domain nodes at `OPSET`, no functions, no subgraphs, no `Constant` nodes,
every value with a dtype and a static shape, everything computable beforehand computed, every node needed, and
operators that are better differentiated in pieces (see `decompose`) taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from engine.errors import InvalidModelError, UnsupportedOpError
from engine.passes.fuse import fuse
from engine.passes.sweep import sweep
from engine.passes.tidy import remove_dead, tidy
from engine.tape import OPSET, dims

_OPSETS = range(13, 26)


def load(
    source: ir.Model | onnx.ModelProto | str | Path, shapes: Mapping[str, Sequence[int]] | None = None
) -> ir.Model:
    """Reads a model and brings it to canonical form; the argument is not changed.

    Args:
        source: a path to an `.onnx` file (external data beside it is found), or a model in memory.
        shapes: input name → static shape, for inputs with dynamic axes.

    Raises:
        InvalidModelError: not an ONNX model, or not a valid one.
        UnsupportedOpError: control flow or sequences that the data decides, strings, or operators of another domain.
        DynamicShapeError: an axis stays unknown; the message names it.
    """
    model = _read(source)
    try:
        common.InlinePass()(model)
        model.graph.sort()
    except (ValueError, ir.passes.PassError, ir.passes.InvariantError) as error:
        raise InvalidModelError(f"the model's functions or nodes are in disorder: {error}") from error
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveInitializersFromInputsPass()(model)
    _describe_constants(model)
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if version is None or version not in _OPSETS:
        raise InvalidModelError(
            f"the model is written in opset {version}; opsets {_OPSETS[0]} to {_OPSETS[-1]} are read"
        )
    graph = model.graph
    _pin(graph, shapes or {})
    remove_dead(graph)
    sweep(graph, version)
    _refuse_strings(graph)
    graph.opset_imports.clear()
    graph.opset_imports[""] = OPSET
    model.ir_version = 10
    fuse(graph)
    tidy(graph)
    for value in graph.outputs:
        dims(value)
    return model


def _read(source: ir.Model | onnx.ModelProto | str | Path) -> ir.Model:
    """A model of its own, with its weights in memory."""
    where = "the model in memory"
    if isinstance(source, str | Path):
        where = str(source)
        if not Path(source).is_file():
            raise InvalidModelError(f"{where}: no such file")
    try:
        if isinstance(source, ir.Model):
            model = source.clone()
        else:
            model = ir.from_proto(source) if isinstance(source, onnx.ModelProto) else ir.load(source)
        model = ir.external_data.load_to_model(model)
    except Exception as error:  # protobuf, OS and onnx_ir raise many kinds
        raise InvalidModelError(f"{where}: not a readable ONNX model ({type(error).__name__}: {error})") from error
    if not model.opset_imports:
        raise InvalidModelError(f"{where}: not an ONNX model (it names no operator set)")
    return model


def _describe_constants(model: ir.Model) -> None:
    """What an initializer is, its array says; whoever wrote the model may have said nothing, or something else."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if (tensor := value.const_value) is not None:
                value.shape, value.type = ir.Shape(tensor.numpy().shape), ir.TensorType(tensor.dtype)


def _refuse_strings(graph: ir.Graph) -> None:
    for value in graph.inputs:
        if value.dtype == ir.DataType.STRING:
            raise UnsupportedOpError(f"input {value.name!r} holds strings")


def _pin(graph: ir.Graph, shapes: Mapping[str, Sequence[int]]) -> None:
    inputs = {str(v.name): v for v in graph.inputs}
    for name in shapes:
        if name not in inputs:
            raise InvalidModelError(f"shapes names {name!r}; the model's inputs are {', '.join(inputs)}")
    for name, value in inputs.items():
        if name in shapes:
            wanted = tuple(int(d) for d in shapes[name])
            if value.shape is not None:
                if len(value.shape) != len(wanted):
                    raise InvalidModelError(f"input {name!r} has {len(value.shape)} axes, shapes gives {len(wanted)}")
                for axis, (dim, want) in enumerate(zip(value.shape, wanted, strict=True)):
                    if isinstance(dim, int) and dim != want:
                        raise InvalidModelError(f"axis {axis} of input {name!r} is {dim}, shapes gives {want}")
            value.shape = ir.Shape(wanted)
        dims(value)
