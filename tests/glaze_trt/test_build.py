"""`glaze-trt build` and `doctor`: engines really built by TensorRT-RTX, with no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine import shipped
from engine.runtime.protocol import Options
from engine.runtime.tensorrt import RTX
from glaze_trt.cli import app
from glaze_trt.cloak import Cloaker

RUN = CliRunner()
ORDER = ["build", "tiny", "--size", "64x48", "--compute-capability", "8.9", "--json"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    result = RUN.invoke(app, [*ORDER, "-o", str(folder)])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["engines"]
    assert [row["part"] for row in rows] == [
        "encoder", "perceptual", "constants", "step", "forward-b1", "backward-b1",
    ]  # fmt: skip
    assert {row["device"] for row in rows} == {"sm89"}
    return folder


def test_everything_that_a_cloak_runs_is_there(built: Path) -> None:
    cloaker = Cloaker("tiny", "tiny")
    constants, step = cloaker.graphs((1, 3, 48, 64), scaled=False)
    encoder = cloaker.encoder.load("image", (1, 3, 48, 64))
    for graph, precision in ((constants, "fp32"), (step, "mixed"), (encoder, "fp32")):
        assert shipped.find(built, RTX.key(graph, precision, Options(), "sm89")) is not None
        assert shipped.find(built, RTX.key(graph, precision, Options(), "sm86")) is None


def test_the_index_says_what_a_service_must_bind(built: Path) -> None:
    index = json.loads((built / shipped.INDEX).read_text())
    backward = next(entry for entry in index.values() if entry["part"] == "backward-b1")
    assert backward["outputs"] == {"grad:image": "float32(1, 3, 48, 64)"}
    assert backward["inputs"]["cotangent:latent"] == "float32(1, 4, 6, 8)"
    forward = next(entry for entry in index.values() if entry["part"] == "forward-b1")
    assert set(forward["outputs"]) - {"latent"} == set(backward["inputs"]) - {"cotangent:latent"}


def test_what_is_there_is_kept(built: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in built.iterdir()}
    result = RUN.invoke(app, [*ORDER, "-o", str(built)])
    assert [row["seconds"] for row in json.loads(result.stdout)["engines"]] == [None] * 6
    assert {path.name: path.stat().st_mtime_ns for path in built.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["build", "tiny", "--size", "50", "--compute-capability", "8.9"], "50x50 as 56x56"),
        (["build", "tiny", "--size", "big", "--compute-capability", "8.9"], "WIDTHxHEIGHT"),
        (["build", "tiny", "--size", "64", "--compute-capability", "9.9"], "sm89"),
        (["build", "nothing", "--size", "64", "--compute-capability", "8.9"], "nothing"),
    ],
)
def test_bad_orders_say_what_to_change(arguments: list[str], word: str, tmp_path: Path) -> None:
    result = RUN.invoke(app, [*arguments, "-o", str(tmp_path / "engines")])
    assert result.exit_code != 0
    assert word in result.stderr
    assert "Traceback" not in result.stderr


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
