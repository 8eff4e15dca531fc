"""Pooling: overlap, ceil_mode, padding counted or not, dilation, ties."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from tests.engine.case import Case

TIED = np.maximum(np.random.default_rng(0).integers(-3, 4, (1, 2, 7, 7)), 0).astype(np.float64)
"""Many windows without a single maximum: central differences mean nothing here, torch's choice does."""

MAX = [
    Case(
        "max_pool/tiles",
        lambda g: g.MaxPool(g.input("x", 2, 3, 6, 8, distinct=True), kernel_shape=[2, 2], strides=[2, 2]),
        lambda x: F.max_pool2d(x, 2),
        opset=13,
    ),
    Case(
        "max_pool/tiles, odd size",
        lambda g: g.MaxPool(g.input("x", 1, 3, 7, 9, distinct=True), kernel_shape=[2, 2], strides=[2, 2]),
        lambda x: F.max_pool2d(x, 2),
    ),
    Case(
        "max_pool/tiles, ceil_mode",
        lambda g: g.MaxPool(g.input("x", 1, 3, 7, 9, distinct=True), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    ),
    Case(
        "max_pool/3 by 2",
        lambda g: g.MaxPool(g.input("x", 1, 3, 9, 11, distinct=True), kernel_shape=[3, 3], strides=[2, 2]),
        lambda x: F.max_pool2d(x, 3, 2),
    ),
    Case(
        "max_pool/3 by 2, ceil_mode",
        lambda g: g.MaxPool(g.input("x", 1, 3, 10, 8, distinct=True), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    ),
    Case(
        "max_pool/3 by 2, padded",
        lambda g: g.MaxPool(
            g.input("x", 1, 3, 8, 7, distinct=True), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        lambda x: F.max_pool2d(x, 3, 2, 1),
    ),
    Case(
        "max_pool/stride 1, padded",
        lambda g: g.MaxPool(g.input("x", 1, 2, 5, 6, distinct=True), kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        lambda x: F.max_pool2d(x, 3, 1, 1),
    ),
    Case(
        "max_pool/5 wide, stride 1",
        lambda g: g.MaxPool(g.input("x", 1, 2, 7, 8, distinct=True), kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
        lambda x: F.max_pool2d(x, 5, 1, 2),
    ),
    Case(
        "max_pool/ties",
        lambda g: g.MaxPool(g.input("x", values=TIED), kernel_shape=[3, 3], strides=[2, 2]),
        lambda x: F.max_pool2d(x, 3, 2),
        differences=False,
    ),
    Case(
        "max_pool/ties, 5 wide",
        lambda g: g.MaxPool(g.input("x", values=TIED), kernel_shape=[5, 5], strides=[2, 2], pads=[2, 2, 2, 2]),
        lambda x: F.max_pool2d(x, 5, 2, 2),
        differences=False,
    ),
    Case(
        "max_pool/stride wider than kernel",
        lambda g: g.MaxPool(g.input("x", 1, 2, 8, 8, distinct=True), kernel_shape=[1, 2], strides=[2, 3]),
        lambda x: F.max_pool2d(x, (1, 2), (2, 3)),
    ),
    Case(
        "max_pool/dilation",
        lambda g: g.MaxPool(
            g.input("x", 1, 2, 9, 9, distinct=True), kernel_shape=[2, 3], strides=[2, 1], dilations=[3, 2]
        ),
        lambda x: F.max_pool2d(x, (2, 3), (2, 1), dilation=(3, 2)),
    ),
    Case(
        "max_pool/one axis",
        lambda g: g.MaxPool(g.input("x", 2, 3, 11, distinct=True), kernel_shape=[3], strides=[3], pads=[1, 1]),
        lambda x: F.max_pool1d(x, 3, 3, 1),
    ),
    Case(
        "max_pool/three axes",
        lambda g: g.MaxPool(g.input("x", 1, 2, 4, 6, 5, distinct=True), kernel_shape=[2, 2, 2], strides=[2, 2, 1]),
        lambda x: F.max_pool3d(x, 2, (2, 2, 1)),
    ),
    Case(
        "max_pool/three axes, wide",
        lambda g: g.MaxPool(
            g.input("x", 1, 2, 4, 6, 5, distinct=True), kernel_shape=[3, 3, 3], strides=[2, 2, 2], pads=[1] * 6
        ),
        lambda x: F.max_pool3d(x, 3, 2, 1),
    ),
    *(
        Case(
            f"max_pool/auto_pad {mode}",
            lambda g, mode=mode: g.MaxPool(
                g.input("x", 1, 2, 8, 9, distinct=True), kernel_shape=[3, 2], strides=[2, 2], auto_pad=mode
            ),
        )
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case(
        "global_max_pool/two axes",
        lambda g: g.GlobalMaxPool(g.input("x", 2, 3, 4, 5, distinct=True)),
        lambda x: x.amax((2, 3), keepdim=True),
    ),
    Case(
        "global_max_pool/ties",
        lambda g: g.GlobalMaxPool(g.input("x", values=TIED)),
        lambda x: F.adaptive_max_pool2d(x, 1),
        differences=False,
    ),
]

AVERAGE = [
    Case(
        "average_pool/tiles",
        lambda g: g.AveragePool(g.input("x", 2, 3, 6, 8), kernel_shape=[2, 2], strides=[2, 2]),
        lambda x: F.avg_pool2d(x, 2),
        opset=13,
    ),
    Case(
        "average_pool/tiles, odd size, ceil_mode",
        lambda g: g.AveragePool(g.input("x", 1, 3, 7, 9), kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    ),
    Case(
        "average_pool/tiles, rows unread",
        lambda g: g.AveragePool(g.input("x", 1, 3, 8, 10), kernel_shape=[3, 3], strides=[3, 3]),
        lambda x: F.avg_pool2d(x, 3),
    ),
    Case(
        "average_pool/tiles, padded",
        lambda g: g.AveragePool(
            g.input("x", 1, 3, 7, 6), kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1
        ),
        lambda x: F.avg_pool2d(x, 2, 2, 1),
    ),
    *(
        Case(
            f"average_pool/stride 1, padding counted: {counted}",
            lambda g, counted=counted: g.AveragePool(
                g.input("x", 1, 2, 5, 6), kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=counted
            ),
            lambda x, counted=counted: F.avg_pool2d(x, 3, 1, 1, count_include_pad=bool(counted)),
        )
        for counted in (0, 1)
    ),
    *(
        Case(
            f"average_pool/3 by 2, ceil_mode, padding counted: {counted}",
            lambda g, counted=counted: g.AveragePool(
                g.input("x", 1, 2, 8, 9),
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
                ceil_mode=1,
                count_include_pad=counted,
            ),
            lambda x, counted=counted: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=bool(counted)),
        )
        for counted in (0, 1)
    ),
    Case(
        "average_pool/3 by 2, rows unread",
        lambda g: g.AveragePool(g.input("x", 1, 2, 8, 10), kernel_shape=[3, 3], strides=[2, 2]),
        lambda x: F.avg_pool2d(x, 3, 2),
    ),
    Case(
        "average_pool/dilation",
        lambda g: g.AveragePool(
            g.input("x", 1, 2, 8, 10), kernel_shape=[2, 3], strides=[1, 2], dilations=[2, 2], pads=[1, 0, 1, 2]
        ),
    ),
    *(
        Case(
            f"average_pool/auto_pad {mode}",
            lambda g, mode=mode: g.AveragePool(
                g.input("x", 1, 2, 8, 9), kernel_shape=[3, 2], strides=[2, 2], auto_pad=mode
            ),
        )
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case(
        "average_pool/one axis",
        lambda g: g.AveragePool(g.input("x", 2, 3, 11), kernel_shape=[4], strides=[3]),
        lambda x: F.avg_pool1d(x, 4, 3),
    ),
    Case(
        "average_pool/three axes",
        lambda g: g.AveragePool(g.input("x", 1, 2, 4, 6, 5), kernel_shape=[2, 2, 2], strides=[2, 2, 2]),
        lambda x: F.avg_pool3d(x, 2),
    ),
    Case(
        "global_average_pool/two axes",
        lambda g: g.GlobalAveragePool(g.input("x", 2, 3, 4, 5)),
        lambda x: x.mean((2, 3), keepdim=True),
    ),
    Case(
        "global_average_pool/three axes",
        lambda g: g.GlobalAveragePool(g.input("x", 2, 3, 4, 5, 2)),
        lambda x: x.mean((2, 3, 4), keepdim=True),
    ),
]

P_NORM = [
    *(
        Case(
            f"lp_pool/p {p}",
            lambda g, p=p: g.LpPool(g.input("x", 1, 2, 7, 8, away_from=[0]), kernel_shape=[3, 2], strides=[2, 2], p=p),
            lambda x, p=p: F.avg_pool2d(x.abs() ** p, (3, 2), 2, divisor_override=1) ** (1 / p),
        )
        for p in (1, 2, 3)
    ),
    *(
        Case(
            f"global_lp_pool/p {p}",
            lambda g, p=p: g.GlobalLpPool(g.input("x", 1, 2, 7, 8, away_from=[0]), p=p),
            lambda x, p=p: torch.linalg.vector_norm(x, p, (2, 3), keepdim=True),
            as_written=False,  # ONNX Runtime lacks the operator
        )
        for p in (1, 2, 3)
    ),
]

CASES = MAX + AVERAGE + P_NORM
