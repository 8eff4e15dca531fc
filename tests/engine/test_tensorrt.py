"""TensorRT without a GPU: engines are really built by TensorRT-RTX, and the running half meets a stand-in library."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import engine
from engine import shipped
from engine.errors import BackendError
from engine.runtime.driver import open_driver
from engine.runtime.protocol import PRECISIONS, Build, Options, TensorSpec
from engine.runtime.tensorrt import RTX, TensorRt, TensorRtProgram, precisions, short
from engine.runtime.tensorrt_build import build_plan, network_flags
from engine.tape import OPSET, Tape
from tests.engine.stand_in_driver import StandInDriver

ADA = Build(capabilities=("8.9",))

BUILDING = {
    "Builder": "build_serialized_network create_builder_config create_network",
    "IBuilderConfig": "builder_optimization_level clear_flag progress_monitor set_flag set_memory_pool_limit "
    "tiling_optimization_level",
    "OnnxParser": "get_error num_errors parse",
    "ParserError": "desc node_name node_operator",
    "BuilderFlag": "REFIT_IDENTICAL STRIP_PLAN TF32",
    "MemoryPoolType": "WORKSPACE",
    "TilingOptimizationLevel": "FAST FULL MODERATE NONE",
    "IProgressMonitor": "phase_finish phase_start step_complete",
    "OnnxParserRefitter": "refit_from_bytes",
}
RUNNING = {
    "ILogger": "ERROR log",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "create_execution_context create_runtime_config device_memory_size_v2 get_tensor_name "
    "get_tensor_shape num_io_tensors",
    "IExecutionContext": "execute_async_v3 set_device_memory set_tensor_address",
    "IRuntimeConfig": "set_execution_context_allocation_strategy",
    "ExecutionContextAllocationStrategy": "USER_MANAGED",
    "Refitter": "refit_cuda_engine",
}
RTX_ONLY = {
    "IBuilderConfig": "num_compute_capabilities set_compute_capability",
    "ComputeCapability": "CURRENT SM75 SM80 SM86 SM89 SM120",
    "IRuntimeConfig": "create_runtime_cache set_runtime_cache",
    "IRuntimeCache": "deserialize serialize",
    "Runtime": "get_engine_validity",
}


def small() -> ir.Model:
    """Value and gradient of a strided, normalised little network."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="g")
    x = ir.Value(name="x", shape=ir.Shape((1, 3, 16, 16)), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(x)
    tape, rng = Tape(graph), np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) / 8

    y = tape.Relu(tape.Conv(x, weight(8, 3, 3, 3), pads=[1, 1, 1, 1]))
    y = tape.Conv(y, weight(8, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    y = tape.GroupNormalization(y, weight(8), weight(8), num_groups=2)
    y = tape.Conv(tape.Sigmoid(y), weight(4, 8, 1, 1))
    loss = tape.ReduceSum(tape.Mul(y, y), [0, 1, 2, 3], keepdims=0)
    loss.name = "loss"
    graph.outputs.append(loss)
    return engine.value_and_grad(ir.Model(graph, ir_version=10), "loss", ["x"])


@pytest.mark.parametrize("library", ["tensorrt_rtx", "tensorrt_lean"])
def test_every_name_that_is_used_exists(library: str) -> None:
    trt = importlib.import_module(library)
    tables = [RUNNING] if library == "tensorrt_lean" else [BUILDING, RUNNING, RTX_ONLY]
    missing = [
        f"{kind}.{name}"
        for table in tables
        for kind, names in table.items()
        for name in names.split()
        if not hasattr(getattr(trt, kind, None), name)
    ]
    assert missing in ([], ["OnnxParserRefitter.refit_from_bytes"])  # the lean runtime has no parser


def test_networks_are_strongly_typed() -> None:
    trt = importlib.import_module("tensorrt_rtx")
    assert network_flags(trt) == 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert network_flags(SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace())) == 0  # as in 11


@pytest.mark.parametrize("precision", PRECISIONS)
def test_engines_are_built_without_a_gpu(precision: Any) -> None:
    told: list[float] = []
    plan = RTX.build(small(), precision, Options(build=ADA, progress=lambda phase, share: told.append(share)))
    assert len(plan) > 10_000
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_stripping_weights_without_a_gpu_is_refused_and_says_so() -> None:
    try:
        open_driver().close()
    except BackendError:
        with pytest.raises(BackendError, match="only where there is a GPU.*build without"):
            RTX.build(small(), "fp32", Options(build=Build(capabilities=("8.9",), strip=True)))
    else:
        sizes = [len(RTX.build(small(), "fp32", Options(build=Build(strip=strip)))) for strip in (False, True)]
        assert sizes[1] < sizes[0]


def test_what_the_parser_refuses_is_named() -> None:
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="g")
    graph.inputs.append(ir.Value(name="x", shape=ir.Shape((1, 4)), type=ir.TensorType(ir.DataType.FLOAT)))
    node = ir.Node("", "BitShift", [graph.inputs[0], graph.inputs[0]], [ir.AttrString("direction", "LEFT")], name="odd")
    node.outputs[0].name, node.outputs[0].shape = "y", graph.inputs[0].shape
    node.outputs[0].type = graph.inputs[0].type
    graph.append(node)
    graph.outputs.append(node.outputs[0])
    with pytest.raises(BackendError, match=r"BitShift \(node 'odd'\).*--engine"):
        build_plan(RTX.library(), ir.Model(graph, ir_version=10), "fp32", ADA)


@pytest.mark.parametrize(
    ("build", "word"),
    [(Build(capabilities=("3.0",)), "sm89"), (Build(tiling="wild", capabilities=("8.9",)), "moderate")],
)
def test_options_that_the_library_lacks_are_refused_with_those_it_has(build: Build, word: str) -> None:
    with pytest.raises(BackendError, match=word):
        RTX.build(small(), "fp32", Options(build=build))


def test_ctrl_c_ends_a_build() -> None:
    def interrupt(phase: str, share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RTX.build(small(), "fp32", Options(build=ADA, progress=interrupt))


def test_a_library_that_is_not_there_says_what_to_install() -> None:
    with pytest.raises(BackendError, match="pip install something"):
        TensorRt("tensorrt", "no_such_tensorrt", "pip install something", portable=False).version()


def test_what_gpus_compute() -> None:
    assert precisions("sm75") == ("fp16", "fp32")
    assert precisions("12.0")[0] == precisions("8.0")[0] == "mixed"
    assert short("8.9") == short("sm89") == short("89") == "sm89"


def test_the_key_tells_graphs_precisions_and_options_apart() -> None:
    one, options = small(), Options(build=ADA)
    other = small()
    weight = next(v for v in other.graph.initializers.values() if v.const_value is not None and v.const_value.size > 64)
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array.flat[5] += 1e-3
    weight.const_value = ir.tensor(array, name=weight.name)
    keys = [
        RTX.key(one, "fp32", options, "sm89"),
        RTX.key(other, "fp32", options, "sm89"),
        RTX.key(one, "bf16", options, "sm89"),
        RTX.key(one, "fp32", Options(build=Build(capabilities=("8.6",))), "sm89"),
        RTX.key(one, "fp32", Options(build=Build(capabilities=("8.9",), level=5)), "sm89"),
    ]
    assert len({key.digest for key in keys}) == len(keys)
    assert RTX.key(small(), "fp32", options, "sm89") == keys[0]
    assert RTX.key(one, "fp32", Options(), "sm89") == keys[0]  # built for the GPU at hand, or for it by name


def test_shipped_plans_are_found_by_what_they_compute(tmp_path: Path) -> None:
    key = RTX.key(small(), "fp32", Options(build=Build(capabilities=("8.9",), level=5)), "sm89")
    shipped.write(tmp_path, "a.plan", b"plan", key, {"stripped": True})
    wanted = RTX.key(small(), "fp32", Options(), "sm89")
    assert shipped.find(tmp_path, wanted) == shipped.Shipped(b"plan", stripped=True)
    assert shipped.find(tmp_path, RTX.key(small(), "bf16", Options(), "sm89")) is None
    (tmp_path / "a.plan").write_bytes(b"plam")
    with pytest.raises(BackendError, match="damaged"):
        shipped.find(tmp_path, wanted)
    with pytest.raises(BackendError, match="glaze-trt build"):
        shipped.find(tmp_path / "nowhere", wanted)


class Library:
    """As much of TensorRT's runtime as the adapter calls; a step doubles what it reads."""

    __name__, __version__ = "stand_in", "1"

    class ILogger:
        ERROR = 1

    class ExecutionContextAllocationStrategy:
        USER_MANAGED = "user managed"

    num_io_tensors, device_memory_size_v2 = 2, 512

    def __init__(self, driver: StandInDriver) -> None:
        self.driver = driver
        self.calls: list[str] = []
        self.kept = b""

    def Runtime(self, log: object) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda plan: self if plan == b"plan" else None)

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y")[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (2, 3)

    def create_runtime_config(self) -> Any:
        def deserialize(blob: bytes) -> bool:
            self.kept = blob
            return True

        return SimpleNamespace(
            set_execution_context_allocation_strategy=self.calls.append,
            create_runtime_cache=lambda: SimpleNamespace(serialize=lambda: b"kernels", deserialize=deserialize),
            set_runtime_cache=lambda cache: self.calls.append("kernels"),
        )

    def create_execution_context(self, config: object) -> Any:
        addresses: dict[str, int] = {}
        spec = TensorSpec((2, 3), np.dtype(np.float32))

        def execute(stream: int) -> bool:
            def step() -> None:
                self.driver.array(addresses["y"], spec)[...] = 2 * self.driver.array(addresses["x"], spec)

            self.driver.submit(stream, "step", step)
            return True

        return SimpleNamespace(
            set_device_memory=lambda address, size: self.calls.append(f"scratch {address} {size}"),
            set_tensor_address=lambda name, address: addresses.update({name: address}) is None,
            execute_async_v3=execute,
        )


class StandIn(TensorRt):
    def __init__(self, library: Library) -> None:
        super().__init__("stand-in", "stand_in", "nothing to install", portable=True)
        self._library = library

    def library(self) -> Any:
        return self._library


def doubling(shape: tuple[int, ...] = (2, 3), factor: float = 2.0) -> ir.Model:
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="g")
    graph.inputs.append(ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)))
    y = Tape(graph).Mul(graph.inputs[0], factor)
    y.name = "y"
    graph.outputs.append(y)
    return ir.Model(graph, ir_version=10)


def loaded(folder: Path, model: ir.Model, plan: bytes = b"plan") -> tuple[Library, TensorRtProgram]:
    driver = StandInDriver()
    library = Library(driver)
    backend, options = StandIn(library), Options(cache_dir=folder)
    key = backend.key(model, "fp32", options, "sm89")
    return library, TensorRtProgram(backend, driver, plan, key, model, "fp32", None, options)


def test_a_program_shares_its_scratch_memory_and_keeps_its_kernels(tmp_path: Path) -> None:
    library, program = loaded(tmp_path, doubling())
    session = engine.Session(program, {"y": "x"}, {}, {"x": np.ones((2, 3), np.float32)})
    session.advance(7)
    np.testing.assert_array_equal(session.read("x"), np.full((2, 3), 2.0**7))
    assert not program.notes
    scratch = [call for call in library.calls if call.startswith("scratch")]
    assert len(scratch) == 2
    assert len(set(scratch)) == 1
    assert library.calls[0] == "user managed"
    assert "launch" in library.driver.calls
    again, _ = loaded(tmp_path, doubling())
    assert again.kept == b"kernels"


def test_engines_that_are_tuned_to_a_gpu_are_kept_for_that_gpu(tmp_path: Path) -> None:
    driver = StandInDriver()
    tuned = TensorRt("tuned", "tuned", "nothing", portable=False)._gpu(driver)
    assert tuned == "sm89 stand-in GPU"
    assert TensorRt("portable", "portable", "nothing", portable=True)._gpu(driver) == "sm89"
    assert precisions(tuned)[0] == "mixed"


def test_a_plan_of_another_graph_or_none_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"'x' is \(2, 3\) in the plan"):
        loaded(tmp_path, doubling((2, 4)))
    with pytest.raises(BackendError, match="glaze-trt build"):
        loaded(tmp_path, doubling(), plan=b"another")
