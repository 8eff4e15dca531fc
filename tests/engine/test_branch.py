"""An If whose condition is known once shapes are pinned is the branch that it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engine import InvalidModelError, UnsupportedOpError, load, value_and_grad
from engine.passes.tidy import tidy
from tests.engine.written import assert_same, data, parsed, run

SQUEEZE = """
    s = Shape (x)
    at = Constant <value_ints = [1]> ()
    d = Gather (s, at)
    one = Constant <value_ints = [1]> ()
    short = Equal (d, one)
    c = Squeeze (short)
    {before}
    z = If <
        then_branch = a () => (p) {{ ax = Constant <value_ints = [1]> ()  p = Squeeze (x, ax) }},
        else_branch = b () => (p) {{ {otherwise} }}
    > (c)
    e = Exp (z)
    y = ReduceSum <keepdims = 0> (e)
"""
SIGNATURE = "(float[4,n] x) => (float[] y)"


def squeezed(otherwise: str = "p = Identity (x)", before: str = "", **constants: Any) -> onnx.ModelProto:
    """`torch.squeeze` of an axis whose length is not known when it is exported."""
    return parsed(SQUEEZE.format(otherwise=otherwise, before=before), SIGNATURE, **constants)


@pytest.mark.parametrize(("width", "operators"), [(1, ["Squeeze", "Exp", "ReduceSum"]), (3, ["Exp", "ReduceSum"])])
def test_the_branch_that_the_shape_takes_is_left(width: int, operators: list[str]) -> None:
    model, x = squeezed(), data(4, width)
    canonical = load(model, {"x": x.shape})
    assert_same(model, canonical, x=x)
    assert [node.op_type for node in canonical.graph] == operators
    gradient = run(value_and_grad(model, "y", ["x"], {"x": x.shape}), {"x": x})["grad:x"]
    np.testing.assert_allclose(gradient, np.exp(x), rtol=1e-6)


def test_branches_in_branches_with_weights_of_their_own_and_equal_names() -> None:
    inner = """
        two = Constant <value_ints = [2]> ()
        q = Equal (d, two)
        k = Squeeze (q)
        p = If <
            then_branch = a () => (p) { w = Constant <value_float = 2.0> ()  h = Mul (x, w)  p = Sin (h) },
            else_branch = b () => (p) { w = Constant <value_float = 3.0> ()  h = Mul (x, w)  p = Mul (h, outer) }
        > (k)
    """
    model = squeezed(inner, before="outer = Mul (x, v)", v=data(1))
    for width in (2, 3):
        x = data(4, width)
        assert_same(model, load(model, {"x": x.shape}), x=x)
        assert_same(model, value_and_grad(model, "y", [], {"x": x.shape}), x=x)
    wanted = np.exp(3 * x * x * data(1)) * 6 * x * data(1)
    gradient = run(value_and_grad(model, "y", ["x"], {"x": x.shape}), {"x": x})["grad:x"]
    np.testing.assert_allclose(gradient, wanted, rtol=1e-5)


def test_what_only_the_other_branch_needs_is_gone_and_may_be_anything() -> None:
    """No compiled graph could hold it: a loop, strings, another domain, a condition of the data."""
    refused = """
        t = Constant <value = bool {1}> ()
        n = Constant <value_int = 3> ()
        u = local.mystery (x)
        v = Loop <body = b (int64 i, bool k, float[4,1] u) => (bool l, float[4,1] w) { l = Identity (k) w = Exp (u) }>
            (n, t, weighed)
        m = ReduceSum <keepdims = 0> (x)
        zero = Constant <value_float = 0.0> ()
        g = Greater (m, zero)
        p = If <then_branch = a () => (r) { r = Identity (u) }, else_branch = b () => (r) { r = Identity (v) }> (g)
    """
    model = squeezed(refused, before="weighed = Mul (x, heavy)", heavy=data(4, 1))
    canonical = load(model, {"x": (4, 1)})
    assert [node.op_type for node in canonical.graph] == ["Squeeze", "Exp", "ReduceSum"]
    assert not canonical.graph.initializers.keys() - {v.name for v in (canonical.graph.node(0).inputs[1],) if v}
    with pytest.raises(UnsupportedOpError, match=r"local::mystery|Loop"):
        load(model, {"x": (4, 2)})


def test_a_condition_of_the_data_is_refused_by_name() -> None:
    model = parsed(
        "m = ReduceSum <keepdims = 0> (x)  g = Greater (m, x0)  "
        "y = If <then_branch = a () => (p) { p = Exp (m) }, else_branch = b () => (p) { p = Sin (m) }> (g)",
        x0=np.float32(0),
    )
    model.graph.node[2].name = "fork"
    with pytest.raises(UnsupportedOpError, match=r"condition of If \(node 'fork'\) depends on the data"):
        load(model)


def test_outputs_of_the_model_keep_their_names() -> None:
    """Here one result is two outputs, and one is computed outside the branch."""
    model = parsed(
        "e = Exp (x)  y, z, s = If <"
        "then_branch = a () => (p, q, r) { p = Sin (e)  q = Identity (p)  r = Identity (e) }, "
        "else_branch = b () => (p, q, r) { p = Cos (e)  q = Cos (e)  r = Cos (e) }> (c)",
        "(float[2,3] x) => (float[2,3] y, float[2,3] z, float[2,3] s, float[2,3] e)",
        c=np.asarray([True]),
    )
    canonical = load(model)
    tidy(canonical.graph)
    assert_same(model, canonical, x=data(2, 3))


def test_branches_in_functions() -> None:
    functions = """
    <domain: "local", opset_import: ["" : 17]>
    pick (a) => (c) {
        t = Constant <value = bool {0}> ()
        c = If <then_branch = p () => (u) { u = Exp (a) }, else_branch = q () => (v) { h = Sin (a) v = Exp (h) }> (t)
    }
    """
    model = parsed("g = local.pick (x)  h = local.pick (g)  y = ReduceSum <keepdims = 0> (h)", functions=functions)
    canonical = load(model)
    assert_same(model, canonical, x=data(2, 3))
    assert [node.op_type for node in canonical.graph] == ["Sin", "Exp", "Sin", "Exp", "ReduceSum"]


def test_a_branch_that_is_a_constant_and_the_argument_that_is_left_alone() -> None:
    model = parsed(
        "k = If <then_branch = a () => (p) { p = Constant <value_float = 2.0> () }, "
        "else_branch = b () => (p) { p = Exp (x) }> (c)  y = Mul (x, k)",
        "(float[2,3] x) => (float[2,3] y)",
        c=np.asarray(True),
    )
    source = ir.from_proto(model)
    before = ir.to_proto(source).SerializeToString()
    canonical = load(source)
    assert_same(model, canonical, x=data(2, 3))
    assert [node.op_type for node in canonical.graph] == ["Mul"]
    assert ir.to_proto(source).SerializeToString() == before


def test_a_branch_that_is_absent_or_too_short() -> None:
    model = parsed(
        "y = If <then_branch = a () => (p) { p = Exp (x) }, else_branch = b () => (p) { p = Sin (x) }> (c)",
        "(float[2,3] x) => (float[2,3] y)",
        c=np.asarray(True),
    )
    branch = model.graph.node[0].attribute[0].g
    branch.output[0].name = "x"
    with pytest.raises(InvalidModelError, match="then_branch of If .* returns 'x'"):
        load(model)
    del branch.output[:]
    with pytest.raises(InvalidModelError, match="then_branch of If .* returns 0 of 1"):
        load(model)
    del model.graph.node[0].attribute[0]
    with pytest.raises(InvalidModelError, match="no then_branch"):
        load(model)
