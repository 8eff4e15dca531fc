"""Small graphs for programs and sessions: a descent step that carries its state, and what writes others as short."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from engine.runtime import Session
from engine.runtime.protocol import ISLAND

SHAPE = (1, 16, 24, 24)
RATE = 1e-4


def make_model(nodes, inputs, outputs, constants, islands=(), opset=23) -> ir.Model:
    def info(table):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in table.items()]

    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", info(inputs), info(outputs), tensors)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))
    for node in model.graph:
        if node.outputs[0].name in islands:
            node.metadata_props[ISLAND] = "fp32"
    return model


def kernel(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((16, 16, 3, 3)).astype(np.float32) / 12


def image(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE, np.float32)


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


def step_model(rate: float = RATE) -> ir.Model:
    """One descent step on sum((conv(x + d) - t)^2) / 2, whose gradient is a transposed convolution."""
    weights = kernel()
    turned = weights.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1].copy()
    nodes = [
        node("Add", "x d", "xd"),
        node("Conv", "xd w", "f", pads=[1] * 4),
        node("Sub", "f t", "r"),
        node("Mul", "r r", "r2"),
        node("ReduceSum", "r2", "loss", keepdims=0),
        node("Conv", "r wt", "g", pads=[1] * 4),
        node("Mul", "g rate", "move"),
        node("Sub", "d move", "d_next"),
        node("Add", "n one", "n_next"),
        node("Identity", "keep", "keep_next"),
    ]
    return make_model(
        nodes,
        {"x": SHAPE, "t": SHAPE, "d": SHAPE, "n": (), "keep": SHAPE},
        {"loss": (), "d_next": SHAPE, "n_next": (), "keep_next": SHAPE},
        {"w": weights, "wt": turned, "rate": np.float32(rate), "one": np.float32(1)},
        islands={"xd", "r", "r2", "loss", "move", "d_next"},
    )


def open_session(program, keep=None, seed: int = 1) -> Session:
    zero = np.zeros(SHAPE, np.float32)
    return Session(
        program,
        carry={"d_next": "d", "n_next": "n", "keep_next": "keep"},
        constants={"x": image(seed), "t": image(seed + 1)},
        state={"d": zero, "n": np.zeros((), np.float32), "keep": zero if keep is None else keep},
    )
