"""Puts the branch that an If takes in the place of the If, where its condition is known beforehand.

Exporters write an If where a shape decides (`squeeze` of an axis that may be longer than one); with pinned shapes the
condition is a constant. Not here: the sweep that finds it out (`canonical`).
"""

from __future__ import annotations

import onnx_ir as ir

from engine.errors import InvalidModelError, UnsupportedOpError
from engine.passes.names import Names
from engine.passes.tidy import replace
from engine.tape import constant, operand


def inline(graph: ir.Graph, node: ir.Node, names: Names) -> list[ir.Node]:
    """Replaces an If by the nodes of the branch that it takes; an If inside them stays.

    Returns:
        The nodes that stand in its place, in order; they have neither dtypes nor shapes yet.

    Raises:
        UnsupportedOpError: the condition is not a constant.
        InvalidModelError: it is not one number, or the branch is absent or lacks an output.
    """
    taken, other = ("then_branch", "else_branch") if _condition(node) else ("else_branch", "then_branch")
    if taken not in node.attributes:
        raise InvalidModelError(f"If {node.name!r} has no {taken}")
    branch = node.attributes.pop(taken).as_graph()
    results = list(branch.outputs)
    if len(results) < len(node.outputs):
        raise InvalidModelError(f"the {taken} of If {node.name!r} returns {len(results)} of {len(node.outputs)} values")
    for result in results:
        if result.producer() is None and not result.is_initializer():
            raise InvalidModelError(f"the {taken} of If {node.name!r} returns {result.name!r}, and does not compute it")
    branch.outputs.clear()
    for name, value in list(branch.initializers.items()):
        del branch.initializers[name]
        names.adopt(value, f"{node.name}/")
        graph.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    # the outputs of an If may be outputs of the model, and one result may be several of them
    nodes += [ir.Node("", "Identity", [result]) for result in results[: len(node.outputs)]]
    for inner in nodes:
        names.give(inner, f"{node.name}/")
    graph.insert_before(node, nodes)
    if other in node.attributes:
        _detach(node.attributes[other].as_graph())
    replace(node, [identity.outputs[0] for identity in nodes[len(nodes) - len(node.outputs) :]])
    return nodes


def _condition(node: ir.Node) -> bool:
    known = constant(operand(node, 0))
    if known is None:
        raise UnsupportedOpError(
            f"the condition of If (node {node.name!r}) depends on the data; a compiled static graph holds one branch"
        )
    if known.size != 1:
        raise InvalidModelError(f"the condition of If {node.name!r} has {known.size} elements")
    return bool(known.reshape(()))


def _detach(branch: ir.Graph) -> None:
    """Its nodes no longer count among the uses of values outside."""
    for node in ir.traversal.RecursiveGraphIterator(branch):
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
