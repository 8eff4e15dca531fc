"""Gradient rules of operators that move elements without computing: reshapes, slices, pads, tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import UnsupportedOpError
from engine.passes.decompose import decomposition
from engine.tape import Tape, attribute, constant, dims
from engine.vjp.indexing import sum_into
from engine.vjp.registry import Cotangents, Gradients, vjp


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.Reshape(g, dims(node.inputs[0])),)


@vjp("Identity", "Expand")
def unchanged(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (g,)


@decomposition("Dropout", early=True)
def dropout(t: Tape, node: ir.Node) -> Sequence[ir.Value | None]:
    """In inference form, the only one that is read, nothing is dropped."""
    x = node.inputs[0]
    masked = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
    return x, t.constant(np.ones(dims(x), bool)) if masked else None


@vjp("Transpose")
def transpose(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    rank = len(dims(g))
    perm = attribute(node, "perm", range(rank)[::-1])
    return (t.Transpose(g, perm=[int(i) for i in np.argsort(perm)]),)


@vjp("Concat")
def concat(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    axis = attribute(node, "axis", 0)
    sizes = [dims(x)[axis] for x in node.inputs]
    wanted = [i for i, x in enumerate(node.inputs) if t.needs(x)]
    if len(wanted) == 1:
        start = sum(sizes[: wanted[0]])
        piece = t.Slice(g, [start], [start + sizes[wanted[0]]], [axis])
        return [piece if i == wanted[0] else None for i in range(len(sizes))]
    return t.ops("Split", g, sizes, outputs=len(sizes), axis=axis)


@decomposition("Split")
def split_by_sizes(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """OpenVINO takes a number of pieces only where it divides the length."""
    if "num_outputs" not in node.attributes:
        return None
    axis = attribute(node, "axis", 0)
    sizes = [dims(y)[axis] for y in node.outputs]
    return t.ops("Split", node.inputs[0], sizes, outputs=len(sizes), axis=axis)


@vjp("Split")
def split(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    axis = attribute(node, "axis", 0) % len(dims(node.inputs[0]))
    present = [i for i, g in enumerate(cotangents) if g is not None]
    sizes = [dims(y)[axis] for y in node.outputs]
    if len(present) == 1:
        (i,) = present
        return (_pad_zeros(t, cotangents[i], {axis: (sum(sizes[:i]), sum(sizes[i + 1 :]))}),)
    pieces = [_zeros(t, y) if g is None else g for g, y in zip(cotangents, node.outputs, strict=True)]
    return (t.Concat(*pieces, axis=axis),)


@vjp("Slice")
def slice_(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """Zeros everywhere but at start + i·step, by pads and reshapes."""
    (g,) = cotangents
    shape, pads = dims(node.inputs[0]), {}
    for axis, (start, step, count) in _spans(node).items():
        if step < 0:
            g, start, step = _flip(t, g, axis), start + (count - 1) * step, -step
        if step == 1:
            pads[axis] = (start, shape[axis] - start - count)
        else:
            g = _spread(t, g, axis, start, step, shape[axis])
    return (_pad_zeros(t, g, pads),)


def _spans(node: ir.Node) -> dict[int, tuple[int, int, int]]:
    """Axis → (start, step, count) of the elements that a Slice takes, for the axes that it cuts."""
    x, y = dims(node.inputs[0]), dims(node.outputs[0])
    arrays = [constant(v) for v in node.inputs[1:]]
    if any(a is None for a, v in zip(arrays, node.inputs[1:], strict=True) if v is not None):
        raise UnsupportedOpError(f"Slice {node.name!r} computes its bounds; they must be constant to be differentiated")
    starts, _, axes, steps = (*arrays, None, None)[:4]
    assert starts is not None
    axes = np.arange(starts.size) if axes is None else axes
    steps = np.ones_like(starts) if steps is None else steps
    spans = {}
    for start, axis, step in zip(starts.tolist(), axes.tolist(), steps.tolist(), strict=True):
        axis %= len(x)
        start = start + x[axis] if start < 0 else start
        start = min(max(start, 0), x[axis] if step > 0 else x[axis] - 1)
        if (start, step, y[axis]) != (0, 1, x[axis]):
            spans[axis] = (start, step, y[axis])
    return spans


def _flip(t: Tape, g: ir.Value | None, axis: int) -> ir.Value:
    last = np.iinfo(np.int64)
    return t.Slice(g, [-1], [int(last.min)], [axis], [-1])


def _spread(t: Tape, g: ir.Value | None, axis: int, start: int, step: int, length: int) -> ir.Value:
    """Puts the elements of `g` at start + i·step of an axis of `length`: each padded to a cell of `step`."""
    shape = dims(g)
    before, cells = start // step, -(-length // step)
    cell = t.Reshape(g, [*shape[: axis + 1], 1, *shape[axis + 1 :]])
    inside = start % step
    cell = _pad_zeros(t, cell, {axis: (before, cells - before - shape[axis]), axis + 1: (inside, step - 1 - inside)})
    flat = t.Reshape(cell, [*shape[:axis], cells * step, *shape[axis + 1 :]])
    return flat if cells * step == length else t.Slice(flat, [0], [length], [axis])


def _pad_zeros(t: Tape, g: ir.Value | None, pads: dict[int, tuple[int, int]]) -> ir.Value:
    rank = len(dims(g))
    amounts = [pads.get(axis, (0, 0))[side] for side in (0, 1) for axis in range(rank)]
    if not any(amounts):
        assert g is not None
        return g
    return t.Pad(g, amounts)


def _zeros(t: Tape, value: ir.Value) -> ir.Value:
    return t.Expand(t.constant(0.0, value.dtype), dims(value))


@decomposition("Pad")
def plain_pad(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """Negative pads become a Slice, circular ones a Gather, a computed value a Where: not every engine takes them."""
    x, mode, pads = node.inputs[0], attribute(node, "mode", "constant"), _pads(node)
    shape = dims(x)
    if mode == "wrap":
        for axis, amounts in pads.items():
            if any(amounts):
                x = t.Gather(x, np.pad(np.arange(shape[axis]), amounts, mode="wrap"), axis=axis)
        return (t.Identity(x),)
    cut = {a: (max(-p[0], 0), max(-p[1], 0)) for a, p in pads.items() if min(p) < 0}
    value = node.inputs[2] if len(node.inputs) > 2 else None
    computed = mode == "constant" and value is not None and constant(value) is None
    if not cut and not computed:
        return None
    if cut:
        x = t.Slice(x, [c[0] for c in cut.values()], [shape[a] - c[1] for a, c in cut.items()], list(cut))
    added = [max(pads.get(axis, (0, 0))[side], 0) for side in (0, 1) for axis in range(len(shape))]
    if not computed:
        return (t.Pad(x, added, value, mode=mode),)
    pairs = list(zip(added[: len(shape)], added[len(shape) :], strict=True))
    inside = np.pad(np.ones([d if any(p) else 1 for d, p in zip(dims(x), pairs, strict=True)], bool), pairs)
    return (t.Where(inside, t.Pad(x, added), value),)


@vjp("Pad")
def pad(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x, pads = dims(node.inputs[0]), {axis: amounts for axis, amounts in _pads(node).items() if any(amounts)}
    if attribute(node, "mode", "constant") == "constant":
        ends = [before + x[axis] for axis, (before, _) in pads.items()]
        return (t.Slice(g, [before for before, _ in pads.values()], ends, list(pads)) if pads else g,)
    for axis, amounts in pads.items():
        sources = np.pad(np.arange(x[axis]), amounts, mode=attribute(node, "mode", "reflect"))
        g = sum_into(t, g, sources, x[axis], axis)
    return (g,)


def _pads(node: ir.Node) -> dict[int, tuple[int, int]]:
    """Axis → (before, after)."""
    pads = constant(node.inputs[1])
    given = node.inputs[3] if len(node.inputs) > 3 else None
    axes = constant(given)
    if pads is None or (given is not None and axes is None):
        raise UnsupportedOpError(f"Pad {node.name!r} computes its pads; they must be constant")
    rank = len(dims(node.inputs[0]))
    which = range(rank) if axes is None else [int(a) % rank for a in axes.reshape(-1)]
    half = pads.size // 2
    return {axis: (int(pads[i]), int(pads[i + half])) for i, axis in enumerate(which)}


@vjp("Tile")
def tile(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """The sum over the copies."""
    (g,) = cotangents
    shape, full = dims(node.inputs[0]), dims(g)
    split_: list[int] = []
    copies: list[int] = []
    for size, whole in zip(shape, full, strict=True):
        if whole != size:
            copies.append(len(split_))
            split_.append(whole // size)
        split_.append(size)
    return (t.ReduceSum(t.Reshape(g, split_), copies, keepdims=0) if copies else g,)


@vjp("SpaceToDepth")
def space_to_depth(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    return (t.DepthToSpace(g, blocksize=attribute(node, "blocksize", 1)),)


@vjp("DepthToSpace")
def depth_to_space(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    size = attribute(node, "blocksize", 1)
    if attribute(node, "mode", "DCR") == "DCR":
        return (t.SpaceToDepth(g, blocksize=size),)
    b, c, h, w = dims(g)
    cells = t.Reshape(g, [b, c, h // size, size, w // size, size])
    return (t.Reshape(t.Transpose(cells, perm=[0, 1, 3, 5, 2, 4]), dims(node.inputs[0])),)
