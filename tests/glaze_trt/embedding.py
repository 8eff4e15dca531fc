"""A face embedding of the tests' own, a bare .onnx file of one fixed size, and what it says by ONNX Runtime alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from engine.tape import OPSET, Tape

SIDE = 32


def embedding(folder: Path, name: str = "face", seed: int = 0) -> Path:
    """Two convolutions and a product: `face` (1, 3, 32, 32) in [0,1] to `embedding` (1, 12); the file's path."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)

    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name=name)
    graph.inputs.append(
        ir.Value(name="face", shape=ir.Shape((1, 3, SIDE, SIDE)), type=ir.TensorType(ir.DataType.FLOAT))
    )
    tape = Tape(graph)
    x = tape.Mul(tape.Sub(graph.inputs[0], 0.5), 4.0)
    x = tape.Tanh(tape.Conv(x, 2 * normal(8, 3, 4, 4), strides=[4, 4]))
    x = tape.Tanh(tape.Conv(x, 2 * normal(16, 8, 4, 4), strides=[2, 2]))
    flat = tape.Reshape(x, np.array([1, 16 * 9], np.int64))
    result = tape.MatMul(flat, normal(12, 16 * 9).T.copy())
    result.name = "embedding"
    graph.outputs.append(result)
    path = folder / f"{name}.onnx"
    ir.save(ir.Model(graph, ir_version=10), path)
    return path


def embed(path: Path, levels: NDArray[np.uint8], box: tuple[int, int, int, int] | None = None) -> NDArray[np.float64]:
    """The embedding of a picture or of a box (x, y, width, height) of it, (12,) of length 1."""
    found = embed_raw(path, levels, box)
    return found / np.linalg.norm(found)


def embed_raw(
    path: Path, levels: NDArray[np.uint8], box: tuple[int, int, int, int] | None = None
) -> NDArray[np.float64]:
    """The same as the network gives it."""
    x, y, w, h = box or (0, 0, levels.shape[1], levels.shape[0])
    face = Image.fromarray(levels[y : y + h, x : x + w]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    image = np.asarray(face, np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"face": image})[0][0], np.float64)
