"""Graph hygiene: dead code, identities, common subexpressions, no-op reshapes and casts."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from engine.tape import attribute, constant


def replace(node: ir.Node, values: Sequence[ir.Value | None]) -> None:
    """Puts `values` in the place of `node`'s outputs and removes the node."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    for old, new in zip(node.outputs, values, strict=False):
        if new is None:
            continue
        if old.is_graph_output():
            new = _as_output(graph, node, old, new)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _as_output(graph: ir.Graph, node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """A graph output keeps its name; one that is also an input, a constant or another output gets an Identity."""
    name, old.name = old.name, None
    if new.is_graph_input() or new.is_initializer() or new.is_graph_output():
        identity = ir.Node("", "Identity", [new], name=f"{node.name}/Identity")
        identity.outputs[0].shape, identity.outputs[0].type = new.shape, new.type
        graph.insert_before(node, identity)
        new = identity.outputs[0]
    new.name = name
    return new


def remove_dead(graph: ir.Graph) -> None:
    """Removes nodes and initializers that no output depends on."""
    for node in reversed(list(graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def tidy(graph: ir.Graph) -> None:
    """Removes what computes nothing: no-op nodes, repeated nodes, dead nodes."""
    for node in list(graph):
        source = _passes_through(node)
        if source is not None and not (node.outputs[0].is_graph_output() and _is_boundary(source)):
            replace(node, [source])
    model = ir.Model(graph, ir_version=10)
    common.DeduplicateInitializersPass(size_limit=64)(model)
    common.CommonSubexpressionEliminationPass(size_limit=64)(model)
    remove_dead(graph)


def _is_boundary(value: ir.Value) -> bool:
    return value.is_graph_input() or value.is_initializer() or value.is_graph_output()


def _passes_through(node: ir.Node) -> ir.Value | None:
    """The input that a node hands on unchanged, if it does."""
    x = node.inputs[0] if node.inputs else None
    if x is None or len(node.outputs) != 1:
        return None
    y = node.outputs[0]
    if node.op_type == "Identity":
        return x
    if x.dtype != y.dtype or x.shape is None or x.shape != y.shape:
        return None
    if node.op_type == "Slice":
        steps = node.inputs[4] if len(node.inputs) > 4 else None
        known = constant(steps)
        return x if steps is None or (known is not None and (known > 0).all()) else None
    if node.op_type in ("Reshape", "Expand", "Cast", "Flatten", "Squeeze", "Unsqueeze", "Tile"):
        return x
    if node.op_type in ("Concat", "Sum", "Mean", "Max", "Min"):
        return x if len(node.inputs) == 1 else None
    if node.op_type == "Transpose":
        perm = attribute(node, "perm", None)
        return x if perm is not None and list(perm) == sorted(perm) else None
    return None
