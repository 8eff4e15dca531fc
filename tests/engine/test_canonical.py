"""What exporters write, read into one form; what cannot be read, refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from engine import (
    DynamicShapeError,
    InvalidModelError,
    UnsupportedOpError,
    load,
    value_and_grad,
)
from tests.engine.written import assert_same, data, parsed, run


def test_local_functions_are_inlined() -> None:
    functions = """
    <domain: "local", opset_import: ["" : 17, "local" : 1]>
    outer (a, b) => (c) { s = local.inner (a)  c = Mul (s, b) }
    <domain: "local", opset_import: ["" : 17]>
    inner <k>(a) => (c) { h = Exp (a)  c = Add (h, a) }
    """.replace("<k>", "")
    model = parsed(
        "u = local.outer (x, x)  v = local.outer (u, x)  y = ReduceSum <keepdims = 0> (v)", functions=functions
    )
    assert_same(model, load(model), x=data(2, 3))
    gradient = run(value_and_grad(model, "y", ["x"]), {"x": data(2, 3)})["grad:x"]
    assert gradient.shape == (2, 3)


def test_constant_nodes_become_initializers() -> None:
    model = parsed(
        """
        a = Constant <value = float[3] {1, 2, 3}> ()
        b = Constant <value_float = 0.5> ()
        s = Constant <value_ints = [3, 2]> ()
        p = Add (x, a)  q = Mul (p, b)  r = Reshape (q, s)  y = ReduceSum <keepdims = 0> (r)
        """
    )
    canonical = load(model)
    assert_same(model, canonical, x=data(2, 3))
    assert {node.op_type for node in canonical.graph} == {"Add", "Mul", "Reshape", "ReduceSum"}


def test_initializers_that_are_inputs_too_stop_being_inputs() -> None:
    model = parsed("p = Mul (x, w)  y = ReduceSum <keepdims = 0> (p)")
    model.graph.initializer.append(numpy_helper.from_array(data(3), "w"))
    model.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3]))
    canonical = load(model)
    assert [v.name for v in canonical.graph.inputs] == ["x"]
    assert_same(model, canonical, x=data(2, 3))
    with pytest.raises(InvalidModelError, match="no input 'w'"):
        value_and_grad(model, "y", ["w"])


def test_nodes_without_names_and_with_one_name_get_their_own() -> None:
    model = parsed("a = Exp (x)  b = Sin (a)  c = Mul (a, b)  y = ReduceSum <keepdims = 0> (c)")
    for node, name in zip(model.graph.node, ("", "same", "same", ""), strict=True):
        node.name = name
    assert_same(model, load(model), x=data(2, 3))
    names = [node.name for node in value_and_grad(model, "y", ["x"]).graph]
    assert len(set(names)) == len(names)


def test_values_named_like_the_engines_own_do_not_clash() -> None:
    """The engine names values after nodes: here a node's name makes the name of another's value."""
    model = parsed("a = Exp (x)  b = Sin (x)  c = Mul (a, b)  y = ReduceSum <keepdims = 0> (c)")
    model.graph.node[0].name, model.graph.node[0].output[0] = "one", "two:0"
    model.graph.node[1].name, model.graph.node[1].output[0] = "two", "one:0"
    model.graph.node[2].input[:] = ["two:0", "one:0"]
    assert_same(model, load(model), x=data(2, 3))
    assert_same(model, value_and_grad(model, "y", []), x=data(2, 3))


def test_external_data_is_found_beside_the_file(tmp_path: Path) -> None:
    model = parsed("p = MatMul (x, w)  y = ReduceSum <keepdims = 0> (p)")
    model.graph.initializer.append(numpy_helper.from_array(data(3, 64), "w"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size >= 3 * 64 * 4
    canonical = load(path)
    (tmp_path / "weights.bin").unlink()
    x = data(2, 3)
    np.testing.assert_allclose(run(canonical, {"x": x})["y"], (x @ data(3, 64)).sum(), rtol=1e-5)
    with pytest.raises(InvalidModelError, match=re.escape(str(path))):
        load(path)


def test_half_precision_weights_are_cast_beforehand() -> None:
    model = parsed("w = Cast <to = 1> (h)  p = MatMul (x, w)  y = ReduceSum <keepdims = 0> (p)")
    model.graph.initializer.append(numpy_helper.from_array(data(3, 4).astype(np.float16), "h"))
    canonical = load(model)
    assert [node.op_type for node in canonical.graph] == ["MatMul", "ReduceSum"]
    assert_same(model, canonical, x=data(2, 3))


def test_shape_arithmetic_is_computed_beforehand() -> None:
    """The reshape and the positions of a vision transformer, as exporters write them, with a dynamic batch."""
    model = parsed(
        """
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        last = Constant <value_ints = [-1]> ()
        axes = Constant <value_ints = [0]> ()
        s = Shape (x)
        b = Gather <axis = 0> (s, zero)
        n = Gather <axis = 0> (s, one)
        b1 = Unsqueeze (b, axes)
        target = Concat <axis = 0> (b1, last)
        flat = Reshape (x, target)
        i = Range (zero, n, one)
        f = Cast <to = 1> (i)
        f3 = Unsqueeze (f, last)
        n1 = Unsqueeze (n, axes)
        ones = ConstantOfShape <value = float[1] {1.0}> (n1)
        w = Mul (f, ones)
        tail = Shape <start = 1> (x)
        back = Concat <axis = 0> (b1, tail)
        r = Reshape (flat, back)
        e = Expand (f3, back)
        q = Add (r, e)
        count = Size (x)
        c = Cast <to = 1> (count)
        t = ReduceSum <keepdims = 0> (q)
        v = ReduceSum <keepdims = 0> (w)
        d = Div (t, c)
        y = Add (d, v)
        """,
        "(float[batch,4,3] x) => (float[] y)",
    )
    canonical = load(model, {"x": (2, 4, 3)})
    assert_same(model, canonical, x=data(2, 4, 3))
    left = {node.op_type for node in canonical.graph}
    assert not left & {"Shape", "Gather", "Range", "ConstantOfShape", "Unsqueeze", "Concat", "Size", "Cast"}
    assert canonical.graph.inputs[0].shape == ir.Shape((2, 4, 3))


def test_a_shape_behind_an_identity_is_known() -> None:
    model = parsed(
        """
        s = Identity (shape)  t = Identity (s)  i = Identity (x)  r = Reshape (i, t)
        e = Exp (r)  y = ReduceSum <keepdims = 0> (e)
        """,
        "(float[2,3] x) => (float[] y, int64[2] s)",
        shape=np.asarray([3, 2]),
    )
    canonical = load(model)
    assert_same(model, canonical, x=data(2, 3))
    assert [node.op_type for node in canonical.graph] == ["Identity", "Reshape", "Exp", "ReduceSum"]


def test_dropout_and_batch_normalization_in_inference_form() -> None:
    body = """
    r = Constant <value_float = 0.5> ()
    t = Constant <value = bool {{{training}}}> ()
    d = Dropout (x, r, t)
    n = BatchNormalization <training_mode = 0> (d, w, w, w, w)
    y = ReduceSum <keepdims = 0> (n)
    """
    model = parsed(body.format(training=0), "(float[2,3,4] x) => (float[] y)")
    model.graph.initializer.append(numpy_helper.from_array(data(3), "w"))
    assert_same(model, load(model), x=data(2, 3, 4))
    with pytest.raises(UnsupportedOpError, match=r"Dropout .* training mode.*model\.eval"):
        load(parsed(body.format(training=1), "(float[2,3,4] x, float[3] w) => (float[] y)"))
    with pytest.raises(UnsupportedOpError, match="BatchNormalization .* training mode"):
        load(
            parsed(
                "n, m, v = BatchNormalization <training_mode = 1> (x, w, w, w, w)  y = ReduceSum <keepdims = 0> (n)",
                "(float[2,3,4] x, float[3] w) => (float[] y)",
            )
        )


def test_the_mask_of_a_dropout_is_all_true() -> None:
    model = parsed("d, m = Dropout (x)  f = Cast <to = 1> (m)  p = Mul (d, f)  y = ReduceSum <keepdims = 0> (p)")
    assert_same(model, load(model), x=data(2, 3))


def test_dynamic_axes_are_pinned_or_named() -> None:
    model = parsed("y = ReduceSum <keepdims = 0> (x)", "(float[2,width] x) => (float[] y)")
    assert load(model, {"x": [2, 7]}).graph.inputs[0].shape == ir.Shape((2, 7))
    with pytest.raises(DynamicShapeError, match=r"axis 1 \(width\) of 'x' .*shapes="):
        load(model)
    with pytest.raises(InvalidModelError, match="axis 0 of input 'x' is 2, shapes gives 3"):
        load(model, {"x": (3, 7)})
    with pytest.raises(InvalidModelError, match="input 'x' has 2 axes, shapes gives 3"):
        load(model, {"x": (2, 7, 1)})
    with pytest.raises(InvalidModelError, match="shapes names 'z'; the model's inputs are x"):
        load(model, {"z": (2, 7)})


def test_an_input_without_shape_takes_the_one_given() -> None:
    model = parsed("y = ReduceSum <keepdims = 0> (x)", "(float x) => (float[] y)")
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(DynamicShapeError, match="'x'"):
        load(model)
    assert load(model, {"x": (2, 3)}).graph.inputs[0].shape == ir.Shape((2, 3))


def test_a_shape_that_depends_on_the_data_is_named() -> None:
    model = parsed("n = NonZero (x)  f = Cast <to = 1> (n)  y = ReduceSum <keepdims = 0> (f)")
    with pytest.raises(DynamicShapeError, match="NonZero"):
        load(model)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (
            "n = Constant <value_int = 3> ()  c = Constant <value = bool {1}> ()  s = ReduceSum <keepdims = 0> (x)  "
            "y = Loop <body = b (int64 i, bool k, float[] u) => (bool l, float[] w) "
            "{ l = Identity (k) w = Add (u, u) }> (n, c, s)",
            "Loop",
        ),
        (
            "z = ReduceSum <keepdims = 0> (x)  "
            "y, r = Scan <num_scan_inputs = 1, body = b (float[] u, float[3] r) => (float[] v, float[3] w) "
            "{ t = ReduceSum <keepdims = 0> (r) v = Add (u, t) w = Identity (r) }> (z, x)",
            "Scan",
        ),
        ("o = Optional (x)  p = OptionalGetElement (o)  y = ReduceSum <keepdims = 0> (p)", "Optional"),
        ("y = local.mystery (x)", "mystery"),
    ],
    ids=["Loop", "Scan", "optional", "other domain"],
)
def test_what_no_static_graph_can_hold_is_refused_by_name(body: str, named: str) -> None:
    with pytest.raises(UnsupportedOpError, match=named):
        load(parsed(body))


def test_control_flow_inside_a_function_is_refused_too() -> None:
    functions = """
    <domain: "local", opset_import: ["" : 17]>
    hidden (a) => (c) {
        n = Constant <value_int = 3> ()
        t = Constant <value = bool {1}> ()
        c = Loop <body = b (int64 i, bool k, float[2,3] u) => (bool l, float[2,3] w) {
            l = Identity (k)  w = Exp (u) }> (n, t, a)
    }
    """
    with pytest.raises(UnsupportedOpError, match="Loop"):
        load(parsed("h = local.hidden (x)  y = ReduceSum <keepdims = 0> (h)", functions=functions))


def test_functions_that_do_not_fit_their_calls() -> None:
    functions = """
    <domain: "local", opset_import: ["" : 17, "local" : 1]>
    a (u) => (v) { v = local.b (u) }
    <domain: "local", opset_import: ["" : 17, "local" : 1]>
    b (u) => (v) { v = local.a (u) }
    """
    with pytest.raises(InvalidModelError, match="functions"):
        load(parsed("h = local.a (x)  y = ReduceSum <keepdims = 0> (h)", functions=functions))


def test_strings_are_refused() -> None:
    with pytest.raises(UnsupportedOpError, match="'s' holds strings"):
        load(
            parsed(
                "t = Identity (s)  y = ReduceSum <keepdims = 0> (x)",
                "(float[2,3] x, string[2] s) => (float[] y, string[2] t)",
            )
        )
    with pytest.raises(UnsupportedOpError, match="StringConcat"):
        load(
            parsed(
                "t = StringConcat (s, s)  y = ReduceSum <keepdims = 0> (x)",
                "(float[2,3] x, string[2] s) => (float[] y, string[2] t)",
                opset=20,
            )
        )


@pytest.mark.parametrize("opset", range(13, 26))
def test_every_opset(opset: int) -> None:
    """One net in the form that each version gives its operators."""
    new = opset >= 18
    axes = "" if new else "axes = [2, 3], "
    operand = ", ax" if new else ""
    pieces = "num_outputs = 2, " if new else ""
    groups = 6 if opset >= 21 else 2
    norm = f"g = GroupNormalization <num_groups = 2> (k, s{groups}, s{groups})" if new else "g = Identity (k)"
    model = parsed(
        f"""
        ax = Constant <value_ints = [2, 3]> ()
        c = Conv <pads = [1, 1, 1, 1]> (x, w)
        k = BatchNormalization (c, s6, s6, s6, s6)
        {norm}
        lo = Constant <value_float = 0.0> ()
        h = Clip (g, lo)
        m = ReduceMean <{axes}keepdims = 1> (h{operand})
        d = Sub (h, m)
        a, b = Split <{pieces}axis = 1> (d)
        p = Softmax <axis = 1> (a)
        q = Mul (p, b)
        l = ReduceL2 <{axes}keepdims = 0> (q{operand})
        y = ReduceSum <keepdims = 0> (l)
        """,
        "(float[1,3,5,5] x) => (float[] y)",
        opset,
    )
    random = np.random.default_rng(2)
    for name, shape in {"w": (6, 3, 3, 3), "s6": (6,), "s2": (2,)}.items():
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(
                numpy_helper.from_array(random.uniform(0.2, 1, shape).astype(np.float32), name)
            )
    assert_same(model, load(model), x=data(1, 3, 5, 5))
    assert "grad:x" in run(value_and_grad(model, "y", ["x"]), {"x": data(1, 3, 5, 5)})


@pytest.mark.parametrize(("op_type", "opset"), [("NoSuchThing", 20), ("TensorScatter", 24)])
def test_operators_that_the_opset_lacks_are_named(op_type: str, opset: int) -> None:
    with pytest.raises(UnsupportedOpError, match=op_type):
        load(parsed(f"y = {op_type} (x, x)", "(float[2,3] x) => (float[2,3] y)", opset))


def test_a_bias_that_is_computed_is_not_lost_where_two_convolutions_become_one() -> None:
    random = np.random.default_rng(0)
    first, second = (random.random(shape, dtype=np.float32) for shape in ((4, 3, 3, 3), (2, 4, 1, 1)))
    signature = "(float[1,3,5,5] x, float[4] b) => (float[1,2,3,3] y)"
    model = parsed("c = Conv (x, w, b)  y = Conv (c, u)", signature, w=first, u=second)
    assert_same(model, load(model), x=data(1, 3, 5, 5), b=data(4))


@pytest.mark.parametrize("opset", [9, 12, 30])
def test_other_opsets_are_refused(opset: int) -> None:
    model = parsed("t = Exp (x)  y = Exp (t)", "(float[2,3] x) => (float[2,3] y)")
    model.opset_import[0].version = opset
    with pytest.raises(InvalidModelError, match=f"opset {opset}; opsets 13 to"):
        load(model)


def test_an_operator_without_a_rule_is_named_with_its_node_and_what_is_supported() -> None:
    model = parsed("d = Det (x)  y = ReduceSum <keepdims = 0> (d)", "(float[2,3,3] x) => (float[] y)")
    model.graph.node[0].name = "volume"
    with pytest.raises(UnsupportedOpError, match=r"no gradient rule for Det \(node 'volume'\); supported: Abs, .*Conv"):
        value_and_grad(model, "y", ["x"])


def test_an_operator_without_a_rule_may_stand_beside_the_path() -> None:
    model = parsed(
        "d = Det (c)  s = Mul (x, d)  y = ReduceSum <keepdims = 0> (s)", "(float[2] x, float[2,3,3] c) => (float[] y)"
    )
    feeds = {"x": data(2), "c": data(2, 3, 3)}
    np.testing.assert_allclose(
        run(value_and_grad(model, "y", ["x"]), feeds)["grad:x"], np.linalg.det(feeds["c"]), rtol=1e-4
    )


def test_what_is_asked_for_must_exist() -> None:
    model = parsed(
        "i = Cast <to = 7> (x)  e = Exp (x)  y = ReduceSum <keepdims = 0> (e)",
        "(float[2,3] x, int64[2] k) => (float[] y, float[2,3] e, int64[2,3] i)",
    )
    for of, wrt, complaint in (
        ("z", ["x"], "no output 'z'; the model's outputs are y, e, i"),
        ("y", ["z"], "no input 'z'; the model's inputs are x, k"),
        ("y", ["x", "x"], "'x' twice"),
        ("y", ["k"], "'k' is INT64"),
        ("e", ["x"], "'e' is .*scalar"),
        ("i", ["x"], "'i' is INT64"),
    ):
        with pytest.raises(InvalidModelError, match=complaint):
            value_and_grad(model, of, wrt)


def test_a_gradient_that_is_zero_everywhere() -> None:
    model = parsed("y = ReduceSum <keepdims = 0> (x)", "(float[2,3] x, float[4] unused) => (float[] y)")
    outputs = run(value_and_grad(model, "y", ["x", "unused"]), {"x": data(2, 3), "unused": data(4)})
    np.testing.assert_array_equal(outputs["grad:x"], np.ones((2, 3)))
    np.testing.assert_array_equal(outputs["grad:unused"], np.zeros(4))


def test_an_output_that_is_an_input_or_a_constant_stays_an_output() -> None:
    model = parsed(
        "same = Identity (x)  fixed = Constant <value = float[1] {2.0}> ()  y = ReduceSum <keepdims = 0> (x)",
        "(float[2,3] x) => (float[] y, float[2,3] same, float[1] fixed)",
    )
    assert_same(model, load(model), x=data(2, 3))
    assert set(run(value_and_grad(model, "y", ["x"]), {"x": data(2, 3)})) == {"y", "same", "fixed", "grad:x"}


def test_nodes_out_of_order_are_sorted() -> None:
    model = parsed("a = Exp (x)  b = Sin (a)  y = ReduceSum <keepdims = 0> (b)")
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert [node.op_type for node in load(model).graph] == ["Exp", "Sin", "ReduceSum"]


def test_the_argument_is_left_alone() -> None:
    model = ir.from_proto(parsed("a = Identity (x)  y = ReduceSum <keepdims = 0> (a)"))
    before = ir.to_proto(model).SerializeToString()
    load(model)
    value_and_grad(model, "y", ["x"])
    assert ir.to_proto(model).SerializeToString() == before


def test_operators_with_impossible_operands_are_named() -> None:
    with pytest.raises(InvalidModelError, match="MatMul"):
        load(parsed("m = MatMul (x, x)  y = ReduceSum <keepdims = 0> (m)"))


@pytest.mark.parametrize("content", [b"", b"this is no model", bytes(range(256)) * 8], ids=["empty", "text", "bytes"])
def test_files_that_are_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=r"broken\.onnx"):
        load(path)


def test_models_in_memory_that_are_broken(tmp_path: Path) -> None:
    twice = parsed("a = Exp (x)  y = ReduceSum <keepdims = 0> (a)")
    twice.graph.node[0].output[0] = "y"
    with pytest.raises(InvalidModelError, match="in memory"):
        load(twice)
    path = tmp_path / "model.onnx"
    model = parsed("p = MatMul (x, w)  y = ReduceSum <keepdims = 0> (p)", w=data(3, 64))
    onnx.save(model, path, save_as_external_data=True, location="elsewhere.bin", size_threshold=0)
    with pytest.raises(InvalidModelError, match=r"elsewhere\.bin"):
        load(onnx.load(path, load_external_data=False))


def test_nodes_in_a_circle() -> None:
    model = parsed("a = Add (x, b)  b = Exp (a)  y = ReduceSum <keepdims = 0> (b)")
    with pytest.raises(InvalidModelError, match="cycle"):
        load(model)


def test_files_that_are_missing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.onnx"):
        with pytest.raises(InvalidModelError, match="no such file"):
            load(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    model = parsed("p = MatMul (x, w)  y = ReduceSum <keepdims = 0> (p)")
    model.graph.initializer.append(numpy_helper.from_array(data(3, 64), "w"))
    path = tmp_path / "short.onnx"
    path.write_bytes(model.SerializeToString()[:-100])
    with pytest.raises(InvalidModelError, match=r"short\.onnx"):
        load(path)
