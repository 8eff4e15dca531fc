"""The floor under a step's time: its counted multiply-adds over the fastest matrix rate this processor shows.

A bound on what any engine can do that computes convolutions directly. Elementwise passes and memory cost extra, and a
Winograd convolution may go below it, for it multiplies less.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import onnx_ir as ir
import torch


def multiply_adds(model: ir.Model) -> int:
    """Multiply-adds of all convolutions and matrix products of a static graph."""
    return sum(_node(node) for node in model.graph)


def _node(node: ir.Node) -> int:
    if node.op_type == "Conv":
        return math.prod(_dims(node.outputs[0])) * math.prod(_dims(node.inputs[1])[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(_dims(node.inputs[0])) * math.prod(_dims(node.inputs[1])[1:])
    if node.op_type == "MatMul":
        return math.prod(_dims(node.outputs[0])) * _dims(node.inputs[0])[-1]
    if node.op_type == "Gemm":
        transposed = "transA" in node.attributes and node.attributes["transA"].as_int() == 1
        return math.prod(_dims(node.outputs[0])) * _dims(node.inputs[0])[0 if transposed else 1]
    return 0


def _dims(value: ir.Value | None) -> tuple[int, ...]:
    if value is None or value.shape is None or not value.shape.is_static():
        raise ValueError(f"the shape of {value.name if value else 'a missing input'!r} is not known")
    return tuple(int(dim) for dim in value.shape if isinstance(dim, int))


def matrix_rate(bf16: bool, seconds: float = 1.5) -> float:
    """Multiply-adds a second: the best of square products and a 3 × 3 convolution, each repeated for `seconds`."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    best = 0.0
    with torch.no_grad():
        for size in (1024, 2048):
            left, right = torch.rand(size, size, dtype=dtype), torch.rand(size, size, dtype=dtype)
            best = max(best, size**3 / _fastest(partial(torch.matmul, left, right), seconds))
        picture = torch.rand(1, 256, 128, 128, dtype=dtype).contiguous(memory_format=torch.channels_last)
        layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False, dtype=dtype).to(memory_format=torch.channels_last)
        best = max(best, 256 * 256 * 9 * 128 * 128 / _fastest(lambda: layer(picture), seconds))
    return best


def _fastest(call: Callable[[], object], seconds: float) -> float:
    """The shortest of the calls that fit into `seconds`, after one warm-up."""
    call()
    end, shortest = time.perf_counter() + seconds, math.inf
    while time.perf_counter() < end or shortest == math.inf:
        started = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest
