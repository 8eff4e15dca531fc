"""Where the windows of a convolution or a pooling lie, whatever attributes say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from engine.tape import attribute, dims


@dataclass(frozen=True)
class Windows:
    """Windows over a fine grid (the input of Conv and of pooling), one for each cell of a coarse grid (the output).

    Along each spatial axis, entry k of window o lies at position `o·stride + k·dilation − begin`.
    """

    fine: tuple[int, ...]
    coarse: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]

    @property
    def ends(self) -> tuple[int, ...]:
        """How far the last windows reach over the end; negative where the last positions lie in no window."""
        axes = zip(self.fine, self.coarse, self.kernel, self.strides, self.dilations, self.begins, strict=True)
        return tuple((c - 1) * s + (k - 1) * d + 1 - f - b for f, c, k, s, d, b in axes)

    @property
    def axes(self) -> tuple[int, ...]:
        """The spatial axes."""
        return tuple(range(2, 2 + len(self.fine)))

    @property
    def tile(self) -> bool:
        """Whether the windows lie side by side, without gap or overlap."""
        return self.kernel == self.strides and all(d == 1 for d in self.dilations)


def windows(node: ir.Node, fine: ir.Value, coarse: ir.Value, kernel: Sequence[int]) -> Windows:
    """The windows of a Conv or a pooling from `fine` to `coarse`."""
    n = len(kernel)
    strides = tuple(attribute(node, "strides", [1] * n))
    dilations = tuple(attribute(node, "dilations", [1] * n))
    size, count = dims(fine)[2:], dims(coarse)[2:]
    mode = str(attribute(node, "auto_pad", "NOTSET"))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        axes = zip(size, count, kernel, strides, dilations, strict=True)
        totals = [max((c - 1) * s + (k - 1) * d + 1 - f, 0) for f, c, k, s, d in axes]
        begins = tuple(p // 2 if mode == "SAME_UPPER" else p - p // 2 for p in totals)
    else:
        begins = tuple(attribute(node, "pads", [0] * (2 * n)))[:n] if mode == "NOTSET" else (0,) * n
    return Windows(size, count, tuple(kernel), strides, dilations, begins)
