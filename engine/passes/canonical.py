"""Reads any ONNX model into the one form the rest of the engine works on.

Canonical form: one graph of standard-domain nodes at `OPSET`, no functions, no subgraphs, no `Constant` nodes,
every value with a dtype and a static shape, everything computable beforehand computed, every node needed, and
operators that are better differentiated in pieces (see `decompose`) taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from engine.errors import DynamicShapeError, InvalidModelError, UnsupportedOpError
from engine.fold import evaluate, foldable
from engine.passes.decompose import DECOMPOSITIONS, EARLY
from engine.passes.fuse import fuse
from engine.passes.tidy import remove_dead, replace, tidy
from engine.passes.upgrade import upgrade
from engine.tape import OPSET, Tape, attribute, constant, dims, infer
from engine.vjp.registry import REFUSED

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
        UnsupportedOpError: control flow, strings, sequences or operators of another domain.
        DynamicShapeError: an axis stays unknown; the message names it.
    """
    model = _read(source)
    try:
        common.InlinePass()(model)
    except ValueError as error:
        raise InvalidModelError(f"the model's functions cannot be inlined: {error}") from error
    _refuse(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveInitializersFromInputsPass()(model)
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if version is None or version not in _OPSETS:
        raise InvalidModelError(
            f"the model is written in opset {version}; opsets {_OPSETS[0]} to {_OPSETS[-1]} are read"
        )
    graph = model.graph
    graph.sort()
    _name(graph)
    _pin(graph, shapes or {})
    remove_dead(graph)
    _sweep(graph, version)
    graph.opset_imports.clear()
    graph.opset_imports[""] = OPSET
    model.ir_version = 10
    fuse(graph)
    tidy(graph)
    for value in graph.outputs:
        dims(value)
    return model


def _read(source: ir.Model | onnx.ModelProto | str | Path) -> ir.Model:
    if isinstance(source, ir.Model):
        return source.clone()
    if isinstance(source, onnx.ModelProto):
        return ir.from_proto(source)
    path = Path(source)
    if not path.is_file():
        raise InvalidModelError(f"{path}: no such file")
    try:
        model = ir.external_data.load_to_model(ir.load(path))
    except Exception as error:  # protobuf, OS and onnx_ir raise many kinds
        raise InvalidModelError(f"{path}: not a readable ONNX model ({type(error).__name__}: {error})") from error
    if not model.opset_imports:
        raise InvalidModelError(f"{path}: not an ONNX model (it names no operator set)")
    return model


def _refuse(model: ir.Model) -> None:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type in REFUSED:
            raise UnsupportedOpError(f"{node.op_type} (node {node.name!r}) cannot be part of a compiled static graph")
        if node.domain not in ("", "ai.onnx"):
            raise UnsupportedOpError(
                f"{node.domain}::{node.op_type} (node {node.name!r}) is not an operator of the ONNX standard"
            )
    for value in model.graph.inputs:
        if value.dtype == ir.DataType.STRING:
            raise UnsupportedOpError(f"input {value.name!r} holds strings")


def _name(graph: ir.Graph) -> None:
    """Gives every node and every computed value a name of its own; inputs and outputs keep theirs."""
    values = {str(v.name) for v in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    nodes: set[str] = set()
    for index, node in enumerate(graph):
        node.domain = ""
        node.name = _unique(node.name or f"{node.op_type}_{index}", nodes)
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = _unique(f"{node.name}:{value.index()}", values)


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or with a number after it where it is taken; from then on it is."""
    unique, count = name, 1
    while unique in taken:
        unique, count = f"{name}#{count}", count + 1
    taken.add(unique)
    return unique


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


def _sweep(graph: ir.Graph, version: int) -> None:
    """One pass in execution order: fold what is constant, infer the rest, take apart what is better in pieces."""
    tape = Tape(graph)
    for node in list(graph):
        _refuse_training(node)
        upgrade(Tape(graph, before=node), node, version)
        if node.op_type in ("Shape", "Size") and _known(node.inputs[0]):
            replace(node, [tape.constant(_measure(node))])
            continue
        if node.op_type in EARLY and _decomposed(graph, node):
            continue
        folded = evaluate(node) if foldable(node) and node.op_type != "Identity" else None
        if folded is not None:
            replace(node, [tape.constant(array) for array in folded])
            continue
        for value in node.outputs:
            value.shape = value.type = None
        infer(node)
        _static(node)
        _decomposed(graph, node)


def _decomposed(graph: ir.Graph, node: ir.Node) -> bool:
    decomposition = DECOMPOSITIONS.get(node.op_type)
    if decomposition is None:
        return False
    tape = Tape(graph, before=node)
    with tape.scope(str(node.name)):
        replacement = decomposition(tape, node)
    if replacement is None:
        return False
    replace(node, replacement)
    return True


def _known(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and value.shape.is_static()


def _measure(node: ir.Node) -> np.ndarray:
    shape = np.asarray(dims(node.inputs[0]), np.int64)
    if node.op_type == "Size":
        return np.asarray(shape.prod(), np.int64)
    start = node.attributes["start"].as_int() if "start" in node.attributes else 0
    end = node.attributes["end"].as_int() if "end" in node.attributes else None
    return shape[start:end]


def _static(node: ir.Node) -> None:
    """Fails where it first becomes unknown, with the name of what made it so."""
    for value in node.outputs:
        if not value.name or not (value.uses() or value.is_graph_output()):
            continue
        if value.shape is None or not value.shape.is_static():
            raise DynamicShapeError(
                f"the shape of {value.name!r} ({node.op_type} {node.name!r}: {value.shape}) depends on the data or on "
                "an axis that is not pinned; give shapes={...} for every input with dynamic axes"
            )


def _refuse_training(node: ir.Node) -> None:
    if node.op_type == "BatchNormalization":
        training = bool(attribute(node, "training_mode", 0))
    elif node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2] is not None:
        known = constant(node.inputs[2])
        training = known is None or bool(known)
    else:
        return
    if training:
        raise UnsupportedOpError(f"{node.op_type} {node.name!r} is in training mode; export with model.eval()")
