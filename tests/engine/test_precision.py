"""Mixed precision written into the graph: what is narrowed, what stays, and what it does to results."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import engine
from bench.compare import cosine
from engine.errors import EngineError
from engine.passes.precision import typed
from engine.tape import BACKWARD, OPSET, Tape
from glaze_trt import models
from tests.glaze_trt.scene import image, waves

FLOAT = ir.DataType.FLOAT
NARROW = {"bf16": ir.DataType.BFLOAT16, "fp16": ir.DataType.FLOAT16}
RNG = np.random.default_rng(0)


def graph(shape: tuple[int, ...] = (1, 8, 6, 6)) -> tuple[ir.Graph, Tape, ir.Value]:
    built = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="g")
    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(FLOAT))
    built.inputs.append(x)
    return built, Tape(built), x


def finish(built: ir.Graph, **outputs: ir.Value) -> ir.Model:
    for name, value in outputs.items():
        value.name = name
        built.outputs.append(value)
    return ir.Model(built, ir_version=10)


def weight(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def run(model: ir.Model, **feeds: np.ndarray) -> dict[str, np.ndarray]:
    return engine.compile(model, engine="onnxruntime", precision="fp32")(feeds)


def dtypes(model: ir.Model, op_type: str) -> list[ir.DataType | None]:
    return [node.inputs[0].dtype for node in model.graph if node.op_type == op_type and node.inputs[0] is not None]


@pytest.fixture(scope="module")
def encoder() -> ir.Model:
    """Value and gradient of the built-in encoder's sum of squares, (1, 3, 64, 64)."""
    built, tape, x = graph((1, 3, 64, 64))
    net = engine.load(models.find("tiny", "encoder").path, {"image": (1, 3, 64, 64)})
    latent = tape.splice(net, {"image": x})["latent"]
    with tape.scope("loss", precision="fp32"):
        loss = tape.ReduceSum(tape.Mul(latent, latent), [0, 1, 2, 3], keepdims=0)
    return engine.value_and_grad(finish(built, loss=loss), "loss", ["x"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_convolutions_are_narrow_and_the_ends_are_not(encoder: ir.Model, precision: str) -> None:
    result = typed(encoder, precision)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert [v.dtype for v in (*result.graph.inputs, *result.graph.outputs)] == [FLOAT] * 3
    kinds = dtypes(result, "Conv")
    assert kinds.count(FLOAT) == 1  # the one that the picture enters
    assert set(kinds) == {FLOAT, NARROW[precision]}
    assert not {v.dtype for v in encoder.graph.initializers.values()} & set(NARROW.values())  # left as it was


@pytest.mark.parametrize(
    ("precision", "emulate", "least"),
    [("fp16", False, 0.999), ("fp16", True, 0.999), ("mixed", True, 0.999), ("bf16", True, 0.99)],
)
def test_gradients_are_close_to_those_of_fp32(encoder: ir.Model, precision: str, emulate: bool, least: float) -> None:
    x = image(waves(64, 64))
    exact, found = run(encoder, x=x), run(typed(encoder, precision, emulate=emulate), x=x)
    assert least < cosine(exact["grad:x"], found["grad:x"]) < 0.999999
    assert found["loss"] == pytest.approx(exact["loss"], rel=0.01)


def test_mixed_is_fp16_forward_and_bf16_backward_and_pools_agree_with_themselves() -> None:
    built, tape, x = graph((1, 8, 8, 8))
    c = tape.Conv(x, weight(8, 8, 1, 1))
    y = tape.Conv(tape.MaxPool(c, kernel_shape=[2, 2], strides=[2, 2]), weight(8, 8, 1, 1))
    loss = tape.ReduceSum(tape.Mul(y, y), [0, 1, 2, 3], keepdims=0)
    model = engine.value_and_grad(finish(built, loss=loss), "loss", ["x"])
    result = typed(model, "mixed")
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    kinds = dtypes(result, "Conv")
    assert kinds == [NARROW["fp16"]] * 2 + [NARROW["bf16"]] * 2
    assert set(dtypes(result, "Equal")) == {NARROW["fp16"]}  # as bf16 they would tie
    feed = RNG.standard_normal((1, 8, 8, 8)).astype(np.float32)
    exact, found = run(model, x=feed)["grad:x"], run(typed(model, "mixed", emulate=True), x=feed)["grad:x"]
    assert cosine(exact, found) > 0.9999


@pytest.mark.parametrize(("precision", "kind"), [("bf16", ml_dtypes.bfloat16), ("fp16", np.float16)])
def test_what_is_imitated_is_rounding_before_and_after(precision: str, kind: type) -> None:
    built, tape, x = graph((1, 8))
    w = weight(8, 8)
    result = run(typed(finish(built, y=tape.MatMul(x, w)), precision, emulate=True), x=np.ones((1, 8), np.float32) / 3)
    rounded = (np.ones((1, 8)) / 3).astype(kind).astype(np.float32) @ w.astype(kind).astype(np.float32)
    np.testing.assert_array_equal(result["y"], rounded.astype(kind).astype(np.float32))


def test_islands_sums_and_squares_before_sums_stay_wide() -> None:
    built, tape, x = graph()
    c = tape.Conv(x, weight(8, 8, 3, 3), pads=[1, 1, 1, 1])
    with tape.scope("island", precision="fp32"):
        kept = tape.Sub(c, 0.25)
    y = tape.Conv(kept, weight(8, 8, 1, 1))
    energy = tape.ReduceMean(tape.Mul(y, y), [1, 2, 3], keepdims=0)
    result = typed(finish(built, energy=energy), "fp16")
    assert dtypes(result, "Conv") == [NARROW["fp16"]] * 2
    assert dtypes(result, "Sub") == dtypes(result, "Mul") == dtypes(result, "ReduceMean") == [FLOAT]


def test_a_constant_that_would_vanish_or_overflow_keeps_its_node_wide() -> None:
    built, tape, x = graph()
    c = tape.Conv(x, weight(8, 8, 1, 1))
    small, large = tape.Add(c, 1e-12), tape.Mul(c, 1e6)
    y, z = tape.Conv(small, weight(8, 8, 1, 1)), tape.Conv(large, weight(8, 8, 1, 1))
    model = finish(built, y=y, z=z)
    assert dtypes(typed(model, "fp16"), "Add") == dtypes(typed(model, "fp16"), "Mul") == [FLOAT]
    assert dtypes(typed(model, "bf16"), "Add") == dtypes(typed(model, "bf16"), "Mul") == [NARROW["bf16"]]


@pytest.mark.parametrize("emulate", [False, True])
def test_an_output_that_others_read_too_comes_out_in_fp32(emulate: bool) -> None:
    built, tape, x = graph()
    c = tape.Conv(x, weight(8, 8, 1, 1))
    y = tape.Conv(tape.Relu(c), weight(8, 8, 1, 1))
    model = finish(built, c=c, y=y)
    result = typed(model, "fp16", emulate=emulate)
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    feed = RNG.standard_normal((1, 8, 6, 6)).astype(np.float32)
    exact, found = run(model, x=feed), run(result, x=feed)
    for name in ("c", "y"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], exact[name], atol=4e-3)
        assert not np.array_equal(found[name], exact[name])


def test_masks_follow_the_type_of_what_they_mask() -> None:
    built, tape, x = graph()
    c = tape.Conv(x, weight(8, 8, 1, 1))
    mask = tape.Cast(tape.Greater(c, 0.0), to=int(FLOAT))
    y = tape.Conv(tape.Mul(c, mask), weight(8, 8, 1, 1))
    model = finish(built, y=y)
    result = typed(model, "bf16")
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert dtypes(result, "Mul") == dtypes(result, "Greater") == [NARROW["bf16"]]


def test_fp32_is_a_copy_and_other_names_are_refused(encoder: ir.Model) -> None:
    assert ir.to_proto(typed(encoder, "fp32")) == ir.to_proto(encoder)
    with pytest.raises(EngineError, match="fp8"):
        typed(encoder, "fp8")


def named(graph_: ir.Graph, op_type: str, name: str) -> ir.Node:
    """The last node of a kind, under another name, as a model of somebody else's may have it."""
    node = [node for node in graph_ if node.op_type == op_type][-1]
    node.name, node.outputs[0].name = name, f"{name}:0"
    return node


def test_mixed_tells_the_halves_apart_by_marks_and_not_by_names() -> None:
    built, tape, x = graph()
    c = tape.Conv(x, weight(8, 8, 3, 3), pads=[1, 1, 1, 1])
    named(built, "Conv", "gradient_x")
    y = tape.Conv(tape.Div(tape.Relu(c), 3.0), weight(8, 8, 1, 1))
    named(built, "Conv", "grad/own")
    named(built, "Div", "grad")
    loss = tape.ReduceSum(tape.Mul(y, y), [0, 1, 2, 3], keepdims=0)
    forward = finish(built, loss=loss)
    model = engine.value_and_grad(forward, "loss", ["x"])
    again = engine.load(ir.from_proto(ir.to_proto(model)))  # marks are written to files, and read again
    for source in (model, again):
        result = typed(source, "mixed")
        onnx.checker.check_model(ir.to_proto(result), full_check=True)
        assert dtypes(result, "Conv") == [NARROW["fp16"]] * 2 + [NARROW["bf16"]] * 2
        scaled = [
            n for n in result.graph if n.op_type == "Mul" and "grad" in str(n.name) and BACKWARD not in n.metadata_props
        ]
        assert [n.inputs[0].dtype for n in scaled] == [NARROW["fp16"]]  # the Div, which simplifying made a product


def test_nodes_that_stand_for_backward_ones_are_marked() -> None:
    built, tape, x = graph((1, 8, 8, 8))
    y = tape.GroupNormalization(
        tape.Conv(x, weight(8, 8, 1, 1)), np.ones(8, np.float32), np.ones(8, np.float32), num_groups=2
    )
    y = tape.Resize(tape.MaxPool(y, kernel_shape=[2, 2], strides=[2, 2]), None, np.float32([1, 1, 2, 2]), mode="linear")
    loss = tape.ReduceMean(tape.Mul(y, y), [0, 1, 2, 3], keepdims=0)
    model = engine.value_and_grad(finish(built, loss=loss), "loss", ["x"])
    late: set[ir.Value] = set()
    for node in model.graph:  # all that leads from a backward node to an output, but for the output's own Identity
        if any(v in late for v in node.inputs) and not node.outputs[0].is_graph_output():
            assert BACKWARD in node.metadata_props, node.name
        if BACKWARD in node.metadata_props:
            late.update(node.outputs)
    forward = model.graph.outputs[0].producer()
    assert late
    assert forward is not None
    seen, stack = set(), [forward]
    while stack:  # and nothing that the loss is computed from
        node = stack.pop()
        assert BACKWARD not in node.metadata_props, node.name
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in seen:
                seen.add(producer)
                stack.append(producer)
