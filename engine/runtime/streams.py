"""Which nodes of an fp32 island may read large tensors in bf16: statistics of what is stored in bf16 anyway.

A mark (see `islands`) on a sum over a large tensor makes OpenVINO's plugin write that tensor out again, in float32
and with channels outermost, before it is summed: around every normalisation, several times. But its kernels compute
in float32 whatever they read. So a sum of something that comes in bf16 from outside the island may read that, and so
may products of large tensors and offsets by small ones whose only readers are such sums. Not here: differences of
large tensors, which may be far smaller than either; and what becomes of the sums, which is for `islands`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_SUMS = ("ReduceMean", "ReduceSum")
_PRODUCTS = ("Multiply",)
_OFFSETS = ("Add", "Subtract")
_LARGE = 16
"""A tensor is large beside one with this many times fewer elements."""


def streams(island: Sequence[Any]) -> set[str]:
    """Friendly names of the nodes of `island` (OpenVINO's, all in one list) that may read large tensors in bf16."""
    inside = {node.get_friendly_name() for node in island}
    found = {node.get_friendly_name(): node for node in island if _is_sum(node) or _is_elementwise(node)}

    def comes_in_bf16(source: Any) -> bool:
        name = source.get_friendly_name()
        if name in inside:
            return name in found and not _is_sum(source)
        return source.get_type_name() not in ("Parameter", "Constant")

    def fits(node: Any) -> bool:
        readers = (port.get_node().get_friendly_name() for port in node.output(0).get_target_inputs())
        read_in_bf16 = _is_sum(node) or all(reader in found for reader in readers)
        return read_in_bf16 and all(comes_in_bf16(source) for source in _large_operands(node))

    while strange := [name for name, node in found.items() if not fits(node)]:
        for name in strange:
            del found[name]
    return set(found)


def _is_sum(node: Any) -> bool:
    fewer = _elements(node.input_value(0)) >= _LARGE * _elements(node.output(0))
    return node.get_type_name() in _SUMS and fewer


def _is_elementwise(node: Any) -> bool:
    kind = node.get_type_name()
    return kind in _PRODUCTS or (kind in _OFFSETS and len(_large_operands(node)) == 1)


def _large_operands(node: Any) -> list[Any]:
    """The nodes that give its large operands: of a sum what it sums, else whatever is about as large as its result."""
    if node.get_type_name() in _SUMS:
        return [node.input_value(0).get_node()]
    operands = [node.input_value(i) for i in range(node.get_input_size())]
    return [v.get_node() for v in operands if _LARGE * _elements(v) > _elements(node.output(0))]


def _elements(port: Any) -> int:
    return math.prod(port.get_shape())
