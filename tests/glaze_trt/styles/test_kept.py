"""Kept targets: found by everything they depend on, never when damaged, within a size."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from glaze_trt.styles import kept
from glaze_trt.styles.kept import Targets
from tests.glaze_trt.scene import scene

KEY = kept.key(scene(), "cubism", {"seed": 0}, {"torch": "2"})
OTHER = kept.key(scene(), "fauvism", {"seed": 0}, {"torch": "2"})


def noise(seed: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_everything_is_in_the_key() -> None:
    picture = scene(8, 12)
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    keys = [
        kept.key(picture, "cubism", {"seed": 0}, {"torch": "2"}),
        kept.key(changed, "cubism", {"seed": 0}, {"torch": "2"}),
        kept.key(picture.reshape(12, 8, 3), "cubism", {"seed": 0}, {"torch": "2"}),
        kept.key(picture, "fauvism", {"seed": 0}, {"torch": "2"}),
        kept.key(picture, "cubism", {"seed": 1}, {"torch": "2"}),
        kept.key(picture, "cubism", {"seed": 0}, {"torch": "3"}),
    ]
    assert len(set(keys)) == len(keys)
    assert kept.key(picture.copy(), "cubism", {"seed": 0}, {"torch": "2"}) == keys[0]


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "made" / "here")
    assert targets.read(KEY) is None
    targets.keep(KEY, scene())
    found = targets.read(KEY)
    assert found is not None
    np.testing.assert_array_equal(found, scene())
    assert targets.read(OTHER) is None
    assert [path.name for path in targets.folder.iterdir()] == [f"{KEY}.png"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "header", "text", "another's"])
def test_what_is_damaged_is_not_found(tmp_path: Path, damage: str) -> None:
    lines: list[str] = []
    targets = Targets(tmp_path, say=lines.append)
    targets.keep(KEY, noise(0))
    path = tmp_path / f"{KEY}.png"
    data = bytearray(path.read_bytes())
    if damage == "another's":
        targets.keep(OTHER, noise(1))
        shutil.copy(tmp_path / f"{OTHER}.png", path)
    else:
        if damage == "truncated":
            del data[len(data) // 2 :]
        elif damage == "empty":
            data.clear()
        else:
            data[{"flipped": len(data) // 2, "header": 18, "text": data.index(b"glaze-trt") + 12}[damage]] ^= 0x55
        path.write_bytes(data)
    assert targets.read(KEY) is None
    assert len(lines) == 1
    assert "damaged; made again" in lines[0]
    targets.keep(KEY, noise(0))
    assert targets.read(KEY) is not None


def test_those_longest_unused_go_first(tmp_path: Path) -> None:
    keys = [f"{index:064x}" for index in range(4)]
    targets = Targets(tmp_path)
    for age, name in enumerate(keys[:3]):
        targets.keep(name, noise(age))
        os.utime(tmp_path / f"{name}.png", (1000 + age, 1000 + age))
    assert targets.read(keys[0]) is not None  # used just now
    (tmp_path / "mine.png").write_bytes(b"not ours")
    one = targets.total() // 3
    Targets(tmp_path, limit=3 * one + one // 2).keep(keys[3], noise(3))
    assert [targets.read(name) is not None for name in keys] == [True, False, True, True]
    Targets(tmp_path, limit=1).keep(keys[1], noise(1))
    assert [targets.read(name) is not None for name in keys] == [False, True, False, False]
    assert targets.clear() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]


def test_a_folder_that_cannot_be_written_is_said_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lines: list[str] = []
    targets = Targets(tmp_path / "file" / "targets", say=lines.append)
    assert targets.read(KEY) is None
    targets.keep(KEY, scene())
    assert len(lines) == 1
    assert "not kept" in lines[0]
    assert (targets.total(), targets.clear()) == (0, 0)


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    for name, age in ((".glaze-old.part", 10_000), (".glaze-new.part", 0)):
        (tmp_path / name).write_bytes(b"half")
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    Targets(tmp_path).keep(KEY, scene())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".glaze-new.part", f"{KEY}.png"])


def test_the_folder_is_where_caches_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GLAZE_TRT_CACHE", str(tmp_path))
    assert kept.default_folder() == tmp_path / "targets"
    monkeypatch.delenv("GLAZE_TRT_CACHE")
    assert kept.default_folder().name == "targets"
