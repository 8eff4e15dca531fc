"""Rewrites operators whose form changed between opset 13 and `OPSET`, so that later code knows one form of each.

Only changes of form are handled: where a later version merely takes more dtypes, there is nothing to do.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.tape import Tape, attribute

_REDUCTIONS = frozenset(
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare".split()
)


def upgrade(graph: ir.Graph, version: int) -> None:
    """Brings every node of `graph`, written in opset `version`, to the form it has at `OPSET`."""
    for node in list(graph):
        if node.op_type in _REDUCTIONS and "axes" in node.attributes:
            _axes_to_input(graph, node)
        elif node.op_type == "Split" and "num_outputs" not in node.attributes:
            if len(node.inputs) < 2 or node.inputs[1] is None:
                node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))
        elif node.op_type == "GroupNormalization" and version < 21:
            _affine_per_channel(graph, node)
        elif node.op_type == "GridSample" and version < 20:
            mode = {"bilinear": "linear", "bicubic": "cubic"}.get(attribute(node, "mode", "bilinear"), "nearest")
            node.attributes["mode"] = ir.AttrString("mode", mode)
        elif node.op_type == "BatchNormalization" and version < 14 and len(node.outputs) > 1:
            node.resize_outputs(1)


def _axes_to_input(graph: ir.Graph, node: ir.Node) -> None:
    axes = list(node.attributes.pop("axes").as_ints())
    tape = Tape(graph, before=node)
    node.resize_inputs(2)
    node.replace_input_with(1, tape.constant(np.asarray(axes, np.int64)))


def _affine_per_channel(graph: ir.Graph, node: ir.Node) -> None:
    """Opset 18 gave scale and bias one entry per group; opset 21 one per channel."""
    tape = Tape(graph, before=node)
    x, groups = node.inputs[0], attribute(node, "num_groups", None)
    if x is None or x.shape is None or not isinstance(x.shape[1], int):
        return
    for index in (1, 2):
        value = node.inputs[index]
        assert value is not None
        columns = tape.Reshape(value, [int(groups), 1])
        spread = tape.Expand(columns, [int(groups), int(x.shape[1]) // int(groups)])
        node.replace_input_with(index, tape.Reshape(spread, [-1]))


