"""The comparison of systems, whole on tiny networks, and the arithmetic at equal SSIMULACRA2."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

for package in ("torch", "flip_evaluator", "matplotlib"):
    pytest.importorskip(package)

from PIL import Image  # noqa: E402

from bench.systems.__main__ import TABLES, main  # noqa: E402
from bench.systems.equal import Spot, mean, read_off, scaled, versus  # noqa: E402
from bench.systems.measure import flip  # noqa: E402
from bench.systems.system import ours, ours_at, published  # noqa: E402
from glaze_trt import models  # noqa: E402
from glaze_trt.presets import PRESETS  # noqa: E402
from tests.glaze_trt.scene import waves  # noqa: E402


def spot(score: float, progress: float) -> Spot:
    return Spot(score, progress, progress / 10, progress / 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pairs of 64 × 64, which are faces too, and a second encoder of another name."""
    for number, name in enumerate("ab"):
        Image.fromarray(waves(64, 64, seed=number)).save(tmp_path / f"{name}.png")
        Image.fromarray(waves(64, 64, seed=number)[::-1, :, ::-1]).save(tmp_path / f"{name}.target.png")
    faces = tmp_path / "faces"
    faces.mkdir()
    for name in "ab":
        shutil.copy(tmp_path / f"{name}.png", faces)
    shutil.copy(models.find("tiny", "encoder").path, tmp_path / "other.onnx")
    return tmp_path


def test_every_table_is_made_once(folder: Path, capsys: pytest.CaptureFixture[str]):
    words = [
        *("--pairs", str(folder), "--size", "64", "--model", "tiny", "--perceptual", "tiny", "--engine", "onnxruntime"),
        *("--second-model", str(folder / "other.onnx"), "--faces", str(folder / "faces"), "--steps", "8"),
        *("--extractor", str(folder / "other.onnx"), "--presets", "glaze", "photoguard", "lowkey"),
        *("--published-steps", "2", "--count", "photoguard=1", "--intensities", "default", "--scores", "70"),
        *("--compared", "70", "--rates", "1", "--tuned-on", "1", "--robust", "jpeg"),
        *("--work", str(folder / "work"), "--json", str(folder / "out.json")),
        *("--plot", str(folder / "out.png")),
    ]
    assert main(words) == 0
    ledger, document = (folder / "work/results.jsonl").read_bytes(), json.loads((folder / "out.json").read_text())
    assert list(document["tables"]) == list(TABLES)
    rows = document["tables"]["presets"]["paintings"]
    assert [row["system"] for row in rows] == ["glaze", "glaze", "photoguard"]
    assert all(row["progress"] > 0 for row in rows)
    assert all(row["ssimulacra2"] >= 70 and row["linf"] <= 16 for row in rows[:2])
    assert rows[2]["norm"] == pytest.approx(1 - rows[2]["progress"])
    assert all(0 < row["shift"] < 2 for row in document["tables"]["presets"]["faces"])
    assert list(document["tables"]["curve"]["versus"]) == ["glaze | sign descent"]
    assert set(document["tables"]["curve"]["curves"]) == {"glaze", "sign descent", "photoguard"}
    assert set(document["tables"]["robust"][0]["left"]) == {"jpeg 90", "jpeg 75", "half size and back", "noise"}
    assert all(50 <= row["percentile"] <= 75 for row in document["tables"]["styles"])
    assert (folder / "out.png").stat().st_size > 0
    assert "sign descent" in capsys.readouterr().out

    (folder / "work/results.jsonl").write_bytes(ledger + b'{"key": "cut o')
    assert main(words) == 0
    assert (folder / "work/results.jsonl").read_bytes() == ledger + b'{"key": "cut o'
    assert json.loads((folder / "out.json").read_text()) == document


def test_ours_between_the_intensities_keeps_their_budgets():
    for intensity, score in (("low", 80), ("default", 70), ("high", 50)):
        assert ours_at(score, ["tiny"]).objective == ours(["tiny"], intensity).objective
    between = ours_at(60, ["tiny"]).objective.budget
    assert (between.lpips, between.linf) == (pytest.approx(0.075), 20 / 255)


def test_every_preset_has_somewhere_to_go():
    found = {name: published(name, ["tiny"]).toward for name in PRESETS}
    assert found.pop("photoguard") == found.pop("fawkes") == found.pop("lowkey") == "none"
    assert (found.pop("mist"), found.pop("foggysight")) == ("text", "people")
    assert set(found.values()) == {"target"}


def test_a_curve_is_read_off_between_its_neighbours():
    spots = [spot(60, 0.4), spot(80, 0.2)]
    assert read_off(spots, 70) == Spot(70, *(pytest.approx(value) for value in (0.3, 0.03, 0.06)))
    found = read_off(spots, 90)
    assert found is not None
    assert found.progress == pytest.approx(0.1)
    assert read_off(spots, 59) is None


def test_versus_holds_the_other_to_the_score_that_ours_has():
    ours_ = {"a": {70.0: spot(80, 0.3)}, "b": {70.0: spot(70, 0.5)}, "c": {}}
    theirs = {"a": [spot(60, 0.4), spot(80, 0.2)], "b": [spot(60, 0.4), spot(80, 0.2)], "c": [spot(60, 0.4)]}
    found = versus(ours_, theirs, 70.0)
    assert found is not None
    assert found.pictures == 2
    assert found.ratio == pytest.approx(0.8 / 0.5)
    assert found.ratio_at_asked == pytest.approx(0.8 / 0.6)
    assert mean(ours_, 70.0) is None
    assert versus(ours_, {"d": []}, 70.0) is None


def test_a_change_is_scaled_until_it_holds_no_more():
    before = np.full((8, 8, 3), 100, np.uint8)
    held, broken = scaled(before, before + 10, lambda levels: int(levels.max()) <= 125)
    assert (int(held.max()), int(broken.max())) == (125, 126)
    assert scaled(before, before + 10, lambda levels: True) == []


def test_flip_is_nothing_for_no_change_and_grows():
    before = waves(64, 64)
    noise = np.random.default_rng(0).integers(-8, 9, before.shape)
    some, more = (np.clip(before + factor * noise, 0, 255).astype(np.uint8) for factor in (1, 2))
    assert flip(before, before) == 0
    assert 0 < flip(before, some) < flip(before, more) < 1
