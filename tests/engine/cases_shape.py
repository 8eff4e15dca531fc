"""Operators that move elements without computing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.engine.case import Builder, Case

END = np.iinfo(np.int64).max
START = np.iinfo(np.int64).min


def slices(name: str, shape: Sequence[int], *bounds: Sequence[int], opset: int = 23) -> Case:
    def in_torch(x: torch.Tensor) -> torch.Tensor:
        starts, ends = map(list, bounds[:2])
        axes = list(bounds[2]) if len(bounds) > 2 else list(range(len(starts)))
        steps = list(bounds[3]) if len(bounds) > 3 else [1] * len(starts)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            picked = np.arange(x.shape[axis])[slice(start, None if end == START else end, step)]
            x = x.index_select(axis, torch.tensor(picked.copy()))
        return x

    return Case(
        f"shape/Slice/{name}", lambda g: g.Slice(g.input("x", *shape), *map(list, bounds)), in_torch, opset=opset
    )


def pad(
    name: str, shape: Sequence[int], pads: Sequence[int], mode: str, torch_mode: str | None = None, **extra: Any
) -> Case:
    """`pads` as ONNX has them: all befores, then all afters."""
    half = len(pads) // 2
    pairs = [amount for axis in reversed(range(half)) for amount in (pads[axis], pads[axis + half])]

    def in_torch(x: torch.Tensor) -> torch.Tensor:
        if mode == "constant":
            return F.pad(x, pairs, value=extra.get("value", 0.0))
        for axis in range(half):
            picked = np.pad(np.arange(x.shape[axis]), (pads[axis], pads[axis + half]), mode=mode)  # type: ignore[call-overload]
            x = x.index_select(axis, torch.tensor(picked))
        return x

    def build(g: Builder) -> Any:
        value = [extra["value"]] if "value" in extra else []
        return g.Pad(g.input("x", *shape), list(pads), *value, mode=mode)

    return Case(f"shape/Pad/{name}", build, in_torch, opset=extra.get("opset", 23))


CASES = [
    Case("shape/Reshape", lambda g: g.Reshape(g.input("x", 2, 3, 4), [4, -1]), lambda x: x.reshape(4, -1)),
    Case(
        "shape/Reshape/keep", lambda g: g.Reshape(g.input("x", 2, 3, 4), [0, 12]), lambda x: x.reshape(2, 12), opset=13
    ),
    Case("shape/Flatten", lambda g: g.Flatten(g.input("x", 2, 3, 4), axis=2), lambda x: x.reshape(6, 4)),
    Case("shape/Squeeze", lambda g: g.Squeeze(g.input("x", 2, 1, 3, 1), [1, -1]), lambda x: x.squeeze()),
    Case("shape/Squeeze/all", lambda g: g.Squeeze(g.input("x", 2, 1, 3, 1)), lambda x: x.squeeze(), opset=13),
    Case("shape/Unsqueeze", lambda g: g.Unsqueeze(g.input("x", 2, 3), [0, -1]), lambda x: x[None, ..., None]),
    Case("shape/Identity", lambda g: g.Identity(g.Exp(g.input("x", 2, 3))), torch.exp),
    Case("shape/Dropout", lambda g: g.Dropout(g.Exp(g.input("x", 2, 3)), 0.5), torch.exp),
    Case(
        "shape/Dropout/training-false",
        lambda g: g.Dropout(g.Exp(g.input("x", 2, 3)), 0.5, g.const(np.asarray(False))),
        torch.exp,
        opset=13,
    ),
    Case("shape/Expand", lambda g: g.Expand(g.input("x", 3, 1), [2, 3, 4]), lambda x: x.expand(2, 3, 4)),
    Case("shape/Expand/smaller", lambda g: g.Expand(g.input("x", 2, 3, 4), [3, 1]), lambda x: x * 1, opset=13),
    Case("shape/Transpose", lambda g: g.Transpose(g.input("x", 2, 3, 4), perm=[1, 2, 0]), lambda x: x.permute(1, 2, 0)),
    Case("shape/Transpose/default", lambda g: g.Transpose(g.input("x", 2, 3)), lambda x: x.T, opset=13),
    Case(
        "shape/Concat",
        lambda g: g.Concat(g.input("a", 2, 3), g.weight(1, 3), g.input("b", 3, 3), axis=-2),
        lambda *xs: torch.cat(xs, 0),
    ),
    Case(
        "shape/Concat/one-wanted",
        lambda g: g.Concat(g.weight(2, 3), g.input("a", 2, 2), axis=1),
        lambda *xs: torch.cat(xs, 1),
        opset=13,
    ),
    Case("shape/Concat/itself", lambda g: g.Concat(x := g.input("x", 2, 3), x, axis=0), lambda x: torch.cat([x, x])),
    Case(
        "shape/Split",
        lambda g: g.op("Split", g.input("x", 2, 6), [1, 2, 3], outputs=3, axis=1),
        lambda x: x.split([1, 2, 3], 1),
    ),
    Case(
        "shape/Split/equal-13", lambda g: g.op("Split", g.input("x", 4, 3), outputs=2), lambda x: x.split(2), opset=13
    ),
    Case(
        "shape/Split/uneven",
        lambda g: g.op("Split", g.input("x", 2, 5), outputs=3, num_outputs=3, axis=-1),
        lambda x: x.split(2, 1),
        opset=18,
    ),
    Case(
        "shape/Split/one-used",
        lambda g: g.op("Split", g.input("x", 2, 6), [1, 2, 3], outputs=3, axis=1)[1],
        lambda x: x[:, 1:3],
    ),
    Case(
        "shape/Split/two-used",
        lambda g: g.op("Split", g.input("x", 2, 6), [1, 2, 3], outputs=3, axis=1)[::2],
        lambda x: (x[:, :1], x[:, 3:]),
    ),
    slices("plain", (4, 5), [1, 0], [3, END], opset=13),
    slices("negative-bounds", (4, 5), [-3], [-1], [-1]),
    slices("stride", (7, 5), [0, 1], [END, END], [0, 1], [2, 3]),
    slices("stride-offset", (8, 3), [3], [END], [0], [2]),
    slices("stride-past-the-end", (3, 7), [1], [6], [1], [2]),
    slices("reversed", (4, 5), [-1], [START], [1], [-1]),
    slices("reversed-stride", (9, 2), [7], [0], [0], [-3]),
    slices("reversed-two", (4, 5), [3, 4], [START, 0], [0, 1], [-1, -2]),
    slices("out-of-range", (4, 5), [-100], [100], [0], [1]),
    pad("constant", (2, 3, 4), (0, 1, 2, 1, 0, 3), "constant"),
    pad("constant-value", (3, 4), (1, 2, 0, 3), "constant", value=0.7, opset=13),
    replace(pad("negative", (5, 6), (-1, 2, 1, -3), "constant"), differences=False),  # numpy's pad refuses
    pad("reflect", (1, 2, 5, 6), (0, 0, 2, 3, 0, 0, 1, 4), "reflect"),
    pad("reflect-all-but-one", (1, 1, 4), (0, 0, 3, 0, 0, 3), "reflect", opset=13),
    pad("edge", (1, 2, 5, 6), (0, 0, 2, 3, 0, 0, 1, 4), "edge"),
    pad("wrap", (1, 2, 5, 6), (0, 0, 2, 3, 0, 0, 1, 4), "wrap", opset=19),
    Case(
        "shape/Pad/value",
        lambda g: g.Pad(g.input("x", 2, 3), [1, 0, 0, 2], g.input("v")),
        lambda x, v: F.pad(x - v, (0, 2, 1, 0)) + v,
    ),
    Case(
        "shape/Pad/axes",
        lambda g: g.Pad(g.input("x", 2, 3, 4), [1, 2], None, [-1], mode="reflect"),
        lambda x: F.pad(x, (1, 2), mode="reflect"),
    ),
    Case("shape/Tile", lambda g: g.Tile(g.input("x", 2, 1, 3), [3, 2, 1]), lambda x: x.tile(3, 2, 1)),
    Case("shape/Tile/once", lambda g: g.Tile(g.input("x", 2, 3), [1, 1]), lambda x: x * 1, opset=13),
    Case("shape/DepthToSpace/DCR", lambda g: g.DepthToSpace(g.input("x", 2, 8, 2, 3), blocksize=2), opset=13),
    Case(
        "shape/DepthToSpace/CRD",
        lambda g: g.DepthToSpace(g.input("x", 2, 8, 2, 3), blocksize=2, mode="CRD"),
        lambda x: F.pixel_shuffle(x, 2),
    ),
    Case("shape/SpaceToDepth", lambda g: g.SpaceToDepth(g.input("x", 2, 3, 4, 6), blocksize=2)),
]
