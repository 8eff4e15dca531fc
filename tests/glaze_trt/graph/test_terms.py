from __future__ import annotations

import io

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

import engine
from engine.tape import OPSET, Tape
from glaze_trt.graph import terms
from glaze_trt.measure.ssim import ssim
from tests.glaze_trt.scene import image, waves


def term_model(name: str, shape: tuple[int, ...]) -> ir.Model:
    """original, delta → the term."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name=name)
    for given in ("original", "delta"):
        graph.inputs.append(ir.Value(name=given, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    original, delta = graph.inputs
    x = tape.Add(original, delta)
    if name == "visibility":
        value = terms.visibility(tape, x, terms.visibility_reference(tape, original))
    elif name == "dssim":
        value = terms.dssim(tape, x, original, terms.dssim_reference(tape, original))
    else:
        value = terms.structure(tape, delta, terms.structure_reference(tape, original))
    value.name = "term"
    graph.outputs.append(value)
    return ir.Model(graph, ir_version=10)


def changed(original: np.ndarray, kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    if kind == "noise":
        return np.clip(original + rng.integers(-12, 13, original.shape), 0, 255).astype(np.uint8)
    if kind == "shift":
        return np.clip(original.astype(int) + 9, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(original).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize("kind", ["noise", "shift", "jpeg"])
@pytest.mark.parametrize("size", [(256, 192), (250, 311)])
def test_visibility_is_ssimulacra2(kind: str, size: tuple[int, int]) -> None:
    original = waves(*size)
    picture = changed(original, kind)
    files = [io.BytesIO(), io.BytesIO()]
    for levels, file in zip((original, picture), files, strict=True):
        Image.fromarray(levels).save(file, "BMP")
    expected = compute_ssimulacra2(*files)
    program = engine.compile(term_model("visibility", (1, 3, *size)), engine="onnxruntime", precision="fp32")
    error = program({"original": image(original), "delta": image(picture) - image(original)})["term"]
    assert 100 - 10 * error**0.6276336467831387 == pytest.approx(expected, abs=2.0)


@pytest.mark.parametrize("name", ["visibility", "dssim", "structure"])
def test_a_term_is_zero_for_equal_pictures_and_its_gradient_is_finite(name: str) -> None:
    original = image(waves())
    model = engine.value_and_grad(term_model(name, original.shape), "term", ["delta"])
    program = engine.compile(model, engine="onnxruntime", precision="fp32")
    result = program({"original": original, "delta": np.zeros_like(original)})
    assert abs(result["term"]) < 0.05  # of 5.8 at a score of 70; fp32 rounding under the fourth root
    assert np.isfinite(result["grad:delta"]).all()


@pytest.mark.parametrize("name", ["visibility", "dssim", "structure"])
def test_the_gradient_of_a_term_is_its_slope(name: str) -> None:
    rng = np.random.default_rng(0)
    original = 0.2 + 0.6 * image(waves())
    delta = rng.uniform(-0.05, 0.05, original.shape).astype(np.float32)
    model = engine.value_and_grad(term_model(name, original.shape), "term", ["delta"])
    program = engine.compile(model, engine="onnxruntime", precision="fp32")
    gradient = program({"original": original, "delta": delta})["grad:delta"].astype(np.float64)
    along = gradient / np.linalg.norm(gradient)
    h = 2e-2
    ends = [program({"original": original, "delta": (delta + s * h * along).astype(np.float32)}) for s in (1, -1)]
    slope = (float(ends[0]["term"]) - float(ends[1]["term"])) / (2 * h)
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=2e-2)


def test_structure_costs_more_on_flat_ground() -> None:
    """A change in a flat region costs more than the same change in a textured one."""
    flat = np.full((64, 64, 3), 128, np.uint8)
    rough = np.random.default_rng(0).integers(60, 200, (64, 64, 3)).astype(np.uint8)
    delta = np.random.default_rng(1).uniform(-0.03, 0.03, (1, 3, 64, 64)).astype(np.float32)
    program = engine.compile(term_model("structure", delta.shape), engine="onnxruntime", precision="fp32")
    cost = [float(program({"original": image(p), "delta": delta})["term"]) for p in (flat, rough)]
    assert cost[0] > 5 * cost[1]


def test_dssim_is_that_of_the_finished_picture() -> None:
    before = waves(96, 80)
    after = changed(before, "noise")
    program = engine.compile(term_model("dssim", (1, 3, 96, 80)), engine="onnxruntime", precision="fp32")
    found = float(program({"original": image(before), "delta": image(after) - image(before)})["term"])
    assert found == pytest.approx((1 - ssim(before, after)) / 2, rel=0.2)  # the border counts here, not there
