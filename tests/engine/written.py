"""Models in ONNX' text form, and ONNX Runtime to run them in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import numpy_helper, parser

from engine.tape import OPSET


def parsed(
    body: str,
    signature: str = "(float[2,3] x) => (float[] y)",
    opset: int = 17,
    functions: str = "",
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """A model of these nodes and functions; `constants` are its initializers."""
    imports = f'opset_import: ["" : {opset}, "local" : 1]'
    model = parser.parse_model(f"<ir_version: 8, {imports}> main {signature} {{ {body} }} {functions}")
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def run(model: onnx.ModelProto | ir.Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def data(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(0.1, 1, shape).astype(np.float32)


def assert_same(model: onnx.ModelProto, canonical: ir.Model, **feeds: np.ndarray) -> None:
    """Canonical in form, and equal in value to the model as it was written."""
    graph = canonical.graph
    onnx.checker.check_model(ir.to_proto(canonical), full_check=True)
    assert graph.opset_imports == {"": OPSET}
    assert not canonical.functions
    names = [node.name for node in graph]
    assert len(set(names)) == len(names)
    assert all(names)
    for node in graph:
        assert node.op_type not in ("Constant", "Shape", "Dropout", "Identity") or node.outputs[0].is_graph_output()
        assert all(
            v.dtype is not None and v.shape is not None and v.shape.is_static() for v in node.outputs if v.uses()
        )
    written = onnx.ModelProto()
    written.CopyFrom(model)
    for node in written.graph.node:
        node.name = ""  # ONNX Runtime refuses repeated names
    want, got = run(written, feeds), run(canonical, feeds)
    assert want.keys() == got.keys()
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
