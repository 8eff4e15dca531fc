"""Takes sequences apart: one whose length is known beforehand is a list of tensors, and needs no node.

Exporters write `SplitToSequence` and `SequenceAt` for `torch.split` and `chunk`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import InvalidModelError, UnsupportedOpError
from engine.passes.tidy import replace
from engine.tape import Tape, attribute, constant, dims, operand

SEQUENCES = frozenset(
    "ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength "
    "SplitToSequence".split()
)
"""Operators that `unpack` takes."""


def unpack(t: Tape, node: ir.Node, lists: dict[ir.Value, list[ir.Value]]) -> None:
    """Enters the sequence that a node makes in `lists`, or puts a tensor in the place of the node.

    Args:
        t: writes before the node.
        node: one of `SEQUENCES`, whose tensors have static shapes. One that makes a sequence stays, without a use.
        lists: the sequences that came before.

    Raises:
        UnsupportedOpError: a sequence that the data makes, or that the model takes or returns.
        InvalidModelError: a position outside the sequence.
    """
    made = node.outputs[0]
    match node.op_type:
        case "SequenceEmpty":
            lists[made] = []
        case "SequenceConstruct":
            lists[made] = [operand(node, i) for i in range(len(node.inputs))]
        case "SplitToSequence":
            lists[made] = _split(t, node)
        case "SequenceErase":
            parts = list(_parts(node, lists))
            del parts[_position(node, 1, len(parts))]
            lists[made] = parts
        case "SequenceInsert":
            parts = list(_parts(node, lists))
            at = len(parts) if len(node.inputs) < 3 else _position(node, 2, len(parts), end=True)
            lists[made] = [*parts[:at], operand(node, 1), *parts[at:]]
        case "SequenceAt":
            parts = _parts(node, lists)
            replace(node, [parts[_position(node, 1, len(parts))]])
        case "SequenceLength":
            replace(node, [t.constant(np.asarray(len(_parts(node, lists)), np.int64))])
        case "ConcatFromSequence":
            replace(node, [_concat(t, node, _parts(node, lists))])
    if made.is_graph_output() and made in lists:
        raise UnsupportedOpError(f"output {made.name!r} ({node.op_type} {node.name!r}) is a sequence")


def _parts(node: ir.Node, lists: dict[ir.Value, list[ir.Value]]) -> list[ir.Value]:
    sequence = operand(node, 0)
    if sequence not in lists:
        raise UnsupportedOpError(f"{node.op_type} (node {node.name!r}) takes a sequence that is not known beforehand")
    return lists[sequence]


def _position(node: ir.Node, index: int, count: int, end: bool = False) -> int:
    """A position in a sequence of `count`, not negative; with `end`, also the place after the last."""
    given = node.inputs[index] if len(node.inputs) > index else None
    if given is None:
        return count if end else count - 1
    known = constant(given)
    if known is None:
        raise UnsupportedOpError(f"{node.op_type} (node {node.name!r}) takes a position that depends on the data")
    position = int(known.reshape(-1)[0])
    if not -count <= position < count + end:
        raise InvalidModelError(f"{node.op_type} {node.name!r}: position {position} in a sequence of {count}")
    return position + count if position < 0 else position


def _split(t: Tape, node: ir.Node) -> list[ir.Value]:
    x, given = operand(node, 0), node.inputs[1] if len(node.inputs) > 1 else None
    axis = int(attribute(node, "axis", 0)) % len(dims(x))
    length, sizes = dims(x)[axis], constant(given)
    if given is not None and sizes is None:
        raise UnsupportedOpError(f"SplitToSequence (node {node.name!r}) takes sizes that depend on the data")
    if sizes is None or sizes.ndim == 0:
        size = 1 if sizes is None else int(sizes)
        sizes = np.diff([*range(0, length, size), length])
    parts = t.ops("Split", x, [int(s) for s in sizes], outputs=len(sizes), axis=axis)
    if given is None and not attribute(node, "keepdims", 1):
        return [t.Squeeze(part, [axis]) for part in parts]
    return list(parts)


def _concat(t: Tape, node: ir.Node, parts: Sequence[ir.Value]) -> ir.Value:
    axis = int(attribute(node, "axis", 0))
    if attribute(node, "new_axis", 0):
        parts = [t.Unsqueeze(part, [axis]) for part in parts]
    return t.Concat(*parts, axis=axis)
