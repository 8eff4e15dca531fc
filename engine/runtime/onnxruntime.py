"""ONNX Runtime on the processor, in fp32: present everywhere, and the reference for the other backends.

Its processor kernels for convolutions have no narrow types, but it can imitate them: it then rounds what an engine with
explicit types would round (see `engine.passes.precision`), slowly. Not here: its CUDA provider.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from engine.errors import BackendError
from engine.passes.precision import typed
from engine.runtime.host import HostBuffer, HostProgram
from engine.runtime.processor import detect
from engine.runtime.protocol import EMULATE, Options, Precision
from engine.runtime.serial import reason, serialise, signature

SHARED_BYTES = 1 << 16
"""Initialisers from this size on are handed over by reference instead of being copied into the serialised graph."""


class OnnxRuntime:
    """The `Backend`."""

    name = "onnxruntime"
    install = "pip install onnxruntime"
    needs_gpu = False

    def version(self) -> str:
        """Version of ONNX Runtime."""
        return str(_import().__version__)

    def precisions(self, device: int = 0) -> tuple[Precision, ...]:
        """Only fp32."""
        return ("fp32",)

    def device(self, device: int = 0) -> str:
        """The processor."""
        return detect().name

    def compile(self, model: ir.Model, precision: Precision, options: Options) -> OnnxRuntimeProgram:
        """Compile in fp32.

        Raises:
            BackendError: not installed, another precision was asked for, or the graph was not accepted.
        """
        if precision != "fp32" and os.environ.get(EMULATE) != "1":
            raise BackendError(
                f"onnxruntime computes fp32 only on a processor, not {precision}; use openvino "
                f"(or set {EMULATE}=1 to imitate it)"
            )
        return OnnxRuntimeProgram(_import(), typed(model, precision, emulate=True), precision, options)


class OnnxRuntimeProgram(HostProgram[Any]):
    """An inference session and IO bindings over numpy memory."""

    def __init__(self, ort: Any, model: ir.Model, precision: Precision, options: Options) -> None:
        inputs, outputs = signature(model)
        super().__init__(OnnxRuntime.name, detect().name, precision, inputs, outputs)
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        settings.intra_op_num_threads = options.threads or 0
        settings.log_severity_level = 3  # errors only: its warnings speak of its own graph passes
        blob, shared = serialise(model, share_from=SHARED_BYTES)
        # The arrays are borrowed for the life of the session, which reads weights from them.
        self._weights = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in shared.items()}
        try:
            if self._weights:
                settings.add_external_initializers(list(self._weights), list(self._weights.values()))
            self._session = ort.InferenceSession(blob, settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"onnxruntime did not compile the graph: {reason(error)}") from error
        self._ort = ort

    def bind(self, inputs: Mapping[str, HostBuffer], outputs: Mapping[str, HostBuffer]) -> Any:
        """An IO binding over the buffers' own memory."""
        binding = self._session.io_binding()
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, self._ort.OrtValue.ortvalue_from_numpy(buffer.array))
        for name, buffer in outputs.items():
            spec, address = buffer.spec, buffer.array.ctypes.data
            binding.bind_output(name, "cpu", 0, spec.dtype.type, spec.shape, address)
        return binding

    def run_once(self, bound: Any) -> None:
        """Run one step."""
        try:
            self._session.run_with_iobinding(bound)
        except Exception as error:
            raise BackendError(f"onnxruntime failed while running: {reason(error)}") from error


def _import() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except Exception as error:  # a broken wheel raises OSError and more
        raise BackendError(f"onnxruntime cannot be used ({reason(error)}); {OnnxRuntime.install}") from error
