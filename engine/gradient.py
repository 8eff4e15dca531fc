"""From a forward ONNX model to one that also returns gradients, or to a forward and backward pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir

from engine.autodiff import backward
from engine.errors import InvalidModelError
from engine.fold import RANDOM
from engine.passes.canonical import load
from engine.passes.lower import lower
from engine.passes.tidy import remove_dead
from engine.tape import is_float

Source = ir.Model | onnx.ModelProto | str | Path


def value_and_grad(
    model: Source, of: str, wrt: Sequence[str], shapes: Mapping[str, Sequence[int]] | None = None
) -> ir.Model:
    """A model that returns everything `model` does, and the gradient of one output.

    Args:
        model: a path or a model, opset 13 to 25.
        of: name of a scalar output.
        wrt: names of floating inputs.
        shapes: input name → static shape, for inputs with dynamic axes.

    Returns:
        A static model with the same inputs; outputs are the model's own plus `grad:<input>` for each of `wrt`.

    Raises:
        InvalidModelError: not a valid model, one that was differentiated before, or `of` or `wrt` name nothing fit.
        UnsupportedOpError: an operator that cannot be compiled, or on the path and without a gradient rule.
        DynamicShapeError: an axis stays unknown.
    """
    result = load(model, shapes)
    graph = result.graph
    gradients = backward(graph, _output(graph, of), _inputs(graph, wrt))
    for name, gradient in zip(wrt, gradients, strict=True):
        add_output(graph, gradient, f"grad:{name}")
    lower(graph)
    return result


def companion(
    model: Source, of: str, wrt: Sequence[str], shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[ir.Model, ir.Model]:
    """A forward model and its backward, for callers that compute the loss themselves.

    The forward returns the model's outputs and then the activations that the backward needs (`saved:<i>`). The
    backward takes those and `cotangent:<of>` (shape of the output) and returns `grad:<input>` for each of `wrt`.

    Args:
        model: a path or a model, opset 13 to 25.
        of: name of a floating output of any shape.
        wrt: names of floating inputs.
        shapes: input name → static shape, for inputs with dynamic axes.

    Raises:
        InvalidModelError, UnsupportedOpError, DynamicShapeError: as `value_and_grad`.
    """
    joint = load(model, shapes)
    graph = joint.graph
    target = _output(graph, of)
    own = len(graph.outputs)
    _refuse_taken(graph, f"cotangent:{of}")
    cotangent = ir.Value(name=f"cotangent:{of}", shape=target.shape, type=target.type)
    graph.inputs.append(cotangent)
    gradients = backward(graph, target, _inputs(graph, wrt), cotangent)
    for name, gradient in zip(wrt, gradients, strict=True):
        add_output(graph, gradient, f"grad:{name}")
    lower(graph)
    return _cut(joint, cotangent, own)


def _cut(joint: ir.Model, cotangent: ir.Value, own: int) -> tuple[ir.Model, ir.Model]:
    """Splits a joint graph: what does not depend on the cotangent is the forward, the rest the backward."""
    graph = joint.graph
    late: set[ir.Value] = {cotangent}
    late_nodes: list[ir.Node] = []
    ready = set(graph.initializers.values())  # and what is computed from them alone: cheaper than to save
    for node in graph:
        if any(v in late for v in node.inputs):
            late.update(node.outputs)
            late_nodes.append(node)
        elif node.op_type not in RANDOM and all(v is None or v in ready for v in node.inputs):
            ready.update(node.outputs)
    crossing: dict[ir.Value, str] = {}
    for value in [*(v for n in late_nodes for v in n.inputs), *graph.outputs[own:]]:
        if value is not None and value not in late and value not in ready and value not in crossing:
            crossing[value] = f"saved:{len(crossing)}"

    forward, backward_ = joint.clone(), joint.clone()
    names = {str(v.name): tag for v, tag in crossing.items()}
    kept = {str(n.name) for n in graph if all(v in late or v in ready for v in n.outputs)}
    _forward_half(forward.graph, names, cotangent_name=str(cotangent.name), own=own)
    _backward_half(backward_.graph, names, kept, cotangent_name=str(cotangent.name), own=own)
    return forward, backward_


def _forward_half(graph: ir.Graph, names: Mapping[str, str], cotangent_name: str, own: int) -> None:
    graph.outputs[own:] = []  # unlike del, takes their mark as outputs away
    values = {str(v.name): v for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
    for name, tag in names.items():
        add_output(graph, values[name], tag)
    remove_dead(graph)
    graph.inputs.remove(next(v for v in graph.inputs if v.name == cotangent_name))


def _backward_half(graph: ir.Graph, names: Mapping[str, str], kept: set[str], cotangent_name: str, own: int) -> None:
    graph.outputs[:own] = []
    values = {str(v.name): v for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
    cotangent = next(v for v in graph.inputs if v.name == cotangent_name)
    saved = []
    for name, tag in names.items():
        value = ir.Value(name=tag, shape=values[name].shape, type=values[name].type)
        values[name].replace_all_uses_with(value, replace_graph_outputs=True)
        saved.append(value)
    outputs = list(graph.outputs)
    graph.inputs[:] = [*saved, cotangent]
    for node in reversed(list(graph)):
        if node.name not in kept:
            graph.remove(node, safe=True)
    for index, value in enumerate(outputs):
        if value in saved:
            identity = ir.Node("", "Identity", [value], name=f"keep_{index}")
            identity.outputs[0].shape, identity.outputs[0].type = value.shape, value.type
            graph.append(identity)
            graph.outputs[index] = identity.outputs[0]
    remove_dead(graph)


def add_output(graph: ir.Graph, value: ir.Value, name: str) -> None:
    """Makes `value` a graph output called `name`; a value that already is one, or is an input, gets an Identity.

    Raises:
        InvalidModelError: the graph has a value of that name.
    """
    _refuse_taken(graph, name)
    if value.is_graph_output() or value.is_graph_input() or value.is_initializer():
        value = _identity(graph, value, name)
    value.name = name
    graph.outputs.append(value)


def _refuse_taken(graph: ir.Graph, name: str) -> None:
    values = (*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs))
    if any(v.name == name for v in values):
        raise InvalidModelError(
            f"the model has a value {name!r} already, as models have that were differentiated before; start from the "
            "forward model, or rename that value"
        )


def _identity(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    node = ir.Node("", "Identity", [value], name=f"output/{name}")
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    graph.append(node)
    return node.outputs[0]


def _output(graph: ir.Graph, name: str) -> ir.Value:
    for value in graph.outputs:
        if value.name == name:
            return value
    raise InvalidModelError(
        f"no output {name!r}; the model's outputs are {', '.join(str(v.name) for v in graph.outputs)}"
    )


def _inputs(graph: ir.Graph, names: Sequence[str]) -> list[ir.Value]:
    for name in names:
        if names.count(name) > 1:
            raise InvalidModelError(f"wrt names {name!r} twice")
    return [_input(graph, name) for name in names]


def _input(graph: ir.Graph, name: str) -> ir.Value:
    for value in graph.inputs:
        if value.name == name:
            if not is_float(value):
                raise InvalidModelError(f"input {name!r} is {value.dtype}: only floating inputs have gradients")
            return value
    raise InvalidModelError(f"no input {name!r}; the model's inputs are {', '.join(str(v.name) for v in graph.inputs)}")
