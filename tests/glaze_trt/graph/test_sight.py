"""What a network of one fixed size sees of a picture: Pillow's resampling of a box, with a gradient into that box."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from PIL import Image

import engine
from engine.runtime.protocol import Build, Options
from engine.runtime.tensorrt import RTX
from engine.tape import OPSET, Tape
from glaze_trt.graph.resampling import BILINEAR, resampling
from glaze_trt.graph.sight import Box, through
from tests.glaze_trt.scene import image, waves


def mirror(height: int, width: int) -> ir.Model:
    """A network that gives what it sees, and the sum of its squares."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="mirror")
    shape = ir.Shape((1, 3, height, width))
    graph.inputs.append(ir.Value(name="pixels", shape=shape, type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    seen = tape.Identity(graph.inputs[0])
    total = tape.ReduceSum(tape.Mul(seen, seen), [0, 1, 2, 3], keepdims=0)
    seen.name, total.name = "seen", "total"
    graph.outputs.extend([seen, total])
    return ir.Model(graph, ir_version=10)


def sees(picture: NDArray[np.uint8], size: tuple[int, int], box: Box | None) -> NDArray[np.float32]:
    model = through(mirror(*size), (1, 3, *picture.shape[:2]), box)
    return engine.compile(model, "onnxruntime", "fp32")({"image": image(picture)})["seen"]


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (64, 96), (150, 200), (5, 96), (64, 31)])
@pytest.mark.parametrize("box", [None, (10, 4, 50, 37), (95, 63, 1, 1), (0, 0, 96, 64)])
def test_it_is_pillows_resampling_of_the_box(size: tuple[int, int], box: Box | None) -> None:
    picture = waves(64, 96)
    x, y, w, h = box or (0, 0, 96, 64)
    cut = Image.fromarray(picture[y : y + h, x : x + w])
    wanted = np.asarray(cut.resize(size[::-1], Image.Resampling.BILINEAR)).astype(float)
    found = sees(picture, size, box)[0].transpose(1, 2, 0) * 255.0
    assert np.abs(found - wanted).max() < 1.01  # Pillow rounds to whole levels after each of two passes


@pytest.mark.parametrize(("old", "new"), [(64, 64), (64, 32), (63, 20), (7, 100), (1, 9), (9, 1)])
def test_every_pixel_is_a_mean_of_old_ones(old: int, new: int) -> None:
    matrix = resampling(old, new, BILINEAR)
    assert matrix.shape == (new, old)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    if old == new:
        np.testing.assert_array_equal(matrix, np.eye(old))


def test_the_gradient_reaches_the_box_and_nothing_else() -> None:
    picture, box = waves(64, 96), (10, 4, 50, 37)
    model = engine.value_and_grad(through(mirror(24, 32), (1, 3, 64, 96), box), "total", ["image"])
    program = engine.compile(model, "onnxruntime", "fp32")
    gradient = program({"image": image(picture)})["grad:image"]
    inside = np.zeros((64, 96), bool)
    inside[4:41, 10:60] = True
    assert (gradient[..., ~inside] == 0).all()
    assert (gradient[..., inside] > 0).all()
    along = gradient / np.linalg.norm(gradient)
    ends = [float(program({"image": (image(picture) + s * along).astype(np.float32)})["total"]) for s in (0.5, -0.5)]
    assert ends[0] - ends[1] == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-3)


def test_one_output_may_be_kept_under_the_name_of_a_latent() -> None:
    model = through(mirror(24, 32), (1, 3, 64, 96), None, "seen")
    assert [(value.name, tuple(value.shape or ())) for value in model.graph.outputs] == [("latent", (1, 3, 24, 32))]


def test_tensorrt_builds_it_with_its_gradient() -> None:
    model = engine.value_and_grad(through(mirror(24, 32), (1, 3, 64, 96), (10, 4, 50, 37)), "total", ["image"])
    assert RTX.build(model, "fp32", Options(build=Build(capabilities=("8.9",))))
