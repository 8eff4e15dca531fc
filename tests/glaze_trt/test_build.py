"""`glaze-trt build` and `doctor`: engines really built by TensorRT-RTX, with no GPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

import engine
from engine import shipped
from engine.cache import graph_digest
from engine.runtime.protocol import Options, Precision
from engine.runtime.tensorrt import RTX
from glaze_trt import build as building
from glaze_trt import models
from glaze_trt.cli import app
from glaze_trt.cloak import Cloaker
from tests.glaze_trt.scene import scene

RUN = CliRunner()
ORDER = ["build", "tiny", "--size", "64x48", "--compute-capability", "8.9"]


def rows_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads(result.stdout)["engines"]
    return rows


def index_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / shipped.INDEX).read_text())
    return found


def build(folder: Path, *more: object, order: list[str] = ORDER) -> list[dict[str, Any]]:
    return rows_of(RUN.invoke(app, [*order, "--json", "-o", str(folder), *map(str, more)]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    rows = build(folder)
    assert [row["part"] for row in rows] == [
        "encoder", "perceptual", "constants", "step", "decoder", "forward-b1", "backward-b1",
    ]  # fmt: skip
    assert {row["device"] for row in rows} == {"sm89"}
    return folder


def test_everything_that_a_cloak_runs_is_there(built: Path) -> None:
    cloaker = Cloaker("tiny", "tiny")
    constants, step = cloaker.graphs((1, 3, 48, 64), scaled=False)
    encoder = cloaker.encoders[0].load("image", (1, 3, 48, 64))
    for graph, precision in ((constants, "fp32"), (step, "mixed"), (encoder, "fp32")):
        assert shipped.find(built, RTX.key(graph, precision, Options(), "sm89")) is not None
        assert shipped.find(built, RTX.key(graph, precision, Options(), "sm86")) is None


class Recorder:
    """`engine.compile`, which writes down what it compiles."""

    def __init__(self, compile_: Callable[..., engine.Program]) -> None:
        self._compile = compile_
        self.compiled: set[tuple[str, str]] = set()
        self.folders: set[Path | None] = set()

    def __call__(self, model: Any, engine_name: str, precision: Any, options: Options | None) -> engine.Program:
        seen: list[ir.Model] = []

        def noted(chosen: Precision) -> ir.Model:
            seen.append(model(chosen) if callable(model) else model)
            return seen[-1]

        program = self._compile(noted, engine_name, precision, options)
        self.compiled.add((graph_digest(seen[-1]), program.precision))
        self.folders.add(None if options is None else options.shipped)
        return program


@pytest.mark.parametrize("size", [(43, 61), (9, 8)])
def test_a_cloak_and_its_sheet_run_what_is_built_and_nothing_else(
    size: tuple[int, int], built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = list(building.parts(Cloaker("tiny", "tiny", precision="fp32"), size, ["fp32"]))
    wanted = {(graph_digest(part.graph), part.precision) for part in parts if "-b1" not in part.name}
    Image.fromarray(scene(*size)).save(tmp_path / "scene.png")
    recorder = Recorder(engine.compile)
    monkeypatch.setattr(engine, "compile", recorder)
    cloak = ["cloak", "scene.png", "-o", "a.png", "--sheet", "b.png", "--steps", "2", "--engine", "onnxruntime"]
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(app, [*cloak, "--precision", "fp32", "--engines", str(built), "--json"])
    assert result.exit_code == 0, result.stderr
    assert recorder.compiled == wanted
    assert recorder.folders == {built}


def test_the_index_says_what_a_service_must_bind(built: Path) -> None:
    index = index_of(built)
    backward = next(entry for entry in index.values() if entry["part"] == "backward-b1")
    assert backward["outputs"] == {"grad:image": "float32(1, 3, 48, 64)"}
    assert backward["inputs"]["cotangent:latent"] == "float32(1, 4, 6, 8)"
    forward = next(entry for entry in index.values() if entry["part"] == "forward-b1")
    assert set(forward["outputs"]) - {"latent"} == set(backward["inputs"]) - {"cotangent:latent"}


def test_what_is_there_is_kept_and_what_is_damaged_is_built_again(built: Path) -> None:
    file = next(built.glob("*.encoder-*.plan"))
    before = {path: path.stat().st_mtime_ns for path in built.glob("*.plan") if path != file}
    file.write_bytes(file.read_bytes()[:-1])
    assert [row["part"] for row in build(built) if row["seconds"] is not None] == ["encoder"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == index_of(built)[file.name]["sha256"]
    assert {path: path.stat().st_mtime_ns for path in built.glob("*.plan") if path != file} == before


def test_plans_of_other_networks_and_options_lie_side_by_side(built: Path, tmp_path: Path) -> None:
    """What differs is built, under a name of its own; what does not is kept."""
    net = onnx.load(models.find("tiny", "perceptual").path)
    weight = next(tensor for tensor in net.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.01), weight.name))
    other = tmp_path / "tiny.onnx"
    onnx.save(net, other)
    before = index_of(built)
    made = {}
    for more in (["--perceptual", other], ["--level", "0"]):
        rows = build(built, *more)
        made[more[0]] = {row["file"]: row["part"] for row in rows if row["seconds"] is not None}
    assert set(made["--perceptual"].values()) == {"perceptual", "step"}
    assert sorted(made["--level"].values()) == sorted(entry["part"] for entry in before.values())
    index = index_of(built)
    assert len(index) == len(before) + sum(len(files) for files in made.values())
    assert set(index) == {path.name for path in built.glob("*.plan")}
    for file, entry in index.items():
        assert hashlib.sha256((built / file).read_bytes()).hexdigest() == entry["sha256"], file


def test_a_plan_is_found_whatever_its_flags_and_the_last_one_is_taken(tmp_path: Path) -> None:
    graph = Cloaker("tiny", "tiny").encoders[0].load("image", (1, 3, 16, 16))
    keys = [RTX.key(graph, "fp32", Options(build=building.Build(level=level)), "sm89") for level in (0, 5)]
    for file, key in zip(("a", "b"), keys, strict=True):
        shipped.write(tmp_path, file, file.encode(), key, {})
    wanted = RTX.key(graph, "fp32", Options(), "sm89")
    assert shipped.find(tmp_path, wanted) == shipped.Shipped(b"b", stripped=False)
    assert shipped.kept(tmp_path, wanted) is None
    assert shipped.kept(tmp_path, keys[0]) == shipped.Shipped(b"a", stripped=False)
    shipped.write(tmp_path, "a", b"again", keys[0], {})
    assert shipped.find(tmp_path, wanted) == shipped.Shipped(b"again", stripped=False)


ADA = ["--compute-capability", "8.9"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--size", "big", *ADA], "WIDTHxHEIGHT"),
        (["--size", "0", *ADA], "WIDTHxHEIGHT"),
        (["--size", "64x", *ADA], "WIDTHxHEIGHT"),
        (["--size", "²", *ADA], "WIDTHxHEIGHT"),
        (["--size", "9" * 5000, *ADA], "WIDTHxHEIGHT"),
        (["--size", "64", "--size", "4096", *ADA], "2.25 megapixels"),
        (["--compute-capability", "ada"], "8.9, or sm89"),
        (["--compute-capability", "9"], "8.9, or sm89"),
        ([*ADA, "--compute-capability", "9.9"], "sm89"),
        (["--precision", "foo", *ADA], "mixed"),
        (["--precision", "mixed", *ADA, "--compute-capability", "7.5"], "sm75 does not compute mixed"),
        (["--workspace", "inf", *ADA], "--workspace"),
        (["--engine", "openvino", *ADA], "tensorrt-rtx"),
    ],
)
def test_bad_orders_say_what_to_change_before_anything_is_built(
    arguments: list[str], word: str, tmp_path: Path
) -> None:
    size = [] if "--size" in arguments else ["--size", "16"]
    result = RUN.invoke(app, ["build", "tiny", *arguments, *size, "-o", str(tmp_path / "engines")])
    assert result.exit_code == 2
    assert word in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "engines").exists()


def test_a_model_that_is_not_there_is_found_out_before_anything_is_built(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["build", "tiny", "nothing", "--size", "16", *ADA, "-o", str(tmp_path / "engines")])
    assert result.exit_code == 1
    assert "nothing" in result.stderr
    assert not (tmp_path / "engines").exists()


@pytest.mark.parametrize("text", ["8.9", "89", "sm89", "SM_89"])
def test_a_capability_has_many_names(text: str) -> None:
    assert building.capability(text) == "8.9"
    assert building.capability("sm120") == building.capability("12.0") == "12.0"


def test_the_doctor_names_one_thing_to_do_for_whatever_is_not_well() -> None:
    found = json.loads(RUN.invoke(app, ["doctor", "--json"]).stdout)
    findings = {finding["about"]: finding for finding in found["findings"]}
    assert {"processor", "tensorrt", "tensorrt-rtx", "openvino", "onnxruntime", "models", "engine cache"} <= set(
        findings
    )
    assert findings["onnxruntime"]["well"]
    assert all(finding["advice"] for finding in findings.values() if not finding["well"])
    assert found["auto"]["engine"] in findings
    assert found["auto"]["precision"] in findings[found["auto"]["engine"]]["found"]
    shown = RUN.invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert f"auto: {found['auto']['engine']}" in shown.stdout
