"""Finding model files by name and by path, and refusing those that are damaged or of another kind."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from glaze_trt.errors import ModelError
from glaze_trt.models import Manifest, available, export_folder, find, sha256_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLAZE_TRT_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    return folder


def network(
    path: Path, source: str = "image", result: str = "latent", size: tuple[str | int, ...] = ("h", "w")
) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", [source], [result])],
        "g",
        [value(source, TensorProto.FLOAT, ("n", 3, *size))],
        [value(result, TensorProto.FLOAT, ("n", 3, *size))],
    )
    onnx.save(helper.make_model(graph, ir_version=10), path)
    return path


def model(folder: Path, stem: str, kind: str = "encoder", **changes: object) -> Path:
    path = network(folder / f"{stem}.onnx")
    data = {"name": stem, "kind": kind, "sha256": sha256_of(path), **changes}
    path.with_suffix(".json").write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("kind", ["encoder", "decoder", "perceptual"])
def test_the_built_in_models(kind: str) -> None:
    found = find("tiny", kind)  # type: ignore[arg-type]
    assert found.manifest.demonstration
    assert found.manifest.check["output_error"] is not None
    assert found in available()


def test_built_in_models_come_first(home: Path) -> None:
    path = model(home, "mine")
    names = [(each.name, each.kind) for each in available()]
    assert {("tiny", "encoder"), ("tiny", "decoder"), ("tiny", "perceptual")} == set(names[:3])
    assert names[3:] == [("mine", "encoder")]
    assert available()[-1].path == path


def test_a_decoder_shares_its_encoders_name(home: Path) -> None:
    encoder = model(home, "taesd")
    decoder = model(home, "taesd-decoder", kind="decoder", name="taesd")
    assert find("taesd", "encoder").path == encoder
    assert find("taesd", "decoder").path == decoder


def test_short_names_of_perceptual_nets(home: Path) -> None:
    path = model(home, "lpips-alex", kind="perceptual")
    assert find("alex", "perceptual").path == find("lpips-alex", "perceptual").path == path


def test_a_manifest_comes_back_as_it_was_written() -> None:
    manifest = Manifest("a", "encoder", input_range="imagenet", size=(96, 96), check={"output_error": 1e-6})
    assert Manifest.parse(manifest.text()) == manifest


def test_keys_of_other_versions_are_left_out() -> None:
    manifest = Manifest.parse('{"name": "a", "kind": "decoder", "input_range": [-1.0, 1.0], "later": 1}')
    assert manifest == Manifest("a", "decoder", input_range="-1,1")


def test_home_is_the_argument_then_the_variable_then_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export_folder(tmp_path) == tmp_path / "models"
    assert export_folder() == tmp_path / "home" / "models"
    monkeypatch.delenv("GLAZE_TRT_HOME")
    assert export_folder().parts[-2:] == ("glaze-trt", "models")


def test_a_path_with_a_manifest(tmp_path: Path) -> None:
    path = model(tmp_path, "mine", multiple=16)
    assert find(str(path), "encoder").manifest.multiple == 16
    with pytest.raises(ModelError, match="its manifest says encoder, and a decoder is needed"):
        find(path, "decoder")


@pytest.mark.parametrize(
    ("kind", "source", "result"),
    [("encoder", "image", "latent"), ("decoder", "latent", "image"), ("perceptual", "image", "feature_0")],
)
def test_a_path_without_a_manifest(kind: str, source: str, result: str, tmp_path: Path) -> None:
    path = network(tmp_path / "mine.onnx", source, result)
    found = find(str(path), kind)  # type: ignore[arg-type]
    assert (found.name, found.kind, found.path, found.manifest.sha256) == ("mine", kind, path, None)


def test_a_fixed_size_is_seen(tmp_path: Path) -> None:
    found = find(network(tmp_path / "mine.onnx", size=(96, 64)), "encoder")
    assert (found.manifest.size, found.manifest.multiple) == ((96, 64), 1)


def test_an_extractor_may_call_its_ends_as_it_likes(tmp_path: Path) -> None:
    path = network(tmp_path / "mine.onnx", "pixels", "embedding", size=(96, 96))
    manifest = find(str(path), "encoder").manifest
    assert (manifest.ports, manifest.size) == (("pixels", "embedding"), (96, 96))
    free = network(tmp_path / "free.onnx", "pixels", "embedding")
    manifest = find(str(free), "encoder").manifest
    assert (manifest.ports, manifest.size, manifest.multiple) == (("pixels", "embedding"), None, 8)
    for kind in ("decoder", "perceptual"):
        with pytest.raises(ModelError, match="glaze-trt export NAME --onnx FILE --input-range"):
            find(str(path), kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(("inputs", "outputs"), [(["a", "b"], ["y"]), (["a"], ["y", "z"]), (["flat"], ["y"])])
def test_other_ends_and_no_manifest(inputs: list[str], outputs: list[str], tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    shapes = {"flat": ("n", 3)}
    graph = helper.make_graph(
        [helper.make_node("Sum", inputs, [name]) for name in outputs],
        "g",
        [value(name, TensorProto.FLOAT, shapes.get(name, ("n", 3, "h", "w"))) for name in inputs],
        [value(name, TensorProto.FLOAT, shapes.get(inputs[0], ("n", 3, "h", "w"))) for name in outputs],
    )
    path = tmp_path / "mine.onnx"
    onnx.save(helper.make_model(graph, ir_version=10), path)
    with pytest.raises(ModelError, match="glaze-trt export NAME --onnx FILE --input-range"):
        find(str(path), "encoder")


@pytest.mark.parametrize("content", [b"", b"text named .onnx", b"\x08\x0a\x12\x03abc"])
def test_files_that_are_no_network(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable ONNX file") as caught:
        find(str(path), "encoder")
    assert "\n" not in str(caught.value)


def test_no_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match="is a folder"):
        find(str(tmp_path / "folder.onnx"), "encoder")
    with pytest.raises(ModelError, match="no such model file"):
        find(str(tmp_path / "nowhere.onnx"), "encoder")


def test_a_damaged_file_gives_one_line(home: Path, tmp_path: Path) -> None:
    for path, name in ((model(home, "taesd"), "taesd"), (model(tmp_path, "mine"), str(tmp_path / "mine.onnx"))):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(ModelError, match="damaged: its checksum is not the manifest's") as caught:
            find(name, "encoder")
        assert "\n" not in str(caught.value)
        assert ("glaze-trt export taesd" in str(caught.value)) == (name == "taesd")


def test_a_damaged_manifest(home: Path) -> None:
    path = model(home, "taesd")
    path.with_suffix(".json").write_text("{")
    assert "taesd" not in {each.name for each in available()}
    for name in ("taesd", str(path)):
        with pytest.raises(ModelError, match=r"taesd\.json: not a model's manifest"):
            find(name, "encoder")


def test_a_manifest_without_its_file(home: Path) -> None:
    model(home, "taesd").unlink()
    with pytest.raises(ModelError, match=r"taesd\.onnx: missing; make it again with `glaze-trt export taesd`"):
        find("taesd", "encoder")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sd-vae", "make it once with `glaze-trt export sd-vae"),
        ("tny", "did you mean tiny"),
        ("zzz", "known are .*sd-vae.*taesdxl, tiny, and any path"),
    ],
)
def test_names_that_are_not_here(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find(name, "encoder")


def test_a_name_of_another_kind(home: Path) -> None:
    model(home, "lpips-alex", kind="perceptual")
    with pytest.raises(ModelError, match="lpips-alex is not an encoder: it is a perceptual net"):
        find("lpips-alex", "encoder")
