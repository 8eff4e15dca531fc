"""Attention and rotary embedding, taken apart into products and softmax: no engine takes all forms of them.

Semantics: the standard's `Attention` and `RotaryEmbedding`, opset 23. Scores keep the shape
(batch, heads, queries, keys).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import UnsupportedOpError
from engine.passes.decompose import decomposition
from engine.tape import Tape, attribute, constant, dims, is_float


@decomposition("Attention")
def attention(t: Tape, node: ir.Node) -> Sequence[ir.Value | None]:
    """softmax(scale·Q·Kᵀ + mask)·V."""
    q, k, v, mask, past_key, past_value = (*node.inputs, *[None] * 3)[:6]
    flat = len(dims(q)) == 3
    if flat:
        heads, kv_heads = attribute(node, "q_num_heads", 1), attribute(node, "kv_num_heads", 1)
        q, k, v = _heads(t, q, heads), _heads(t, k, kv_heads), _heads(t, v, kv_heads)
    past = 0 if past_key is None else dims(past_key)[2]
    if past_key is not None:
        k, v = t.Concat(past_key, k, axis=2), t.Concat(past_value, v, axis=2)
    scale = attribute(node, "scale", None) or 1 / math.sqrt(dims(q)[-1])
    scores = raw = _grouped_matmul(t, t.Mul(q, scale), t.Transpose(k, perm=[0, 1, 3, 2]))
    cap = attribute(node, "softcap", 0.0)
    if cap:
        scores = t.Mul(t.Tanh(t.Mul(scores, 1.0 / cap)), cap)
    if mask is not None and is_float(mask):
        scores = t.Add(scores, mask)
    allowed = _allowed(t, dims(scores), mask, past if attribute(node, "is_causal", 0) else None)
    weights = _masked_softmax(t, scores, allowed, attribute(node, "softmax_precision", None))
    y = _grouped_matmul(t, weights, v)
    if flat:
        batch, heads, rows, width = dims(y)
        y = t.Reshape(t.Transpose(y, perm=[0, 2, 1, 3]), [batch, rows, heads * width])
    return [y, k, v, _scores_output(node, raw, weights)][: len(node.outputs)]


def _heads(t: Tape, value: ir.Value | None, heads: int) -> ir.Value:
    batch, rows, width = dims(value)
    return t.Transpose(t.Reshape(value, [batch, rows, heads, width // heads]), perm=[0, 2, 1, 3])


def _grouped_matmul(t: Tape, many: ir.Value | None, few: ir.Value | None) -> ir.Value:
    """MatMul over (batch, heads); where `few` has fewer heads, each serves as many neighbours of `many`."""
    (batch, heads, rows, depth), kept = dims(many), dims(few)[1]
    if heads == kept:
        return t.MatMul(many, few)
    grouped = t.Reshape(many, [batch, kept, heads // kept, rows, depth])
    product = t.MatMul(grouped, t.Unsqueeze(few, [2]))
    return t.Reshape(product, [batch, heads, rows, dims(few)[-1]])


def _allowed(t: Tape, shape: tuple[int, ...], mask: ir.Value | None, causal_offset: int | None) -> ir.Value | None:
    """Which keys each query may look at, broadcastable to the scores; None if all."""
    allowed = mask if mask is not None and not is_float(mask) else None
    if causal_offset is None:
        return allowed
    causal = t.constant(np.tri(shape[-2], shape[-1], causal_offset, dtype=bool))
    return causal if allowed is None else t.And(allowed, causal)


def _masked_softmax(t: Tape, scores: ir.Value, allowed: ir.Value | None, precision: int | None) -> ir.Value:
    """Softmax over the allowed keys; a query that may look at none gets zeros, not NaN."""
    dtype = scores.dtype or ir.DataType.FLOAT
    if allowed is not None:
        scores = t.Where(allowed, scores, float(ir.DataType(dtype).min) / 2)
    if precision is not None and precision != dtype:
        weights = t.Cast(t.Softmax(t.Cast(scores, to=precision), axis=-1), to=int(dtype))
    else:
        weights = t.Softmax(scores, axis=-1)
    known = constant(allowed)
    if allowed is None or (known is not None and known.any(axis=-1).all()):
        return weights
    return t.Where(allowed, weights, 0.0)


def _scores_output(node: ir.Node, raw: ir.Value, weights: ir.Value) -> ir.Value | None:
    if len(node.outputs) < 4 or not (node.outputs[3].uses() or node.outputs[3].is_graph_output()):
        return None
    mode = attribute(node, "qk_matmul_output_mode", 0)
    if mode not in (0, 3):
        raise UnsupportedOpError(
            f"Attention {node.name!r}: qk_matmul_output_mode {mode} is not supported, only 0 and 3"
        )
    return raw if mode == 0 else weights


@decomposition("RotaryEmbedding", early=True)
def rotary_embedding(t: Tape, node: ir.Node) -> Sequence[ir.Value | None]:
    """Rotates pairs of features (a, b) by an angle: (a·cos − b·sin, a·sin + b·cos)."""
    x, cos, sin, positions = (*node.inputs, None)[:4]
    shape = dims(x)
    flat = len(shape) == 3
    if flat:
        heads = attribute(node, "num_heads", 0)
        x = t.Reshape(x, [*shape[:2], heads, shape[2] // heads])
    head_axis = 2 if flat else 1
    cos, sin = (
        t.Unsqueeze(angle if positions is None else t.Gather(angle, positions, axis=0), [head_axis])
        for angle in (cos, sin)
    )
    width = dims(x)[-1]
    turned = attribute(node, "rotary_embedding_dim", 0) or width
    head, rest = (x, None) if turned == width else t.ops("Split", x, [turned, width - turned], outputs=2, axis=-1)
    if attribute(node, "interleaved", 0):
        pairs = t.Reshape(head, [*dims(head)[:-1], turned // 2, 2])
        a, b = (t.Squeeze(part, [-1]) for part in t.ops("Split", pairs, [1, 1], outputs=2, axis=-1))
    else:
        a, b = t.ops("Split", head, [turned // 2, turned // 2], outputs=2, axis=-1)
    real, imaginary = t.Sub(t.Mul(a, cos), t.Mul(b, sin)), t.Add(t.Mul(a, sin), t.Mul(b, cos))
    if attribute(node, "interleaved", 0):
        both = t.Concat(t.Unsqueeze(real, [-1]), t.Unsqueeze(imaginary, [-1]), axis=-1)
        y = t.Reshape(both, dims(head))
    else:
        y = t.Concat(real, imaginary, axis=-1)
    y = y if rest is None else t.Concat(y, rest, axis=-1)
    return [t.Reshape(y, shape)]
