"""Ctrl-C in processes of their own: in a builder that is at work, in one that does not return, and in a step."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from engine import shipped
from tests.glaze_trt.scene import scene

ROOT = Path(__file__).parents[3]
SAID = ["stopping at the next step; Ctrl-C again stops at once", "interrupted; nothing was left half-written"]

NATIVE = """
import hashlib
import typer
from glaze_trt.terminal import console
from glaze_trt.terminal.stop import Stop

def main() -> None:
    with console.failing_clearly(as_json=False, debug=False), Stop(console.say, console.leave) as stop:
        {before}
        print("busy", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})  # compiled code, in which Python takes no signal
        print("back", flush=True)
        stop.check()

typer.run(main)
"""

CLOAK = """
import functools, signal
from engine.runtime import tensorrt
from engine.runtime.protocol import Build
from glaze_trt import cli
from glaze_trt.runs import jobs
from glaze_trt.terminal.progress import Bar
from tests.engine.stand_in_driver import StandInDriver

asked = []

def building(bar, phase, share, told=Bar.building):
    told(bar, phase, share)
    if not asked:
        asked.append(signal.raise_signal(signal.SIGINT))

Bar.building = building
tensorrt.open_driver = lambda device=0: StandInDriver()
jobs.Options = functools.partial(jobs.Options, build=Build(capabilities=("8.9",)))
cli.main()
"""


@contextlib.contextmanager
def process(*arguments: object, **variables: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, *map(str, arguments)]
    pipe, environment = subprocess.PIPE, {**os.environ, **variables}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


def wait_until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_builder_that_does_not_return_is_left() -> None:
    with process("-c", NATIVE.format(before="stop.building('engine', 0.5)", rounds=10**9)) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "busy\n"
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=10)
    assert (running.returncode, out, err.splitlines()) == (130, "", SAID)


@pytest.mark.parametrize("before", ["pass", "stop.building('engine', 0.5); stop.building('engine', 1.0)"])
def test_a_step_is_waited_for_and_that_is_said_at_once(before: str) -> None:
    with process("-c", NATIVE.format(before=before, rounds=4 * 10**6)) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline() == "busy\n"
        running.send_signal(signal.SIGINT)
        assert running.stderr.readline() == f"{SAID[0]}\n"
        assert running.poll() is None
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err.splitlines()) == (130, "back\n", SAID[1:])


def test_a_build_ends_and_keeps_what_is_whole(tmp_path: Path) -> None:
    """The step of a picture builds for seconds, nearly all of them inside one call of the library."""
    folder = tmp_path / "engines"
    order = ["build", "tiny", "--size", "512", "--level", "5", "--compute-capability", "8.9", "-o", folder]
    with process("-m", "glaze_trt.cli", *order) as running:
        wait_until(lambda: any(folder.glob("*.constants-*.plan")))
        time.sleep(1.0)
        running.send_signal(signal.SIGINT)
        asked = time.monotonic()
        out, err = running.communicate(timeout=60)
        took = time.monotonic() - asked
    assert (running.returncode, out, err.splitlines()) == (130, "", SAID)
    assert took < 3.0
    index = json.loads((folder / shipped.INDEX).read_text())
    assert {path.name for path in folder.iterdir()} == {shipped.INDEX, *index}
    assert "step" not in {entry["part"] for entry in index.values()}


def test_a_cloak_that_builds_ends_with_the_build(tmp_path: Path) -> None:
    """TensorRT-RTX really builds; only the GPU is a stand-in."""
    Image.fromarray(scene()).save(tmp_path / "scene.png")
    cloak = ["cloak", tmp_path / "scene.png", "--engine", "tensorrt-rtx"]
    with process("-c", CLOAK, *cloak, GLAZE_TRT_CACHE=str(tmp_path / "cache")) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err.splitlines()) == (130, "", SAID)
    assert not any((tmp_path / "cache").glob("*.engine"))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["scene.png"]
