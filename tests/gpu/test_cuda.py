"""On a GPU: `cuda.core`'s calls as `driver` makes them, and sessions over ONNX Runtime's CUDA provider.

Run by `make test-gpu`; nothing here is skipped for want of a GPU, so that nothing passes unseen.
"""

from __future__ import annotations

import numpy as np
import pytest

from bench.compare import cosine
from engine import value_and_grad
from engine.errors import BackendError
from engine.runtime import Options, TensorSpec
from engine.runtime.driver import open_driver
from engine.runtime.onnxruntime import OnnxRuntime
from engine.runtime.onnxruntime_cuda import OnnxRuntimeCuda
from tests.engine.step_graph import SHAPE, image, kernel, make_model, node, open_session, step_model

RATE = 0.05
SPEC = TensorSpec(SHAPE, np.dtype(np.float32))
BACKENDS = {
    "nchw": OnnxRuntimeCuda(),
    "nhwc": OnnxRuntimeCuda(prefer_nhwc=True),
}


def close_to(got: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-4) -> None:
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


def test_driver_describes_the_gpu():
    driver = open_driver()
    assert driver.name
    assert driver.capability >= (7, 0)
    assert driver.stream not in (0, 1, 2)  # none of CUDA's default streams
    assert driver.version
    assert driver.memory is None or driver.memory > 2**30
    driver.close()
    driver.close()


def test_there_is_no_hundredth_gpu():
    with pytest.raises(BackendError, match="no GPU cuda:99"):
        open_driver(99)


@pytest.mark.parametrize("nbytes", [1, 4, 4097, 1 << 22])
def test_memory_is_aligned_zeroed_and_copied(nbytes):
    driver = open_driver()
    driver.attach()
    memory = driver.allocate(nbytes)
    assert memory.address % 256 == 0
    assert memory.nbytes == nbytes
    driver.zero(memory)
    got = np.ones(nbytes, np.uint8)
    driver.copy_out(memory, got)
    assert not got.any()
    given = np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8)
    driver.copy_in(memory, given)
    driver.copy_out(memory, got)
    np.testing.assert_array_equal(got, given)
    driver.close()


def test_what_is_captured_runs_at_launch_and_an_error_leaves_the_stream_usable():
    driver = open_driver()
    driver.attach()
    memory = driver.allocate(256)
    got, ones = np.empty(256, np.uint8), np.ones(256, np.uint8)
    driver.copy_in(memory, ones)
    graph = driver.capture(lambda stream: driver.zero(memory))
    driver.copy_out(memory, got)
    assert got.all()
    graph.launch()
    driver.synchronise()
    driver.copy_out(memory, got)
    assert not got.any()
    graph.close()
    with pytest.raises(BackendError):
        driver.capture(lambda stream: driver.synchronise())  # not permitted while capturing
    with pytest.raises(BackendError, match="nothing was enqueued"):
        driver.capture(lambda stream: None)
    driver.copy_in(memory, ones)
    driver.capture(lambda stream: driver.zero(memory)).launch()
    driver.copy_out(memory, got)
    assert not got.any()
    driver.close()


@pytest.mark.parametrize("layout", BACKENDS)
@pytest.mark.parametrize("pieces", [(1,), (2,), (7,), (8,), (3, 4, 1, 2, 5)], ids=str)
def test_session_equals_the_processor_and_is_captured(layout, pieces):
    program = BACKENDS[layout].compile(step_model(RATE), "fp32", Options())
    session = open_session(program)
    reference = open_session(OnnxRuntime().compile(step_model(RATE), "fp32", Options(threads=1)))
    for n in pieces:
        session.advance(n)
        reference.advance(n)
        assert session.read("n") == session.steps
        for name in ("loss", "d", "d_next"):
            close_to(session.read(name), reference.read(name))
    assert program.notes == ()
    assert bool([cycle for cycle in program._cycles.values() if cycle.graph]) == (sum(pieces) >= 4)


def test_replay_equals_plain_steps():
    program = BACKENDS["nchw"].compile(step_model(RATE), "fp32", Options())
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


def test_two_sessions_and_a_call_do_not_disturb_each_other():
    program = BACKENDS["nchw"].compile(step_model(RATE), "fp32", Options())
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


@pytest.mark.parametrize("layout", BACKENDS)
def test_gradients_point_where_the_processors_do(layout):
    nodes = [
        node("Conv", "x w", "a", pads=[1] * 4),
        node("Sigmoid", "a", "s"),
        node("Mul", "a s", "h"),
        node("Conv", "h w", "f", pads=[1] * 4),
        node("Mul", "f f", "f2"),
        node("ReduceMean", "f2", "loss", keepdims=0),
    ]
    model = value_and_grad(make_model(nodes, {"x": SHAPE}, {"loss": ()}, {"w": kernel()}), "loss", ["x"])
    wanted = OnnxRuntime().compile(model, "fp32", Options(threads=1))({"x": image(1)})
    backend = BACKENDS[layout]
    for precision in backend.precisions():
        got = backend.compile(model, precision, Options())({"x": image(1)})
        least = 0.99999 if precision == "fp32" else 0.999
        assert cosine(got["grad:x"], wanted["grad:x"]) >= least, precision
        close_to(got["loss"], wanted["loss"], 1e-4 if precision == "fp32" else 2e-2)


def test_a_graph_that_cuda_does_not_take_whole_is_refused():
    model = make_model([node("Det", "m", "d")], {"m": (1, 2, 2)}, {"d": (1,)}, {})  # CUDA has no kernel for it
    with pytest.raises(BackendError, match="did not compile"):
        BACKENDS["nchw"].compile(model, "fp32", Options())


def test_buffers_of_a_program_read_what_was_written():
    buffer = BACKENDS["nchw"].compile(step_model(RATE), "fp32", Options()).allocate(SPEC)
    buffer.write(image(1))
    np.testing.assert_array_equal(buffer.read(), image(1))
