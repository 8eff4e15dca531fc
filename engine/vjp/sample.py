"""GridSample where the grid is constant: a weighted sum of gathers, whose gradient is that of its pieces.

Not here: grids that are computed (they would need a scatter that adds), volumes, and cubic interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import product

import numpy as np
import onnx_ir as ir

from engine.passes.decompose import decomposition
from engine.tape import Tape, attribute, constant, dims, numpy_dtype, operand

_Taps = list[tuple[np.ndarray, np.ndarray]]
"""Pairs of (position in the flattened picture, weight), each as long as there are samples."""


@decomposition("GridSample")
def grid_sample(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    x, grid = operand(node, 0), constant(operand(node, 1))
    mode, padding = attribute(node, "mode", "linear"), attribute(node, "padding_mode", "zeros")
    if grid is None or len(dims(x)) != 4 or mode == "cubic" or padding == "reflection":
        return None
    batch, channels, height, width = dims(x)
    shared = bool((grid == grid[:1]).all())
    flat = t.Reshape(x, [batch, channels, height * width])
    sampled = []
    for index, points in enumerate(grid[:1] if shared else grid):
        picture = flat if shared else t.Slice(flat, [index], [index + 1], [0])
        taps = _taps(points.reshape(-1, 2), (width, height), mode, padding, bool(attribute(node, "align_corners", 0)))
        parts = [t.Mul(t.Gather(picture, place, axis=2), weight.astype(numpy_dtype(x))) for place, weight in taps]
        sampled.append(reduce(t.Add, parts))
    joined = sampled[0] if shared else t.Concat(*sampled, axis=0)
    return (t.Reshape(joined, [batch, channels, *grid.shape[1:3]]),)


def _taps(points: np.ndarray, sides: tuple[int, int], mode: str, padding: str, corners: bool) -> _Taps:
    """Where each point (x, y), in [-1, 1] over the picture, takes its value from: 4 pixels, or the nearest."""
    size = np.asarray(sides)
    place = (points.astype(np.float64) + 1) / 2 * (size - 1) if corners else ((points + 1.0) * size - 1) / 2
    if padding == "border":
        place = place.clip(0, size - 1)
    low = np.rint(place) if mode == "nearest" else np.floor(place)
    taps: _Taps = []
    for step in product((0, 1), repeat=2) if mode != "nearest" else [(0, 0)]:
        pixel = (low + step).astype(np.int64)
        weight = np.ones(len(points)) if mode == "nearest" else (1 - np.abs(place - pixel)).prod(1)
        inside = ((pixel >= 0) & (pixel < size)).all(1)
        # what lies outside counts nothing; any pixel will do, and different ones make the gradient's sums short
        spread = np.arange(len(points)) % int(size.prod())
        taps.append((np.where(inside, pixel[:, 0] + pixel[:, 1] * size[0], spread), weight * inside))
    return [tap for tap in taps if tap[1].any()] or taps[:1]
