"""Small algebraic rewrites that leave fewer and smaller passes over memory; equal up to rounding.

The rewrites are in `arithmetic` and `layout`. Not here: dead code and common subexpressions (`tidy`), what exporters
take apart (`fuse`), and what an engine lacks (`lower`).
"""

from __future__ import annotations

import onnx_ir as ir

from engine.fold import evaluate, foldable
from engine.passes import arithmetic, layout
from engine.passes.rewrite import REWRITES
from engine.passes.tidy import remove_dead, replace
from engine.tape import Tape

_FAMILIES = (arithmetic, layout)

_ROUNDS = 20
"""Rewrites enable each other; a graph needs three or four rounds."""


def simplify(graph: ir.Graph) -> None:
    """Rewrites a canonical graph in place until nothing applies."""
    for _ in range(_ROUNDS):
        changed = False
        for node in list(graph):
            if node.graph is not None:
                changed |= _rewrite(graph, node)
        remove_dead(graph)
        if not changed:
            return


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    tape = Tape(graph, before=node)
    if foldable(node) and node.op_type != "Identity":
        folded = evaluate(node)
        if folded is not None:
            replace(node, [tape.constant(array) for array in folded])
            return True
    for rule in REWRITES.get(node.op_type, ()):
        with tape.instead_of(node):
            replacement = rule(tape, node)
        if replacement is not None:
            replace(node, [replacement])
            return True
    return False
