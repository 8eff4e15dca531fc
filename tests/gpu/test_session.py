"""On a GPU: sessions of any number of steps, over every engine, computed as on the processor, captured and replayed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.runtime import Options, TensorSpec
from engine.runtime.driver import CudaDriver, Launchable
from engine.runtime.onnxruntime import OnnxRuntime
from engine.runtime.protocol import Backend
from tests.engine.step_graph import SHAPE, image, open_session, step_model

RATE = 0.05
SPEC = TensorSpec(SHAPE, np.dtype(np.float32))


def close_to(got: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-4) -> None:
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Launchable]:
    """What was captured."""
    made: list[Launchable] = []
    capture = CudaDriver.capture

    def noted(driver: CudaDriver, work: Callable[[int], None]) -> Launchable:
        made.append(capture(driver, work))
        return made[-1]

    monkeypatch.setattr(CudaDriver, "capture", noted)
    return made


@pytest.mark.parametrize("pieces", [(1,), (2,), (7,), (8,), (3, 4, 1, 2, 5)], ids=str)
def test_session_equals_the_processor_and_is_captured(
    backend: Backend, options: Options, captures: list[Launchable], pieces: tuple[int, ...]
) -> None:
    program = backend.compile(step_model(RATE), "fp32", options)
    session = open_session(program)
    reference = open_session(OnnxRuntime().compile(step_model(RATE), "fp32", Options(threads=1)))
    for n in pieces:
        session.advance(n)
        reference.advance(n)
        assert session.read("n") == session.steps
        for name in ("loss", "d", "d_next"):
            close_to(session.read(name), reference.read(name))
    assert program.notes == ()
    assert bool(captures) == (sum(pieces) >= 4)


def test_replay_equals_plain_steps(backend: Backend, options: Options) -> None:
    program = backend.compile(step_model(RATE), "fp32", options)
    replayed, plain = open_session(program), open_session(program)
    replayed.advance(12)
    for _ in range(12):
        plain.advance(1)
    np.testing.assert_allclose(replayed.read("d"), plain.read("d"), rtol=1e-5, atol=1e-7)
    replayed.write("x", image(9))
    plain.write("x", image(9))
    replayed.advance(6)
    for _ in range(6):
        plain.advance(1)
    np.testing.assert_allclose(replayed.read("d"), plain.read("d"), rtol=1e-5, atol=1e-7)


def test_two_sessions_and_a_call_do_not_disturb_each_other(backend: Backend, options: Options) -> None:
    program = backend.compile(step_model(RATE), "fp32", options)
    reference = OnnxRuntime().compile(step_model(RATE), "fp32", Options(threads=1))
    seeds = (1, 5)
    sessions, wanted = ([open_session(p, seed=seed) for seed in seeds] for p in (program, reference))
    feeds = {"x": image(3), "t": image(4), "d": image(5), "n": np.ones((), np.float32), "keep": image(6)}
    for n in (5, 4, 6):
        for session, right in zip(sessions, wanted, strict=True):
            session.advance(n)
            right.advance(n)
        close_to(program(feeds)["d_next"], reference(feeds)["d_next"])
    for session, right in zip(sessions, wanted, strict=True):
        close_to(session.read("d"), right.read("d"))
    assert program.notes == ()


def test_buffers_of_a_program_read_what_was_written(backend: Backend, options: Options) -> None:
    buffer = backend.compile(step_model(RATE), "fp32", options).allocate(SPEC)
    buffer.write(image(1))
    np.testing.assert_array_equal(buffer.read(), image(1))
