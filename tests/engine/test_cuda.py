"""Programs on a GPU, without one: order, addresses and values against a stand-in for the driver's calls.

What needs the real thing is in `tests/gpu`.
"""

from __future__ import annotations

import gc
import inspect
import sys
import threading
import types
import weakref

import numpy as np
import pytest

from engine.errors import BackendError, FeedError
from engine.runtime import TensorSpec
from engine.runtime.cuda import open_driver, parse_device
from engine.runtime.driver import CudaDriver
from tests.engine.hardware import has_gpu
from tests.engine.stand_in_driver import (
    COUNT,
    GAIN,
    PLAIN,
    HalvingProgram,
    StandInDriver,
    X,
    check,
    expected,
    open_session,
)


def since(driver: StandInDriver, start: int) -> list[str]:
    return driver.calls[start:]


def test_two_steps_are_warmed_up_then_captured_then_replayed():
    driver = StandInDriver()
    session = open_session(HalvingProgram(driver))
    start = len(driver.calls)
    session.advance(7)
    warm_up = ["step 0", "step 1", "synchronise", "warmed"]
    capture = ["capture", "step 0", "step 1"]
    assert since(driver, start) == [*warm_up, *capture, "launch", "launch", "step 0", "synchronise"]
    check(session)
    assert since(driver, start)[-4:] == ["read"] * 4


def test_odd_first_step_and_odd_rest_are_enqueued_plainly():
    driver = StandInDriver()
    session = open_session(HalvingProgram(driver))
    session.advance(3)
    start = len(driver.calls)
    session.advance(6)  # steps 3 to 8
    assert since(driver, start) == [
        "step 1",
        "synchronise",
        "capture",
        "step 0",
        "step 1",
        "launch",
        "launch",
        "step 0",
        "synchronise",
    ]
    start = len(driver.calls)
    session.advance(4)  # steps 9 to 12
    assert since(driver, start) == ["step 1", "launch", "step 0", "synchronise"]
    check(session)


@pytest.mark.parametrize(
    "pieces", [(1,), (2,), (3,), (4,), (7,), (10,), (1, 1, 1, 4), (3, 4, 7, 2, 1), (2, 3, 3, 8), (0, 5, 0, 5)], ids=str
)
@pytest.mark.parametrize("refuse", [None, "no capture today"])
def test_pieces_give_the_values_of_plain_steps(pieces, refuse):
    session = open_session(HalvingProgram(StandInDriver(refuse=refuse)))
    for n in pieces:
        session.advance(n)
        if session.steps:
            check(session)
    assert session.steps == sum(pieces)


def test_capturing_runs_nothing():
    driver = StandInDriver()
    session = open_session(HalvingProgram(driver))
    session.advance(2)
    done = driver.executed
    program, bindings = session._program, session._bindings
    program._driver.capture(lambda stream: [program.enqueue(bound, stream) for bound in bindings])
    driver.synchronise()
    assert driver.executed == done
    check(session)


def test_kernels_are_kept_after_the_first_step_whoever_runs_it():
    driver = StandInDriver()
    session = open_session(HalvingProgram(driver))
    for _ in range(3):
        session.advance(1)
    assert driver.calls.count("warmed") == 1
    driver = StandInDriver()
    program = HalvingProgram(driver)
    for _ in range(2):
        program({"x": X, "n": np.zeros((), np.float32), "gain": GAIN})
    assert driver.calls.count("warmed") == 1


def test_a_program_that_is_dropped_frees_its_memory_at_once():
    program = HalvingProgram(StandInDriver())
    session = open_session(program)
    session.advance(1)  # what the stand-in captures would refer to the program
    gone = weakref.ref(program)
    gc.disable()
    try:
        del program, session
        assert gone() is None
    finally:
        gc.enable()


def test_a_run_waits_for_its_last_step():
    driver = StandInDriver()
    session = open_session(HalvingProgram(driver))
    session.advance(5)
    assert not driver.queue


def test_refused_capture_is_noted_once_and_not_tried_again():
    driver = StandInDriver(refuse="stream 3 was busy")
    program = HalvingProgram(driver)
    session = open_session(program)
    session.advance(9)
    session.advance(8)
    open_session(program).advance(6)
    assert driver.calls.count("capture") == 1
    assert "launch" not in driver.calls
    assert program.notes == ("steps are enqueued one by one, not as a CUDA graph: stream 3 was busy",)
    check(session)


def test_a_backend_that_may_not_be_captured_falls_back():
    class Waiting(HalvingProgram):
        def enqueue(self, bound, stream):
            super().enqueue(bound, stream)
            self.driver.synchronise()  # as a library does that copies behind one's back

    program = Waiting(StandInDriver())
    session = open_session(program)
    session.advance(7)
    assert "not permitted when stream is capturing" in program.notes[0]
    check(session)


def test_a_failing_step_is_an_error_and_not_a_note():
    class Failing(HalvingProgram):
        def enqueue(self, bound, stream):
            raise BackendError("the kernel is missing")

    program = Failing(StandInDriver())
    with pytest.raises(BackendError, match="kernel is missing"):
        open_session(program).advance(2)
    assert program.notes == ()


def test_bindings_hold_the_addresses_of_two_sets_that_swap():
    driver = StandInDriver()
    program = HalvingProgram(driver)
    open_session(program)
    there, back = program.bound
    for output, name in {"x_next": "x", "n_next": "n"}.items():
        assert there.inputs[name] == back.outputs[output]
        assert there.outputs[output] == back.inputs[name]
        assert there.inputs[name] != there.outputs[output]
    assert there.inputs["gain"] == back.inputs["gain"]
    assert there.outputs["seen"] == back.outputs["seen"]
    used = {address for bound in (there, back) for address in (*bound.inputs.values(), *bound.outputs.values())}
    assert used == set(driver.contents)
    assert all(address % 256 == 0 for address in used)


def test_a_misaligned_address_is_refused():
    with pytest.raises(BackendError, match="multiple of 256"):
        HalvingProgram(StandInDriver(skew=64)).allocate(PLAIN)


def test_buffers_are_zeroed_and_copied():
    buffer = HalvingProgram(StandInDriver()).allocate(PLAIN)
    np.testing.assert_array_equal(buffer.read(), np.zeros((2, 3), np.float32))
    turned = np.arange(6, dtype=np.float32).reshape(3, 2).T
    buffer.write(turned)
    copy = buffer.read()
    np.testing.assert_array_equal(copy, turned)
    copy[:] = 7
    np.testing.assert_array_equal(buffer.read(), turned)
    scalar = HalvingProgram(StandInDriver()).allocate(COUNT)
    scalar.write(np.float32(2.5).reshape(()))
    assert scalar.read() == 2.5
    with pytest.raises(FeedError, match="float64"):
        buffer.write(X.astype(np.float64))
    empty = HalvingProgram(StandInDriver()).allocate(TensorSpec((0, 3), PLAIN.dtype))
    empty.write(np.zeros((0, 3), np.float32))
    assert empty.read().shape == (0, 3)


@pytest.mark.parametrize("before", [4, 5])
def test_a_write_between_runs_is_seen(before):
    session = open_session(HalvingProgram(StandInDriver()))
    session.advance(before)
    gain, x = GAIN * 2, X[::-1].copy()
    session.write("gain", gain)
    session.write("x", x)
    session.advance(5)
    np.testing.assert_array_equal(session.read("x"), expected(5, x, gain))
    assert session.read("n") == before + 5


def test_two_sessions_share_a_program_and_each_has_its_graph():
    driver = StandInDriver()
    program = HalvingProgram(driver)
    one, two = open_session(program), open_session(program, X * 10)
    for n in (3, 4, 5):
        one.advance(n)
        two.advance(n + 1)
    check(one)
    check(two, X * 10)
    assert driver.calls.count("capture") == 2
    assert driver.calls.count("warmed") == 1
    np.testing.assert_array_equal(program({"x": X, "n": np.zeros((), np.float32), "gain": GAIN})["x_next"], expected(1))
    one.advance(4)
    check(one)


def test_a_session_that_is_gone_frees_its_graph():
    driver = StandInDriver()
    program = HalvingProgram(driver)
    session = open_session(program)
    session.advance(6)
    assert len(program._cycles) == 1
    program.bound.clear()  # the stand-in's own record
    del session
    gc.collect()
    assert not program._cycles
    assert driver.calls.count("free graph") == 1


def test_bindings_without_weak_references_are_kept():
    class Slotted(HalvingProgram):
        def bind(self, inputs, outputs):
            return (super().bind(inputs, outputs),)

        def enqueue(self, bound, stream):
            super().enqueue(bound[0], stream)

    program = Slotted(StandInDriver())
    session = open_session(program)
    session.advance(7)
    check(session)
    assert len(program._cycles) == 1


def test_one_binding_is_captured_alone():
    driver = StandInDriver()
    program = HalvingProgram(driver)
    inputs = {name: program.allocate(spec) for name, spec in program.inputs.items()}
    outputs = {name: program.allocate(spec) for name, spec in program.outputs.items()}
    bound = program.bind(inputs, outputs)
    inputs["x"].write(X)
    program.run([bound], 0, 4)
    assert driver.calls.count("launch") == 3
    np.testing.assert_array_equal(outputs["x_next"].read(), X / 2)


def test_call_reads_and_writes_arrays_and_checks_them():
    driver = StandInDriver()
    program = HalvingProgram(driver)
    feeds = {"x": X, "n": np.ones((), np.float32), "gain": GAIN}
    for _ in range(3):
        out = program(feeds)
        assert list(out) == ["x_next", "n_next", "seen"]
        np.testing.assert_array_equal(out["x_next"], expected(1))
        np.testing.assert_array_equal(out["seen"], X + 1)
    assert len(driver.contents) == 6
    with pytest.raises(FeedError, match="missing 'gain'"):
        program({"x": X, "n": np.ones((), np.float32)})


def test_threads_take_turns():
    program = HalvingProgram(StandInDriver())
    sessions = [open_session(program, X * k) for k in range(1, 4)]
    threads = [threading.Thread(target=lambda s=s: [s.advance(n) for n in (1, 2, 3, 7)]) for s in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, session in enumerate(sessions, 1):
        check(session, X * k)


def test_close_frees_graphs_and_driver_once():
    driver = StandInDriver()
    program = HalvingProgram(driver)
    session = open_session(program)
    session.advance(6)
    program.close()
    program.close()
    assert driver.calls[-2:] == ["free graph", "close"]


def test_program_describes_itself():
    program = HalvingProgram(StandInDriver())
    assert (program.engine, program.device, program.precision, program.notes) == (
        "halving",
        "stand-in GPU",
        "fp32",
        (),
    )


@pytest.mark.parametrize(("text", "number"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:12", 12)])
def test_device_is_parsed(text, number):
    assert parse_device(text) == number


@pytest.mark.parametrize("text", ["", "cpu", "cuda:", "cuda:-1", "cuda:x", "1", "cuda1"])
def test_other_devices_are_refused(text):
    with pytest.raises(BackendError, match="write cuda"):
        parse_device(text)


# The real libraries, as far as they go without a GPU.


without_gpu = pytest.mark.skipif(has_gpu(), reason="there is a GPU")


@without_gpu
def test_without_a_driver_there_is_one_clear_line():
    with pytest.raises(BackendError) as caught:
        open_driver()
    assert "\n" not in str(caught.value)
    assert "install" in str(caught.value)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(BackendError, match=r"pip install cuda-core cuda-bindings"):
        open_driver()


def test_device_numbers_are_checked(monkeypatch):
    core = types.ModuleType("cuda.core")
    core.Device = types.SimpleNamespace(get_all_devices=lambda: ("a", "b"))
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    with pytest.raises(BackendError, match="no GPU cuda:2: there are 2"):
        open_driver(2)


def test_cuda_core_has_every_name_that_is_used():
    core = pytest.importorskip("cuda.core")
    system = pytest.importorskip("cuda.core.system")
    graph = pytest.importorskip("cuda.core.graph")
    used = {
        core.Device: "get_all_devices set_current name compute_capability create_stream allocate to_system_device",
        core.Stream: "handle sync close is_closed create_graph_builder",
        core.Buffer: "handle size fill copy_from copy_to close __dlpack__ __dlpack_device__",
        core.LegacyPinnedMemoryResource: "allocate",
        graph.GraphBuilder: "begin_building stream end_building graph_definition complete close",
        graph.GraphDefinition: "nodes",
        graph.Graph: "upload launch close",
        system.Device: "memory_info",
        system: "get_kernel_mode_driver_version",
    }
    for owner, names in used.items():
        assert [name for name in names.split() if not hasattr(owner, name)] == [], owner
    assert core.StreamOptions(nonblocking=True).nonblocking
    accepted = {
        core.Device.allocate: {"size", "stream"},
        core.Device.create_stream: {"options"},
        core.Buffer.fill: {"value", "stream"},
        core.Buffer.copy_from: {"src", "stream"},
        core.Buffer.copy_to: {"dst", "stream"},
        core.Buffer.close: {"stream"},
        core.LegacyPinnedMemoryResource.allocate: {"size"},
        graph.GraphBuilder.begin_building: {"mode"},
        graph.Graph.upload: {"stream"},
        graph.Graph.launch: {"stream"},
    }
    for function, names in accepted.items():
        assert names <= set(signature_of(function)), function
    assert "`thread_local`" in graph.GraphBuilder.begin_building.__doc__


def signature_of(function) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # compiled: its first line of documentation holds the signature
        head = function.__doc__.partition(")")[0].partition("(")[2]
        return [part.split("=")[0].split(":")[0].split()[-1] for part in head.split(",") if part.strip() != "*"]


def test_host_memory_of_cuda_core_is_numpy_memory():
    core = pytest.importorskip("cuda.core")
    from engine.runtime.driver import _bytes

    backing = np.zeros(64, np.uint8)

    class Host(core.MemoryResource):
        is_device_accessible, is_host_accessible, device_id = False, True, -1

        def allocate(self, size, *, stream=None):
            return core.Buffer.from_handle(backing.ctypes.data, size, self)

        def deallocate(self, ptr, size, *, stream=None):
            pass

    buffer = Host().allocate(24)
    _bytes(buffer)[:] = X.reshape(-1).view(np.uint8)
    np.testing.assert_array_equal(backing[:24].view(np.float32).reshape(2, 3), X)
    assert buffer.size == 24
    assert int(buffer.handle) == backing.ctypes.data


def test_real_driver_has_the_calls_of_the_stand_in():
    calls = [name for name, member in vars(StandInDriver).items() if inspect.isfunction(member)]
    shared = [name for name in calls if not name.startswith("_") and name not in ("note", "submit", "array")]
    for name in shared:
        mine, real = (inspect.signature(getattr(kind, name)) for kind in (StandInDriver, CudaDriver))
        assert list(mine.parameters) == list(real.parameters), name
