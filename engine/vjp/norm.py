"""Normalisation layers.

Group and instance normalisation never reshape the large tensor, which would cost every engine a change of layout:
moments are taken per channel, over the spatial axes, and averaged over each group on the small (B, C) tensor.
Then y = a·x + b and its gradient is a·g − B·x + C, with a, b, B, C one number per (batch, channel). The statistics are
fp32 whatever surrounds them, and the variance is that of centred values: E[x²] − μ² cancels. Rule and lowering write
the same statistics, so that they are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.passes.decompose import decomposition
from engine.passes.lower import lowering
from engine.tape import Tape, attribute, constant, dims, numpy_dtype, operand
from engine.vjp.registry import Cotangents, Gradients, vjp

_TINY = 1e-12
"""Norms are kept above this, as in torch's `normalize`."""


@vjp("GroupNormalization", "InstanceNormalization")
def group_normalization(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    x, scale, bias = (operand(node, i) for i in range(3))
    (g,) = cotangents
    spatial = list(range(2, len(dims(x))))
    with t.scope("statistics", "fp32"):
        groups = _Groups(t, x, _groups(node))
        mean, rstd = groups.statistics(_epsilon(node))
        gamma = groups.per_channel(scale)
        g_mean = groups.of_channels(t.ReduceMean(g, spatial, keepdims=1))
        gx_mean = groups.of_channels(t.ReduceMean(t.Mul(g, x), spatial, keepdims=1))
        correlation = t.Mul(rstd, t.Sub(gx_mean, t.Mul(mean, g_mean)))  # of g with (x − μ)/σ, per channel
        slope = t.Mul(t.Mul(rstd, rstd), t.ReduceMean(t.Mul(gamma, correlation), [2], keepdims=1))
        level = t.Mul(rstd, t.ReduceMean(t.Mul(gamma, g_mean), [2], keepdims=1))
        coefficients = t.Mul(rstd, gamma), slope, t.Sub(t.Mul(slope, mean), level)
        a, b, c = (groups.to_channels(v) for v in coefficients)
        count = float(math.prod(dims(x)[2:]))
        g_scale = groups.sum_over_batch(t.Mul(correlation, count), scale) if t.needs(scale) else None
        g_bias = groups.sum_over_batch(t.Mul(g_mean, count), scale) if t.needs(bias) else None
    gx = t.Add(t.Sub(t.Mul(g, a), t.Mul(x, b)), c) if t.needs(x) else None
    return gx, g_scale, g_bias


@lowering("GroupNormalization", "InstanceNormalization")
def lower_group_normalization(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, scale, bias = (operand(node, i) for i in range(3))
    with t.scope("statistics", "fp32"):
        groups = _Groups(t, x, _groups(node))
        mean, rstd = groups.statistics(_epsilon(node))
        a = t.Mul(rstd, groups.per_channel(scale))
        b = t.Sub(groups.per_channel(bias), t.Mul(mean, a))
        a, b = groups.to_channels(a), groups.to_channels(b)
    return (t.Add(t.Mul(x, a), b),)


class _Groups:
    """Small tensors as (B, G, C/G, 1), which broadcast against both (B, G, 1, 1) and (1, G, C/G, 1)."""

    def __init__(self, t: Tape, x: ir.Value, groups: int) -> None:
        self.t, self.x = t, x
        self.batch, self.channels, *self.size = dims(x)
        self.shape = [groups, self.channels // groups, 1]

    def statistics(self, epsilon: float) -> tuple[ir.Value, ir.Value]:
        """Mean and 1/√(variance + ε) of each group, (B, G, 1, 1)."""
        t, spatial = self.t, list(range(2, 2 + len(self.size)))
        mean = t.ReduceMean(self.x, spatial, keepdims=1)
        squares = t.ReduceSumSquare(t.Sub(self.x, mean), spatial, keepdims=1)
        within = self.of_channels(t.Mul(squares, 1.0 / math.prod(self.size)))
        mean = self.of_channels(mean)
        if self.shape[1] > 1:
            channel, mean = mean, t.ReduceMean(mean, [2], keepdims=1)
            away = t.Sub(channel, mean)
            within = t.ReduceMean(t.Add(within, t.Mul(away, away)), [2], keepdims=1)
        return mean, t.Reciprocal(t.Sqrt(t.Add(within, epsilon)))

    def of_channels(self, value: ir.Value) -> ir.Value:
        """(B, C, 1, ...) → (B, G, C/G, 1)."""
        return self.t.Reshape(value, [self.batch, *self.shape])

    def to_channels(self, value: ir.Value) -> ir.Value:
        """(B, G, C/G or 1, 1) → (B, C, 1, ...)."""
        if dims(value)[2] != self.shape[1]:
            value = self.t.Expand(value, [self.batch, *self.shape])
        return self.t.Reshape(value, [self.batch, self.channels] + [1] * len(self.size))

    def per_channel(self, value: ir.Value) -> ir.Value:
        """(C,) → (1, G, C/G, 1)."""
        return self.t.Reshape(value, [1, *self.shape])

    def sum_over_batch(self, value: ir.Value, like: ir.Value) -> ir.Value:
        """(B, G, C/G, 1) → (C,)."""
        return self.t.Reshape(self.t.ReduceSum(value, [0], keepdims=0), dims(like))


@vjp("LayerNormalization")
def layer_normalization(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    x, scale, g = operand(node, 0), operand(node, 1), cotangents[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    axes = _trailing(node, x)
    with t.scope("statistics", "fp32"):
        mean, rstd = _moments(t, x, axes, _epsilon(node))
    weighted = t.Mul(g, scale)
    with t.scope("statistics", "fp32"):
        g_mean = t.ReduceMean(weighted, axes, keepdims=1)
        gx_mean = t.ReduceMean(t.Mul(weighted, x), axes, keepdims=1)
        slope = t.Mul(t.Mul(t.Mul(rstd, rstd), rstd), t.Sub(gx_mean, t.Mul(mean, g_mean)))
        level = t.Sub(t.Mul(slope, mean), t.Mul(rstd, g_mean))
    gx = t.Add(t.Sub(t.Mul(weighted, rstd), t.Mul(x, slope)), level) if t.needs(x) else None
    g_scale = t.Mul(g, t.Mul(t.Sub(x, mean), rstd)) if t.needs(scale) else None
    return gx, g_scale, g if t.needs(bias) else None


@decomposition("LayerNormalization")
def layer_normalization_with_statistics(t: Tape, node: ir.Node) -> Sequence[ir.Value | None] | None:
    """Engines take the operator with its first output alone."""
    if not any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None
    x, scale = operand(node, 0), operand(node, 1)
    with t.scope("statistics", "fp32"):
        mean, rstd = _moments(t, x, _trailing(node, x), _epsilon(node))
    y = t.Mul(t.Mul(t.Sub(x, mean), rstd), scale)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        y = t.Add(y, node.inputs[2])
    return (y, mean, rstd)[: len(node.outputs)]


def _moments(t: Tape, x: ir.Value, axes: Sequence[int], epsilon: float) -> tuple[ir.Value, ir.Value]:
    """Mean and 1/√(variance + ε) over `axes`, which are kept."""
    mean = t.ReduceMean(x, list(axes), keepdims=1)
    squares = t.ReduceSumSquare(t.Sub(x, mean), list(axes), keepdims=1)
    return mean, t.Reciprocal(t.Sqrt(t.Add(t.Mul(squares, 1.0 / _count(x, axes)), epsilon)))


@vjp("RMSNormalization")
def rms_normalization(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    x, scale, (g,) = operand(node, 0), operand(node, 1), cotangents
    axes = _trailing(node, x)
    with t.scope("statistics", "fp32"):
        rrms = _reciprocal_rms(t, x, axes, _epsilon(node))
    weighted = t.Mul(g, scale)
    with t.scope("statistics", "fp32"):
        gx_mean = t.ReduceMean(t.Mul(weighted, x), axes, keepdims=1)
        slope = t.Mul(t.Mul(t.Mul(rrms, rrms), rrms), gx_mean)
    gx = t.Sub(t.Mul(weighted, rrms), t.Mul(x, slope)) if t.needs(x) else None
    return gx, t.Mul(g, t.Mul(x, rrms)) if t.needs(scale) else None


@lowering("RMSNormalization")
def lower_rms_normalization(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, scale = operand(node, 0), operand(node, 1)
    with t.scope("statistics", "fp32"):
        rrms = _reciprocal_rms(t, x, _trailing(node, x), _epsilon(node))
    return (t.Mul(t.Mul(x, rrms), scale),)


def _reciprocal_rms(t: Tape, x: ir.Value, axes: Sequence[int], epsilon: float) -> ir.Value:
    squares = t.ReduceSumSquare(x, list(axes), keepdims=1)
    return t.Reciprocal(t.Sqrt(t.Add(t.Mul(squares, 1.0 / _count(x, axes)), epsilon)))


@decomposition("BatchNormalization")
def batch_normalization(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    """In inference form: a per-channel affine map, taken into the convolution before it where there is one."""
    x, scale, bias, mean, variance = (operand(node, i) for i in range(5))
    a = t.Div(scale, t.Sqrt(t.Add(variance, _epsilon(node))))
    b = t.Sub(bias, t.Mul(mean, a))
    folded = _into_conv(t, x, constant(a), constant(b))
    if folded is not None:
        return (folded,)
    shape = [1, -1] + [1] * (len(dims(x)) - 2)
    return (t.Add(t.Mul(x, t.Reshape(a, shape)), t.Reshape(b, shape)),)


def _into_conv(t: Tape, x: ir.Value, a: np.ndarray | None, b: np.ndarray | None) -> ir.Value | None:
    """a·Conv(x) + b as one Conv, if nothing else reads the Conv and everything is constant."""
    conv = x.producer()
    if conv is None or conv.op_type != "Conv" or len(x.uses()) != 1 or x.is_graph_output() or a is None or b is None:
        return None
    weight, old = constant(conv.inputs[1]), conv.inputs[2] if len(conv.inputs) > 2 else None
    offset = constant(old)
    if weight is None or (old is not None and offset is None):
        return None
    weight = weight * a.reshape(-1, *[1] * (weight.ndim - 1))
    b = b if offset is None else b + a * offset
    attributes = {name: attr.value for name, attr in conv.attributes.items()}
    return t.op("Conv", conv.inputs[0], weight, b, **attributes)


@vjp("LpNormalization")
def lp_normalization(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    x, y, (g,) = operand(node, 0), node.outputs[0], cotangents
    axis, p = attribute(node, "axis", -1), attribute(node, "p", 2)
    with t.scope("statistics", "fp32"):
        inverse = _inverse_norm(t, x, axis, p)
        along = t.ReduceSum(t.Mul(g, y), [axis], keepdims=1)
    direction = y if p == 2 else t.Sign(x)
    return (t.Mul(t.Sub(g, t.Mul(direction, along)), inverse),)


@lowering("LpNormalization")
def lower_lp_normalization(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x = operand(node, 0)
    with t.scope("statistics", "fp32"):
        inverse = _inverse_norm(t, x, attribute(node, "axis", -1), attribute(node, "p", 2))
    return (t.Mul(x, inverse),)


def _inverse_norm(t: Tape, x: ir.Value, axis: int, p: int) -> ir.Value:
    norm = t.op("ReduceL2" if p == 2 else "ReduceL1", x, [axis], keepdims=1)
    return t.Reciprocal(t.Max(norm, _TINY))


@decomposition("LRN")
def local_response_normalization(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    """Writes x · (bias + α/n · Σ x²)^−β over n neighbouring channels: the sum is a 1×1 Conv with a band matrix."""
    x = operand(node, 0)
    n, channels = attribute(node, "size", None), dims(x)[1]
    offset = np.arange(channels)[None, :] - np.arange(channels)[:, None]
    band = (-((n - 1) // 2) <= offset) & (offset <= n // 2)
    weight = (band * (attribute(node, "alpha", 1e-4) / n)).astype(numpy_dtype(x))
    bias = np.full(channels, attribute(node, "bias", 1.0)).astype(numpy_dtype(x))
    ones = [1] * (len(dims(x)) - 2)
    with t.scope("statistics", "fp32"):
        total = t.Conv(t.Mul(x, x), weight.reshape(channels, channels, *ones), bias, kernel_shape=ones)
        factor = t.Pow(total, -attribute(node, "beta", 0.75))
    return (t.Mul(x, factor),)


@decomposition("MeanVarianceNormalization")
def mean_variance_normalization(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, axes = operand(node, 0), list(attribute(node, "axes", [0, 2, 3]))
    with t.scope("statistics", "fp32"):
        centred = t.Sub(x, t.ReduceMean(x, axes, keepdims=1))
        squares = t.ReduceSumSquare(centred, axes, keepdims=1)
        deviation = t.Add(t.Sqrt(t.Mul(squares, 1.0 / _count(x, axes))), 1e-9)
    return (t.Div(centred, deviation),)


def _groups(node: ir.Node) -> int:
    return int(attribute(node, "num_groups", dims(operand(node, 0))[1]))


def _epsilon(node: ir.Node) -> float:
    return float(attribute(node, "epsilon", 1e-5))


def _trailing(node: ir.Node, x: ir.Value) -> list[int]:
    rank = len(dims(x))
    return list(range(attribute(node, "axis", -1) % rank, rank))


def _count(x: ir.Value, axes: Sequence[int]) -> int:
    return math.prod(dims(x)[a] for a in axes)
