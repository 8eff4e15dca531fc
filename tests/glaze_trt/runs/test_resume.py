"""Runs that end before their time, in processes of their own: killed, stopped by Ctrl-C once or twice; and go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from glaze_trt.cli import app
from glaze_trt.runs.parts import Part
from tests.glaze_trt.scene import waves
from tests.glaze_trt.terminal.test_stop import process, wait_until

NAMES = [f"{letter}.png" for letter in "abcdef"]
GIVEN = ("--engine", "onnxruntime", "--steps", "3")
FIRST = "finishing the picture in hand, then stopping; Ctrl-C again stops at once"
LAST = "interrupted; nothing was left half-written"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("art")
    for number, name in enumerate(NAMES):
        Image.fromarray(waves(32, 40, seed=number)).save(folder / name)
    return folder


def lines(out: Path) -> list[dict[str, Any]]:
    """Of the manifest, the whole ones, without the first."""
    text = (out / "manifest.jsonl").read_text() if (out / "manifest.jsonl").exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]


@pytest.fixture(scope="module")
def killed(art: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run killed after its second picture, what it left, and the run that went on."""
    out = tmp_path_factory.mktemp("killed") / "out"
    with process("-m", "glaze_trt.cli", "cloak", art, "-o", out, *GIVEN) as running:
        wait_until(lambda: len(lines(out)) >= 2)
        running.kill()
        running.wait()
    left = lines(out)
    result = invoke("cloak", art, "-o", out, *GIVEN, "--resume", "--json")
    assert result.exit_code == 0, result.stderr
    return {"out": out, "left": left, "document": json.loads(result.stdout)}


def test_a_killed_run_goes_on_where_it_was(killed: dict[str, Any]) -> None:
    out, left, document = killed["out"], killed["left"], killed["document"]
    assert [line["name"] for line in lines(out)] == NAMES
    assert lines(out)[: len(left)] == left
    assert document["earlier"] == len(left)
    assert document["cloaked"] == len(NAMES) - len(left) > 0
    assert sorted(path.name for path in out.iterdir()) == [*NAMES, "manifest.jsonl"]


def test_an_unbroken_run_makes_the_same_files(killed: dict[str, Any], art: Path, tmp_path: Path) -> None:
    result = invoke("cloak", art, "-o", tmp_path, *GIVEN)
    assert result.exit_code == 0, result.stderr
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (killed["out"] / name).read_bytes(), name


@pytest.fixture
def done(killed: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(killed["out"], tmp_path / "out"))


def resume(art: Path, out: Path, *more: object) -> Result:
    return invoke("cloak", art, "-o", out, *GIVEN, "--resume", *more)


def test_what_was_whole_is_put_in_place_and_the_rest_is_swept(art: Path, done: Path) -> None:
    """As a kill between a manifest's line and the last move leaves it, and one in the middle of a write."""
    header = json.loads((done / "manifest.jsonl").read_text().splitlines()[0])
    told = lines(done)[-1]["files"][0]
    part = Part(done / told["path"], told["sha256"], told["bytes"], header["run"])
    whole = part.path.read_bytes()
    part.path.rename(part.temporary)
    (done / f".glaze-{header['run']}-half.part").write_bytes(whole[:100])
    (done / ".glaze-another-half.part").write_bytes(whole[:100])
    with (done / "manifest.jsonl").open("a") as file:
        file.write('{"name": "cut off')
    result = resume(art, done)
    assert result.exit_code == 0, result.stderr
    assert "0 of 6 pictures cloaked, 6 done before, 0 failed" in result.stdout
    assert part.path.read_bytes() == whole
    assert {path.name for path in done.glob(".*")} == {".glaze-another-half.part"}
    assert [line["name"] for line in lines(done)] == NAMES


def test_only_what_changed_or_went_away_is_made_again(art: Path, done: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(art, tmp_path / "mine"))
    os.utime(mine / "a.png")  # another time, the same picture
    Image.fromarray(waves(32, 40, seed=99)).save(mine / "b.png")
    before = (done / "b.png").read_bytes()
    (done / "c.png").unlink()
    result = resume(mine, done, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["earlier"], document["cloaked"]) == (4, 2)
    assert [line["name"] for line in lines(done)] == [*NAMES, "b.png", "c.png"]
    assert (done / "b.png").read_bytes() != before
    assert (done / "c.png").exists()


def test_what_somebody_else_wrote_there_is_kept(art: Path, done: Path) -> None:
    (done / "d.png").write_text("mine")
    result = resume(art, done)
    assert result.exit_code == 1
    assert "d.png: exists already" in result.stderr
    assert (done / "d.png").read_text() == "mine"


def test_somebody_elses_page_is_kept(art: Path, done: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    result = resume(art, done, "--report", tmp_path / "site")
    assert result.exit_code == 1
    assert "index.html: exists already" in result.stderr
    assert (tmp_path / "site" / "index.html").read_text() == "mine"


def test_another_run_does_not_go_on(art: Path, done: Path, tmp_path: Path) -> None:
    before = (done / "manifest.jsonl").read_bytes()
    for given, reason in (
        (["--steps", "4"], "other settings (steps: 3, now 4)"),
        (["--style", "mosaic"], 'other settings (style: null, now "mosaic")'),
        (["--target-image", art / "a.png"], "images: []"),
        (["--manifest", done / "manifest.jsonl", "-o", tmp_path / "other"], 'output: ".", now "../other"'),
    ):
        result = resume(art, done, *given)
        assert result.exit_code == 2, reason
        assert reason in result.stderr
        assert len(result.stderr.splitlines()) == 1
    result = invoke("cloak", art, "-o", done, *GIVEN)
    assert result.exit_code == 2
    assert "an earlier run was begun here; add --resume" in result.stderr
    assert (done / "manifest.jsonl").read_bytes() == before
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]\n", "is no manifest of this program"),
        ('{"name": 1}\n', "is no manifest of this program"),
        ("no JSON\n", "is no manifest of this program"),
        ('{"manifest": "glaze-trt", \n', "line 1 is damaged"),
    ],
)
def test_a_file_that_is_no_manifest_is_left_alone(text: str, reason: str, art: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(text)
    for given in [["--resume"], *([["--overwrite"]] if "no manifest" in reason else [])]:
        result = invoke("cloak", art, "-o", tmp_path, *GIVEN, *given)
        assert result.exit_code == 1
        assert reason in result.stderr
        assert [path.read_text() for path in tmp_path.iterdir()] == [text]


def test_a_manifest_never_takes_the_place_of_a_picture(art: Path, tmp_path: Path) -> None:
    """Though --overwrite is for results, which a manifest's name is not that of."""
    mine = Path(shutil.copytree(art, tmp_path / "mine"))
    before = (mine / "a.png").read_bytes()
    (mine / "a.png").rename(mine / "picture")
    for name, reason in (("picture", "is no manifest of this program"), ("new.png", "has the name of a picture")):
        result = invoke("cloak", mine, "-o", tmp_path / "out", *GIVEN, "--manifest", mine / name, "--overwrite")
        assert reason in result.stderr
        assert not (mine / "new.png").exists()
    assert (mine / "picture").read_bytes() == before


def test_a_picture_that_failed_in_between_is_still_ours(art: Path, done: Path, tmp_path: Path) -> None:
    """Done, then changed and damaged, then mended: its old result is replaced, and its name stays."""
    mine = Path(shutil.copytree(art, tmp_path / "mine"))
    before = (done / "b.png").read_bytes()
    (mine / "b.png").write_text("half copied")
    assert resume(mine, done).exit_code == 1
    assert (done / "b.png").read_bytes() == before
    Image.fromarray(waves(32, 40, seed=99)).save(mine / "b.png")
    result = resume(mine, done)
    assert result.exit_code == 0, result.stderr
    assert "1 of 6 pictures cloaked, " in result.stdout
    assert (done / "b.png").read_bytes() != before


def test_what_was_to_replace_a_file_of_the_same_size_does_so(art: Path, done: Path) -> None:
    """As a kill before the last move leaves it, where --overwrite meets an older run's file."""
    header = json.loads((done / "manifest.jsonl").read_text().splitlines()[0])
    told = lines(done)[2]["files"][0]
    part = Part(done / told["path"], told["sha256"], told["bytes"], header["run"])
    whole = part.path.read_bytes()
    part.path.rename(part.temporary)
    part.path.write_bytes(bytes(len(whole)))
    assert resume(art, done).exit_code == 0
    assert part.path.read_bytes() == whole


def test_what_somebody_else_wrote_there_is_known_by_more_than_its_size(art: Path, done: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(art, tmp_path / "mine"))
    Image.fromarray(waves(32, 40, seed=99)).save(mine / "d.png")
    theirs = bytes((done / "d.png").stat().st_size)
    (done / "d.png").write_bytes(theirs)
    result = resume(mine, done)
    assert "d.png: exists already" in result.stderr
    assert (done / "d.png").read_bytes() == theirs


def test_the_name_of_a_picture_that_went_away_is_not_given_again(art: Path, done: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(art, tmp_path / "mine"))
    (mine / "e.png").rename(mine / "kept")
    Image.open(mine / "kept").save(mine / "e.jpg")
    result = resume(mine, done)
    assert result.exit_code == 0, result.stderr
    assert lines(done)[-1]["files"][0]["path"] == "e.jpg.png"


def test_a_damaged_line_is_named(art: Path, done: Path) -> None:
    kept = (done / "manifest.jsonl").read_text().splitlines(keepends=True)
    (done / "manifest.jsonl").write_text("".join([*kept[:2], "{\n", *kept[2:]]))
    result = resume(art, done)
    assert result.exit_code == 1
    assert "line 3 is damaged" in result.stderr


def test_ctrl_c_finishes_the_picture_and_ctrl_c_again_stops_at_once(art: Path, tmp_path: Path) -> None:
    """Once in a run of short pictures; and then, going on, twice in one whose pictures take for ever."""
    out = tmp_path / "out"
    order = ["-m", "glaze_trt.cli", "cloak", art, "-o", out, "--engine", "onnxruntime", "--steps", "60"]
    with process(*order) as running:
        wait_until(lambda: len(lines(out)) >= 1)
        running.send_signal(signal.SIGINT)
        text, err = running.communicate(timeout=60)
    assert (running.returncode, err.splitlines()) == (130, [FIRST, LAST])
    done = [line["name"] for line in lines(out)]
    assert NAMES[: len(done)] == done
    assert 1 < len(done) < len(NAMES)  # the first, and the one in hand
    assert f"{len(done)} of 6 pictures cloaked" in text
    assert sorted(path.name for path in out.iterdir()) == [*done, "manifest.jsonl"]

    order = [*order[:5], tmp_path / "slow", *order[6:-1], "1000000"]
    with process(*order) as running:
        assert running.stderr is not None
        wait_until(lambda: (tmp_path / "slow" / "manifest.jsonl").exists())
        running.send_signal(signal.SIGINT)
        assert running.stderr.readline() == f"{FIRST}\n"
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        text, err = running.communicate(timeout=60)
    assert (running.returncode, err.splitlines()) == (130, [LAST])
    assert list((tmp_path / "slow").iterdir()) == []


def test_two_runs_do_not_write_one_manifest(art: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    order = ["cloak", art, "-o", out, "--engine", "onnxruntime", "--steps", "1000000"]
    with process("-m", "glaze_trt.cli", *order):
        wait_until(lambda: (out / "manifest.jsonl").exists() and bool((out / "manifest.jsonl").stat().st_size))
        result = invoke(*order, "--resume")
    assert result.exit_code == 1
    assert "another run is writing it" in result.stderr


def test_a_pipe_that_closes_ends_a_command_without_a_word() -> None:
    for command in (["models"], ["styles", "--json"]):
        read, write = os.pipe()
        os.close(read)
        order = [sys.executable, "-m", "glaze_trt.cli", *command]
        ended = subprocess.run(order, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
        os.close(write)
        assert ended.stderr == "", command
        assert ended.returncode == 1
