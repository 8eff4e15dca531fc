"""The engine cache among processes: two at once, one killed, a full disk, damaged files."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from engine.cache import Cache, Key, code_version, default_folder, graph_digest
from engine.tape import OPSET, Tape

SPAWN = multiprocessing.get_context("spawn")
KEY = Key("graph", "tensorrt-rtx", "1.7", "sm89", "bf16", "x float32(1, 3)", (("level", "3"),), "code")
PLAN = b"an engine" * 1000


def never() -> bytes:
    raise AssertionError("it is in the cache")


def build_slowly(folder: Path, log: Path, seconds: float) -> None:
    """In a process of its own: fetches `KEY`, and writes down that it builds."""

    def build() -> bytes:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return PLAN

    assert Cache(folder).fetch(KEY, build, lambda line: log.with_suffix(".lines").open("a").write(f"{line}\n")) == PLAN


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_engine_is_built_once_and_then_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "deep" / "folder")
    assert cache.fetch(KEY, lambda: PLAN) == PLAN
    assert cache.fetch(KEY, never) == PLAN
    (entry,) = cache.entries()
    assert entry.key["device"] == "sm89"
    assert entry.bytes > len(PLAN)


@pytest.mark.parametrize("field", [field.name for field in fields(Key)])
def test_every_part_of_the_key_matters(field: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.fetch(KEY, lambda: PLAN)
    other = replace(KEY, **{field: (("level", "5"),) if field == "flags" else "other"})
    assert cache.fetch(other, lambda: b"other") == b"other"
    assert cache.fetch(KEY, never) == PLAN


def test_two_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [SPAWN.Process(target=build_slowly, args=(tmp_path / "cache", log, 1.0)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(log.read_text().splitlines()) == 1
    assert "waiting" in log.with_suffix(".lines").read_text()


def test_a_build_that_is_killed_leaves_nothing_to_trip_over(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    worker = SPAWN.Process(target=build_slowly, args=(folder, log, 60.0))
    worker.start()
    wait_for(log.exists)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join(10)
    lines: list[str] = []
    began = time.monotonic()
    assert Cache(folder).fetch(KEY, lambda: PLAN, lines.append) == PLAN
    assert time.monotonic() - began < 5
    assert not lines
    assert Cache(folder).fetch(KEY, never) == PLAN
    assert names(folder) == {f"{KEY.digest}.engine", f"{KEY.digest}.lock"}


def die_while_writing(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel ends the process in the middle of its write
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    Cache(folder).fetch(KEY, lambda: PLAN)


@pytest.mark.parametrize("device", ["sm89", "sm86"])
def test_what_a_killed_process_was_writing_is_swept_by_the_next_engine_kept(device: str, tmp_path: Path) -> None:
    worker = SPAWN.Process(target=die_while_writing, args=(tmp_path,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGXFSZ
    (partial,) = tmp_path.glob("*.partial")
    assert partial.stat().st_size == 4096
    assert not Cache(tmp_path).entries()
    lines: list[str] = []
    key = replace(KEY, device=device)  # of the same engine, or of another
    assert Cache(tmp_path).fetch(key, lambda: PLAN, lines.append) == PLAN
    assert not lines
    assert names(tmp_path) == {f"{key.digest}.engine", f"{key.digest}.lock"}


def test_what_a_live_process_makes_is_left_alone(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    worker = SPAWN.Process(target=build_slowly, args=(folder, log, 60.0))
    worker.start()
    wait_for(log.exists)
    half, old = folder / f"{KEY.digest}.0a.partial", folder / f"{KEY.digest}.engine"
    half.write_bytes(b"half an eng")
    old.write_bytes(b"damaged, which is why it is being built")
    os.utime(old, (0, 0))
    try:
        small = Cache(folder, limit=1)
        small.fetch(replace(KEY, device="sm86"), lambda: PLAN)  # sweeps, and makes room
        assert half.exists()
        assert old.exists()
        assert small.clear() > len(PLAN)
        assert names(folder) == {half.name, old.name, f"{KEY.digest}.lock"}
    finally:
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join(10)
    assert small.clear() == len(b"half an eng") + len(b"damaged, which is why it is being built")
    assert not names(folder)


def test_threads_of_one_process_build_once(tmp_path: Path) -> None:
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        time.sleep(0.1)
        return PLAN

    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda _: Cache(tmp_path).fetch(KEY, build), range(4)))
    assert plans == [PLAN] * 4
    assert len(built) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_build_that_fails_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    def fail() -> bytes:
        raise error

    cache = Cache(tmp_path)
    lines: list[str] = []
    with pytest.raises(error):
        cache.fetch(KEY, fail, lines.append)
    assert not lines
    assert names(tmp_path) == {f"{KEY.digest}.lock"}
    assert cache.fetch(KEY, lambda: PLAN, lines.append) == PLAN  # the lock is free
    assert not lines


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "format", "other", "unreadable"])
def test_what_is_damaged_or_foreign_is_built_again_with_a_line(damage: str, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.fetch(KEY, lambda: PLAN)
    (path,) = tmp_path.glob("*.engine")
    data = path.read_bytes()
    if damage == "other":
        cache.fetch(replace(KEY, device="sm86"), lambda: PLAN)
        other = next(p for p in tmp_path.glob("*.engine") if p != path)
        other.replace(path)
    elif damage == "unreadable":  # root may read any file, but no one a link to itself
        path.unlink()
        path.symlink_to(path.name)
    else:
        made = {
            "flip": data[:-1] + bytes([data[-1] ^ 1]),
            "cut": data[: len(data) // 2],
            "empty": b"",
            "foreign": b"\x00\xffnot ours",
            "format": data.replace(b'"format": 1', b'"format": 9'),
        }
        path.write_bytes(made[damage])
    lines: list[str] = []
    assert cache.fetch(KEY, lambda: b"new", lines.append) == b"new"
    (line,) = lines
    said = {"format": "another format", "other": "another engine", "unreadable": "cannot be read"}
    assert said.get(damage, "is damaged") in line
    assert "built again" in line
    assert cache.fetch(KEY, never) == b"new"


def fetch_on_a_full_disk(folder: Path, log: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing too much is an error, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    lines: list[str] = []
    assert Cache(folder).fetch(KEY, lambda: PLAN, lines.append) == PLAN
    log.write_text("\n".join(lines))


def test_on_a_full_disk_the_engine_is_used_but_not_kept(tmp_path: Path) -> None:
    folder, log = tmp_path / "cache", tmp_path / "log"
    worker = SPAWN.Process(target=fetch_on_a_full_disk, args=(folder, log))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert "not kept" in log.read_text()
    assert not [path for path in folder.iterdir() if path.suffix != ".lock"]


def test_a_folder_that_cannot_be_made_costs_a_line_only(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    lines: list[str] = []
    assert Cache(in_the_way / "cache").fetch(KEY, lambda: PLAN, lines.append) == PLAN
    assert len(lines) == 1
    assert "not be kept" in lines[0]
    assert not Cache(in_the_way / "cache").entries()
    assert Cache(in_the_way / "cache").clear() == 0


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=3 * len(PLAN))
    keys = [replace(KEY, device=f"sm{number}") for number in range(3)]
    for age, key in enumerate(keys[:2]):
        cache.fetch(key, lambda: PLAN)
        os.utime(tmp_path / f"{key.digest}.engine", (1000 + age, 1000 + age))
    cache.fetch(keys[0], never)  # used again
    cache.fetch(keys[2], lambda: PLAN)
    assert {entry.key["device"] for entry in cache.entries()} == {"sm0", "sm2"}
    small = Cache(tmp_path / "small", limit=1)
    assert small.fetch(KEY, lambda: PLAN) == PLAN
    assert small.fetch(KEY, never) == PLAN  # what was just built stays, whatever it takes


def test_clear_frees_what_it_says(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.fetch(KEY, lambda: PLAN)
    size = cache.entries()[0].bytes
    (tmp_path / "kernels-sm89.bin").write_bytes(b"kernels")
    assert cache.clear() == size + len(b"kernels")
    assert not names(tmp_path)


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    theirs = {"poetry.lock", "model.bin", "model.engine", "download.partial", f"{KEY.digest}.onnx", "kernels.bin"}
    for name in theirs:
        (tmp_path / name).write_bytes(PLAN)
    cache = Cache(tmp_path, limit=1)
    cache.fetch(KEY, lambda: PLAN)
    cache.fetch(replace(KEY, device="sm86"), lambda: PLAN)
    cache.clear()
    assert names(tmp_path) == theirs


def test_engines_of_an_older_format_give_way_too(tmp_path: Path) -> None:
    old = tmp_path / f"{'0' * 64}.engine"
    old.write_bytes(b'{"format": 0}\n' + PLAN)
    os.utime(old, (1000, 1000))
    cache = Cache(tmp_path, limit=len(PLAN) + 1000)
    assert not cache.entries()
    cache.fetch(KEY, lambda: PLAN)
    assert not old.exists()
    assert cache.fetch(KEY, never) == PLAN


def model(scale: float = 1.0, width: int = 4, mode: str = "constant") -> ir.Model:
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="g")
    graph.inputs.append(ir.Value(name="x", shape=ir.Shape((1, width)), type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    y = tape.Pad(tape.Mul(graph.inputs[0], np.float32(scale)), np.array([0, 1, 0, 1]), mode=mode)
    y.name = "y"
    graph.outputs.append(y)
    return ir.Model(graph, ir_version=10)


def test_a_graph_is_known_by_its_weights_shapes_and_attributes(tmp_path: Path) -> None:
    models = [model(), model(scale=1.0000001), model(width=5), model(mode="edge")]
    assert len({graph_digest(m) for m in models}) == 4
    assert graph_digest(model()) == graph_digest(model())
    ir.save(model(), tmp_path / "a.onnx", external_data="a.bin")
    (tmp_path / "b").mkdir()
    ir.save(model(), tmp_path / "b" / "b.onnx", external_data="b.bin")
    stored = [graph_digest(ir.load(path)) for path in (tmp_path / "a.onnx", tmp_path / "b" / "b.onnx")]
    assert stored[0] == stored[1]


def attributed(op: str, **attributes: object) -> ir.Model:
    node = ir.node(op, [], attributes=attributes, num_outputs=1)
    return ir.Model(ir.Graph([], node.outputs, nodes=[node], opset_imports={"": OPSET}), ir_version=10)


def test_a_graph_is_known_by_what_its_attributes_hold() -> None:
    arrays = [
        np.array([1, 0], np.int32),
        np.array([[1, 0]], np.int32),
        np.array([1], np.int64),  # the same bytes
        np.array(["a", "b"], object),
        np.array(["a", "c"], object),
        np.zeros(5000, np.float32),
        np.pad(np.ones(1, np.float32), 2500)[:5000],  # too long to be printed whole
    ]
    made = [attributed("Constant", value=ir.tensor(array)) for array in arrays]
    made += [attributed("If", then_branch=model(scale).graph) for scale in (1.0, 2.0)]
    made += [attributed("Op", values=values) for values in ([1, 2], [12], [1.0, 2.0])]
    digests = [graph_digest(each) for each in made]
    assert len(set(digests)) == len(made)
    assert digests[3] == graph_digest(attributed("Constant", value=ir.tensor(arrays[3].copy())))


def test_our_own_code_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(code_version()) == 64
    monkeypatch.setenv("GLAZE_TRT_CACHE", "/somewhere/else")
    assert default_folder() == Path("/somewhere/else")
