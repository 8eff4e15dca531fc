"""Extractors brought as ONNX files: their pictures standardised inside, their gradients checked, bad files refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import INPUT_RANGES, export_model
from glaze_trt.errors import ModelError
from glaze_trt.models import find

MEAN = {"0,1": 0.0, "-1,1": 0.5, "imagenet": np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)}
DEVIATION = {"0,1": 1.0, "-1,1": 0.5, "imagenet": np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)}


def extractor(
    path: Path,
    shape: tuple[str | int, ...] = ("n", 3, "h", "w"),
    dtype: int = TensorProto.FLOAT,
    names: tuple[str, str] = ("pixels", "embedding"),
    **changes: object,
) -> Path:
    """Convolution, tanh and mean over the picture; a second output that a cloak has no use for."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    generator = np.random.default_rng(0)
    kernel = numpy_helper.from_array(generator.standard_normal((5, 3, 3, 3)).astype(kind), "image")
    nodes = [
        helper.make_node("Conv", [names[0], "image"], ["latent"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["latent"], ["active"]),
        helper.make_node("ReduceMean", ["active"], [names[1]], axes=[2, 3], keepdims=0),
        helper.make_node("Relu", ["active"], ["second"]),
    ]
    graph = helper.make_graph(
        nodes,
        "extractor",
        [helper.make_tensor_value_info(names[0], dtype, shape)],
        [helper.make_tensor_value_info(names[1], dtype, None), helper.make_tensor_value_info("second", dtype, None)],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).random((2, 3, 20, 28), dtype=np.float32)


@pytest.mark.parametrize("input_range", INPUT_RANGES)
def test_pictures_are_standardised_inside(
    input_range: str, tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAZE_TRT_HOME", str(tmp_path))
    path = extractor(tmp_path / "mine.onnx")
    (kept,) = export_model("my-net", onnx=path, input_range=input_range)
    model = find("my-net", "encoder")
    assert model == kept
    assert (model.manifest.input_range, model.manifest.source, model.manifest.size) == (input_range, path.name, None)
    standardised = ((image - MEAN[input_range]) / DEVIATION[input_range]).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(path).run(["embedding"], {"pixels": standardised})
    session = onnxruntime.InferenceSession(model.path)
    assert [output.name for output in session.get_outputs()] == ["latent"]
    (found,) = session.run(None, {"image": image})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert model.manifest.check["output_error"] is not None
    assert model.manifest.check["output_error"] < 1e-5
    assert model.manifest.check["gradient_error"] is not None
    assert model.manifest.check["gradient_error"] < 1e-2


def test_half_precision_becomes_float(tmp_path: Path, image: np.ndarray) -> None:
    path = extractor(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16)
    (kept,) = export_model("my-net", onnx=path, input_range="-1,1", home=tmp_path)
    (found,) = onnxruntime.InferenceSession(kept.path).run(None, {"image": image})
    (expected,) = onnxruntime.InferenceSession(path).run(["embedding"], {"pixels": (2 * image - 1).astype(np.float16)})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.astype(np.float32), atol=1e-2)


def test_a_network_of_one_size(tmp_path: Path) -> None:
    path = extractor(tmp_path / "fixed.onnx", shape=(1, 3, 24, 32))
    (kept,) = export_model("my-net", onnx=path, input_range="0,1", home=tmp_path)
    assert kept.manifest.size == (24, 32)


def test_ends_that_already_have_the_right_names(tmp_path: Path, image: np.ndarray) -> None:
    source = extractor(tmp_path / "a.onnx")
    model = onnx.load(source)
    for old, new in (("image", "kernel"), ("latent", "inner"), ("pixels", "image"), ("embedding", "latent")):
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            value.name = new if value.name == old else value.name
    onnx.save(model, tmp_path / "b.onnx")
    (kept,) = export_model("my-net", onnx=tmp_path / "b.onnx", input_range="-1,1", home=tmp_path)
    (found,) = onnxruntime.InferenceSession(kept.path).run(None, {"image": image})
    (expected,) = onnxruntime.InferenceSession(source).run(["embedding"], {"pixels": 2 * image - 1})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_weights_beside_the_file_are_taken_in(tmp_path: Path, image: np.ndarray) -> None:
    model = onnx.load(extractor(tmp_path / "a.onnx"))
    path = tmp_path / "b.onnx"
    onnx.save(model, path, save_as_external_data=True, location="b.data", size_threshold=0)
    (kept,) = export_model("my-net", onnx=path, input_range="0,1", home=tmp_path / "home")
    (tmp_path / "b.data").unlink()
    assert onnxruntime.InferenceSession(kept.path).run(None, {"image": image})
    assert kept.manifest.parameters == 135


def text(path: Path) -> Path:
    path.write_text("not a network")
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def truncated(path: Path) -> Path:
    whole = extractor(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def missing(path: Path) -> Path:
    return path


def channels_last(path: Path) -> Path:
    return extractor(path, shape=("n", "h", "w", 3))


def integers(path: Path) -> Path:
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["pixels"], ["out"])]
    ends = (value("pixels", TensorProto.UINT8, ("n", 3, "h", "w")), value("out", TensorProto.UINT8, None))
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [ends[0]], [ends[1]]), ir_version=8), path)
    return path


def two_inputs(path: Path) -> Path:
    value = helper.make_tensor_value_info
    shape = ("n", 3, "h", "w")
    nodes = [helper.make_node("Add", ["a", "b"], ["out"])]
    inputs = [value("a", TensorProto.FLOAT, shape), value("b", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "g", inputs, [value("out", TensorProto.FLOAT, shape)])
    onnx.save(helper.make_model(graph, ir_version=8), path)
    return path


def no_gradient(path: Path) -> Path:
    value = helper.make_tensor_value_info
    shape = ("n", 3, "h", "w")
    nodes = [helper.make_node("Floor", ["a"], ["out"])]
    graph = helper.make_graph(
        nodes, "g", [value("a", TensorProto.FLOAT, shape)], [value("out", TensorProto.FLOAT, shape)]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (text, "not a readable ONNX file"),
        (empty, "not a readable ONNX file"),
        (truncated, "not a readable ONNX file"),
        (folder, "is a folder"),
        (missing, "no such file"),
        (channels_last, r"a picture is \(B, 3, H, W\)"),
        (integers, "must be floating point"),
        (two_inputs, "it has 2 inputs"),
        (no_gradient, "gradient is zero everywhere|cannot differentiate"),
    ],
)
def test_unfit_files_give_one_line(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path / "network.onnx")
    with pytest.raises(ModelError, match=message) as caught:
        export_model("my-net", onnx=path, input_range="0,1", home=tmp_path / "home")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "home").rglob("*.*"))


@pytest.mark.parametrize("given", [{"onnx": "net.onnx", "input_range": "0,1"}, {}])
def test_without_the_extra_it_says_what_to_install(given: dict[str, str]) -> None:
    name = "own" if given else "sd-vae"
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom export import export_model\n"
        f"from glaze_trt.errors import ModelError\ntry:\n    export_model({name!r}, **{given!r})\n"
        "except ModelError as error:\n    print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "needs torch, which is not installed: pip install 'glaze-trt[export]'" in ended.stdout, ended.stderr
