"""`glaze-trt cache list` and `clear`, on a folder with real entries."""

from __future__ import annotations

import json
from pathlib import Path

import filelock
import pytest
from typer.testing import CliRunner, Result

from engine.cache import Cache, Key
from glaze_trt.cli.cache import app

KEY = Key("graph", "tensorrt-rtx", "1.7", "sm89", "bf16", "x float32(1, 3)", (("level", "3"),), "code")
PLAN = b"an engine" * 1000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GLAZE_TRT_CACHE", str(tmp_path / "engines"))
    return tmp_path / "engines"


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_an_empty_cache_is_no_failure(folder: Path) -> None:
    assert json.loads(invoke("list", "--json").stdout) == {"folder": str(folder), "bytes": 0, "engines": []}
    assert json.loads(invoke("clear", "--json").stdout) == {"folder": str(folder), "freed": 0, "left": 0}
    assert not folder.exists()  # looking makes nothing
    assert "0 engines" in invoke("list").stdout


def test_list_shows_what_each_engine_is(folder: Path) -> None:
    Cache(folder).fetch(KEY, lambda: PLAN)
    size = (folder / f"{KEY.digest}.engine").stat().st_size
    shown = json.loads(invoke("list", "--json").stdout)
    (row,) = shown["engines"]
    assert shown["bytes"] == row["bytes"] == size
    assert row["file"] == f"{KEY.digest}.engine"
    assert row["key"]["device"] == "sm89"
    lines = invoke("list").stdout.splitlines()
    assert lines[0].split()[:3] == ["engine", "backend", "version"]
    assert lines[1].split()[:5] == [KEY.digest[:12], "tensorrt-rtx", "1.7", "sm89", "bf16"]
    assert lines[2].startswith("1 engine, 0.0 MB in ")


def test_clear_frees_what_it_says(folder: Path) -> None:
    Cache(folder).fetch(KEY, lambda: PLAN)
    size = (folder / f"{KEY.digest}.engine").stat().st_size
    assert json.loads(invoke("clear", "--json").stdout) == {"folder": str(folder), "freed": size, "left": 0}
    assert not list(folder.iterdir())


def test_clear_says_what_it_had_to_leave(folder: Path) -> None:
    Cache(folder).fetch(KEY, lambda: PLAN)
    with filelock.FileLock(folder / f"{KEY.digest}.lock"):  # as whoever builds it anew does
        assert json.loads(invoke("clear", "--json").stdout)["left"] == 1
        assert "1 engine left" in invoke("clear").stdout
    assert "left" not in invoke("clear").stdout
