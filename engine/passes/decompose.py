"""Operators taken apart before differentiation, because the pieces have better gradients or wider support.

A decomposition gets a tape that writes before the node, and the node with static shapes; it returns the
replacements of the node's outputs, or None to leave the node as it is. Operators that keep their own gradient rule
but that an engine does not take are lowered later, in `engine.passes.lower`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from engine.tape import Tape

Decomposition = Callable[[Tape, ir.Node], Sequence[ir.Value | None] | None]

DECOMPOSITIONS: dict[str, Decomposition] = {}

EARLY: set[str] = set()
"""Operators taken apart before their outputs' shapes are inferred."""


def decomposition(*op_types: str, early: bool = False) -> Callable[[Decomposition], Decomposition]:
    """Registers a decomposition for one or several operators.

    Args:
        *op_types: the operators.
        early: take apart before shape inference, which would refuse the node: an operator newer than `OPSET`, or
            one that the standard has in fewer dtypes than its pieces.
    """

    def register(rule: Decomposition) -> Decomposition:
        for op_type in op_types:
            if op_type in DECOMPOSITIONS:
                raise ValueError(f"{op_type} has a decomposition already")
            DECOMPOSITIONS[op_type] = rule
            if early:
                EARLY.add(op_type)
        return rule

    return register
