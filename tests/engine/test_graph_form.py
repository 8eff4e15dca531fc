"""What emitted graphs look like, where speed or an engine depends on it."""

from __future__ import annotations

import math
from collections import Counter

import onnx_ir as ir
import pytest

from engine import UnsupportedOpError, value_and_grad
from engine.tape import dims
from tests.engine.case import Builder, Case, build


def gradient(case: Case) -> ir.Graph:
    built = build(case)
    return value_and_grad(built.model, "out_0", built.wrt).graph


def test_group_norm_computes_its_statistics_once_and_never_reshapes_the_large_tensor() -> None:
    def write(g: Builder) -> ir.Value:
        x = g.input("x", 1, 8, 16, 16)
        y = g.GroupNormalization(x, g.weight(8), g.weight(8), num_groups=2)
        return g.ReduceSum(g.Conv(g.Sigmoid(y), g.weight(8, 8, 3, 3)), keepdims=0)

    graph = gradient(Case("group_norm", write))
    assert Counter(node.op_type for node in graph)["ReduceSumSquare"] == 1
    reshaped = [node.inputs[0] for node in graph if node.op_type in ("Reshape", "Transpose")]
    assert all(math.prod(dims(value)) <= 8 for value in reshaped if value is not None)
    statistics = [node for node in graph if node.op_type in ("ReduceMean", "ReduceSumSquare")]
    assert all(node.metadata_props["precision"] == "fp32" for node in statistics)


def test_batch_norm_goes_into_the_convolution_before_it() -> None:
    def write(g: Builder) -> ir.Value:
        y = g.Conv(g.input("x", 1, 3, 6, 6), g.weight(4, 3, 3, 3))
        statistics = g.weight(4), g.weight(4), g.weight(4), g.weight(4, low=0.5, high=1)
        return g.ReduceSum(g.BatchNormalization(y, *statistics), keepdims=0)

    graph = gradient(Case("batch_norm", write))
    assert not {"Mul", "BatchNormalization"} & {node.op_type for node in graph}


def test_strided_convolution_has_one_convolution_as_its_gradient() -> None:
    def write(g: Builder) -> ir.Value:
        y = g.Conv(g.input("x", 1, 3, 8, 8), g.weight(5, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1])
        return g.ReduceSum(g.Mul(y, y), keepdims=0)

    graph = gradient(Case("conv", write))
    kernels = [dims(node.inputs[1]) for node in graph if node.op_type == "Conv" and node.inputs[1] is not None]
    assert kernels == [(5, 3, 3, 3), (12, 5, 2, 2)]


def test_weights_that_are_computed_are_refused_by_name() -> None:
    def write(g: Builder) -> ir.Value:
        return g.ReduceSum(g.Conv(g.input("x", 1, 3, 8, 8), g.input("w", 5, 3, 3, 3)), keepdims=0)

    with pytest.raises(UnsupportedOpError, match="weights of Conv 'Conv_0'"):
        gradient(Case("conv", write, wrt=("x",)))
