"""One pass over a graph in execution order that leaves constants, static shapes and operators at `OPSET` only.

What is known at a node (its operands' shapes, the constants among them) decides what becomes of it, so folding, shape
inference, upgrades, the choice of branches and decompositions are one pass. What follows it is in `canonical`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from engine.errors import DynamicShapeError, UnsupportedOpError
from engine.fold import evaluate, foldable
from engine.passes.branch import inline
from engine.passes.decompose import DECOMPOSITIONS, EARLY
from engine.passes.names import Names
from engine.passes.sequence import SEQUENCES, unpack
from engine.passes.tidy import remove_dead, replace
from engine.passes.upgrade import upgrade
from engine.tape import Tape, attribute, constant, dims, infer, operand
from engine.vjp.registry import REFUSED

_STANDARD = ("", "ai.onnx")


def sweep(graph: ir.Graph, version: int) -> None:
    """Sweeps a sorted graph, written in opset `version`, whose inputs have static shapes, in place.

    Raises:
        InvalidModelError, UnsupportedOpError, DynamicShapeError: as `engine.load`.
    """
    _Sweep(graph, version, Names.of(graph)).run(list(graph))
    remove_dead(graph)


@dataclass(frozen=True)
class _Sweep:
    graph: ir.Graph
    version: int
    names: Names
    lists: dict[ir.Value, list[ir.Value]] = field(default_factory=dict)

    def run(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            if node.op_type == "If" and node.domain in _STANDARD:
                self.run(inline(self.graph, node, self.names))
            else:
                self._visit(node)

    def _visit(self, node: ir.Node) -> None:
        _refuse(node)
        node.domain = ""
        tape = Tape(self.graph, before=node)
        upgrade(tape, node, self.version)
        if node.op_type == "Identity":
            _pass_on(node)
        elif node.op_type in ("Shape", "Size") and _known(node.inputs[0]):
            replace(node, [tape.constant(_measure(node))])
        elif node.op_type in SEQUENCES:
            with tape.instead_of(node):
                unpack(tape, node, self.lists)
        elif node.op_type in EARLY and _decomposed(tape, node):
            return
        elif foldable(node) and (folded := evaluate(node)) is not None:
            replace(node, [tape.constant(array) for array in folded])
        else:
            for value in node.outputs:
                value.shape = value.type = None
            infer(node)
            _static(node)
            _decomposed(tape, node)


def _pass_on(node: ir.Node) -> None:
    """Whoever reads an Identity reads its input: a shape behind it is known, a weight is not copied."""
    source, output = operand(node, 0), node.outputs[0]
    for user, index in output.uses():
        user.replace_input_with(index, source)
    output.shape, output.type = source.shape, source.type


def _refuse(node: ir.Node) -> None:
    if node.domain not in _STANDARD:
        raise UnsupportedOpError(
            f"{node.domain}::{node.op_type} (node {node.name!r}) is not an operator of the ONNX standard"
        )
    if node.op_type in REFUSED:
        raise UnsupportedOpError(f"{node.op_type} (node {node.name!r}) cannot be part of a compiled static graph")
    _refuse_training(node)


def _decomposed(tape: Tape, node: ir.Node) -> bool:
    decomposition = DECOMPOSITIONS.get(node.op_type)
    if decomposition is None:
        return False
    with tape.instead_of(node):
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
