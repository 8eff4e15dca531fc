"""A folder on a local Ray, through the command line: the same files and the same manifest as without it."""

from __future__ import annotations

import json
import platform
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from glaze_trt.cli import app
from glaze_trt.runs import cluster as cluster_run
from glaze_trt.runs import ray_session
from glaze_trt.terminal import console
from tests.glaze_trt.scene import waves

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of Ray's own making
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")

GIVEN = ("--engine", "onnxruntime", "--steps", 2)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


def told(out: Path) -> dict[str, dict[str, Any]]:
    """The manifest's lines by name, without what differs from run to run."""
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()[1:]]
    for line in lines:
        del line["finished"]
        line.get("report", {}).pop("seconds", None)
        line.get("report", {}).pop("output", None)
    return {line["name"]: line for line in lines}


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    Image.fromarray(waves(32, 40)).save(tmp_path / "a.png")
    result = invoke("cloak", tmp_path / "a.png", "-o", tmp_path / "out.png", *GIVEN, "--ray", "127.0.0.1:1")
    assert result.exit_code == 2
    assert "--ray 127.0.0.1:1: no cluster can be reached there" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_machine_with_another_version_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_run, "version", lambda package: "0")
    Image.fromarray(waves(32, 40)).save(tmp_path / "a.png")
    result = invoke("cloak", tmp_path / "a.png", "-o", tmp_path / "out.png", *GIVEN, "--ray")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {platform.node()}, a machine of the cluster: glaze-trt ")
    assert result.stderr.endswith(" is installed, and 0 where the run was begun\n")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_what_ray_says_is_not_between_our_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """When an actor dies, a thread of Ray's prints that on stdout, where --json has one document."""
    with ray_session.connected(ray, ""):
        thread = threading.Thread(target=print, args=("an actor died",))
        thread.start()
        thread.join()
        console.tell("ours")
    console.tell("ours too")
    assert capsys.readouterr().out == "ours\nours too\n"


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_cluster_does_what_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "art" / "sea").mkdir(parents=True)
    Image.fromarray(waves(32, 40, seed=1)).save("art/a.png")
    frames = [Image.fromarray(waves(32, 40, seed=seed)) for seed in (2, 3)]
    frames[0].save("art/sea/two.gif", save_all=True, append_images=frames[1:])
    Path("art/bad.png").write_text("no picture")
    order = ["cloak", "art", "--recursive", "--frames", "all", *GIVEN, "--json"]
    here = invoke(*order, "-o", "here")
    there = invoke(*order, "-o", "there", "--ray", "--report", "page", "--sheet", "there/sheets")
    assert (here.exit_code, there.exit_code) == (1, 1), there.stderr
    document = json.loads(there.stdout)
    assert (document["cloaked"], document["failed"]) == (2, 1)
    assert here.stderr == there.stderr  # the one line of the bad picture
    for name in ("a.png", "sea/two.png"):
        assert Path("there", name).read_bytes() == Path("here", name).read_bytes(), name
    mine, theirs = told(Path("here")), told(Path("there"))
    for name, line in theirs.items():
        if line["status"] == "done":
            sheet = line["files"].pop()
            assert Path("there", sheet["path"]).stat().st_size == sheet["bytes"]
            assert line["report"].pop("sheet") == f"there/{sheet['path']}"
        assert line == mine[name]
    assert not list(Path("there").rglob(".glaze-*"))
    assert "a.png" in Path("page/index.html").read_text()
