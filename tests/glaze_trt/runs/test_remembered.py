"""An encoder is not run twice for one picture: not by the loop and the judge, nor by the judge and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from glaze_trt import models
from glaze_trt.cli import app
from glaze_trt.network import Network
from glaze_trt.runs.remembered import Memory, Remembering
from tests.glaze_trt.scene import waves


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every image that an encoder is run for, in order."""
    images: list[bytes] = []
    run = Network.run

    def noting(net: Network, name: str, value: Any) -> Any:
        if net.model.kind == "encoder":
            images.append(value.tobytes())
        return run(net, name, value)

    monkeypatch.setattr(Network, "run", noting)
    return images


def test_networks_of_one_memory_look_once(seen: list[bytes]) -> None:
    memory, levels = Memory(), waves(32, 40)
    net = Remembering(Network(models.find("tiny", "encoder"), "onnxruntime"), memory)
    first = net(levels)["latent"]
    np.testing.assert_array_equal(net.apart(None)(levels)["latent"], first)
    np.testing.assert_array_equal(net.at(None)(levels)["latent"], first)
    assert len(seen) == 1
    other = net(waves(32, 40, seed=1))["latent"]
    assert np.abs(other - first).max() > 0
    np.testing.assert_array_equal(net(levels)["latent"], first)
    assert len(seen) == 2


def test_a_memory_does_not_grow() -> None:
    memory = Memory()
    for number in range(1000):
        memory.put((number,), {})
    assert memory.get((999,)) is not None
    assert memory.get((0,)) is None


@pytest.mark.parametrize("folder", [False, True])
def test_no_picture_of_a_run_is_encoded_twice(folder: bool, seen: list[bytes], tmp_path: Path) -> None:
    """The original, the target, the cloaked picture, and what handling makes of it."""
    (tmp_path / "art").mkdir()
    Image.fromarray(waves(32, 40)).save(tmp_path / "art" / "a.png")
    given = [tmp_path / "art", "-o", tmp_path / "out"] if folder else [tmp_path / "art/a.png", "-o", tmp_path / "a.png"]
    order = ["cloak", *given, "--report", tmp_path / "page", "--engine", "onnxruntime", "--steps", 2]
    result = CliRunner().invoke(app, [str(each) for each in order], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    assert len(seen) == len(set(seen)) >= 7
