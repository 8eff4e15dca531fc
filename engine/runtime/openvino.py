"""OpenVINO on the processor: fp32 everywhere, and bf16 where the processor computes it.

Its `INFERENCE_PRECISION_HINT` lowers a float32 graph to bf16 by itself. What must stay fp32 (nodes whose
`metadata_props` say so, see `protocol.ISLAND`) is marked in `islands.py`. Not here: other OpenVINO devices.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from engine.errors import BackendError
from engine.runtime.host import HostBuffer, HostProgram
from engine.runtime.islands import lowered, mark_islands
from engine.runtime.processor import detect
from engine.runtime.protocol import EMULATE, Options, Precision
from engine.runtime.serial import reason, serialise, signature

"""Environment variable: "1" allows bf16 on a processor that must emulate it (very slow; for tests)."""

_HINT = {"fp32": "f32", "bf16": "bf16"}


class OpenVino:
    """The `Backend`."""

    name = "openvino"
    install = "pip install openvino"
    needs_gpu = False

    def version(self) -> str:
        """Version of OpenVINO, without the build's hash."""
        return str(_import().__version__).split("-")[0]

    def precisions(self, device: int = 0) -> tuple[Precision, ...]:
        """bf16 first where the processor has it."""
        return ("bf16", "fp32") if _computes_bf16(_import()) else ("fp32",)

    def device(self, device: int = 0) -> str:
        """The processor."""
        return detect().name

    def compile(self, model: ir.Model, precision: Precision, options: Options) -> OpenVinoProgram:
        """Compile for the processor.

        Raises:
            BackendError: not installed, the precision is not computed here, or the graph was not accepted.
        """
        ov = _import()
        if precision not in _HINT:
            raise BackendError(f"openvino computes {' or '.join(_HINT)} on a processor, not {precision}")
        if precision == "bf16" and not _computes_bf16(ov) and os.environ.get(EMULATE) != "1":
            raise BackendError(
                f"bf16 would be emulated on {detect().name}, far slower than fp32; "
                f"use precision fp32 or auto (or set {EMULATE}=1 to try it all the same)"
            )
        return OpenVinoProgram(ov, model, precision, options)


class OpenVinoProgram(HostProgram[Any]):
    """A compiled model; every binding is an inference request over numpy memory, and all share one set of weights."""

    def __init__(self, ov: Any, model: ir.Model, precision: Precision, options: Options) -> None:
        inputs, outputs = signature(model)
        super().__init__(OpenVino.name, detect().name, precision, inputs, outputs)
        self._ov = ov
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,  # one step at a time, all threads on it; requests then share one set of activations
            "INFERENCE_PRECISION_HINT": _HINT[precision],
        }
        if options.cache_dir is not None:
            config["CACHE_DIR"] = str(options.cache_dir)
        if options.threads is not None:
            config["INFERENCE_NUM_THREADS"] = options.threads
        try:
            core = _core(ov)
            network = core.read_model(serialise(model)[0])
            islands = mark_islands(core, network, model) if precision == "bf16" else set()
            self._compiled = core.compile_model(network, "CPU", config)
            lost = lowered(self._compiled, islands)
            settled = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        except Exception as error:
            raise BackendError(f"openvino did not compile the graph: {reason(error)}") from error
        if settled != _HINT[precision]:
            raise BackendError(f"openvino settled on {settled} where {precision} was asked for; use precision auto")
        if lost:
            self.notes = (f"openvino computes {len(lost)} fp32 nodes in bf16: {', '.join(lost[:5])}",)
        # Inputs by name, since OpenVINO drops those that nothing reads; outputs by position, since it may merge the
        # names of outputs that are the same tensor.
        self._reads = {name: port for port in self._compiled.inputs for name in port.get_names() if name in inputs}
        self._writes = list(self._compiled.outputs)

    def bind(self, inputs: Mapping[str, HostBuffer], outputs: Mapping[str, HostBuffer]) -> Any:
        """An inference request over the buffers' own memory."""
        request = self._compiled.create_infer_request()
        for name, port in self._reads.items():
            request.set_tensor(port, self._ov.Tensor(inputs[name].array, shared_memory=True))
        for port, name in zip(self._writes, self.outputs, strict=True):
            request.set_tensor(port, self._ov.Tensor(outputs[name].array, shared_memory=True))
        return request

    def run_once(self, bound: Any) -> None:
        """Run one step."""
        try:
            try:
                bound.start_async()  # unlike infer(), builds no Python results
            finally:
                bound.wait()  # whatever interrupts: the request writes into the buffers until it ends
        except Exception as error:
            raise BackendError(f"openvino failed while running: {reason(error)}") from error


@functools.cache
def _core(ov: Any) -> Any:
    """The one Core of this process, never freed.

    Each Core gives the main thread a stack for signals and puts the former one back when it goes. Freed in another
    order than made, they leave a stack that is no longer there, and the next signal, Ctrl-C say, crashes.
    """
    return ov.Core()


def _computes_bf16(ov: Any) -> bool:
    """By the processor's flags; where the system does not show them, by OpenVINO's own list."""
    if detect().features:
        return detect().computes_bf16
    return "BF16" in _core(ov).get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _import() -> Any:
    try:
        return importlib.import_module("openvino")
    except Exception as error:  # a broken wheel raises OSError and more
        raise BackendError(f"openvino cannot be used ({reason(error)}); {OpenVino.install}") from error
