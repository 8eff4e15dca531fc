"""Gradient rules of matrix products.

Einsum and Attention are taken apart into these beforehand (see `einsum`, `attention`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from engine.passes.decompose import decomposition
from engine.tape import Tape, attribute, dims
from engine.vjp.registry import Cotangents, Gradients, vjp


@decomposition("MatMul")
def matmul_of_vector(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """A vector is a matrix of one row (left) or one column (right); of two, OpenVINO cannot compile that form."""
    a, b = node.inputs
    rows, columns = len(dims(a)) == 1, len(dims(b)) == 1
    if not rows and not columns:
        return None
    if rows and columns:
        return (t.ReduceSum(t.Mul(a, b), [0], keepdims=0),)
    left = t.Reshape(a, [1, *dims(a)]) if rows else a
    right = t.Reshape(b, [*dims(b), 1]) if columns else b
    product = t.MatMul(left, right)
    batch, (height, width) = dims(product)[:-2], dims(product)[-2:]
    return (t.Reshape(product, [*batch, *[height] * (not rows), *[width] * (not columns)]),)


@vjp("MatMul")
def matmul(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """g·Bᵀ and Aᵀ·g."""
    (g,) = cotangents
    a, b = node.inputs
    ga = t.MatMul(g, _transposed(t, b)) if t.needs(a) else None
    if not t.needs(b):
        return ga, None
    if len(dims(b)) == 2:  # one matrix for the whole batch: one product sums over it
        a, g = (t.Reshape(v, [math.prod(dims(v)[:-1]), dims(v)[-1]]) for v in (a, g))
    return ga, t.MatMul(_transposed(t, a), g)


def _transposed(t: Tape, value: ir.Value | None) -> ir.Value:
    rank = len(dims(value))
    return t.Transpose(value, perm=[*range(rank - 2), rank - 1, rank - 2])


@vjp("Gemm")
def gemm(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Products with the other operand, transposed by attribute, so that no weight is copied."""
    (g,) = cotangents
    a, b, c = (*node.inputs, None)[:3]
    alpha = attribute(node, "alpha", 1.0)
    ta, tb = attribute(node, "transA", 0), attribute(node, "transB", 0)
    ga = gb = gc = None
    if t.needs(a):
        ga = t.Gemm(b, g, alpha=alpha, transA=tb, transB=1) if ta else t.Gemm(g, b, alpha=alpha, transB=1 - tb)
    if t.needs(b):
        gb = t.Gemm(g, a, alpha=alpha, transA=1, transB=ta) if tb else t.Gemm(a, g, alpha=alpha, transA=1 - ta)
    if t.needs(c):
        gc = t.Mul(g, attribute(node, "beta", 1.0))
    return ga, gb, gc


@vjp("Trilu")
def trilu(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Trilu(g, *node.inputs[1:], upper=attribute(node, "upper", 1)),)
