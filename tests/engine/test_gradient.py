"""What `value_and_grad` and `companion` promise: names and order, one gradient by two roads, and what is saved."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from engine import InvalidModelError, UnsupportedOpError, companion, load, value_and_grad
from tests.engine.case import Builder, Case, build
from tests.engine.written import data, parsed, run


def network(g: Builder) -> tuple[ir.Value, ir.Value]:
    """Convolutions, a group norm and an attention over pixels, of a picture and a scale: (1, 8, 6, 6) and (8, 36)."""
    image, scale = g.input("image", 1, 3, 12, 12), g.input("scale", 8, 1, 1)
    x = g.Conv(image, g.weight(8, 3, 3, 3), g.weight(8), pads=[1, 1, 1, 1], strides=[2, 2])
    x = g.Mul(g.GroupNormalization(x, g.weight(8), g.weight(8), num_groups=2), scale)
    x = g.Mul(x, g.Sigmoid(x))
    tokens = g.Reshape(x, [8, 36])
    q, k, v = (g.MatMul(g.weight(8, 8), tokens) for _ in range(3))
    weights = g.Softmax(g.Mul(g.MatMul(g.Transpose(q, perm=[1, 0]), k), 0.35), axis=-1)
    attended = g.MatMul(v, g.Transpose(weights, perm=[1, 0]))
    latent = g.Conv(g.Add(x, g.Reshape(attended, [1, 8, 6, 6])), g.weight(8, 8, 3, 3), pads=[1, 1, 1, 1])
    return latent, attended


def names(values: Any) -> list[str]:
    return [value.name for value in values]


def both_halves(
    halves: tuple[ir.Model, ir.Model], of: str, cotangent: np.ndarray, feeds: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs of the forward, and of the backward fed with what the forward saved."""
    forward, backward = halves
    outputs = run(forward, feeds)
    saved = {name: array for name, array in outputs.items() if name.startswith("saved:")}
    assert names(backward.graph.inputs) == [*saved, f"cotangent:{of}"]
    return outputs, run(backward, {**saved, f"cotangent:{of}": cotangent})


def through_a_scalar(model: ir.Model, of: str, cotangent: np.ndarray) -> ir.Model:
    """`model` with one more output, `projection`: the scalar whose gradient the companion's product is."""
    model = model.clone()
    graph = model.graph
    weight = ir.Value(name="cotangent", const_value=ir.tensor(cotangent, name="cotangent"))
    graph.register_initializer(weight)
    product = ir.Node("", "Mul", [next(v for v in graph.outputs if v.name == of), weight])
    total = ir.Node("", "ReduceSum", product.outputs, {"keepdims": ir.AttrInt64("keepdims", 0)})
    graph.extend([product, total])
    total.outputs[0].name, total.outputs[0].type = "projection", ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(total.outputs[0])
    return model


def test_outputs_keep_their_names_and_order_and_gradients_follow() -> None:
    model = parsed(
        "b = Exp (x)  a = Sin (w)  p = Mul (b, a)  y = ReduceSum <keepdims = 0> (p)",
        "(float[2,3] w, float[2,3] x) => (float[2,3] b, float[] y, float[2,3] a)",
    )
    feeds = {"w": data(2, 3), "x": data(2, 3) + 1}
    result = value_and_grad(model, "y", ["x", "w"])
    assert names(result.graph.inputs) == ["w", "x"]
    assert names(result.graph.outputs) == ["b", "y", "a", "grad:x", "grad:w"]
    outputs = run(result, feeds)
    for name, array in run(model, feeds).items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-6)
    np.testing.assert_allclose(outputs["grad:x"], np.exp(feeds["x"]) * np.sin(feeds["w"]), rtol=1e-5)
    np.testing.assert_allclose(outputs["grad:w"], np.exp(feeds["x"]) * np.cos(feeds["w"]), rtol=1e-5)


@pytest.mark.parametrize("wrt", [["image"], ["scale", "image"]], ids=["one", "two"])
@pytest.mark.parametrize("of", ["out_0", "out_1"])
def test_a_forward_and_its_backward_give_the_gradient_of_the_whole(of: str, wrt: list[str]) -> None:
    built = build(Case("network", network))
    value = run(built.model, built.feeds)[of]
    cotangent = np.random.default_rng(3).uniform(-1, 1, value.shape).astype(np.float32)
    halves = companion(built.model, of, wrt)
    assert names(halves[0].graph.inputs) == ["image", "scale"]
    assert names(halves[1].graph.outputs) == [f"grad:{name}" for name in wrt]
    outputs, gradients = both_halves(halves, of, cotangent, built.feeds)
    count = len(outputs) - 2
    assert list(outputs) == ["out_0", "out_1", *(f"saved:{i}" for i in range(count))]
    whole = run(value_and_grad(through_a_scalar(built.model, of, cotangent), "projection", wrt), built.feeds)
    for name in ("out_0", "out_1"):
        np.testing.assert_allclose(outputs[name], whole[name], rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        scale = np.abs(whole[name]).max()
        assert gradient.shape == built.feeds[name.removeprefix("grad:")].shape
        np.testing.assert_allclose(gradient / scale, whole[name] / scale, atol=1e-5)


def test_halves_are_valid_and_neither_computes_what_the_other_does() -> None:
    forward, backward = companion(build(Case("network", network)).model, "out_0", ["image"])
    for half in (forward, backward):
        onnx.checker.check_model(ir.to_proto(half), full_check=True)
    early, late = (Counter(node.op_type for node in half.graph) for half in (forward, backward))
    assert early["Conv"] == late["Conv"] == 2
    assert early["Sigmoid"] == early["Softmax"] == 1
    assert not late["Sigmoid"] + late["Softmax"] + late["Exp"] + late["Sqrt"]
    assert early["MatMul"] == 5
    assert late["MatMul"] == 7  # one for each of the weights' three products, two for each of attention's
    assert not {node.name for node in forward.graph} & {node.name for node in backward.graph}
    saved = [value for value in backward.graph.inputs if str(value.name).startswith("saved:")]
    assert all(value.uses() for value in backward.graph.inputs)
    shapes = {value.name: (value.shape, value.dtype) for value in forward.graph.outputs}
    assert all(shapes[value.name] == (value.shape, value.dtype) for value in saved)


def test_an_output_that_is_an_input() -> None:
    model = parsed("same = Identity (x)", "(float[2,3] x) => (float[2,3] same)")
    outputs, gradients = both_halves(companion(model, "same", ["x"]), "same", data(2, 3), {"x": data(2, 3) + 1})
    assert list(outputs) == ["same"]
    np.testing.assert_array_equal(gradients["grad:x"], data(2, 3))


def test_an_input_may_be_what_is_saved() -> None:
    model = parsed("y = Mul (x, x)", "(float[2,3] x) => (float[2,3] y)")
    outputs, gradients = both_halves(companion(model, "y", ["x"]), "y", data(2, 3), {"x": data(2, 3) + 1})
    assert list(outputs) == ["y", "saved:0"]
    np.testing.assert_allclose(gradients["grad:x"], 2 * (data(2, 3) + 1) * data(2, 3), rtol=1e-6)


def test_an_output_may_be_what_is_saved() -> None:
    model = parsed("y = Exp (x)", "(float[2,3] x) => (float[2,3] y)")
    outputs, gradients = both_halves(companion(model, "y", ["x"]), "y", data(2, 3), {"x": data(2, 3)})
    assert list(outputs) == ["y", "saved:0"]
    np.testing.assert_allclose(gradients["grad:x"], np.exp(data(2, 3)) * data(2, 3), rtol=1e-6)


def test_an_output_that_does_not_depend_on_the_input_has_a_gradient_of_zeros_and_saves_nothing() -> None:
    model = parsed(
        "y = Exp (w)  z = Sin (x)", "(float[2,3] x, float[4] w, float[300,300] v) => (float[4] y, float[2,3] z)"
    )
    halves = companion(model, "y", ["x", "w", "v"])
    feeds = {"x": data(2, 3) * np.inf, "w": data(4), "v": data(300, 300)}
    outputs, gradients = both_halves(halves, "y", data(4), feeds)
    assert list(outputs) == ["y", "z", "saved:0"]
    np.testing.assert_array_equal(gradients["grad:x"], np.zeros((2, 3)))
    np.testing.assert_array_equal(gradients["grad:v"], np.zeros((300, 300)))
    np.testing.assert_allclose(gradients["grad:w"], np.exp(data(4)) * data(4), rtol=1e-6)
    outputs, gradients = both_halves(companion(model, "y", ["x"]), "y", data(4), feeds)
    assert list(outputs) == ["y", "z"]
    np.testing.assert_array_equal(gradients["grad:x"], np.zeros((2, 3)))


def test_two_inputs_with_one_gradient_get_an_output_each() -> None:
    model = parsed(
        "s = Add (x, w)  y = ReduceSum <keepdims = 0> (s)", "(float[2,3] x, float[2,3] w) => (float[] y, float[2,3] s)"
    )
    outputs = run(value_and_grad(model, "y", ["x", "w"]), {"x": data(2, 3), "w": data(2, 3)})
    np.testing.assert_array_equal(outputs["grad:x"], outputs["grad:w"])
    _, gradients = both_halves(companion(model, "s", ["w", "x"]), "s", data(2, 3), {"x": data(2, 3), "w": data(2, 3)})
    assert list(gradients) == ["grad:w", "grad:x"]
    np.testing.assert_array_equal(gradients["grad:w"], gradients["grad:x"])


@pytest.mark.parametrize("opset", range(13, 24))
def test_every_opset(opset: int) -> None:
    model = parsed(
        "c = Conv <pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization (c, s, b, b, s)  a = Elu (n)  "
        "m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)  p = Softmax <axis = 1> (m)  y = Mul (p, m)",
        "(float[1,2,6,6] x) => (float[1,4,3,3] y)",
        opset,
        w=data(4, 2, 3, 3),
        s=data(4),
        b=data(4) - 0.5,
    )
    cotangent = data(1, 4, 3, 3)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 2, 6, 6)).astype(np.float32)
    _, gradients = both_halves(companion(model, "y", ["x"]), "y", cotangent, {"x": x})
    direction = np.random.default_rng(2).uniform(-1, 1, x.shape).astype(np.float32)
    up, down = (run(model, {"x": x + h * direction})["y"].astype(np.float64) for h in (1e-3, -1e-3))
    slope = float(np.vdot((up - down) / 2e-3, cotangent))
    assert abs(float(np.vdot(gradients["grad:x"], direction)) - slope) < 1e-2 * np.linalg.norm(gradients["grad:x"])


def test_weights_beside_the_file(tmp_path: Path) -> None:
    model = parsed("p = MatMul (x, w)  y = Exp (p)", "(float[2,3] x) => (float[2,8] y)", w=data(3, 8))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    halves = companion(path, "y", ["x"])
    (tmp_path / "weights.bin").unlink()
    x, cotangent = data(2, 3), data(2, 8)
    _, gradients = both_halves(halves, "y", cotangent, {"x": x})
    np.testing.assert_allclose(gradients["grad:x"], (np.exp(x @ data(3, 8)) * cotangent) @ data(3, 8).T, rtol=1e-5)


def test_the_model_is_left_alone() -> None:
    proto = parsed(
        "c = Constant <value_float = 2.0> ()  a = Identity (x)  b = Mul (a, c)  y = Exp (b)",
        "(float[batch,3] x) => (float[batch,3] y)",
    )
    before, model = copy.deepcopy(proto), ir.from_proto(proto)
    companion(proto, "y", ["x"], {"x": (2, 3)})
    assert proto == before
    companion(model, "y", ["x"], {"x": (2, 3)})
    assert ir.to_proto(model).SerializeToString() == ir.to_proto(ir.from_proto(before)).SerializeToString()
    canonical = load(model, {"x": (2, 3)})
    kept = ir.to_proto(canonical).SerializeToString()
    companion(canonical, "y", ["x"])
    assert ir.to_proto(canonical).SerializeToString() == kept


def test_what_was_differentiated_already_is_refused() -> None:
    model = parsed("e = Exp (x)  y = ReduceSum <keepdims = 0> (e)", "(float[2,3] x) => (float[] y, float[2,3] e)")
    whole = value_and_grad(model, "y", ["x"])
    with pytest.raises(InvalidModelError, match="'grad:x' already.*forward model"):
        value_and_grad(whole, "y", ["x"])
    with pytest.raises(InvalidModelError, match="'grad:x' already"):
        companion(ir.to_proto(whole), "e", ["x"])
    forward, backward = companion(model, "e", ["x"])
    with pytest.raises(InvalidModelError, match="'saved:0' already"):
        companion(forward, "e", ["x"])
    with pytest.raises(InvalidModelError, match="no input 'x'"):
        value_and_grad(backward, "grad:x", ["x"])


def test_a_gradient_under_another_name_may_be_differentiated_again() -> None:
    """From a file: its nodes have the names that the engine gave, which it must not give twice."""
    cube = parsed("a = Mul (x, x)  y = Mul (a, x)", "(float[1] x) => (float[1] y)")
    proto = ir.to_proto(value_and_grad(cube, "y", ["x"]))
    for node in proto.graph.node:
        node.output[:] = ["slope" if name == "grad:x" else name for name in node.output]
    proto.graph.output[1].name = "slope"
    second = value_and_grad(proto, "slope", ["x"])
    onnx.checker.check_model(ir.to_proto(second), full_check=True)
    assert len({node.name for node in second.graph}) == len(second.graph)
    outputs = run(second, {"x": np.asarray([2], np.float32)})
    assert [float(outputs[name][0]) for name in ("y", "slope", "grad:x")] == [8, 12, 12]


def test_what_cannot_be_differentiated_is_named_with_what_can() -> None:
    model = parsed("y = Det (x)", "(float[2,3,3] x) => (float[2] y)")
    model.graph.node[0].name = "volume"
    with pytest.raises(UnsupportedOpError, match=r"Det \(node 'volume'\); supported: .*Conv, .*Softmax, "):
        companion(model, "y", ["x"])
    whole = parsed("y = Cast <to = 7> (x)", "(float[2,3] x) => (int64[2,3] y)")
    with pytest.raises(InvalidModelError, match="'y' is INT64"):
        companion(whole, "y", ["x"])


def test_weights_that_are_inputs_by_default_are_constants() -> None:
    model = parsed("y = Mul (x, w)", "(float[2,3] x, float[3] w) => (float[2,3] y)")
    model.graph.initializer.append(numpy_helper.from_array(data(3), "w"))
    _, gradients = both_halves(companion(model, "y", ["x"]), "y", data(2, 3), {"x": data(2, 3)})
    np.testing.assert_allclose(gradients["grad:x"], data(2, 3) * data(3), rtol=1e-6)
