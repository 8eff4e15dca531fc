"""Normalisation layers."""

from __future__ import annotations

import onnx_ir as ir
import torch
import torch.nn.functional as F

from tests.engine.case import Builder, Case


def batch_norm(g: Builder, x: ir.Value, channels: int) -> ir.Value:
    return g.BatchNormalization(
        x,
        g.weight(channels, low=0.5, high=2),
        g.weight(channels),
        g.weight(channels),
        g.weight(channels, low=0.1, high=2),
        epsilon=1e-3,
    )


def conv_batch_norm(g: Builder) -> ir.Value:
    return batch_norm(g, g.Conv(g.input("x", 1, 3, 6, 5), g.weight(4, 3, 3, 3), g.weight(4)), 4)


CASES = [
    Case(
        "group_norm/two axes",
        lambda g: g.GroupNormalization(g.input("x", 2, 6, 4, 5), g.weight(6), g.weight(6), num_groups=3, epsilon=1e-3),
        lambda x, w, b: F.group_norm(x, 3, w, b, 1e-3),
    ),
    Case(
        "group_norm/far from zero",
        lambda g: g.GroupNormalization(
            g.input("x", 1, 6, 4, 5, low=99, high=101), g.weight(6), g.weight(6), num_groups=2
        ),
        lambda x, w, b: F.group_norm(x, 2, w, b),
        tolerance=1e-3,
    ),
    Case(
        "group_norm/one axis, one group",
        lambda g: g.GroupNormalization(g.input("x", 2, 4, 7), g.weight(4), g.weight(4), num_groups=1),
        lambda x, w, b: F.group_norm(x, 1, w, b),
    ),
    Case(
        "group_norm/three axes",
        lambda g: g.GroupNormalization(g.input("x", 1, 4, 3, 4, 2), g.weight(4), g.weight(4), num_groups=2),
        lambda x, w, b: F.group_norm(x, 2, w, b),
    ),
    Case(
        "group_norm/scale and bias from inputs",
        lambda g: g.GroupNormalization(g.input("x", 2, 4, 3, 4), g.input("w", 4), g.input("b", 4), num_groups=2),
        lambda x, w, b: F.group_norm(x, 2, w, b),
    ),
    Case(
        "group_norm/opset 18, scale per group",
        lambda g: g.GroupNormalization(g.input("x", 2, 4, 3, 4), g.weight(2), g.weight(2), num_groups=2),
        lambda x, w, b: F.group_norm(x, 2, w.repeat_interleave(2), b.repeat_interleave(2)),
        opset=18,
    ),
    Case(
        "group_norm/as torch writes it",
        lambda g: g.Add(
            g.Mul(
                g.Reshape(
                    g.InstanceNormalization(
                        g.Reshape(g.input("x", 2, 6, 4, 5), [0, 3, -1]),
                        g.weight(values=[1, 1, 1.0]),
                        g.weight(values=[0, 0, 0.0]),
                    ),
                    [2, 6, 4, 5],
                ),
                g.weight(6, 1, 1),
            ),
            g.weight(6, 1, 1),
        ),
        lambda x, one, zero, w, b: F.group_norm(x, 3, w[:, 0, 0], b[:, 0, 0]),
        opset=17,
    ),
    Case(
        "instance_norm/two axes",
        lambda g: g.InstanceNormalization(g.input("x", 2, 3, 4, 5), g.weight(3), g.weight(3)),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
        opset=13,
    ),
    Case(
        "instance_norm/scale and bias from inputs",
        lambda g: g.InstanceNormalization(g.input("x", 2, 3, 8), g.input("w", 3), g.input("b", 3)),
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    ),
    Case(
        "layer_norm/last axis",
        lambda g: g.LayerNormalization(g.input("x", 2, 5, 8), g.weight(8), g.weight(8)),
        lambda x, w, b: F.layer_norm(x, (8,), w, b),
        opset=17,
    ),
    Case(
        "layer_norm/two axes, no bias",
        lambda g: g.LayerNormalization(g.input("x", 2, 5, 3, 4), g.weight(3, 4), axis=2, epsilon=1e-3),
        lambda x, w: F.layer_norm(x, (3, 4), w, None, 1e-3),
    ),
    Case(
        "layer_norm/scale and bias from inputs",
        lambda g: g.LayerNormalization(g.input("x", 2, 5, 8), g.input("w", 8), g.input("b", 8)),
        lambda x, w, b: F.layer_norm(x, (8,), w, b),
    ),
    Case(
        "layer_norm/its statistics too",
        lambda g: g.op("LayerNormalization", g.input("x", 2, 5, 8), g.weight(8), g.weight(8), outputs=3),
        lambda x, w, b: (
            F.layer_norm(x, (8,), w, b),
            x.mean(-1, keepdim=True),
            (x.var(-1, keepdim=True, correction=0) + 1e-5).rsqrt(),
        ),
    ),
    Case(
        "rms_norm/last axis",
        lambda g: g.RMSNormalization(g.input("x", 2, 5, 8), g.weight(8)),
        lambda x, w: F.rms_norm(x, (8,), w, 1e-5),
    ),
    Case(
        "rms_norm/two axes, scale from an input",
        lambda g: g.RMSNormalization(g.input("x", 2, 5, 3, 4), g.input("w", 3, 4), axis=2, epsilon=1e-3),
        lambda x, w: F.rms_norm(x, (3, 4), w, 1e-3),
    ),
    Case(
        "batch_norm/alone",
        lambda g: batch_norm(g, g.input("x", 2, 3, 4, 5), 3),
        lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, eps=1e-3),
        opset=15,
    ),
    Case(
        "batch_norm/after a convolution",
        conv_batch_norm,
        lambda x, k, c, w, b, m, v: F.batch_norm(F.conv2d(x, k, c), m, v, w, b, eps=1e-3),
        opset=13,
    ),
    *(
        Case(
            f"lp_normalization/p {p}",
            lambda g, p=p: g.LpNormalization(g.input("x", 2, 5, 3, 4, away_from=[0]), axis=1, p=p),
            lambda x, p=p: F.normalize(x, p, 1),
        )
        for p in (1, 2)
    ),
    *(
        Case(
            f"lrn/size {size}",
            lambda g, size=size: g.LRN(g.input("x", 2, 7, 3, 4), size=size, alpha=0.5, beta=0.6, bias=1.5),
            (lambda x: F.local_response_norm(x, 5, 0.5, 0.6, 1.5)) if size == 5 else None,
            as_written=size == 5,  # ONNX Runtime takes odd sizes alone
        )
        for size in (4, 5)
    ),
    Case(
        "mean_variance_norm/default axes",
        lambda g: g.MeanVarianceNormalization(g.input("x", 2, 3, 4, 5)),
        lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / torch.std(x, (0, 2, 3), correction=0, keepdim=True),
    ),
]
