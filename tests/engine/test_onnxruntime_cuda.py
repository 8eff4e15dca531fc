"""ONNX Runtime's CUDA provider without a GPU: what it is used for, and its bindings on a processor's addresses."""

from __future__ import annotations

import inspect

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from engine.errors import BackendError
from engine.runtime import onnxruntime_cuda
from engine.runtime.onnxruntime_cuda import OnnxRuntimeCuda, OnnxRuntimeCudaProgram, run_options, session_options
from engine.runtime.protocol import Options
from tests.engine.stand_in_driver import GAIN, StandInDriver, X, check, expected, open_session

EMPTY = ir.Model(ir.Graph([], [], nodes=[], name="g"), ir_version=10)


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (12, 0)])
def test_bf16_is_not_offered_on_any_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(StandInDriver, "capability", capability)
    monkeypatch.setattr(onnxruntime_cuda, "open_driver", lambda index: StandInDriver())
    assert OnnxRuntimeCuda().precisions() == ("fp16", "fp32")


@pytest.mark.parametrize("precision", ["bf16", "mixed"])
def test_bf16_is_refused_before_anything_is_opened(precision: str) -> None:
    with pytest.raises(BackendError, match=f"no {precision} kernels.*--precision fp16 or fp32"):
        OnnxRuntimeCuda().compile(EMPTY, precision, Options())


def test_the_command_that_installs_it_ends_with_one_package_of_the_two() -> None:
    steps = [step.split() for step in OnnxRuntimeCuda.install.split(" && ")]
    assert [step[1] for step in steps] == ["install", "uninstall", "install"]
    assert steps[1][-2:] == ["onnxruntime", "onnxruntime-gpu"]  # a folder that lost files must not pass for installed
    assert steps[2][-1].startswith("'onnxruntime-gpu[")


with_cpu_only = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA"
)


@with_cpu_only
def test_onnxruntime_without_cuda_says_what_to_install():
    backend = OnnxRuntimeCuda()
    with pytest.raises(BackendError, match="pip uninstall -y onnxruntime onnxruntime-gpu && pip install"):
        backend.version()
    with pytest.raises(BackendError, match="pip uninstall -y onnxruntime onnxruntime-gpu && pip install"):
        backend.compile(EMPTY, "fp32", Options())


class OnProcessor(OnnxRuntimeCudaProgram):
    """The same bindings by address and the same run options, where the addresses are the processor's."""

    place = "cpu"

    def __init__(self, driver, model):
        self.driver = driver
        super().__init__(onnxruntime, driver, model, "fp32", {})

    def open(self, ort, blob, provider_options):
        return ort.InferenceSession(blob, providers=["CPUExecutionProvider"])

    def enqueue(self, bound, stream):
        self.driver.submit(stream, "step", lambda: super(OnProcessor, self).enqueue(bound, stream))


@pytest.mark.parametrize("pieces", [(7,), (3, 4, 1)], ids=str)
def test_onnxruntime_runs_on_the_addresses_it_is_given(pieces):
    source = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[2,3] x, float n, float[2,3] gain) => (float[2,3] x_next, float n_next, float[2,3] seen)
    <float half = {0.5}, float one = {1}>
    {
        scaled = Mul(x, half)
        x_next = Add(scaled, gain)
        n_next = Add(n, one)
        seen = Add(x, n)
    }"""
    program = OnProcessor(StandInDriver(), ir.from_onnx_text(source))
    session = open_session(program)
    for n in pieces:
        session.advance(n)
    check(session)
    assert program.driver.calls.count("capture") == 1
    np.testing.assert_array_equal(program({"x": X, "n": np.zeros((), np.float32), "gain": GAIN})["x_next"], expected(1))


def test_onnxruntime_is_told_of_stream_and_device():
    driver = StandInDriver()
    driver.index = 1
    told = OnnxRuntimeCuda(prefer_nhwc=True).provider_options(driver)
    assert told["device_id"] == "1"
    assert told["user_compute_stream"] == str(driver.stream)
    assert (told["prefer_nhwc"], told["use_tf32"]) == ("1", "0")
    assert OnnxRuntimeCuda(use_tf32=True).provider_options(driver)["use_tf32"] == "1"
    assert all(isinstance(value, str) for value in told.values())


def test_onnxruntime_takes_the_options_of_a_session_and_a_run():
    settings = session_options(onnxruntime)
    assert settings.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    options = run_options(onnxruntime)
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
    assert options.get_run_config_entry("gpu_graph_id") == "-1"
    assert {"device_type", "device_id", "element_type", "shape", "buffer_ptr"} <= set(
        inspect.signature(onnxruntime.IOBinding.bind_input).parameters
    )
    assert callable(onnxruntime.preload_dlls)
