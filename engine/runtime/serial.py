"""From an `onnx_ir.Model` to what backends read: an ONNX file's bytes, and the specs of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from engine.errors import BackendError, DynamicShapeError, InvalidModelError
from engine.runtime.protocol import Array, TensorSpec

_LARGEST_PROTOBUF = 2**31 - 1


def signature(model: ir.Model) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Specs of all inputs and outputs, in the graph's order.

    Raises:
        DynamicShapeError: a dimension is not a number.
        InvalidModelError: a value has no name, no type or no shape.
    """
    initializers = model.graph.initializers
    inputs = [value for value in model.graph.inputs if value.name not in initializers]
    return _specs(inputs, "input"), _specs(model.graph.outputs, "output")


def _specs(values: Iterable[ir.Value], role: str) -> dict[str, TensorSpec]:
    specs: dict[str, TensorSpec] = {}
    for value in values:
        if not value.name:
            raise InvalidModelError(f"the graph has an {role} without a name; name it before compiling")
        if value.dtype is None or value.shape is None:
            raise InvalidModelError(f"{role} {value.name!r} has no type or no shape; run engine.load on the model")
        dims = list(value.shape)
        for axis, dim in enumerate(dims):
            if not isinstance(dim, int):
                raise DynamicShapeError(
                    f"{role} {value.name!r} has an unknown axis {axis} ({dim}); compiled programs are static: "
                    f"pin it with engine.load(model, shapes={{{value.name!r}: [...]}})"
                )
        specs[value.name] = TensorSpec(tuple(int(dim) for dim in dims if isinstance(dim, int)), value.dtype.numpy())
    return specs


def serialise(model: ir.Model, share_from: int | None = None) -> tuple[bytes, dict[str, Array]]:
    """The model as the bytes of an ONNX file.

    Args:
        model: left unchanged.
        share_from: initialisers of at least this many bytes are left out of the bytes (marked as external data)
            and returned as arrays by name instead; None puts everything in.

    Raises:
        BackendError: the bytes would exceed protobuf's limit of 2 GiB.
    """
    held: dict[str, ir.TensorProtocol] = {}
    if share_from is not None:
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes >= share_from:
                held[name] = tensor
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    size -= sum(tensor.nbytes for tensor in held.values())
    if size > _LARGEST_PROTOBUF:
        raise BackendError(f"the graph holds {size / 2**30:.1f} GiB of weights; ONNX files end at 2 GiB")
    try:
        for name in held:
            model.graph.initializers[name].const_value = _placeholder(name, held[name])
        proto = ir.to_proto(model)
    finally:
        for name, tensor in held.items():
            model.graph.initializers[name].const_value = tensor
    return proto.SerializeToString(), {name: np.asarray(tensor.numpy(), order="C") for name, tensor in held.items()}


def _placeholder(name: str, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    """Stands for a tensor that is handed to the backend by name; its location is never opened."""
    return ir.ExternalTensor("memory", 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)


def reason(error: BaseException, limit: int = 300) -> str:
    """A backend's own words on one line, for the end of a message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
