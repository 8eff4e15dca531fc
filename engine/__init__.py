"""Differentiable, mixed-precision, compiled engines from ONNX graphs.

Any static ONNX graph in; out come its value and input gradients as one ONNX graph (`value_and_grad`), or a forward
and backward pair (`companion`), compiled for the processor at hand (`compile`) and stepped without host work
(`Session`). Knows nothing of pictures or cloaks.
"""

from __future__ import annotations

from engine.autodiff import backward
from engine.errors import BackendError, DynamicShapeError, EngineError, InvalidModelError, UnsupportedOpError
from engine.gradient import companion, value_and_grad
from engine.passes.canonical import load
from engine.runtime import PRECISIONS, Options, Precision, Program, Session, TensorSpec, available_engines, compile
from engine.tape import Tape

__all__ = [
    "PRECISIONS",
    "BackendError",
    "DynamicShapeError",
    "EngineError",
    "InvalidModelError",
    "Options",
    "Precision",
    "Program",
    "Session",
    "Tape",
    "TensorSpec",
    "UnsupportedOpError",
    "available_engines",
    "backward",
    "companion",
    "compile",
    "load",
    "value_and_grad",
]
