"""Pooling: maximum, average, and the p-norm.

The gradient of a maximum goes to the first entry of the window that attains it, as in torch. No engine takes the
scatter that this suggests, so it is written with strided slices: the k-th entries of all windows are one slice, a
chain of comparisons hands each window's cotangent to the first slice that equals the maximum, and the slices are
interleaved again. Everything but the last step runs on tensors of the output's size.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.passes.decompose import decomposition
from engine.passes.lower import lowering
from engine.tape import Tape, attribute, dims, numpy_dtype, operand
from engine.vjp.conv import crop, interleave, transposed_conv, windowed_conv
from engine.vjp.registry import Cotangents, Gradients, vjp
from engine.vjp.window import Windows, windows

_WIDE = 9
"""Maximum over windows of more entries than this is taken axis by axis."""


@vjp("MaxPool")
def max_pool(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    x, y, g = operand(node, 0), node.outputs[0], cotangents[0]
    if g is None:
        return (None,)
    over = _windows(node)
    slices = _slices(t, x, over)
    rest, shares = g, []
    for index, entries in enumerate(slices):
        if index == len(slices) - 1:  # an earlier entry, or else this one, is the maximum
            shares.append(rest)
            break
        share = t.Mul(rest, _mask(t, t.Equal(entries, y), x))
        shares.append(share)
        rest = t.Sub(rest, share)
    return (_gather_windows(t, shares, over),)


@decomposition("MaxPool")
def separate_wide_max_pool(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """Last axis first: so the first maximum along each axis in turn is the first one of the window."""
    x, over = operand(node, 0), _windows(node)
    if math.prod(over.kernel) <= _WIDE or sum(k > 1 for k in over.kernel) < 2 or _has_indices(node):
        return None
    n, ends = len(over.kernel), over.ends
    for axis in reversed(range(n)):
        one = {a: (1, 1, 1, 0, 0) for a in range(n)}
        one[axis] = (over.kernel[axis], over.strides[axis], over.dilations[axis], over.begins[axis], max(ends[axis], 0))
        kernel, strides, dilations, begins, after = (list(column) for column in zip(*one.values(), strict=True))
        x = t.MaxPool(x, kernel_shape=kernel, strides=strides, dilations=dilations, pads=begins + after)
    return (x,)


@lowering("MaxPool")
def lower_dilated_max_pool(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """TensorRT has no dilated pooling."""
    x, over = operand(node, 0), _windows(node)
    if all(d == 1 for d in over.dilations) or _has_indices(node):
        return None
    return (t.Max(*_slices(t, x, over)),)


@vjp("AveragePool")
def average_pool(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    over = _windows(node)
    g = t.Mul(g, _inverse_counts(node, over))
    return (_spread_windows(t, g, over),)


@decomposition("AveragePool")
def plain_average_pool(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """TensorRT has no dilated pooling; engines differ in what they count where ceil_mode reaches beyond the padding."""
    x, over = operand(node, 0), _windows(node)
    if any(d != 1 for d in over.dilations):
        return (t.Mul(_sum_windows(t, x, over), _inverse_counts(node, over)),)
    if attribute(node, "ceil_mode", 0) and attribute(node, "count_include_pad", 0):
        pads = [*over.begins, *(max(e, 0) for e in over.ends)]
        average = t.AveragePool(
            x, kernel_shape=list(over.kernel), strides=list(over.strides), pads=pads, count_include_pad=1
        )
        return (t.Mul(average, _inverse_counts(node, over, times=math.prod(over.kernel))),)
    return None


@decomposition("LpPool")
def p_norm_pool(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, p = operand(node, 0), attribute(node, "p", 2)
    return (_root(t, _sum_windows(t, _power(t, x, p), _windows(node)), p),)


@decomposition("GlobalLpPool")
def global_p_norm_pool(t: Tape, node: ir.Node) -> Sequence[ir.Value]:
    x, p = operand(node, 0), attribute(node, "p", 2)
    return (_root(t, t.ReduceSum(_power(t, x, p), _spatial(x), keepdims=1), p),)


@vjp("GlobalAveragePool")
def global_average_pool(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Mul(g, 1.0 / math.prod(dims(operand(node, 0))[2:])),)


@vjp("GlobalMaxPool")
def global_max_pool(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,), x, y = cotangents, operand(node, 0), node.outputs[0]
    size = dims(x)[2:]
    place = np.arange(math.prod(size), dtype=np.int32).reshape(1, 1, *size)
    candidates = t.Where(t.Equal(x, y), place, np.int32(place.size))
    first = t.ReduceMin(candidates, _spatial(x), keepdims=1)
    return (t.Mul(g, _mask(t, t.Equal(place, first), x)),)


def _mask(t: Tape, condition: ir.Value, like: ir.Value) -> ir.Value:
    """One where the condition holds, else zero; a product with it costs ONNX Runtime a quarter of a Where."""
    return t.Cast(condition, to=int(like.dtype or ir.DataType.FLOAT))


def _windows(node: ir.Node) -> Windows:
    return windows(node, operand(node, 0), node.outputs[0], attribute(node, "kernel_shape", None))


def _has_indices(node: ir.Node) -> bool:
    return len(node.outputs) > 1 and bool(node.outputs[1].uses() or node.outputs[1].is_graph_output())


def _spatial(x: ir.Value) -> list[int]:
    return list(range(2, len(dims(x))))


def _power(t: Tape, x: ir.Value, p: int) -> ir.Value:
    return t.Mul(x, x) if p == 2 else t.Abs(x) if p == 1 else t.Pow(t.Abs(x), float(p))


def _root(t: Tape, x: ir.Value, p: int) -> ir.Value:
    return t.Sqrt(x) if p == 2 else x if p == 1 else t.Pow(x, 1.0 / p)


def _inverse_counts(node: ir.Node, over: Windows, times: int = 1) -> np.ndarray:
    """`times` over the number of entries that each window averages: one number, or (1, 1, *coarse)."""
    counts = np.ones(())
    padded = attribute(node, "count_include_pad", 0) == 1
    ends = attribute(node, "pads", None)
    for a, size in enumerate(over.fine):
        window = np.arange(over.coarse[a])[:, None] * over.strides[a] - over.begins[a]
        position = window + np.arange(over.kernel[a]) * over.dilations[a]
        after = max(over.ends[a], 0) if ends is None else ends[len(over.fine) + a]
        low, high = (-over.begins[a], size + after) if padded else (0, size)
        counts = counts[..., None] * ((position >= low) & (position < high)).sum(1)
    inverse = times / counts
    inverse = inverse.ravel()[:1].reshape(()) if np.ptp(inverse) == 0 else inverse[None, None]
    return inverse.astype(numpy_dtype(operand(node, 0)))


def _ones(x: ir.Value, over: Windows) -> np.ndarray:
    return np.ones((dims(x)[1], 1, *over.kernel), numpy_dtype(x))


def _sum_windows(t: Tape, x: ir.Value, over: Windows) -> ir.Value:
    """Sum over each window."""
    return windowed_conv(t, x, _ones(x, over), over, dims(x)[1])


def _spread_windows(t: Tape, g: ir.Value, over: Windows) -> ir.Value:
    """The transpose of `_sum_windows`: each position gets the sum of the windows that hold it."""
    if over.tile:
        spread = t.Resize(
            g,
            None,
            np.asarray([1, 1, *over.strides], np.float32),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        return _place(t, spread, over)
    if all(s == 1 for s in over.strides):
        pads = [k - 1 - b for k, b in zip(over.kernel, over.begins, strict=True)]
        pads += [k - 1 - e for k, e in zip(over.kernel, over.ends, strict=True)]
        if all(0 <= p < k for p, k in zip(pads, over.kernel * 2, strict=True)):
            box = t.AveragePool(g, kernel_shape=list(over.kernel), pads=pads, count_include_pad=1)
            return t.Mul(box, float(math.prod(over.kernel)))
    return transposed_conv(t, g, _ones(g, over), None, over, dims(g)[1])


def _slices(t: Tape, x: ir.Value, over: Windows) -> list[ir.Value]:
    """The k-th entries of all windows, for each k in row-major order: (B, C, *coarse) each."""
    step = over.strides[0]
    if len(over.fine) == 2 and step > 1 and over.strides == (step, step) and min(over.kernel) >= step:
        return _slices_of_phases(t, x, over, step)
    x = _extend(t, x, over.begins, over.ends)
    slices = []
    for starts in _places(over):
        stops = [b + (c - 1) * s + 1 for b, c, s in zip(starts, over.coarse, over.strides, strict=True)]
        slices.append(t.Slice(x, starts, stops, list(over.axes), list(over.strides)))
    return slices


def _slices_of_phases(t: Tape, x: ir.Value, over: Windows, step: int) -> list[ir.Value]:
    """The same by way of SpaceToDepth: engines read with a stride far slower than in one piece."""
    cells = _cells(over)
    ends = [q * step - b - f for q, b, f in zip(cells, over.begins, over.fine, strict=True)]
    x = _extend(t, crop(t, x, [0, 0], [min(e, 0) for e in ends]), over.begins, ends)
    phases = t.ops("Split", t.SpaceToDepth(x, blocksize=step), axis=1, num_outputs=step**2, outputs=step**2)
    slices = []
    for place in _places(over):
        starts = [p // step for p in place]
        phase = phases[place[0] % step * step + place[1] % step]
        stops = [b + c for b, c in zip(starts, over.coarse, strict=True)]
        slices.append(t.Slice(phase, starts, stops, list(over.axes)))
    return slices


def _extend(t: Tape, x: ir.Value, begins: Sequence[int], ends: Sequence[int]) -> ir.Value:
    """Surrounds x with −∞."""
    pads = [0, 0, *(max(b, 0) for b in begins), 0, 0, *(max(e, 0) for e in ends)]
    return t.Pad(x, pads, t.constant(-np.inf, x.dtype)) if any(pads) else x


def _places(over: Windows) -> list[list[int]]:
    """Where each entry of the first window lies, counted from the window's beginning, in row-major order."""
    steps = [range(0, k * d, d) for k, d in zip(over.kernel, over.dilations, strict=True)]
    return [list(place) for place in itertools.product(*steps)]


def _cells(over: Windows) -> list[int]:
    """How many stride-wide cells all windows span."""
    reach = zip(over.coarse, over.kernel, over.dilations, over.strides, strict=True)
    return [c + (k - 1) * d // s for c, k, d, s in reach]


def _gather_windows(t: Tape, shares: Sequence[ir.Value], over: Windows) -> ir.Value:
    """The transpose of `_slices`: adds the k-th entries of all windows back to where they come from.

    With stride s, entry k of window o lies at phase k·d mod s of cell o + k·d // s of the grid of s-wide cells.
    """
    needed = [-(-(b + f) // s) for b, f, s in zip(over.begins, over.fine, over.strides, strict=True)]
    cells = [max(c, q) for c, q in zip(_cells(over), needed, strict=True)]
    phases: dict[tuple[int, ...], ir.Value] = {}
    for place, share in zip(_places(over), shares, strict=True):
        before = [p // s for p, s in zip(place, over.strides, strict=True)]
        after = [q - c - b for q, c, b in zip(cells, over.coarse, before, strict=True)]
        if any(before) or any(after):
            share = t.Pad(share, [0, 0, *before, 0, 0, *after])
        phase = tuple(p % s for p, s in zip(place, over.strides, strict=True))
        phases[phase] = t.Add(phases[phase], share) if phase in phases else share
    every = list(itertools.product(*map(range, over.strides)))
    if len(every) == 1:
        spread = phases[every[0]]
    else:
        zero = next(iter(phases.values()))
        if len(phases) < len(every):
            zero = t.Expand(t.constant(0.0, zero.dtype), dims(zero))
        spread = interleave(t, t.Concat(*(phases.get(p, zero) for p in every), axis=1), over.strides, True)
    return _place(t, spread, over)


def _place(t: Tape, spread: ir.Value, over: Windows) -> ir.Value:
    """From a grid that starts `begins` before the input and ends anywhere, to the input's own."""
    n, begins = len(over.fine), list(over.begins)
    ends = [s - b - f for s, b, f in zip(dims(spread)[2:], begins, over.fine, strict=True)]
    spread = crop(t, spread, [-b for b in begins], [min(-e, 0) for e in ends])
    missing = [max(-e, 0) for e in ends]
    return t.Pad(spread, [0] * (4 + n) + missing) if any(missing) else spread
