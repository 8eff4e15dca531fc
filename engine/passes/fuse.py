"""Recognises what exporters take apart and puts it together again, before differentiation.

One rewrite so far for each of two habits: GroupNorm written as Reshape → InstanceNormalization → Reshape
(→ Mul → Add), and an affine map between two convolutions (a 1×1 Conv after a Conv) that is a single convolution.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from engine.passes.tidy import remove_dead, replace
from engine.tape import Tape, attribute, constant, dims


def fuse(graph: ir.Graph) -> None:
    """Applies the rewrites in place; the outputs are equal up to rounding."""
    for node in list(graph):
        if node.graph is not None and node.op_type == "InstanceNormalization":
            _group_norm(graph, node)
    for node in list(graph):
        if node.graph is not None and node.op_type == "Conv":
            _pointwise_after_conv(graph, node)
    remove_dead(graph)


def _sole_consumer(value: ir.Value, op_type: str) -> ir.Node | None:
    consumers = value.consumers()
    if len(consumers) != 1 or value.is_graph_output() or consumers[0].op_type != op_type:
        return None
    return consumers[0]


def _group_norm(graph: ir.Graph, node: ir.Node) -> None:
    """(B,C,*S) → Reshape (B,G,-1) → InstanceNormalization → Reshape (B,C,*S) becomes GroupNormalization."""
    grouped, scale, bias = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[2])
    before = grouped.producer() if grouped is not None else None
    after = _sole_consumer(node.outputs[0], "Reshape")
    if before is None or before.op_type != "Reshape" or after is None or scale is None or bias is None:
        return
    x, y = before.inputs[0], after.outputs[0]
    assert x is not None
    assert grouped is not None
    shape, groups = dims(x), dims(grouped)[1]
    if shape != dims(y) or len(shape) < 3 or dims(grouped)[0] != shape[0] or shape[1] % groups or groups > shape[1]:
        return
    weight, offset = np.repeat(scale, shape[1] // groups), np.repeat(bias, shape[1] // groups)
    last = after
    while (affine := _per_channel(last, shape)) is not None:
        last, kind, factor = affine
        weight, offset = (weight * factor, offset * factor) if kind == "Mul" else (weight, offset + factor)
    tape = Tape(graph, before=last)
    epsilon = attribute(node, "epsilon", 1e-5)
    with tape.instead_of(node):
        fused = tape.GroupNormalization(
            x, weight.astype(scale.dtype), offset.astype(scale.dtype), epsilon=epsilon, num_groups=groups
        )
    replace(last, [fused])


def _per_channel(node: ir.Node, shape: tuple[int, ...]) -> tuple[ir.Node, str, np.ndarray] | None:
    """The Mul or Add by a per-channel constant that alone follows `node`, and its (C,) constant."""
    for op_type in ("Mul", "Add"):
        follower = _sole_consumer(node.outputs[0], op_type)
        if follower is None:
            continue
        other = follower.inputs[1] if follower.inputs[0] is node.outputs[0] else follower.inputs[0]
        factor = constant(other)
        if factor is None or dims(follower.outputs[0]) != shape:
            return None
        full = (1,) * (len(shape) - factor.ndim) + factor.shape
        if all(d == 1 or (axis == 1 and d == shape[1]) for axis, d in enumerate(full)):
            return follower, op_type, np.broadcast_to(factor.reshape(-1), (shape[1],)).copy()
    return None


def _pointwise_after_conv(graph: ir.Graph, node: ir.Node) -> None:
    """Conv followed only by a 1×1 Conv without padding or stride is one Conv: W = W₂·W₁, b = W₂·b₁ + b₂."""
    follower = _sole_consumer(node.outputs[0], "Conv")
    first, second = constant(node.inputs[1]), constant(follower.inputs[1]) if follower is not None else None
    if follower is None or first is None or second is None or attribute(node, "group", 1) != 1:
        return
    plain = all(k == 1 for k in second.shape[2:]) and attribute(follower, "group", 1) == 1
    if not plain or any(attribute(follower, "pads", ())) or any(s != 1 for s in attribute(follower, "strides", ())):
        return
    mix = second.reshape(second.shape[:2]).astype(np.float64)
    if second.shape[0] > first.shape[0] or any(_bias(n) is None for n in (node, follower) if _has_bias(n)):
        return
    weight = np.tensordot(mix, first.astype(np.float64), 1)
    offset = np.zeros(second.shape[0])
    for bias, through in ((_bias(node), mix), (_bias(follower), None)):
        if bias is not None:
            offset = offset + (bias if through is None else through @ bias)
    tape = Tape(graph, before=follower)
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    with tape.instead_of(node):
        merged = tape.op("Conv", node.inputs[0], weight.astype(first.dtype), offset.astype(first.dtype), **attributes)
    replace(follower, [merged])


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) > 2 and node.inputs[2] is not None


def _bias(node: ir.Node) -> np.ndarray | None:
    return constant(node.inputs[2]) if len(node.inputs) > 2 else None
