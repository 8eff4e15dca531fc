"""Whole folders through the command line: what is found, what it is called, what is told of it, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from glaze_trt.cli import app
from glaze_trt.errors import UsageError
from glaze_trt.pictures import picture
from glaze_trt.runs import plan
from glaze_trt.runs.folder import Found, Inputs, find
from tests.glaze_trt.scene import waves

FAST = ("--engine", "onnxruntime", "--steps", 2)
FRAMES = [waves(32, 40, seed=seed) for seed in (20, 21)]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def levels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one size in two folders, names that collide, and what is no picture."""
    folder = tmp_path_factory.mktemp("art") / "art"
    (folder / "sea").mkdir(parents=True)
    (folder / ".thumbnails").mkdir()
    for number, name in enumerate(["a.jpg", "a.png", "A.webp", "sea/b.png", ".thumbnails/c.png", "old.cloaked.png"]):
        Image.fromarray(waves(32, 40, seed=number)).save(folder / name)
    first, *others = map(Image.fromarray, FRAMES)
    first.save(folder / "sea" / "two.png", save_all=True, append_images=others, duration=[100, 200])
    (folder / "bad.png").write_text("no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


@pytest.fixture(scope="module")
def run(tree: Path) -> dict[str, Any]:
    """The whole tree, results inside it, with everything that can be asked for."""
    out = tree / "cloaked"
    given = ["--recursive", "--frames", "all", "--sheet", out / "sheets", "--report", tree / "page", "--json"]
    result = invoke("cloak", tree, "-o", out, *FAST, *given)
    assert result.exit_code == 1, result.stderr
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    return {"document": json.loads(result.stdout), "stderr": result.stderr, "out": out, "lines": lines}


def test_the_tree_is_mirrored_and_names_are_told_apart(run: dict[str, Any]) -> None:
    out = run["out"]
    made = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    pictures = {"a.png", "a.jpg.png", "A.webp.png", "sea/b.png", "sea/two.png"}
    assert made == {
        "manifest.jsonl",
        *pictures,
        *(f"sheets/{Path(name).with_suffix('.sheet.png')}" for name in pictures),
    }
    for name, source in {"a.png": "a.png", "a.jpg.png": "a.jpg", "A.webp.png": "A.webp"}.items():
        moved = levels(out / name).astype(int) - levels(out.parent / source)
        assert 0 < np.abs(moved).max() <= 16


def test_the_manifest_has_every_picture_once(run: dict[str, Any]) -> None:
    header, *lines = run["lines"]
    assert header["manifest"] == "glaze-trt"
    assert header["settings"]["steps"] == 2
    told = {line["name"]: line for line in lines}
    assert list(told) == ["A.webp", "a.jpg", "a.png", "bad.png", "sea/b.png", "sea/two.png"]
    assert len(told) == len(lines)
    assert {name for name, line in told.items() if line["status"] == "failed"} == {"bad.png"}
    assert "not a picture" in told["bad.png"]["error"]
    assert told["bad.png"]["kind"] == "PictureError"
    line = told["sea/b.png"]
    assert line["input"].keys() == {"bytes", "mtime_ns", "sha256"}
    assert [file["path"] for file in line["files"]] == ["sea/b.png", "sheets/sea/b.sheet.png"]
    assert line["report"]["lpips"] <= 0.05


def test_reports_have_a_curve_and_what_handling_leaves(run: dict[str, Any]) -> None:
    report = next(line["report"] for line in run["lines"] if line.get("name") == "a.png")
    assert [point["step"] for point in report["curve"]] == [1, 2]
    assert report["curve"][-1]["progress"] > 0.02
    assert list(report["handled"]) == ["jpeg 90", "jpeg 75", "half size and back", "noise"]


def test_the_document_of_a_folder_is_a_summary(run: dict[str, Any]) -> None:
    document = run["document"]
    assert {name: document[name] for name in ("pictures", "cloaked", "failed", "earlier")} == {
        "pictures": 6,
        "cloaked": 5,
        "failed": 1,
        "earlier": 0,
    }
    assert document["passed_over"] == {".txt": 1, "results": 1}
    assert document["manifest"] == str(run["out"] / "manifest.jsonl")
    assert [failure["input"] for failure in document["failures"]] == [str(run["out"].parent / "bad.png")]
    assert "bad.png" in run["stderr"]


def test_every_frame_is_cloaked(run: dict[str, Any]) -> None:
    path = run["out"] / "sea" / "two.png"
    frames = picture.frames(path)
    assert [frame.frame.duration for frame in frames if frame.frame is not None] == [100, 200]
    for before, after in zip(FRAMES, frames, strict=True):
        assert 0 < np.abs(before.astype(int) - after.levels).max() <= 16
    report = next(line["report"] for line in run["lines"] if line.get("name") == "sea/two.png")
    assert len(report["frames"]) == 2
    assert report["lpips"] == max(frame["lpips"] for frame in report["frames"]) <= 0.05
    assert report["ssimulacra2"] == min(frame["ssimulacra2"] for frame in report["frames"]) >= 70
    assert report["progress"] == pytest.approx(np.mean([frame["progress"] for frame in report["frames"]]))


def test_the_page_shows_every_picture(run: dict[str, Any]) -> None:
    page = Path(run["document"]["report"]).read_text()
    for name in ("sea/b.png", "a.jpg", "bad.png"):
        assert name in re.sub("<wbr>", "", page)


def test_side_by_side_is_as_one_by_one(run: dict[str, Any], tmp_path: Path) -> None:
    """The pipeline's last picture against a run of that alone."""
    alone = tmp_path / "b.png"
    result = invoke("cloak", run["out"].parent / "sea" / "b.png", "-o", alone, *FAST, "--json")
    assert result.exit_code == 0, result.stderr
    (made,) = json.loads(result.stdout)["pictures"]
    assert alone.read_bytes() == (run["out"] / "sea" / "b.png").read_bytes()
    report = next(line["report"] for line in run["lines"] if line.get("name") == "sea/b.png")
    for name in ("progress", "lpips", "ssimulacra2", "handled", "curve"):
        assert report[name] == made[name], name


def test_resuming_what_is_done_does_nothing_but_try_the_bad_one_again(run: dict[str, Any], tree: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run["out"].rglob("*.png")}
    given = ["--recursive", "--frames", "all", "--resume", "--report", tree / "page"]
    result = invoke("cloak", tree, "-o", run["out"], *FAST, *given)
    assert result.exit_code == 1
    assert "0 of 6 pictures cloaked, 5 done before, 1 failed" in result.stdout
    assert "passed over: 1 .txt, 3 results" in result.stdout  # the first run's two folders too
    assert {path: path.stat().st_mtime_ns for path in run["out"].rglob("*.png")} == before
    page = (tree / "page" / "index.html").read_text()
    assert "a.jpg" in page  # of the run before


def test_a_pattern_for_a_person(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke("cloak", tree / "a.*", "-o", out, *FAST, "--report", tmp_path / "page")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert re.match(r"a\.jpg -> .*a\.jpg\.png  progress 0\.\d+  SSIMULACRA2 \d+\.\d  LPIPS 0\.\d+  \d+\.\d s", lines[0])
    assert re.match(r"2 of 2 pictures cloaked, [\d.]+ a minute, 0 failed", lines[2])
    assert lines[3].strip() == f"manifest: {out / 'manifest.jsonl'}"
    assert "no protection" in lines[5]
    assert result.stderr == ""


def test_several_named_files_keep_their_document_and_may_have_a_manifest(tree: Path, tmp_path: Path) -> None:
    given = ["--manifest", tmp_path / "m.jsonl", "--json"]
    result = invoke("cloak", tree / "a.png", tree / "notes.txt", "-o", tmp_path / "out", *FAST, *given)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [Path(made["output"]).name for made in document["pictures"]] == ["a.png"]
    assert "not a picture" in document["failures"][0]["error"]  # named, so it is not passed over
    assert (tmp_path / "out" / "a.png").exists()
    names = [json.loads(line).get("name") for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert names == [None, str(tree / "a.png"), str(tree / "notes.txt")]


def test_frames_need_a_file_that_holds_them(tree: Path, tmp_path: Path) -> None:
    two = tree / "sea" / "two.png"
    for given, reason in (
        (["-o", tmp_path / "a.png"], "--frames all"),
        (["-o", tmp_path / "a.jpg", "--frames", "all"], "holds one picture"),
    ):
        result = invoke("cloak", two, *FAST, *given)
        assert result.exit_code == 1
        assert reason in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["{0}"], 2, "need a folder of their own: -o FOLDER/"),
        (["{0}", "-o", "{1}/a.png"], 2, "need a folder of their own"),
        (["{0}", "-o", "{0}"], 2, "the pictures lie in this folder themselves (A.webp)"),
        (["{0}/.thumbnails/none*.png", "-o", "{1}/out"], 1, "none*.png: fits no picture"),
        (["{1}", "-o", "{1}/out"], 1, "no picture lies there; --recursive looks further down"),
        (["{0}", "{0}", "-o", "{1}/out"], 2, "two of the folders have one name"),
        (["{0}", "-o", "{1}/out", "--sheet", "{1}/s.png"], 2, "contact sheets cannot go into one file"),
        (["{0}", "-o", "{1}/out", "--style", "vaporwave"], 2, "no style is called"),
        (["{0}", "-o", "{1}/out", "--mask", "{1}/none.png"], 2, "none.png: cannot be read"),
        (["{0}/a.png", "-o", "{1}/out", "--resume"], 2, "add --manifest FILE"),
        (["{0}/a.png", "-o", "{1}/out", "--ray", "--device", "cuda:0"], 2, "Ray chooses"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_file(
    arguments: list[str], status: int, reason: str, tree: Path, tmp_path: Path
) -> None:
    result = invoke("cloak", *(argument.format(tree, tmp_path) for argument in arguments), *FAST)
    assert reason in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.exit_code == status
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed_and_several_folders_stay_apart(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    shutil.copy(tree / "a.png", tmp_path / "more" / "a.png")
    (tmp_path / "more" / "circle").symlink_to(tmp_path / "more")
    inputs = find([tree / "sea", tmp_path / "more"], recursive=True)
    assert [found.name for found in inputs.pictures] == ["sea/b.png", "sea/two.png", "more/a.png"]
    assert inputs.passed_over == {"links": 1}
    jobs = plan.plan(inputs, plan.Wishes(str(tmp_path / "out")))
    assert [job.output.relative_to(tmp_path).as_posix() for job in jobs] == [
        "out/sea/b.png",
        "out/sea/two.png",
        "out/more/a.png",
    ]
    assert not (tmp_path / "out").exists()


def names(*given: str, known: dict[str, Path] | None = None, pages: bool = False) -> dict[str, str]:
    inputs = Inputs([Found(Path("in") / name, name, named=False) for name in given], tree=True)
    jobs = plan.plan(inputs, plan.Wishes("out/", pages=pages), known)
    assert len({str(job.output).casefold() for job in jobs}) == len(jobs)
    return {job.name: job.output.relative_to("out").as_posix() for job in jobs}


def test_names_that_no_file_system_confuses() -> None:
    assert names("a.jpg", "a.jpg.png", "a.png", "a.webp") == {
        "a.jpg": "a.jpg-2.png",
        "a.jpg.png": "a.jpg.png",
        "a.png": "a.png",
        "a.webp": "a.webp.png",
    }
    assert names("A/x.png", "a/X.png") == {"A/x.png": "A/x.png", "a/X.png": "a/X.png.png"}
    assert len(set(names("e\u0301.png", "\u00e9.png").values())) == 2  # one letter, composed and not
    assert names("a.b.jpg", "a.b.c.jpg") == {"a.b.jpg": "a.b.png", "a.b.c.jpg": "a.b.c.png"}
    assert names("a.png/x.png", "a.jpg") == {"a.png/x.png": "a.png/x.png", "a.jpg": "a.jpg.png"}  # one is a folder
    assert names("s.tif", "s.png", pages=True) == {"s.tif": "s.tif", "s.png": "s.png"}


def test_a_run_that_goes_on_keeps_the_names_that_it_gave() -> None:
    assert names("a.jpg", "a.png", known={"a.jpg": Path("a.png")}) == {"a.jpg": "a.png", "a.png": "a.png.png"}


def test_named_files_with_one_name_are_refused() -> None:
    inputs = Inputs([Found(Path(name), name, named=True) for name in ("x/a.png", "y/A.png")])
    with pytest.raises(UsageError, match="would both be written to"):
        plan.plan(inputs, plan.Wishes("out/"))
