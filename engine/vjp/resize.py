"""Resize is linear and separable: along each axis a constant matrix, whose transpose is the gradient.

The commonest case, repeating every pixel a whole number of times, has a sum over blocks as its gradient instead.
Forward the operator stays, except in the variants that TensorRT does not take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from engine.errors import UnsupportedOpError
from engine.passes.lower import lowering
from engine.tape import Tape, attribute, constant, dims, numpy_dtype, operand
from engine.vjp.registry import Cotangents, Gradients, vjp


@vjp("Resize")
def resize(t: Tape, node: ir.Node, cotangents: Cotangents) -> Gradients:
    (g,) = cotangents
    assert g is not None
    matrices = _matrices(node)
    repeats = {axis: _repeats(matrix) for axis, matrix in matrices.items()}
    if all(repeats.values()) and all(axis >= 2 for axis in repeats) and 3 <= len(dims(g)) <= 5:
        factors = [repeats.get(axis, 1) for axis in range(2, len(dims(g)))]
        block = t.AveragePool(g, kernel_shape=factors, strides=factors)
        return (t.Mul(block, float(math.prod(factors))),)
    return (_apply(t, g, {axis: matrix.T for axis, matrix in matrices.items()}),)


@lowering("Resize")
def lower_resize(t: Tape, node: ir.Node) -> Sequence[ir.Value] | None:
    odd = attribute(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel_symmetric"
    if not (odd or attribute(node, "antialias", 0) or attribute(node, "exclude_outside", 0)):
        return None
    return (_apply(t, operand(node, 0), _matrices(node)),)


def _apply(t: Tape, x: ir.Value, matrices: Mapping[int, np.ndarray]) -> ir.Value:
    """Multiplies x by each (out, in) matrix along its axis; those that shrink it most come first."""
    for axis in sorted(matrices, key=lambda a: matrices[a].shape[0] / matrices[a].shape[1]):
        size, matrix = list(dims(x)), matrices[axis].astype(numpy_dtype(x))
        if axis == len(size) - 1:
            x = t.MatMul(x, np.ascontiguousarray(matrix.T))
            continue
        left = np.ascontiguousarray(matrix)
        if axis == len(size) - 2:
            x = t.MatMul(left, x)
            continue
        flat = t.Reshape(x, [math.prod(size[:axis]), size[axis], math.prod(size[axis + 1 :])])
        x = t.Reshape(t.MatMul(left, flat), [*size[:axis], len(matrix), *size[axis + 1 :]])
    return x


def _repeats(matrix: np.ndarray) -> int:
    """The number n if the matrix repeats every entry n times, else 0."""
    outputs, inputs = matrix.shape
    n = outputs // inputs
    return n if n * inputs == outputs and np.array_equal(matrix, np.repeat(np.eye(inputs), n, axis=0)) else 0


def _matrices(node: ir.Node) -> dict[int, np.ndarray]:
    """Axis → (out, in) matrix, for the axes that are not left as they are."""
    inputs, outputs = dims(operand(node, 0)), dims(node.outputs[0])
    rank = len(inputs)
    axes = [a % rank for a in attribute(node, "axes", range(rank))]
    roi = _constant_input(node, 1)
    scales, sizes = _constant_input(node, 2), _constant_input(node, 3)
    if scales is None:
        assert sizes is not None
        ratios = [np.float32(s) / np.float32(inputs[a]) for a, s in zip(axes, sizes, strict=True)]
        policy = str(attribute(node, "keep_aspect_ratio_policy", "stretch"))
        if policy != "stretch":
            ratios = [min(ratios) if policy == "not_larger" else max(ratios)] * len(axes)
        scales = np.asarray(ratios, np.float32)
    result = {}
    for index, axis in enumerate(axes):
        region = (0.0, 1.0) if roi is None else (float(roi[index]), float(roi[index + len(axes)]))
        matrix = _matrix(node, inputs[axis], outputs[axis], scales[index], region)
        if matrix.shape[0] != matrix.shape[1] or not np.array_equal(matrix, np.eye(len(matrix))):
            result[axis] = matrix
    return result


def _matrix(node: ir.Node, inputs: int, outputs: int, scale: np.float32, region: tuple[float, float]) -> np.ndarray:
    """The (out, in) matrix along one axis, as the standard defines it; coordinates in fp32, as engines take them."""
    mode = str(attribute(node, "mode", "nearest"))
    position = _source(
        str(attribute(node, "coordinate_transformation_mode", "half_pixel")), inputs, outputs, scale, region
    )
    if mode == "nearest":
        index = _nearest(str(attribute(node, "nearest_mode", "round_prefer_floor")), position)[:, None]
        weight = np.ones(index.shape)
    else:
        shrink = min(1.0, float(scale)) if attribute(node, "antialias", 0) else 1.0
        reach = math.ceil((1 if mode == "linear" else 2) / shrink)
        index = np.floor(position).astype(np.int64)[:, None] + np.arange(1 - reach, 1 + reach)
        distance = np.abs(index - position[:, None].astype(np.float64)) * shrink
        weight = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(node, distance)
        if attribute(node, "exclude_outside", 0):
            weight = np.where((index >= 0) & (index < inputs), weight, 0)
        weight = weight / weight.sum(1, keepdims=True)
    if str(attribute(node, "coordinate_transformation_mode", "")) == "tf_crop_and_resize":
        inside = (position >= 0) & (position <= inputs - 1)  # elsewhere a constant, extrapolation_value
        weight = weight * inside[:, None]
    matrix = np.zeros((outputs, inputs))
    rows = np.broadcast_to(np.arange(outputs)[:, None], index.shape)
    np.add.at(matrix, (rows, index.clip(0, inputs - 1)), weight)
    return matrix


def _source(mode: str, inputs: int, outputs: int, scale: np.float32, region: tuple[float, float]) -> np.ndarray:
    """Where in the input each output cell looks."""
    x = np.arange(outputs, dtype=np.float32)
    half_pixel = (x + np.float32(0.5)) / scale - np.float32(0.5)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and outputs > 1):
        return half_pixel
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * np.float32(inputs - 1) / np.float32(max(outputs - 1, 1))
    if mode == "half_pixel_symmetric":
        wanted = np.float64(scale) * inputs  # before it was rounded to a whole number of cells
        return half_pixel + np.float32(inputs / 2 * (1 - outputs / wanted))
    if mode == "tf_crop_and_resize":
        start, end = region
        if outputs == 1:
            return np.full(1, 0.5 * (start + end) * (inputs - 1), np.float32)
        return (start * (inputs - 1) + x * (end - start) * (inputs - 1) / (outputs - 1)).astype(np.float32)
    return np.zeros(outputs, np.float32)


def _nearest(mode: str, position: np.ndarray) -> np.ndarray:
    half = np.float32(0.5)
    rounded = {
        "round_prefer_floor": np.ceil(position - half),
        "round_prefer_ceil": np.floor(position + half),
        "floor": np.floor(position),
        "ceil": np.ceil(position),
    }
    return np.asarray(rounded[mode], np.int64)


def _cubic(node: ir.Node, distance: np.ndarray) -> np.ndarray:
    """Keys' kernel (IEEE Trans. ASSP 29, 1981)."""
    a, d = float(attribute(node, "cubic_coeff_a", -0.75)), distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _constant_input(node: ir.Node, index: int) -> np.ndarray | None:
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return None
    array = constant(value)
    if array is None:
        raise UnsupportedOpError(f"Resize {node.name!r} takes its size from what the graph computes")
    return array if array.size else None
