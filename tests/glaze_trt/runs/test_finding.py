"""What a run finds in awkward folders: links in circles, pipes, folders that may not be read, files named twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from glaze_trt.cli import app
from glaze_trt.errors import PictureError, UsageError
from glaze_trt.runs import plan
from glaze_trt.runs.folder import Inputs, find
from tests.glaze_trt.scene import waves


@pytest.fixture
def art(tmp_path: Path) -> Path:
    folder = tmp_path / "art"
    (folder / "sea").mkdir(parents=True)
    for name in ("a.png", "b.png", "sea/c.png"):
        (folder / name).touch()
    return folder


def names(inputs: Inputs) -> list[str]:
    return [found.name for found in inputs.pictures]


def test_a_pattern_does_not_go_round_in_circles(art: Path) -> None:
    for name in ("one", "two"):  # 2 to the power of 40 paths
        (art / "sea" / name).symlink_to(art)
    assert names(find([art / "**" / "*.png"])) == ["a.png", "b.png", "sea/c.png"]
    assert names(find([art / "**"], recursive=True)) == ["a.png", "b.png", "sea/c.png"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["a.png", "b.png"]),
        ("[b-z].*", ["b.png"]),
        ("?ea/*", ["sea/c.png"]),
        ("**/c.png", ["sea/c.png"]),
        ("**/**/?.png", ["a.png", "b.png", "sea/c.png"]),
        ("**/sea/*", ["sea/c.png"]),
        ("*/../b.p*", ["sea/../b.png"]),
        (".h*/*.png", [".hidden/d.png"]),
    ],
)
def test_patterns(pattern: str, found: list[str], art: Path) -> None:
    (art / ".hidden").mkdir()
    (art / ".hidden" / "d.png").touch()
    assert names(find([art / pattern])) == found


def test_nothing_is_taken_twice(art: Path) -> None:
    (art / "link.png").symlink_to("b.png")
    inputs = find([art, art / "a.png", art / "sea" / ".." / "*.png"])
    assert [found.path.name for found in inputs.pictures] == ["a.png", "b.png"]
    assert inputs.passed_over == {"links": 1}
    inputs = find([art / "a.png", art / "sea" / ".." / "a.png", art / "a.png"])
    assert names(inputs) == [str(art / "a.png")]


def test_a_folder_that_cannot_be_read_is_told_of(art: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system lets the superuser read all, so it is made to refuse."""
    Image.fromarray(waves(32, 40)).save(art / "a.png")
    scandir, barred = os.scandir, [art / "sea"]

    def refusing(path: Any) -> Iterator[Any]:
        if Path(path) in barred:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    given = ["cloak", art, "-o", tmp_path / "out", "--recursive", "--engine", "onnxruntime", "--steps", 1]
    result = CliRunner().invoke(app, [str(each) for each in given], catch_exceptions=False)
    assert result.exit_code == 1
    assert f"error: {art / 'sea'}: the folder cannot be read (Permission denied)" in result.stderr.splitlines()
    assert "1 of 2 pictures cloaked" in result.stdout
    assert "1 failed, 1 folder not read" in result.stdout  # b.png is empty
    barred.append(art)
    with pytest.raises(PictureError, match=r"art: the folder cannot be read \(Permission denied\)"):
        find([art], recursive=True)


def test_a_pipe_is_no_picture(art: Path, tmp_path: Path) -> None:
    """Nor is it waited for until somebody writes to it."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names")
    (art / "b.png").unlink()
    os.mkfifo(art / "b.png")
    given = ["cloak", art, "-o", tmp_path / "out", "--engine", "onnxruntime", "--steps", 1]
    result = CliRunner().invoke(app, [str(each) for each in given], catch_exceptions=False)
    assert result.exit_code == 1
    assert f"error: {art / 'b.png'}: is not an ordinary file" in result.stderr.splitlines()


@pytest.mark.parametrize("given", [(["art"], "art"), (["art", "more"], ".")])
def test_no_result_lies_among_the_pictures(
    given: tuple[list[str], str], art: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even below the folder that was given, where --overwrite would put it in an original's place."""
    for name in ("a.png", "b.png"):
        (art / name).unlink()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.png").touch()
    monkeypatch.chdir(tmp_path)
    folders, output = given
    inputs = find([Path(name) for name in folders], recursive=True, apart=[Path(output)])
    with pytest.raises(UsageError, match="the pictures lie in this folder themselves"):
        plan.plan(inputs, plan.Wishes(f"{output}/"))
