from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from glaze_trt import models
from glaze_trt.cli import app
from glaze_trt.pictures import picture
from tests.engine.hardware import has_gpu
from tests.glaze_trt.scene import scene


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def one_line(result: Result) -> str:
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def source(folder: Path) -> Path:
    path = folder / "scene.png"
    Image.fromarray(np.dstack([scene(), np.full((48, 64), 77, np.uint8)])).save(path)
    return path


@pytest.fixture(scope="module")
def run(folder: Path, source: Path) -> dict[str, Any]:
    """Three pictures in one run, the middle one bad."""
    (folder / "text.png").write_text("not a picture")
    Image.fromarray(scene(seed=1)).save(folder / "second.jpg")
    pictures = [source, folder / "text.png", folder / "second.jpg"]
    out = folder / "out"
    result = invoke("cloak", *pictures, "-o", out, "--sheet", folder / "sheets", "--steps", 2, "--seed", 5, "--json")
    assert result.exit_code == 1
    return {"document": json.loads(result.stdout), "stderr": result.stderr, "out": out}


def test_a_bad_picture_is_reported_and_the_others_are_done(run: dict[str, Any], folder: Path) -> None:
    document = run["document"]
    assert [Path(made["output"]).name for made in document["pictures"]] == ["scene.png", "second.png"]
    assert [failure["input"] for failure in document["failures"]] == [str(folder / "text.png")]
    assert "not a picture" in run["stderr"]
    assert sorted(path.name for path in run["out"].iterdir()) == ["scene.png", "second.png"]
    assert sorted(path.name for path in (folder / "sheets").iterdir()) == ["scene.sheet.png", "second.sheet.png"]


def test_the_report_is_what_the_saved_file_measures(run: dict[str, Any], source: Path) -> None:
    made = run["document"]["pictures"][0]
    assert made.keys() >= {
        *("input", "output", "model", "perceptual", "style", "preset", "engine", "device", "precision", "size"),
        *("steps", "seed", "seconds", "budget", "lpips", "linf", "ssimulacra2", "ssim", "psnr", "progress"),
    }
    assert made["seconds"].keys() >= {"load", "compile", "optimize", "save", "total"}
    assert (made["size"], made["steps"], made["seed"]) == ([64, 48], 2, 5)
    before, after = picture.load(source), picture.load(made["output"])
    assert after.alpha is not None
    assert (after.alpha == 77).all()
    assert made["linf"] == np.abs(before.levels.astype(int) - after.levels).max() / 255
    assert made["linf"] <= made["budget"]["linf"]
    assert made["lpips"] <= made["budget"]["lpips"]
    assert made["ssimulacra2"] >= made["budget"]["ssimulacra2"]
    again = invoke("evaluate", source, made["output"], "--style", made["style"], "--seed", 5, "--json")
    found = json.loads(again.stdout)
    for name in ("lpips", "linf", "ssimulacra2", "ssim", "psnr", "progress"):
        assert found[name] == pytest.approx(made[name], abs=1e-5), name


def test_a_demonstration_says_that_it_is_one(run: dict[str, Any]) -> None:
    note = run["document"]["note"]
    assert "no protection against the real encoder" in note
    assert "glaze-trt export sd-vae" in note


def test_the_summary_for_a_person(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.png"
    Image.fromarray(scene(60, 50, seed=8)).save(target)
    out = tmp_path / "a.webp"
    result = invoke("cloak", source, "-o", out, "--steps", 1, "--target-image", target, "--intensity", "low")
    assert result.exit_code == 0
    assert result.stdout.count("no protection against the real encoder") == 1
    for word in ("SSIMULACRA2", ">= 80", "LPIPS", "progress", "target.png", str(out)):
        assert word in result.stdout
    assert result.stderr == ""
    assert {path.name for path in tmp_path.iterdir()} == {"target.png", "a.webp"}


def test_files_in_the_way(source: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.png"
    mine.write_bytes(source.read_bytes())
    for arguments, reason in (
        ((source, "-o", mine), "exists already"),
        ((mine, "-o", mine), "is the input itself"),
        ((source, "-o", tmp_path / "a.png", "--sheet", mine), "exists already"),
        ((source, "-o", tmp_path / "a.txt"), "cannot write '.txt' files"),
        ((source, "-o", tmp_path / "none" / "a.png"), "no folder"),
        ((source, "-o", mine / "folder"), "cannot be made"),
        ((source, "-o", tmp_path / "a.jpg"), "transparency"),
    ):
        result = invoke("cloak", *arguments, "--steps", 1)
        assert result.exit_code == 1, reason
        assert reason in one_line(result)
        assert mine.read_bytes() == source.read_bytes()
        assert list(tmp_path.iterdir()) == [mine]
    assert invoke("cloak", mine, "-o", mine, "--steps", 1, "--overwrite").exit_code == 0
    assert (picture.load(mine).levels != scene()).any()


def test_engines_and_devices_that_are_not_there_are_found_before_any_work(source: Path, tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    (broken := tmp_path / "broken").mkdir()
    (broken / "engines.json").write_text("[")
    for arguments, status, reason in (
        (["--engines", tmp_path / "typo"], 2, f"{tmp_path / 'typo'}: there is no such folder"),
        (["--engines", empty], 2, f"{empty}: has no engines.json"),
        (["--engines", broken], 2, "cannot be read"),
        (["--device", "gpu1"], 2, "no device 'gpu1'"),
        (["--device", "cuda:99"], 1, "cuda:99" if has_gpu() else "NVIDIA GPU can be used"),
    ):
        result = invoke("cloak", source, "-o", tmp_path / "a.png", "--steps", 1, *arguments)
        assert result.exit_code == status, arguments
        assert reason in one_line(result)
        assert not (tmp_path / "a.png").exists()


def test_what_was_asked_of_a_gpu_is_said_not_to_be_used_on_a_processor(source: Path, tmp_path: Path) -> None:
    (tmp_path / "engines.json").write_text("{}")
    on_processor = ["--engine", "onnxruntime", "--device", "cuda:1", "--engines", tmp_path]
    result = invoke("cloak", source, "-o", tmp_path / "a.png", "--steps", 1, *on_processor)
    assert result.exit_code == 0
    assert "note: --device cuda:1 was not used" in result.stdout
    assert f"note: --engines {tmp_path} was not used" in result.stdout


def test_collisions_are_found_before_any_work(folder: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "scene.jpg").touch()
    out = tmp_path / "out"
    result = invoke("cloak", source, tmp_path / "scene.jpg", "-o", out)
    assert result.exit_code == 2
    assert "would both be written to" in one_line(result)
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--style", "vaporwave"],
        ["--style", "cubism", "--target-image", "a.png"],
        ["--intensity", "extreme"],
        ["--preset", "shade"],
        ["--preset", "nightshade", "--intensity", "low"],
        ["--steps", "0"],
        ["--model", "tiny", "--model", "tiny"],
        ["--no-such-option"],
    ],
)
def test_bad_usage_ends_with_two(source: Path, arguments: list[str]) -> None:
    result = invoke("cloak", source, *arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_failures_as_json(tmp_path: Path) -> None:
    result = invoke("evaluate", tmp_path / "a.png", tmp_path / "b.png", "--json")
    assert result.exit_code == 1
    assert "no such file" in json.loads(result.stdout)["error"]
    result = invoke("cloak", tmp_path / "a.png", "--model", "no-such-net", "--json")
    assert result.exit_code == 1
    assert "no-such-net" in json.loads(result.stdout)["error"]


def test_debug_shows_where(tmp_path: Path) -> None:
    result = invoke("evaluate", tmp_path / "a.png", tmp_path / "b.png", "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


@pytest.fixture
def interrupted() -> Iterator[None]:
    """Ctrl-C, a second from now."""
    previous = signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.usefixtures("interrupted")
def test_an_interrupt_ends_cleanly(source: Path, tmp_path: Path) -> None:
    result = invoke("cloak", source, "-o", tmp_path / "a.png", "--steps", 1_000_000)
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("interrupted")
    assert list(tmp_path.iterdir()) == []


def test_lists() -> None:
    listed = json.loads(invoke("styles", "--json").stdout)
    assert listed["default"] in [row["name"] for row in listed["styles"]]
    assert "impasto" in invoke("styles").stdout
    listed = json.loads(invoke("models", "--json").stdout)
    kinds = {row["kind"] for row in listed["models"] if row["name"] == "tiny"}
    assert kinds == {"encoder", "decoder", "perceptual"}
    assert "tiny" in invoke("models").stdout


def test_export_of_an_unknown_name_is_bad_usage() -> None:
    result = invoke("export", "no-such-net")
    assert result.exit_code == 2
    assert "sd-vae" in one_line(result)


def test_the_command_line_needs_no_torch() -> None:
    code = "import sys, glaze_trt.cli; sys.exit('torch' in sys.modules or 'export' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert models.EXPORTABLE
