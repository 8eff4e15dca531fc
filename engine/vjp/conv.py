"""Conv and ConvTranspose, one to three spatial axes.

Each is the other's gradient. No engine takes ConvTranspose in every precision, so a transposed convolution is always
written as a Conv: with stride 1 over flipped weights; with stride s as a sub-pixel convolution, one set of output
channels for each of the s phases of the finer grid, interleaved afterwards (Shi et al. 2016, arXiv 1609.05158 and
1609.07009). Weights are constants: they get no gradient, and are rearranged once, here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from engine.errors import UnsupportedOpError
from engine.passes.lower import lowering
from engine.tape import Tape, attribute, constant, dims
from engine.vjp.registry import Cotangents, Gradients, vjp
from engine.vjp.window import Windows, windows


@vjp("Conv")
def conv(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    assert g is not None
    x, weight, bias = _operands(node)
    over = windows(node, x, node.outputs[0], weight.shape[2:])
    gx = transposed_conv(t, g, weight, None, over, attribute(node, "group", 1)) if t.needs(x) else None
    return gx, None, _bias_gradient(t, g, bias)


@vjp("ConvTranspose")
def conv_transpose(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    assert g is not None
    x, weight, bias = _operands(node)
    over, group = _transposed_windows(node, x, weight.shape[2:]), attribute(node, "group", 1)
    gx = windowed_conv(t, g, weight, over, group) if t.needs(x) else None
    return gx, None, _bias_gradient(t, g, bias)


@lowering("ConvTranspose")
def lower_conv_transpose(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, weight, bias = _operands(node)
    over = _transposed_windows(node, x, weight.shape[2:])
    return (transposed_conv(t, x, weight, bias, over, attribute(node, "group", 1)),)


def transposed_conv(
    t: Tape, x: ir.Value, weight: np.ndarray, bias: ir.Value | None, over: Windows, group: int
) -> ir.Value:
    """The transpose of a convolution, as a Conv on the coarse grid.

    With position i = q·s + r of the fine grid (r its phase), entry k reaches it from window
    o = q + (r + begin − k·d)/s. So each entry belongs to one phase and one offset o − q, and the phases are s^n
    sets of channels of one convolution over the offsets.

    Args:
        t: the tape.
        x: (B, O, *coarse).
        weight: (O, I/group, *kernel), as Conv takes it from the fine to the coarse grid.
        bias: (I,) or None.
        over: the windows of the convolution.
        group: of the convolution.

    Returns:
        (B, I, *fine).
    """
    n, channels, strides = len(over.kernel), weight.shape[1] * group, over.strides
    split, firsts, steps = weight, [], []
    for axis in range(n):
        split, first, step = _split(split, axis, strides[axis], over.dilations[axis], over.begins[axis])
        firsts.append(first)
        steps.append(step)
    one_phase = math.prod(strides) > 1 and not any(
        split.take(range(1, s), 2 + 2 * axis).any() for axis, s in enumerate(strides)
    )
    if one_phase:  # a kernel of one entry: zeros take the place of the other phases
        split = split[(slice(None), slice(None), *(slice(0, 1), slice(None)) * n)]
    depth_first = group == 1 or one_phase
    taps = split.shape[3::2]
    split = split.reshape(group, -1, *split.shape[1:])
    phase_axes = [2 * axis + 3 for axis in range(n)]
    order = [0, *phase_axes, 2] if depth_first else [0, 2, *phase_axes]
    kernel = split.transpose(*order, 1, *(2 * axis + 4 for axis in range(n))).reshape(-1, split.shape[1], *taps)

    size = [-(-f // s) for f, s in zip(over.fine, strides, strict=True)]
    begins = [-first for first in firsts]
    reach = [(tap - 1) * step for tap, step in zip(taps, steps, strict=True)]
    ends = [q - c - b + r for q, c, b, r in zip(size, over.coarse, begins, reach, strict=True)]
    fused_bias = None if one_phase or bias is None else _repeat(t, bias, math.prod(strides), depth_first)
    y = padded_conv(t, x, kernel, fused_bias, begins, ends, dilations=steps, group=group)
    if one_phase:
        y = t.Pad(y, [0] * (3 + n) + [channels * (math.prod(strides) - 1)] + [0] * n)
    if math.prod(strides) > 1:
        y = interleave(t, y, strides, depth_first)
        y = crop(t, y, [0] * n, [f - q * s for f, q, s in zip(over.fine, size, strides, strict=True)])
    return y if bias is None or fused_bias is not None else t.Add(y, t.Reshape(bias, [1, channels] + [1] * n))


def windowed_conv(t: Tape, x: ir.Value, kernel: np.ndarray, over: Windows, group: int) -> ir.Value:
    """The convolution over the given windows of x (B, I, *fine)."""
    strides, dilations = list(over.strides), list(over.dilations)
    return padded_conv(t, x, kernel, None, over.begins, over.ends, strides=strides, dilations=dilations, group=group)


def padded_conv(
    t: Tape,
    x: ir.Value,
    kernel: np.ndarray,
    bias: ir.Value | None,
    begins: Sequence[int],
    ends: Sequence[int],
    **attributes: Sequence[int] | int,
) -> ir.Value:
    """Conv whose padding may be negative: what it would drop is cut off `x` first."""
    x = crop(t, x, [min(b, 0) for b in begins], [min(e, 0) for e in ends])
    pads = [max(p, 0) for p in (*begins, *ends)]
    operands = (x, np.ascontiguousarray(kernel)) if bias is None else (x, np.ascontiguousarray(kernel), bias)
    return t.op("Conv", *operands, pads=pads, kernel_shape=list(kernel.shape[2:]), **attributes)


def interleave(t: Tape, y: ir.Value, phases: Sequence[int], depth_first: bool) -> ir.Value:
    """(B, s₁…sₙ·C, q₁, …, qₙ) → (B, C, q₁·s₁, …, qₙ·sₙ); the phases come before C in the channels if `depth_first`."""
    n = len(phases)
    if n == 2 and phases[0] == phases[1]:
        return t.DepthToSpace(y, blocksize=phases[0], mode="DCR" if depth_first else "CRD")
    batch, channels, *size = dims(y)
    channels //= math.prod(phases)
    front, at = ([*phases, channels], 1) if depth_first else ([channels, *phases], 2)
    y = t.Reshape(y, [batch, *front, *size])
    pairs = [i for a in range(n) for i in (2 + n + a, at + a)]
    y = t.Transpose(y, perm=[0, 1 + n if depth_first else 1, *pairs])
    return t.Reshape(y, [batch, channels, *(q * s for q, s in zip(size, phases, strict=True))])


def _split(weight: np.ndarray, axis: int, stride: int, dilation: int, begin: int) -> tuple[np.ndarray, int, int]:
    """Replaces spatial axis `axis` of the kernel (those before it are replaced already) by a (phase, tap) pair.

    Returns:
        The kernel, zero where no entry belongs; the offset o − q of tap 0; the offset from one tap to the next.
    """
    at = 2 + 2 * axis
    entries = np.moveaxis(weight, at, 0)
    positions = np.arange(len(entries)) * dilation - begin
    phase, offset = positions % stride, -(positions // stride)
    first = int(offset.min())
    step = max(1, math.gcd(*(int(o) - first for o in offset)))
    tap = (offset - first) // step
    split = np.zeros((stride, int(tap.max()) + 1, *entries.shape[1:]), weight.dtype)
    split[phase, tap] = entries
    return np.moveaxis(split, (0, 1), (at, at + 1)), first, step


def crop(t: Tape, x: ir.Value, begins: Sequence[int], ends: Sequence[int]) -> ir.Value:
    """Cuts −begin and −end entries (both ≤ 0) off the spatial axes."""
    cut = [a for a, (b, e) in enumerate(zip(begins, ends, strict=True)) if b or e]
    if not cut:
        return x
    size = dims(x)[2:]
    return t.Slice(x, [-begins[a] for a in cut], [size[a] + ends[a] for a in cut], [a + 2 for a in cut])


def _repeat(t: Tape, bias: ir.Value, copies: int, depth_first: bool) -> ir.Value:
    if copies == 1:
        return bias
    (channels,) = dims(bias)
    shape = [copies, channels] if depth_first else [channels, copies]
    return t.Reshape(t.Expand(t.Unsqueeze(bias, [0 if depth_first else 1]), shape), [-1])


def _bias_gradient(t: Tape, g: ir.Value, bias: ir.Value | None) -> ir.Value | None:
    axes = [a for a in range(len(dims(g))) if a != 1]
    return t.ReduceSum(g, axes, keepdims=0) if t.needs(bias) else None


def _operands(node: ir.Node) -> tuple[ir.Value, np.ndarray, ir.Value | None]:
    x, weight = node.inputs[0], constant(node.inputs[1])
    if x is None or weight is None:
        raise UnsupportedOpError(
            f"the weights of {node.op_type} {node.name!r} are computed while the graph runs; only constant weights "
            "are supported on the way of a gradient"
        )
    return x, weight, node.inputs[2] if len(node.inputs) > 2 else None


def _transposed_windows(node: ir.Node, x: ir.Value, kernel: Sequence[int]) -> Windows:
    over = windows(node, node.outputs[0], x, kernel)
    mode = str(attribute(node, "auto_pad", "NOTSET"))
    if mode == "VALID" or (mode == "NOTSET" and "output_shape" not in node.attributes):
        return over
    # The padding follows from the output's size; the odd cell goes to the end for SAME_UPPER alone.
    totals = [max(e + b + p, 0) for e, b, p in zip(over.ends, over.begins, _extra(node, kernel), strict=True)]
    begins = tuple(p // 2 if mode == "SAME_UPPER" else p - p // 2 for p in totals)
    return replace(over, begins=begins)


def _extra(node: ir.Node, kernel: Sequence[int]) -> Sequence[int]:
    return list(attribute(node, "output_padding", [0] * len(kernel)))
