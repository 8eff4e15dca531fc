"""The last pass before an engine: operators that some engine refuses or runs badly become ones that all take.

Runs after differentiation. A lowering gets a tape that writes before the node and returns the replacements of the
node's outputs, or None to leave the node as it is. Shared statistics (mean, 1/σ) are written by the same functions
as in the gradient rules, so that common subexpressions merge the forward's with the backward's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from engine.passes.simplify import simplify
from engine.passes.tidy import replace, tidy
from engine.tape import Tape

Lowering = Callable[[Tape, ir.Node], Sequence[ir.Value | None] | None]

LOWERINGS: dict[str, Lowering] = {}


def lowering(*op_types: str) -> Callable[[Lowering], Lowering]:
    """Registers a lowering for one or several operators."""

    def register(rule: Lowering) -> Lowering:
        for op_type in op_types:
            if op_type in LOWERINGS:
                raise ValueError(f"{op_type} has a lowering already")
            LOWERINGS[op_type] = rule
        return rule

    return register


def lower(graph: ir.Graph) -> None:
    """Applies the lowerings to every node of a canonical graph, in place, then simplifies and tidies it."""
    for node in list(graph):
        rule = LOWERINGS.get(node.op_type)
        if rule is None:
            continue
        tape = Tape(graph, before=node)
        with tape.instead_of(node):
            replacement = rule(tape, node)
        if replacement is not None:
            replace(node, replacement)
    simplify(graph)
    tidy(graph)
