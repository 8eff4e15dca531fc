"""Every gradient rule against central differences in float64, torch, ONNX Runtime, OpenVINO and TensorRT-RTX."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import openvino
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as OperatorMissing

import tests.engine
from engine import load, value_and_grad
from engine.passes.decompose import DECOMPOSITIONS
from engine.passes.lower import LOWERINGS
from engine.tape import dims, is_float
from engine.vjp import RULES
from tests.engine.case import Built, Case, build
from tests.engine.reference import run as run_reference

FAMILIES: dict[str, list[Case]] = {
    name.removeprefix("cases_"): importlib.import_module(f"tests.engine.{name}").CASES
    for _, name, _ in pkgutil.iter_modules(tests.engine.__path__)
    if name.startswith("cases_")
}
CASES = [case for cases in FAMILIES.values() for case in cases]


def each(wanted: Callable[[Case], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [c for c in CASES if wanted(c)], ids=lambda case: case.id)


def projected(case: Case, dtype: ir.DataType) -> tuple[Built, list[np.ndarray]]:
    """The case with one more output, `loss`: its floating outputs, each times a random array, summed."""
    built = build(case, dtype)
    graph = built.model.graph
    canonical_outputs = load(built.model).graph.outputs
    for written, canonical in zip(graph.outputs, canonical_outputs, strict=True):
        written.type = canonical.type
    shapes = [(v, dims(v)) for v in canonical_outputs if is_float(v)]
    random = np.random.default_rng(1)
    projections, loss = [], None
    for position, (canonical, shape) in enumerate(shapes):
        array = random.uniform(-1, 1, shape).astype(dtype.numpy())
        projections.append(array)
        tensor = ir.tensor(array, name=f"projection_{position}")
        weight = ir.Value(name=tensor.name, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(weight)
        output = next(v for v in graph.outputs if v.name == canonical.name)
        product = ir.Node("", "Mul", [output, weight], name=f"project_{position}")
        total = ir.Node("", "ReduceSum", [product.outputs[0]], {"keepdims": ir.AttrInt64("keepdims", 0)})
        total.name = f"total_{position}"
        graph.extend([product, total])
        if loss is not None:
            both = ir.Node("", "Add", [loss, total.outputs[0]], name=f"both_{position}")
            graph.append(both)
            loss = both.outputs[0]
        else:
            loss = total.outputs[0]
    assert loss is not None
    loss.name, loss.type, loss.shape = "loss", ir.TensorType(dtype), ir.Shape(())
    graph.outputs.append(loss)
    return built, projections


def differentiated(case: Case, dtype: ir.DataType) -> tuple[Built, onnx.ModelProto, list[np.ndarray]]:
    built, projections = projected(case, dtype)
    return built, ir.to_proto(value_and_grad(built.model, "loss", built.wrt)), projections


@cache
def single(index: int) -> tuple[Built, onnx.ModelProto, list[np.ndarray]]:
    """The fp32 gradient model of `CASES[index]`; several tests look at it."""
    return differentiated(CASES[index], ir.DataType.FLOAT)


@cache
def double(index: int) -> tuple[Built, onnx.ModelProto, list[np.ndarray]]:
    """The float64 gradient model of `CASES[index]`."""
    return differentiated(CASES[index], ir.DataType.DOUBLE)


@cache
def reference(index: int) -> tuple[Built, dict[str, np.ndarray]]:
    """Every output of that, on the fp32 data."""
    built, proto, _ = double(index)
    return built, run_reference(proto, built.feeds)


def run_onnxruntime(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    known = {i.name for i in session.get_inputs()}
    return dict(zip(names, session.run(names, {n: a for n, a in feeds.items() if n in known}), strict=True))


@cache
def openvino_core() -> openvino.Core:
    return openvino.Core()


def run_openvino(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    core = openvino_core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(proto.SerializeToString()), "CPU", settings)
    request = compiled.create_infer_request()
    for port in compiled.inputs:
        request.set_tensor(port, openvino.Tensor(np.require(feeds[port.any_name], requirements="C")))
    request.infer()
    return {o.name: request.get_output_tensor(i).data.copy() for i, o in enumerate(proto.graph.output)}


def assert_close(got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray], tolerance: float) -> None:
    for name, expected in want.items():
        if name == "loss":  # a sum that may cancel
            continue
        assert got[name].shape == expected.shape, name
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(got[name], expected, err_msg=name)
            continue
        scale = float(np.abs(expected).max(initial=0)) + 1e-3
        error = float(np.abs(got[name].astype(np.float64) - expected).max(initial=0)) / scale
        assert error < tolerance, f"{name}: relative error {error:.1e}\ngot {got[name]}\nwant {expected}"


def index_of(case: Case) -> int:
    return CASES.index(case)


@each(lambda c: c.differences)
def test_gradient_equals_central_differences(case: Case) -> None:
    """One random direction: (f(x + hv) − f(x − hv)) / 2h = ⟨∇f, v⟩."""
    built, outputs = reference(index_of(case))
    feeds, proto = built.feeds, double(index_of(case))[1]
    random = np.random.default_rng(2)
    step, slope, scale = 1e-6, 0.0, 1e-6
    directions = {n: random.uniform(-1, 1, feeds[n].shape) for n in built.wrt}
    for name, direction in directions.items():
        slope += float(np.vdot(outputs[f"grad:{name}"], direction))
        scale += float(np.linalg.norm(outputs[f"grad:{name}"]))
    up, down = (
        float(run_reference(proto, {**feeds, **{n: feeds[n] + s * step * d for n, d in directions.items()}})["loss"])
        for s in (1, -1)
    )
    assert abs((up - down) / (2 * step) - slope) < 1e-6 * scale


@each(lambda c: c.as_written)
def test_outputs_are_those_of_the_model_as_written(case: Case) -> None:
    built, _ = projected(case, ir.DataType.FLOAT)
    try:
        got = run_onnxruntime(ir.to_proto(built.model), built.feeds)
    except OperatorMissing:
        pytest.skip("ONNX Runtime lacks the operator")
    ours = reference(index_of(case))[1]
    assert_close(got, {name: ours[name] for name in got}, case.tolerance)


@each(lambda c: "onnxruntime" in c.engines)
def test_onnxruntime_agrees_with_float64(case: Case) -> None:
    built, proto, _ = single(index_of(case))
    onnx.checker.check_model(proto)
    assert_close(run_onnxruntime(proto, built.feeds), reference(index_of(case))[1], case.tolerance)


@each(lambda c: "openvino" in c.engines)
def test_openvino_agrees_with_float64(case: Case) -> None:
    built, proto, _ = single(index_of(case))
    assert_close(run_openvino(proto, built.feeds), reference(index_of(case))[1], case.tolerance)


@each(lambda c: c.torch is not None)
def test_torch_agrees_with_float64(case: Case) -> None:
    """Outputs and gradients of the float64 model against torch's, in float64 too."""
    assert case.torch is not None
    built, ours = reference(index_of(case))
    projections = single(index_of(case))[2]
    arguments, leaves = [], {}
    for name, data in built.arguments:
        tensor = torch.tensor(data)
        if name in built.wrt:
            leaves[name] = tensor.requires_grad_()
        arguments.append(tensor)
    result = case.torch(*arguments)
    outputs: Sequence[Any] = [result] if isinstance(result, torch.Tensor) else result
    loss = sum((o * torch.tensor(p.astype(np.float64))).sum() for o, p in zip(outputs, projections, strict=True))
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    want = {f"out_{i}": o.detach().numpy() for i, o in enumerate(outputs)}
    want |= {f"grad:{n}": g.numpy() for n, g in zip(leaves, gradients, strict=True)}
    assert_close(ours, want, 1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tensorrt_builds(family: str, precision: str) -> None:
    """All of a family's gradient models as one network; if that fails, each alone, to name the culprits."""
    pytest.importorskip("tensorrt_rtx")
    models = {}
    for case in FAMILIES[family]:
        if "tensorrt" in case.engines and (case.half or precision == "fp32"):
            proto = single(index_of(case))[1]
            models[case.id] = proto if precision == "fp32" else in_bfloat16(proto)
    if tensorrt_complaint(side_by_side(list(models.values()))) is not None:
        complaints = {name: tensorrt_complaint(proto) for name, proto in models.items()}
        pytest.fail("\n".join(f"{name}: {text}" for name, text in complaints.items() if text is not None))


def in_bfloat16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Every fp32 tensor in bf16; the scales of a Resize stay what the standard wants."""
    model = ir.from_proto(proto)
    graph = model.graph
    fixed = {v for n in graph if n.op_type == "Resize" for v in n.inputs[1:3] if v is not None}
    for name, value in list(graph.initializers.items()):
        assert value.const_value is not None
        if value.dtype is ir.DataType.FLOAT and value not in fixed:
            array = value.const_value.numpy().astype(ir.DataType.BFLOAT16.numpy())
            value.const_value = ir.tensor(array, name=name)
            value.type = ir.TensorType(ir.DataType.BFLOAT16)
    for value in (*graph.inputs, *(v for n in graph for v in n.outputs)):
        if value.dtype is ir.DataType.FLOAT:
            value.type = ir.TensorType(ir.DataType.BFLOAT16)
    for node in graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.FLOAT:
            node.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.BFLOAT16))
    return ir.to_proto(model)


def side_by_side(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """One model that holds all of `models`, each under a prefix."""
    parts = [onnx.compose.add_prefix(proto, f"case{i}/") for i, proto in enumerate(models)]
    whole = onnx.ModelProto()
    whole.CopyFrom(parts[0])
    for part in parts[1:]:
        for field in ("node", "initializer", "input", "output", "value_info"):
            getattr(whole.graph, field).extend(getattr(part.graph, field))
    return whole


def tensorrt_complaint(proto: onnx.ModelProto) -> str | None:
    """What TensorRT-RTX says against a model, or None if it builds an engine from it."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(proto.SerializeToString()):
        return "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
    config = builder.create_builder_config()
    return None if builder.build_serialized_network(network, config) is not None else "does not build"


@each(lambda c: True)
def test_only_operators_that_every_engine_takes(case: Case) -> None:
    """No transposed convolution, no scatter that adds, no second output of a pooling or a normalisation."""
    refused = {"ConvTranspose", "MaxUnpool", "Attention", "GroupNormalization", "Einsum"}
    for node in single(index_of(case))[1].graph.node:
        assert node.op_type not in refused
        assert not (node.op_type.startswith(("MaxPool", "LayerNorm")) and len(node.output) > 1)
        assert not (node.op_type.startswith("Scatter") and any(a.name == "reduction" for a in node.attribute))


def test_every_rule_is_covered() -> None:
    seen: set[str] = set()
    for case in CASES:
        model = build(case).model
        seen.update(node.op_type for node in model.graph)
        seen.update(node.op_type for node in load(model).graph)
    assert not (RULES.keys() | DECOMPOSITIONS.keys() | LOWERINGS.keys()) - seen
