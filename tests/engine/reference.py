"""ONNX' reference implementation, with poolings that follow the standard where its own do not (padding, ceil_mode)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun


class MaxPool(OpRun):
    """First output only."""

    op_domain = ""

    def _run(self, x: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        return (_pool(x, lambda entries, inside, _: np.where(inside, entries, -np.inf).max(-1), **attributes),)


class AveragePool(OpRun):
    """Padding counts where `count_include_pad` says so; what ceil_mode reaches beyond it never does."""

    op_domain = ""

    def _run(self, x: np.ndarray, count_include_pad: int | None = None, **attributes: Any) -> tuple[np.ndarray]:
        def average(entries: np.ndarray, inside: np.ndarray, padded: np.ndarray) -> np.ndarray:
            return (entries * inside).sum(-1) / (padded if count_include_pad else inside).sum(-1)

        return (_pool(x, average, **attributes),)


def _pool(
    x: np.ndarray,
    reduce: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    kernel_shape: Any = None,
    strides: Any = None,
    dilations: Any = None,
    pads: Any = None,
    auto_pad: str | None = None,
    ceil_mode: int | None = None,
    storage_order: int | None = None,
) -> np.ndarray:
    n = len(kernel_shape)
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, pads or [0] * (2 * n)
    entries, inside, padded = x, np.ones((1,) * n + (1,), bool), np.ones((1,) * n + (1,), bool)
    for a, (k, s, d) in enumerate(zip(kernel_shape, strides, dilations, strict=True)):
        size, before, after = x.shape[2 + a], pads[a], pads[n + a]
        extent = (k - 1) * d + 1
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-size // s)
            total = max((count - 1) * s + extent - size, 0)
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            after = total - before
        else:
            rounded = size + before + after - extent
            count = (-(-rounded // s) if ceil_mode else rounded // s) + 1
            if ceil_mode and (count - 1) * s >= size + before:  # the last window begins beyond the end
                count -= 1
        place = np.arange(count)[:, None] * s + np.arange(k) * d - before
        within = lambda low, high, place=place: (place >= low) & (place < high)  # noqa: E731
        entries = np.take(entries, place.clip(0, size - 1), axis=2 + a)  # the window's entries go to the end
        entries = np.moveaxis(entries, 3 + a, -1)
        inside = _outer(inside, within(0, size), a)
        padded = _outer(padded, within(-before, size + after), a)
        entries = entries.reshape(*entries.shape[: x.ndim], -1)
    return reduce(entries, inside, padded).astype(x.dtype)


def _outer(mask: np.ndarray, along: np.ndarray, axis: int) -> np.ndarray:
    """(…, 1 at axis, …, e) and (count, k) → (…, count, …, e·k)."""
    shape = [1] * (mask.ndim - 1)
    shape[axis] = len(along)
    both = mask[..., None] & along.reshape(*shape, 1, -1)
    return both.reshape(*both.shape[:-2], -1)


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of the model, computed in the dtypes it is written in."""
    names = [output.name for output in proto.graph.output]
    evaluator = ReferenceEvaluator(proto, new_ops=[MaxPool, AveragePool])
    return dict(zip(names, evaluator.run(None, dict(feeds)), strict=True))
