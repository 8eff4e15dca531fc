"""Is a model file what it was made from? Outputs and input gradients, compared with torch before the file is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

import engine
from export.network import Network
from glaze_trt.errors import ModelError

TOLERANCE = 1e-4
"""Largest relative error, in L2, of an output or an input gradient that is still only float32 rounding."""

_PICTURES = 8

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """Relative L2 errors, the largest over all sizes and outputs."""

    output_error: float
    gradient_error: float


def against_torch(network: Network, path: Path) -> Check:
    """Compare a file with the authors' own code at two sizes, one of them not square and a batch.

    Raises:
        ModelError: they differ by more than rounding.
    """
    checks = [
        _at_size(network, path, (batch, network.channels, height * network.cell, width * network.cell))
        for batch, height, width in ((1, 6, 6), (2, 4, 7))
    ]
    worst = Check(max(each.output_error for each in checks), max(each.gradient_error for each in checks))
    return judged(worst, network.stem)


def _at_size(network: Network, path: Path, shape: tuple[int, int, int, int]) -> Check:
    """The gradient's error is the smallest of several pictures'.

    Rounding may switch a ReLU whose input is next to 0, and two float32 gradients of one network then differ by 1e-3
    (torch's own from its float64 one too). That spoils one picture in a few; a wrong graph is wrong on all.
    """
    output_error, gradient_error = 0.0, math.inf
    differentiated: Callable[[Array], Array] | None = None
    for seed in range(_PICTURES):
        example = picture(*shape, seed=seed)
        if network.kind == "decoder":
            example = 4 * example - 2  # scaled latents are about standard normal
        inputs = torch.from_numpy(example).requires_grad_()
        expected = network.reference(inputs)
        weights = directions([tuple(value.shape) for value in expected])
        scalar = sum((torch.from_numpy(w) * y).sum() for w, y in zip(weights, expected, strict=True))
        assert isinstance(scalar, Tensor)
        (gradient,) = torch.autograd.grad(scalar, inputs)
        pairs = zip(run(path, {network.input: example}), expected, strict=True)
        output_error = max(output_error, *(relative(found, y.detach().numpy()) for found, y in pairs))
        judged(Check(output_error, 0.0), network.stem)
        differentiated = differentiated or input_gradient(path, network.input, shape, weights)
        gradient_error = min(gradient_error, relative(differentiated(example), gradient.numpy()))
        if gradient_error <= TOLERANCE:
            break
    return Check(output_error, gradient_error)


def judged(
    check: Check, name: str, output_tolerance: float = TOLERANCE, gradient_tolerance: float = TOLERANCE
) -> Check:
    """The same check, or an error where it is too far off (or not a number)."""
    if not (check.output_error <= output_tolerance and check.gradient_error <= gradient_tolerance):
        raise ModelError(
            f"{name}: the exported graph differs from its source (output {check.output_error:.1e}, at most "
            f"{output_tolerance:.0e}; gradient {check.gradient_error:.1e}, at most {gradient_tolerance:.0e}): not kept"
        )
    return check


def picture(batch: int, channels: int, height: int, width: int, seed: int = 0) -> Array:
    """A seeded picture in [0,1]: soft shapes and noise, so that neither smooth nor busy inputs go unseen."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((batch, channels, (height + 7) // 8, (width + 7) // 8), dtype=np.float32)
    soft = np.kron(coarse, np.ones((1, 1, 8, 8), dtype=np.float32))[:, :, :height, :width]
    noise = generator.random((batch, channels, height, width), dtype=np.float32)
    return np.asarray(0.6 * soft + 0.4 * noise, dtype=np.float32)


def directions(shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """One seeded cotangent per output, each of length about one."""
    generator = np.random.default_rng(11)
    return [(generator.standard_normal(shape) / np.sqrt(np.prod(shape))).astype(np.float32) for shape in shapes]


def run(path: Path, feeds: dict[str, Array]) -> list[Array]:
    """Outputs of a file, by ONNX Runtime on the processor and with nothing of ours between."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, feeds)]


def input_gradient(path: Path, name: str, shape: Sequence[int], weights: Sequence[Array]) -> Callable[[Array], Array]:
    """The gradient of the sum of all outputs times `weights` with respect to the input `name`, by the engine."""
    model = ir.load(path)
    _append_scalar(model.graph, weights)
    differentiated = engine.value_and_grad(model, of="scalar", wrt=[name], shapes={name: shape})
    program = engine.compile(differentiated, engine="onnxruntime", precision="fp32")
    return lambda example: np.asarray(program({name: example})[f"grad:{name}"])


def _append_scalar(graph: ir.Graph, weights: Sequence[Array]) -> None:
    """Output `scalar`: the sum over all outputs of output times weight."""
    total: ir.Value | None = None
    for index, (output, weight) in enumerate(zip(list(graph.outputs), weights, strict=True)):
        constant = ir.Value(name=f"scalar:weight_{index}", const_value=ir.tensor(weight))
        constant.dtype, constant.shape = ir.DataType.FLOAT, ir.Shape(weight.shape)
        graph.register_initializer(constant)
        product = ir.node("Mul", [output, constant], name=f"scalar:mul_{index}")
        reduced = ir.node("ReduceSum", product.outputs, {"keepdims": 0}, name=f"scalar:sum_{index}")
        nodes = [product, reduced]
        if total is not None:
            nodes.append(ir.node("Add", [total, reduced.outputs[0]], name=f"scalar:add_{index}"))
        for node in nodes:
            node.outputs[0].name = node.name
        graph.extend(nodes)
        total = nodes[-1].outputs[0]
    assert total is not None
    total.name = "scalar"
    total.dtype, total.shape = ir.DataType.FLOAT, ir.Shape([])
    graph.outputs.append(total)


def relative(found: Array, expected: Array) -> float:
    """|found − expected| / |expected| in L2; not a number where either is not finite."""
    if found.shape != expected.shape:
        return float("nan")
    difference = float(np.linalg.norm(found.astype(np.float64) - expected))
    return difference / max(float(np.linalg.norm(expected.astype(np.float64))), 1e-30)
