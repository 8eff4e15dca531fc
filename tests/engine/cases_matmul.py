"""Matrix products: MatMul, Gemm, Einsum, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F

from tests.engine.case import Builder, Case


def matmul(name: str, a: Sequence[int], b: Sequence[int]) -> list[Case]:
    return [
        Case(f"matmul/MatMul/{name}", lambda g: g.MatMul(g.input("a", *a), g.input("b", *b)), torch.matmul),
        Case(
            f"matmul/MatMul/{name}/weight", lambda g: g.MatMul(g.input("a", *a), g.weight(*b)), torch.matmul, opset=13
        ),
    ]


def gemm(transpose_a: int, transpose_b: int) -> Case:
    """Factors on both terms, and C broadcast from one row."""

    def build(g: Builder) -> ir.Value:
        a = g.input("a", *((4, 2) if transpose_a else (2, 4)))
        b = g.input("b", *((3, 4) if transpose_b else (4, 3)))
        return g.Gemm(a, b, g.input("c", 3), alpha=0.5, beta=2.0, transA=transpose_a, transB=transpose_b)

    def in_torch(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return 0.5 * (a.T if transpose_a else a) @ (b.T if transpose_b else b) + 2 * c

    return Case(f"matmul/Gemm/{transpose_a}{transpose_b}", build, in_torch)


def einsum(equation: str, *shapes: Sequence[int]) -> Case:
    return Case(
        f"matmul/Einsum/{equation}",
        lambda g: g.Einsum(*(g.input(f"x{i}", *s) for i, s in enumerate(shapes)), equation=equation),
        lambda *xs: torch.einsum(equation, *xs),
    )


def attention(
    name: str,
    q: Sequence[int],
    k: Sequence[int],
    mask: Any = None,
    torch_options: dict[str, Any] | None = None,
    **options: Any,
) -> Case:
    """`mask`: None, an array of booleans, or the shape of a floating input."""

    def build(g: Builder) -> ir.Value:
        operands = [g.input("q", *q), g.input("k", *k), g.input("v", *k)]
        if isinstance(mask, np.ndarray):
            operands.append(g.const(mask))
        elif mask is not None:
            operands.append(g.input("mask", *mask))
        return g.Attention(*operands, **options)

    def in_torch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, m: Any = None) -> torch.Tensor:
        if isinstance(mask, np.ndarray):
            m = torch.tensor(mask)
        flat = q.ndim == 3
        if flat:
            heads, kv_heads = options["q_num_heads"], options["kv_num_heads"]
            q = q.unflatten(-1, (heads, -1)).transpose(1, 2)
            k, v = (x.unflatten(-1, (kv_heads, -1)).transpose(1, 2) for x in (k, v))
        y = F.scaled_dot_product_attention(
            q, k, v, m, is_causal=bool(options.get("is_causal")), scale=options.get("scale"), enable_gqa=True
        )
        return y.transpose(1, 2).flatten(2) if flat else y

    reference = None if "softcap" in options else in_torch
    engines = ("onnxruntime", "openvino", "tensorrt")
    return Case(f"matmul/Attention/{name}", build, reference, engines=engines)


def past(g: Builder) -> Sequence[ir.Value]:
    operands = [g.input("q", 1, 2, 3, 4), g.input("k", 1, 2, 3, 4), g.input("v", 1, 2, 3, 4), None]
    operands += [g.input("past_k", 1, 2, 2, 4), g.input("past_v", 1, 2, 2, 4)]
    return g.op("Attention", *operands, outputs=4, is_causal=1, qk_matmul_output_mode=3)


def rotary(name: str, shape: Sequence[int], turned: int, positions: bool = False, **options: Any) -> Case:
    def build(g: Builder) -> ir.Value:
        rows = shape[-2] if len(shape) == 4 else shape[1]
        table = (9, turned // 2) if positions else (shape[0], rows, turned // 2)
        operands = [g.input("x", *shape), g.input("cos", *table), g.input("sin", *table)]
        if positions:
            operands.append(g.const(np.arange(shape[0] * rows).reshape(shape[0], rows) % 9))
        return g.RotaryEmbedding(*operands, **options)

    return Case(f"matmul/RotaryEmbedding/{name}", build)


DEAD_ROW = np.asarray([[True, False, True], [False, False, False]])

CASES = [
    *matmul("2d", (2, 3), (3, 4)),
    *matmul("batch", (2, 3, 4), (2, 4, 5)),
    *matmul("batch-by-one-matrix", (2, 3, 4), (4, 5)),
    *matmul("one-matrix-by-batch", (3, 4), (2, 4, 5)),
    *matmul("broadcast-both", (2, 1, 3, 4), (5, 4, 2)),
    *matmul("vector-vector", (4,), (4,)),
    *matmul("vector-matrix", (4,), (4, 3)),
    *matmul("matrix-vector", (3, 4), (4,)),
    *matmul("vector-batch", (4,), (2, 4, 3)),
    *matmul("batch-vector", (2, 3, 4), (4,)),
    *(gemm(a, b) for a in (0, 1) for b in (0, 1)),
    Case("matmul/Gemm/no-c", lambda g: g.Gemm(g.input("a", 2, 4), g.input("b", 4, 3)), torch.matmul, opset=13),
    Case(
        "matmul/Gemm/linear",
        lambda g: g.Gemm(g.input("x", 2, 4), g.weight(3, 4), g.weight(3), transB=1),
        lambda x, w, b: F.linear(x, w, b),
    ),
    Case(
        "matmul/Gemm/c-column",
        lambda g: g.Gemm(g.input("a", 2, 4), g.weight(4, 3), g.input("c", 2, 1)),
        lambda a, b, c: a @ b + c,
    ),
    einsum("ij,jk->ik", (2, 3), (3, 4)),
    einsum("ij,jk", (2, 3), (3, 4)),
    einsum("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    einsum("bhqk,bhkd->bqhd", (2, 2, 3, 5), (2, 2, 5, 4)),
    einsum("bijk,jkl->lib", (2, 3, 4, 5), (4, 5, 6)),
    einsum("...ij,...jk->...ik", (2, 1, 3, 4), (1, 5, 4, 2)),
    einsum("...i,i->...", (2, 3, 4), (4,)),
    einsum("i,j->ij", (3,), (4,)),
    einsum("bi,bi->b", (2, 3), (2, 3)),
    einsum("bi,bj->bij", (2, 3), (2, 4)),
    einsum("ij,kl->jl", (2, 3), (4, 5)),
    einsum("ij->ji", (2, 3)),
    einsum("ijk->j", (2, 3, 4)),
    einsum("ii->i", (3, 3)),
    einsum("ii", (3, 3)),
    einsum("bii,ij->bj", (2, 3, 3), (3, 4)),
    einsum("ab,bc,cd->ad", (2, 3), (3, 4), (4, 2)),
    attention("plain", (2, 3, 4, 8), (2, 3, 5, 8)),
    attention("scale", (1, 2, 4, 8), (1, 2, 4, 8), scale=0.3),
    attention("causal", (1, 2, 4, 8), (1, 2, 4, 8), is_causal=1),
    attention("grouped", (2, 4, 3, 8), (2, 2, 5, 8)),
    attention("flat", (2, 3, 16), (2, 5, 16), q_num_heads=4, kv_num_heads=4),
    attention("flat-grouped", (2, 3, 16), (2, 5, 8), q_num_heads=4, kv_num_heads=2),
    attention("mask-bool", (1, 2, 2, 4), (1, 2, 3, 4), mask=np.asarray([[True, False, True], [False, True, True]])),
    attention("mask-dead-row", (1, 2, 2, 4), (1, 2, 3, 4), mask=DEAD_ROW),
    attention("mask-float", (2, 2, 3, 4), (2, 2, 5, 4), mask=(2, 1, 3, 5)),
    attention("softcap", (1, 2, 3, 4), (1, 2, 5, 4), softcap=0.7),
    Case("matmul/Attention/past", past),
    rotary("halves", (2, 3, 4, 6), 6),
    rotary("interleaved", (2, 3, 4, 6), 6, interleaved=1),
    rotary("partial", (2, 3, 4, 6), 4, rotary_embedding_dim=4),
    rotary("positions", (2, 3, 4, 6), 6, positions=True),
    rotary("flat", (2, 4, 12), 6, num_heads=2),
    Case("matmul/Trilu/upper", lambda g: g.Trilu(g.input("x", 2, 3, 4)), torch.triu, opset=14),
    Case(
        "matmul/Trilu/lower",
        lambda g: g.Trilu(g.input("x", 4, 3), g.const(np.asarray(1, np.int64)), upper=0),
        lambda x: torch.tril(x, 1),
    ),
]
