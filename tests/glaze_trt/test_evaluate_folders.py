"""`glaze-trt evaluate`: pairs of any kind of file, and folders set against each other."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from glaze_trt import pairs
from glaze_trt.cli import app
from glaze_trt.errors import PictureError, UsageError
from tests.glaze_trt.scene import scene

FAST = ("--engine", "onnxruntime")


def evaluate(*arguments: object, status: int = 0) -> Result:
    given = [str(argument) for argument in ("evaluate", *arguments, *FAST)]
    result = CliRunner().invoke(app, given, catch_exceptions=False)
    assert result.exit_code == status, result.stderr
    return result


def document(*arguments: object, status: int = 0) -> dict[str, Any]:
    return dict(json.loads(evaluate(*arguments, "--json", status=status).stdout))


def noisy(levels: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(most).integers(-most, most + 1, levels.shape)
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Originals and their cloaked pictures, with all that may be wrong with them; nothing is written there."""
    root = tmp_path_factory.mktemp("folders")
    before, after = root / "art", root / "out"
    for folder in (before / "sea", after / "sea"):
        folder.mkdir(parents=True)
    for number, (name, other) in enumerate(
        {"a.png": "a.png", "b.webp": "b.cloaked.png", "sea/a.png": "sea/a.webp", "lone.png": None}.items()
    ):
        levels = scene(48, 64, number)
        Image.fromarray(levels).save(before / name, lossless=True)
        if other is not None:
            Image.fromarray(noisy(levels, 1 + 5 * number)).save(after / other, lossless=True)
    Image.fromarray(scene()).save(before / "wide.png")
    Image.fromarray(scene(48, 65)).save(after / "wide.png")
    Image.fromarray(scene()).save(before / "broken.png")
    (after / "broken.png").write_text("no picture")
    Image.fromarray(scene()).save(after / "other.png")
    (before / "notes.txt").write_text("no picture, and passed over")
    return before, after


def test_two_folders(folders: tuple[Path, Path]) -> None:
    before, after = folders
    found = document(before, after, status=1)
    rows = {Path(row["a"]).relative_to(before).as_posix(): row for row in found["pictures"]}
    assert {name: Path(row["b"]).relative_to(after).as_posix() for name, row in rows.items()} == {
        "a.png": "a.png",
        "b.webp": "b.cloaked.png",
        "sea/a.png": "sea/a.webp",
    }
    assert found["missing"] == [str(before / "lone.png")]
    assert found["unmatched"] == [str(after / "other.png")]
    wide = next(each for each in found["failures"] if "wide" in each["a"])
    assert wide["error"].startswith(f"{after / 'wide.png'} is 65 x 48 and {before / 'wide.png'} 64 x 48; only")
    assert sorted(Path(each["b"]).name for each in found["failures"]) == ["broken.png", "wide.png"]
    linf = [row["linf"] * 255 for row in rows.values()]
    assert linf == pytest.approx([1, 6, 11])
    summary = found["summary"]
    assert summary["pairs"] == 3
    assert summary["within"] == sum(row["within"] for row in rows.values())
    assert summary["within"] < 3
    for name in ("linf", "ssimulacra2", "psnr", "lpips"):
        values = [row[name] for row in rows.values()]
        assert summary["mean"][name] == pytest.approx(statistics.fmean(values))
        assert summary["median"][name] == sorted(values)[1]
        assert summary["worst"][name] == (max if name in ("linf", "lpips") else min)(values)
    assert "progress" not in summary["mean"]
    alone = document(before / "sea/a.png", after / "sea/a.webp")
    assert {name: alone[name] for name in pairs.MEASURES} == {name: rows["sea/a.png"][name] for name in pairs.MEASURES}


def test_two_folders_as_lines_and_as_a_page(folders: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = folders
    given = (before, "--portfolio", after, "--intensity", "high", "--style", "mosaic", "--handled")
    result = evaluate(*given, "--report", tmp_path / "report", status=1)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["picture", *pairs.MEASURES, "budget"]
    assert [line[0] for line in lines[1:7]] == ["a.png", "b.webp", "sea/a.png", "(mean)", "(median)", "(worst)"]
    assert lines[1][-1] == "inside"
    inside = sum(line[-1] == "inside" for line in lines[1:4])
    assert lines[7][:6] == [str(inside), "of", "3", "inside", "the", "budget:"]
    assert f"no cloaked picture of {before / 'lone.png'}" in result.stderr
    assert f"no original of {after / 'other.png'}" in result.stderr
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for shown in (
        "sea/a.png",
        f"{inside} of 3",
        "After JPEG 75",
        "wide.png is 65 x 48",
        "What the model sees",
        "sha256",
    ):
        assert shown in page, shown


def test_names_that_cloak_gives_are_known(tmp_path: Path) -> None:
    before, after = tmp_path / "art", tmp_path / "out"
    for folder, names in (
        (before, ("a.jpg", "a.png", "b.png", "c.jpg", "c.webp")),
        (after, ("a.jpg.png", "a.png", "b.cloaked.png", "b.png", "c.png", "c.webp.png", ".hidden.png", "b.sheet.png")),
    ):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    found = pairs.match(before, after)
    assert {pair.name: pair.after.name for pair in found.pairs} == {
        **{"a.jpg": "a.jpg.png", "a.png": "a.png", "b.png": "b.cloaked.png"},
        **{"c.jpg": "c.png", "c.webp": "c.webp.png"},
    }
    assert found.missing == ()
    assert found.unmatched == (after / "b.png",)
    (after / "a.cloaked.png").touch()
    (after / "a.cloaked.webp").touch()
    (after / "a.jpg.png").unlink()
    with pytest.raises(UsageError, match=r"a\.jpg: may belong to .*a\.cloaked\.png or .*a\.cloaked\.webp"):
        pairs.match(before, after)


def test_one_folder_with_both(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.cloaked.png", "b.png"):
        (tmp_path / name).touch()
    found = pairs.match(tmp_path, tmp_path)
    assert [(pair.before.name, pair.after.name) for pair in found.pairs] == [("a.jpg", "a.cloaked.png")]
    assert [path.name for path in found.missing] == ["b.png"]
    assert found.unmatched == ()


def test_folders_with_nothing_in_common(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(PictureError, match=r"no picture in .*one has a partner in .*two"):
        pairs.match(tmp_path / "one", tmp_path / "two")


def test_sixteen_bits_and_transparency(tmp_path: Path) -> None:
    grey = scene()[:, :, 0]
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    found = document(tmp_path / "8.png", tmp_path / "16.png")
    assert (found["linf"], found["psnr"], found["ssimulacra2"], found["within"]) == (0, None, 100, True)
    clear = np.dstack([scene(), np.full((48, 64), 255, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "opaque.png")
    clear[:24, :, 3] = 80
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(scene()).save(tmp_path / "plain.png")
    assert document(tmp_path / "plain.png", tmp_path / "opaque.png")["notes"] == []
    assert document(tmp_path / "clear.png", tmp_path / "clear.png")["notes"] == []
    result = evaluate(tmp_path / "plain.png", tmp_path / "clear.png")
    assert "note: their transparency differs; only colours were compared" in result.stdout
    assert "inside the budget: LPIPS <= 0.05" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["{0}"], 2, "give what A is compared with"),
        (["{0}", "{1}", "--portfolio", "{1}"], 2, "give what A is compared with"),
        (["{0}", "{1}/a.png"], 2, "art is a folder and"),
        (["{0}/a.png", "{1}"], 2, "out is a folder and"),
        (["{0}", "{1}", "--handled"], 2, "needs --target or --style"),
        (["{0}/a.png", "{1}/wide.png"], 1, "only pictures of one size can be compared"),
        (["{0}/a.png", "{1}/none.png"], 1, "none.png: no such file"),
        (["{0}", "{1}/none"], 1, "none: no such file or folder"),
        (["{0}/a.png", "{1}/wide.png", "--report", "{2}/page"], 1, "only pictures of one size can be compared"),
        (["{0}/a.png", "{1}/a.png", "--report", "{0}/a.png/page"], 1, "no report can be written there"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: list[str], status: int, reason: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    result = evaluate(*(argument.format(*folders, tmp_path) for argument in arguments), status=status)
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.html"))
