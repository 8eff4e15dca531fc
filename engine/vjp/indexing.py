"""Gradient rules of gathers and scatters, written without scatter-add, which engines refuse.

Where the indices are constant, the sum over repeated indices is planned beforehand (`sum_into`): slices for runs of
consecutive indices, else a few gathers. Computed indices become a one-hot product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir

from engine.errors import UnsupportedOpError
from engine.passes.decompose import decomposition
from engine.tape import Tape, attribute, constant, dims
from engine.vjp.registry import Cotangents, Gradients, vjp

_MAX_RUNS = 16
_MAX_GATHERS = 8


def sum_into(t: Tape, g: ir.Value | None, sources: np.ndarray, length: int, axis: int) -> ir.Value:
    """Adjoint of taking elements along an axis: position i of `g` is added to position `sources[i]` of the result.

    Args:
        t: where the nodes go.
        g: `len(sources)` long on `axis`.
        sources: integers in [0, length), in any order, repeated or not.
        length: of the result on `axis`.
        axis: not negative.
    """
    runs = _runs(sources)
    if len(runs) <= _MAX_RUNS:
        return _sum_runs(t, g, runs, length, axis)
    counts = np.bincount(sources, minlength=length)
    if counts.max() > _MAX_GATHERS:
        return _sum_product(t, g, sources, length, axis)
    return _sum_gathers(t, g, sources, counts, axis)


def _sum_gathers(t: Tape, g: ir.Value | None, sources: np.ndarray, counts: np.ndarray, axis: int) -> ir.Value:
    """One Gather for each time that an element can be taken; a zero appended to `g` stands where it is not."""
    nothing = len(sources)
    order = np.append(np.argsort(sources, kind="stable"), nothing)
    first = np.cumsum(counts) - counts
    picks = [np.where(turn < counts, order[np.minimum(first + turn, nothing)], nothing) for turn in range(counts.max())]
    if any((pick == nothing).any() for pick in picks):
        rank = len(dims(g))
        g = t.Pad(g, [0] * rank + [int(i == axis) for i in range(rank)])
    return reduce(t.Add, [t.Gather(g, pick, axis=axis) for pick in picks])


def _sum_product(t: Tape, g: ir.Value | None, sources: np.ndarray, length: int, axis: int) -> ir.Value:
    """Product with the 0/1 matrix of who goes where: for few distinct targets, each taken many times."""
    assert g is not None
    shape = dims(g)
    choice = t.constant((np.arange(length)[:, None] == sources), g.dtype)
    flat = t.Reshape(g, [math.prod(shape[:axis]), len(sources), math.prod(shape[axis + 1 :])])
    return t.Reshape(t.MatMul(choice, flat), [*shape[:axis], length, *shape[axis + 1 :]])


@dataclass(frozen=True)
class _Run:
    """Positions [begin, begin + count) of the gradient, that go to [low, high) of the result in steps of `step`."""

    begin: int
    count: int
    step: int
    low: int
    high: int


def _runs(sources: np.ndarray) -> list[_Run]:
    """The longest runs of `sources`, from the left, in which it grows by one, falls by one or stays."""
    runs, begin = [], 0
    values = sources.tolist()
    while begin < len(values):
        end, step = begin + 1, 1
        if end < len(values) and abs(values[end] - values[begin]) <= 1:
            step = values[end] - values[begin]
            while end < len(values) and values[end] - values[end - 1] == step:
                end += 1
        low = min(values[begin], values[end - 1])
        runs.append(_Run(begin, end - begin, step, low, low + (end - begin if step else 1)))
        begin = end
    return runs


def _sum_runs(t: Tape, g: ir.Value | None, runs: Sequence[_Run], length: int, axis: int) -> ir.Value:
    """Cuts the target where a run starts or ends; each piece is the sum of the slices that reach it."""
    edges = sorted({run.low for run in runs} | {run.high for run in runs})
    pieces = []
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        parts = [_part(t, g, run, a, b, axis) for run in runs if run.low <= a and b <= run.high]
        pieces.append(reduce(t.Add, parts) if parts else _zeros(t, g, axis, b - a))
    joined = pieces[0] if len(pieces) == 1 else t.Concat(*pieces, axis=axis)
    pads = [side if i == axis else 0 for side in (edges[0], length - edges[-1]) for i in range(len(dims(g)))]
    return t.Pad(joined, pads) if any(pads) else joined


def _part(t: Tape, g: ir.Value | None, run: _Run, a: int, b: int, axis: int) -> ir.Value:
    """What one run adds to [a, b) of the result."""
    if run.step == 0:
        return t.ReduceSum(t.Slice(g, [run.begin], [run.begin + run.count], [axis]), [axis], keepdims=1)
    if run.step > 0:
        return t.Slice(g, [run.begin + a - run.low], [run.begin + b - run.low], [axis])
    return _reversed(t, g, run.begin + run.high - b, run.begin + run.high - a, axis)


def _reversed(t: Tape, g: ir.Value | None, start: int, end: int, axis: int) -> ir.Value:
    """Elements [start, end) of an axis, last first."""
    stop = start - 1 if start else int(np.iinfo(np.int64).min)
    return t.Slice(g, [end - 1], [stop], [axis], [-1])


def _zeros(t: Tape, g: ir.Value | None, axis: int, count: int) -> ir.Value:
    assert g is not None
    shape = dims(g)
    return t.Expand(t.constant(0.0, g.dtype), [*shape[:axis], count, *shape[axis + 1 :]])


@vjp("Gather")
def gather(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x, indices = node.inputs
    shape = dims(x)
    axis = attribute(node, "axis", 0) % len(shape)
    flat = t.Reshape(g, [*shape[:axis], math.prod(dims(indices)), *shape[axis + 1 :]])
    known = constant(indices)
    if known is not None:
        return sum_into(t, flat, known.reshape(-1) % shape[axis], shape[axis], axis), None
    return _sum_one_hot(t, flat, t.Reshape(indices, [-1]), shape[axis], axis), None


def _sum_one_hot(t: Tape, g: ir.Value, indices: ir.Value, length: int, axis: int) -> ir.Value:
    """`sum_into` for indices that are computed: product with the one-hot matrix built from them."""
    shape = dims(g)
    wrapped = t.Where(t.Less(indices, 0), t.Add(indices, length), indices)
    rows = t.constant(np.arange(length)[:, None], indices.dtype)
    choice = t.Cast(t.Equal(rows, wrapped), to=int(g.dtype or ir.DataType.FLOAT))
    flat = t.Reshape(g, [math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])])
    return t.Reshape(t.MatMul(choice, flat), [*shape[:axis], length, *shape[axis + 1 :]])


@vjp("GatherElements")
def gather_elements(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x, indices = node.inputs
    shape, axis = dims(x), attribute(node, "axis", 0) % len(dims(x))
    positions = _element_positions(node, constant(indices), shape, axis)
    flat = sum_into(t, t.Reshape(g, [-1]), positions, math.prod(shape), 0)
    return t.Reshape(flat, shape), None


def _element_positions(node: ir.Node, indices: np.ndarray | None, shape: Sequence[int], axis: int) -> np.ndarray:
    """Where, in the flattened tensor, each element of a GatherElements comes from."""
    if indices is None:
        raise UnsupportedOpError(f"{node.op_type} {node.name!r} computes its indices; its gradient needs constant ones")
    grid: list[np.ndarray] = list(np.indices(indices.shape))
    grid[axis] = indices % shape[axis]
    return np.ravel_multi_index(grid, tuple(shape)).reshape(-1)


@vjp("GatherND")
def gather_nd(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    x, indices = node.inputs
    shape, known = dims(x), constant(indices)
    if known is None:
        raise UnsupportedOpError(f"GatherND {node.name!r} computes its indices; its gradient needs constant ones")
    batch = attribute(node, "batch_dims", 0)
    depth, rows = _row_positions(known, shape, batch)
    flat = sum_into(t, t.Reshape(g, [len(rows), math.prod(shape[depth:])]), rows, math.prod(shape[:depth]), 0)
    return t.Reshape(flat, shape), None


def _row_positions(indices: np.ndarray, shape: Sequence[int], batch: int = 0) -> tuple[int, np.ndarray]:
    """(number of leading axes that a GatherND indexes, where in them, flattened, each row comes from)."""
    depth = batch + indices.shape[-1]
    grid = [*np.indices(indices.shape[:-1])[:batch]]
    grid += [indices[..., i] % shape[batch + i] for i in range(depth - batch)]
    return depth, np.ravel_multi_index(grid, tuple(shape[:depth])).reshape(-1)


@decomposition("ScatterElements", "ScatterND")
def scatter_add(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    """Engines refuse scatters that add; with constant indices the sum is planned, as for gradients."""
    data, indices, updates = node.inputs
    known = constant(indices)
    if attribute(node, "reduction", "none") != "add" or known is None:
        return None
    shape = dims(data)
    if node.op_type == "ScatterND":
        depth, positions = _row_positions(known, shape)
    else:
        depth, positions = len(shape), _element_positions(node, known, shape, attribute(node, "axis", 0) % len(shape))
    rows = t.Reshape(updates, [len(positions), math.prod(shape[depth:])])
    total = sum_into(t, rows, positions, math.prod(shape[:depth]), 0)
    return (t.Add(data, t.Reshape(total, shape)),)


@vjp("ScatterElements", "ScatterND")
def scatter(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    """The data loses what was overwritten; the updates get what stands in their place."""
    (g,) = cotangents
    data, indices, updates = node.inputs
    if (kind := attribute(node, "reduction", "none")) != "none":
        raise UnsupportedOpError(
            f"{node.op_type} {node.name!r}: reduction {kind!r} has no gradient rule ('add' has, with constant indices)"
        )
    options = {"axis": attribute(node, "axis", 0)} if node.op_type == "ScatterElements" else {}
    gdata = None
    if t.needs(data):
        assert updates is not None
        zeros = t.Expand(t.constant(0.0, updates.dtype), dims(updates))
        gdata = t.op(node.op_type, g, indices, zeros, **options)
    if not t.needs(updates):
        return gdata, None, None
    taken = "GatherElements" if options else "GatherND"
    return gdata, None, t.op(taken, g, indices, **options)
