"""Evaluates nodes whose inputs are all constants, with ONNX' reference implementation in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from engine.errors import InvalidModelError

_GROWTH_LIMIT = 1 << 16
"""A result larger than this and than all its inputs stays a node: folding would only make the file bigger."""

RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""Operators that give something else each time: never evaluated beforehand, nor twice."""


def foldable(node: ir.Node) -> bool:
    """Whether every input is constant and the operator is a function of its inputs alone."""
    if node.op_type in RANDOM:
        return False
    return all(v is None or v.const_value is not None for v in node.inputs)


def evaluate(node: ir.Node) -> Sequence[np.ndarray] | None:
    """Outputs of a foldable node, or None if they are too large to be worth keeping.

    Raises:
        InvalidModelError: the operands do not fit the operator.
    """
    feeds: dict[str, np.ndarray] = {}
    for index, value in enumerate(node.inputs):
        if value is not None:
            assert value.const_value is not None
            feeds[f"in{index}"] = value.const_value.numpy()
    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        size = feeds["in0"] if node.op_type == "ConstantOfShape" else feeds["in1"]
        if int(np.prod(size, dtype=np.int64)) > _GROWTH_LIMIT:
            return None
    proto = ir.to_proto(node)
    for index, value in enumerate(node.inputs):
        proto.input[index] = "" if value is None else f"in{index}"
    del proto.output[:]
    proto.output.extend(f"out{i}" for i in range(len(node.outputs)))
    try:
        with np.errstate(all="ignore"):
            outputs = [np.asarray(a) for a in ReferenceEvaluator(proto).run(None, feeds)]
    except Exception as error:  # numpy and the reference raise many kinds
        raise InvalidModelError(f"{node.op_type} {node.name!r} cannot be evaluated: {error}") from error
    largest = max([_GROWTH_LIMIT, *(a.size for a in feeds.values())])
    return None if any(a.size > largest for a in outputs) else outputs
