"""Weights that were left out of a plan are put back when it is loaded; with a stand-in for the library's refitter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engine import shipped
from engine.errors import BackendError
from engine.passes.precision import typed
from engine.runtime import tensorrt
from engine.runtime.protocol import Options
from engine.tape import OPSET, Tape
from tests.engine.stand_in_driver import StandInDriver
from tests.engine.test_tensorrt import Library, StandIn


class Refittable(Library):
    """Takes weights by name, as a plan without them does; `wanted` are those that it cannot run without."""

    def __init__(self, driver: StandInDriver, wanted: set[str]) -> None:
        super().__init__(driver)
        self.wanted = wanted
        self.offered: dict[str, np.ndarray] = {}
        self.refitted = False

    class Refitter:
        def __init__(self, engine: Refittable, log: Any) -> None:
            self.engine, self.log = engine, log

        def get_missing_weights(self) -> list[str]:
            return sorted(self.engine.wanted - set(self.engine.offered))

        def refit_cuda_engine(self) -> bool:
            self.engine.refitted = not self.get_missing_weights()
            return self.engine.refitted

    class OnnxParserRefitter:
        def __init__(self, refitter: Refittable.Refitter, log: Any) -> None:
            self.refitter, self.log = refitter, log

        def refit_from_bytes(self, blob: bytes) -> bool:
            for tensor in onnx.load_model_from_string(blob).graph.initializer:
                self.refitter.engine.offered[tensor.name] = onnx.numpy_helper.to_array(tensor)
            missing = self.refitter.get_missing_weights()
            if missing:
                self.log.log(Library.ILogger.ERROR, f"refittable weights are missing: {', '.join(missing)}")
            return not missing


def weighted() -> ir.Model:
    """y = x·w + b, of the shape that the stand-in computes."""
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="g")
    graph.inputs.append(ir.Value(name="x", shape=ir.Shape((2, 3)), type=ir.TensorType(ir.DataType.FLOAT)))
    tape, rng = Tape(graph), np.random.default_rng(0)
    product = tape.MatMul(graph.inputs[0], rng.standard_normal((3, 3)).astype(np.float32))
    y = tape.Add(product, rng.standard_normal(3).astype(np.float32))
    y.name = "y"
    graph.outputs.append(y)
    return ir.Model(graph, ir_version=10)


def stripped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: ir.Model, wanted: set[str]
) -> tuple[StandIn, Refittable, Options]:
    """A backend, and a folder with a stripped plan of `model` in it; a plan that is built here is another."""
    driver = StandInDriver()
    monkeypatch.setattr(tensorrt, "open_driver", lambda index: driver)
    library = Refittable(driver, wanted)
    backend, options = StandIn(library), Options(cache_dir=folder / "cache", shipped=folder / "shipped")
    monkeypatch.setattr(backend, "build", lambda *arguments: b"plan")
    key = backend.key(model, "fp16", options, "sm89")
    shipped.write(folder / "shipped", "a.plan", b"plan", key, {"stripped": True})
    return backend, library, options


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    found = {}
    for name, value in typed(model, "fp16").graph.initializers.items():
        assert value.const_value is not None
        found[name] = value.const_value.numpy()
    return found


def test_every_weight_of_the_typed_graph_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = weighted()
    wanted = weights(model)
    assert {array.dtype for array in wanted.values()} >= {np.dtype(np.float16)}
    backend, library, options = stripped(tmp_path, monkeypatch, model, set(wanted))
    program = backend.compile(model, "fp16", options)
    assert library.refitted
    assert library.offered.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(library.offered[name], array)
        assert library.offered[name].dtype == array.dtype
    assert program.notes == ()


def test_weights_that_are_missing_are_named_and_the_plan_is_built_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = weighted()
    backend, library, options = stripped(tmp_path, monkeypatch, model, {*weights(model), "of_another_model"})
    program = backend.compile(model, "fp16", options)
    assert not library.refitted
    (note,) = program.notes
    assert "of_another_model" in note
    assert not any(name in note for name in weights(model))
    assert "built here" in note


def test_a_plan_that_is_whole_is_not_refitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = weighted()
    backend, library, options = stripped(tmp_path, monkeypatch, model, set())
    backend.compile(model, "fp16", Options(cache_dir=options.cache_dir))
    assert not library.offered


def test_a_stripped_plan_of_the_cache_is_refitted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = weighted()
    backend, library, options = stripped(tmp_path, monkeypatch, model, set(weights(model)))
    options = replace(options, shipped=None, build=replace(options.build, strip=True))
    for _ in range(2):  # built, then found
        library.offered.clear()
        backend.compile(model, "fp16", options)
        assert library.offered.keys() == weights(model).keys()
    library.wanted.add("of_another_model")
    with pytest.raises(BackendError, match="of_another_model"):
        backend.compile(model, "fp16", options)
