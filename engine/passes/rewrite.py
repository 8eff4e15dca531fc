"""The table of rewrites that `simplify` applies, and what they look for in a graph.

A rewrite gets a tape that writes before the node and returns the replacement of the node's only output, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from engine.tape import Tape, constant

Rewrite = Callable[[Tape, ir.Node], ir.Value | None]

REWRITES: dict[str, list[Rewrite]] = {}


def rewrite(*op_types: str) -> Callable[[Rewrite], Rewrite]:
    """Registers a rewrite of one or several operators; the first that applies is taken."""

    def register(rule: Rewrite) -> Rewrite:
        for op_type in op_types:
            REWRITES.setdefault(op_type, []).append(rule)
        return rule

    return register


def made_by(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes `value`, if it is one of these operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in op_types else None


def only_for(node: ir.Node, op_types: Sequence[str], position: int) -> ir.Node | None:
    """As `made_by`, for an operand that nothing else reads and that has the node's precision."""
    value = node.inputs[position]
    inner = made_by(value, *op_types)
    if inner is None or value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    return inner if inner.metadata_props.get("precision") == node.metadata_props.get("precision") else None


def all_equal(value: ir.Value | None, number: float) -> bool:
    array = constant(value)
    return array is not None and array.size > 0 and bool((array == number).all())


def split_constant(node: ir.Node) -> tuple[int, np.ndarray] | None:
    """(position of the computed operand, the constant one), for a node of two operands with one constant."""
    left, right = (constant(v) for v in node.inputs)
    if right is not None and left is None:
        return 0, right
    return (1, left) if left is not None and right is None else None
