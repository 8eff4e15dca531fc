"""ONNX Runtime on an NVIDIA GPU, through its CUDA provider; the types are written into the graph.

In fp32 and fp16 only: of bf16 its kernels lack what steps are full of (Pad, MaxPool, Resize, Clip, DepthToSpace, Equal
and the other comparisons), and a graph with casts around each of these would be slower than in fp16.

Steps are captured by `cuda`, not by ONNX Runtime: its own graphs cannot take turns between two sets of buffers without
the processor. Yet its graph mode is on, with its own captures switched off run by run, for what else the mode does. It
refuses a graph of which any node would run on the processor; and kernels that hand their arguments over through
page-locked memory, which is reused after the run and would be stale in a replay, then wait for the stream, so that
capturing them fails and steps are enqueued one by one. Without it they would be captured, and go wrong.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from engine.errors import BackendError
from engine.passes.precision import typed
from engine.runtime.cuda import CudaProgram, DeviceBuffer
from engine.runtime.driver import Driver, open_driver, precisions
from engine.runtime.protocol import Options, Precision, TensorSpec
from engine.runtime.serial import reason, serialise, signature

PROVIDER = "CUDAExecutionProvider"

_LIBRARIES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"

_PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32")


class OnnxRuntimeCuda:
    """The `Backend`.

    Attributes:
        prefer_nhwc: have convolutions computed with channels innermost.
        install: replaces the package for processors, which has the same folder, and comes back with ours.
        use_tf32: let fp32 convolutions and matrix products round their factors to 10 bits, on Ampere and later.
    """

    name = "onnxruntime-cuda"
    install = f"pip install cuda-core cuda-bindings && pip uninstall -y onnxruntime onnxruntime-gpu && {_LIBRARIES}"
    needs_gpu = True

    def __init__(self, prefer_nhwc: bool = False, use_tf32: bool = False) -> None:
        self.prefer_nhwc = prefer_nhwc
        self.use_tf32 = use_tf32

    def version(self) -> str:
        """Version of ONNX Runtime; whether there is a GPU is for `device` to say."""
        return str(self.library().__version__)

    def library(self) -> Any:
        """The Python module.

        Raises:
            BackendError: it is not installed, or was built without CUDA.
        """
        try:
            ort = importlib.import_module("onnxruntime")
        except Exception as error:  # a broken wheel raises OSError and more
            raise BackendError(f"{self.name} cannot be used ({reason(error)}); {self.install}") from error
        if PROVIDER not in ort.get_available_providers():
            raise BackendError(
                f"{self.name} cannot be used (onnxruntime {ort.__version__} here has no CUDA in it); {self.install}"
            )
        return ort

    def precisions(self, device: int = 0) -> tuple[Precision, ...]:
        """What the GPU at hand computes, of what this backend does."""
        with contextlib.closing(open_driver(device)) as driver:
            return tuple(known for known in precisions(driver.capability) if known in _PRECISIONS)

    def device(self, device: int = 0) -> str:
        """The GPU."""
        with contextlib.closing(open_driver(device)) as driver:
            return driver.name

    def compile(self, model: ir.Model, precision: Precision, options: Options) -> OnnxRuntimeCudaProgram:
        """Compile.

        Raises:
            BackendError: no ONNX Runtime with CUDA, no GPU, bf16, or a graph that CUDA does not take whole.
        """
        if precision not in _PRECISIONS:
            raise BackendError(
                f"{self.name} has no {precision} kernels for whole steps; choose --precision fp16 or fp32"
            )
        ort = self.library()
        driver = open_driver(options.device)
        try:
            return OnnxRuntimeCudaProgram(ort, driver, model, precision, self.provider_options(driver))
        except BaseException:
            driver.close()
            raise

    def provider_options(self, driver: Driver) -> dict[str, str]:
        """What the CUDA provider is told."""
        return {
            "device_id": str(driver.index),
            "user_compute_stream": str(driver.stream),
            "do_copy_in_default_stream": "1",  # on that same stream
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "cudnn_conv_use_max_workspace": "1",
            "prefer_nhwc": str(int(self.prefer_nhwc)),
            "use_tf32": str(int(self.use_tf32)),
            "enable_cuda_graph": "1",  # see the head of this file
        }


class OnnxRuntimeCudaProgram(CudaProgram[Any]):
    """An inference session and IO bindings over device addresses."""

    place = "cuda"

    def __init__(
        self, ort: Any, driver: Driver, model: ir.Model, precision: Precision, provider_options: Mapping[str, str]
    ) -> None:
        """Open a session on the driver's stream; `model` is in fp32 and is left unchanged."""
        inputs, outputs = signature(model)
        super().__init__(driver, OnnxRuntimeCuda.name, precision, inputs, outputs)
        self._device_id = driver.index
        blob, _ = serialise(typed(model, precision) if precision != "fp32" else model)
        driver.attach()
        try:
            self._session = self.open(ort, blob, provider_options)
        except BackendError:
            raise
        except Exception as error:
            raise BackendError(
                f"onnxruntime did not compile the graph for {driver.name}: {reason(error)}. "
                f"If libraries of CUDA or cuDNN are missing: {_LIBRARIES}"
            ) from error
        self._run_options = run_options(ort)

    def open(self, ort: Any, blob: bytes, provider_options: Mapping[str, str]) -> Any:
        """A session on the GPU, and on nothing else."""
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it did not find
            ort.preload_dlls()
        providers = [(PROVIDER, dict(provider_options))]
        session = ort.InferenceSession(blob, session_options(ort), providers=providers, enable_fallback=0)
        if session.get_providers()[:1] != [PROVIDER]:
            raise BackendError(f"onnxruntime passed over {self.device}, for want of libraries it seems; {_LIBRARIES}")
        return session

    def bind(self, inputs: Mapping[str, DeviceBuffer], outputs: Mapping[str, DeviceBuffer]) -> Any:
        """An IO binding over the buffers' addresses."""
        binding = self._session.io_binding()
        for name, buffer in inputs.items():
            binding.bind_input(name, *self._place(buffer.spec), buffer.address)
        for name, buffer in outputs.items():
            binding.bind_output(name, *self._place(buffer.spec), buffer.address)
        return binding

    def enqueue(self, bound: Any, stream: int) -> None:
        """One step, on the stream that the session was opened with."""
        try:
            self._session.run_with_iobinding(bound, self._run_options)
        except Exception as error:
            raise BackendError(f"onnxruntime failed while running: {reason(error)}") from error

    def _place(self, spec: TensorSpec) -> tuple[str, int, Any, tuple[int, ...]]:
        return self.place, self._device_id, spec.dtype.type, spec.shape


def session_options(ort: Any) -> Any:
    """No node may fall to the processor, silently or not."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3  # errors only: its warnings speak of its own graph passes
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return settings


def run_options(ort: Any) -> Any:
    """A run is enqueued and not waited for, and ONNX Runtime captures nothing itself."""
    options = ort.RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options
