"""Rewrites operators whose form changed between opset 13 and `OPSET`, so that later code knows one form of each.

Only changes of form are handled: where a later version merely takes more dtypes, there is nothing to do. Operators
newer than `OPSET` are taken apart (see `decompose`, `early`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.tape import Tape, attribute, dims

REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare"),
)


def upgrade(tape: Tape, node: ir.Node, version: int) -> None:
    """Brings `node`, written in opset `version`, to the form it has at `OPSET`, in place.

    Args:
        tape: writes before the node.
        node: its operands have static shapes; its outputs need none yet.
        version: the opset that the model was written in.
    """
    if node.op_type in REDUCTIONS and "axes" in node.attributes:
        axes = node.attributes.pop("axes").as_ints()
        node.resize_inputs(2)
        node.replace_input_with(1, tape.constant(np.asarray(axes, np.int64)))
    elif node.op_type == "Split" and "num_outputs" not in node.attributes:
        if len(node.inputs) < 2 or node.inputs[1] is None:
            node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
    elif node.op_type == "GroupNormalization" and version < 21:
        _affine_per_channel(tape, node)
    elif node.op_type == "GridSample" and version < 20:
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(attribute(node, "mode", "bilinear"), "nearest")
        node.attributes["mode"] = ir.AttrString("mode", mode)
    elif node.op_type == "BatchNormalization" and version < 14 and len(node.outputs) > 1:
        node.resize_outputs(1)


def _affine_per_channel(tape: Tape, node: ir.Node) -> None:
    """Opset 18 gave scale and bias one entry per group; opset 21 one per channel."""
    channels, groups = dims(node.inputs[0])[1], int(attribute(node, "num_groups", 1))
    for index in (1, 2):
        columns = tape.Reshape(node.inputs[index], [groups, 1])
        spread = tape.Expand(columns, [groups, channels // groups])
        node.replace_input_with(index, tape.Reshape(spread, [-1]))
