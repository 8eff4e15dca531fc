"""Turn a trained student into the two files that are shipped: ``tiny_KIND.onnx`` and its manifest.

Not a general exporter. The graph is traced from the module with dynamic batch, height and width, stripped of
what the tracer says about this machine, and its weights are stored as fp16 behind Cast nodes; every input,
output and computation stays float32.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from export.distill.students import HASTE

OPSET = 20
LICENCE = "Apache-2.0; derived from TAESD (MIT, Ollin Boer Bohan) and LPIPS (BSD-2-Clause, Zhang et al.)"
_STORED_SMALL = 512  # biases and scales of at most this many elements stay float32: fp16 would save nothing


@dataclass(frozen=True)
class Port:
    """How a student meets the outside: the names of its graph's ends and its place in a manifest."""

    kind: str
    input: str
    outputs: tuple[str, ...]
    channels: int
    cell: int
    """Input pixels (or latent cells) that the height and width must be multiples of."""
    minimum: int
    """Smallest height and width."""
    latent_space: str | None
    example: int = 64
    """Height and width of the picture that the graph is traced and checked with."""


ENCODER = Port("encoder", "image", ("latent",), 3, 8, 8, "sd1")
DECODER = Port("decoder", "latent", ("image",), 4, 1, 1, "sd1", example=8)
PERCEPTUAL = Port("perceptual", "image", tuple(f"feature_{k}" for k in range(6)), 3, 1, 17, None)


def trace(module: nn.Module, port: Port) -> ir.Model:
    """The module as an ONNX model with float32 ends and axes named batch, height and width."""
    example = torch.rand(2, port.channels, port.example, port.example + 2 * port.cell)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        module.eval(),
        (example,),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=(dynamic,),
        input_names=[port.input],
        output_names=list(port.outputs),
        verbose=False,
    )
    assert program is not None
    model: ir.Model = program.model
    _strip(model)
    _name_axes(model, port)
    store_half(model)
    return model


def _strip(model: ir.Model) -> None:
    """Remove traces, paths and shapes that the tracer noted down."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.producer_name, model.producer_version = "glaze-trt", None
    model.doc_string = None
    model.graph.name = "tiny"
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for index, node in enumerate(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
        node.name = f"{node.op_type}_{index}"
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in model.graph.outputs:
                value.name = node.name
                value.shape = None


def _name_axes(model: ir.Model, port: Port) -> None:
    (image,) = model.graph.inputs
    image.shape = ir.Shape(["batch", port.channels, "height", "width"])
    for value in model.graph.outputs:
        assert value.shape is not None
        value.shape = ir.Shape(["batch", value.shape[1], f"{value.name}_height", f"{value.name}_width"])


def store_half(model: ir.Model) -> None:
    """Keep the large float32 initialisers as fp16, each behind a Cast to float32."""
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size <= _STORED_SMALL:
            continue
        half = ir.Value(
            name=f"{name}.half",
            type=ir.TensorType(ir.DataType.FLOAT16),
            shape=value.shape,
            const_value=ir.tensor(tensor.numpy().astype(np.float16), name=f"{name}.half"),
        )
        graph.register_initializer(half)
        cast = ir.node("Cast", [half], {"to": int(ir.DataType.FLOAT)}, name=f"{name}.cast")
        widened = cast.outputs[0]
        widened.name = f"{name}.float"
        ir.convenience.replace_all_uses_with(value, widened)
        graph.initializers.pop(name)
        graph.insert_before(graph[0], cast)


def half_weights_(module: nn.Module) -> None:
    """Round in place the weights that will be stored as fp16, so that torch and the file agree."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > _STORED_SMALL:
                parameter.copy_(parameter.half().float())


def load_weights_(module: nn.Module, model: Path) -> None:
    """Take the weights of a student that was written before, in place.

    Raises:
        ValueError: The file holds another network.
    """
    graph = ir.load(model).graph
    stored = {
        name.removesuffix(".half"): torch.from_numpy(value.const_value.numpy().astype(np.float32))
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }
    for name in [name for name in stored if name.startswith("exp")]:  # the exporter has folded exp(HASTE * log_scale)
        stored[f"log_scale.{name.partition('_')[2] or 0}"] = stored[name].log() / HASTE
    wanted = dict(module.named_parameters())
    if any(name not in stored or stored[name].shape != parameter.shape for name, parameter in wanted.items()):
        raise ValueError(f"{model}: not a student of this shape: train without --start")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(stored[name])


def output_error(module: nn.Module, model: bytes, port: Port) -> float:
    """Largest difference between torch and ONNX Runtime relative to the largest output, at a size never traced."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, port.channels, port.example + 3 * port.cell, port.example)
    example = torch.rand(shape, generator=generator)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(list(port.outputs), {port.input: example.numpy()})
    with torch.no_grad():
        expected = module(example)
    tensors: tuple[Tensor, ...] = (expected,) if isinstance(expected, Tensor) else tuple(expected)
    errors = [
        float(np.abs(a - b.numpy()).max() / max(float(b.abs().max()), 1e-12))
        for a, b in zip(found, tensors, strict=True)
    ]
    return max(errors)


def write(module: nn.Module, port: Port, folder: Path, *, source: str, measured: Mapping[str, Any]) -> Path:
    """Write ``tiny_KIND.onnx`` and ``tiny_KIND.json`` into ``folder`` and return the path of the first.

    Args:
        module: The trained student; its weights are rounded to what the file stores.
        port: What kind of model it is.
        folder: Where both files go; made if missing.
        source: What it was distilled from.
        measured: Plain values for the manifest's ``measured`` entry.

    Raises:
        RuntimeError: The written graph does not compute what the module computes.
    """
    half_weights_(module)
    content = ir.to_proto(trace(module, port)).SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    error = output_error(module, content, port)
    if error > 1e-4:
        raise RuntimeError(f"tiny_{port.kind}.onnx differs from the trained module by {error:.1e}: not written")
    weights = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        weights.update(name.encode() + parameter.detach().contiguous().numpy().tobytes())
    manifest = {
        "name": "tiny",
        "kind": port.kind,
        "latent_space": port.latent_space,
        "input_range": [0.0, 1.0] if port.input == "image" else None,
        "scaling_factor": 0.18215 if port.latent_space else None,
        "shift_factor": 0.0 if port.latent_space else None,
        "multiple": port.cell,
        "minimum": port.minimum,
        "source": source,
        "licence": LICENCE,
        "sha256": hashlib.sha256(content).hexdigest(),
        "weights_sha256": weights.hexdigest(),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "versions": {name: version(name).split("+")[0] for name in ("torch", "onnx", "onnx-ir", "onnxscript")},
        "check": {"output_error": float(f"{error:.2e}"), "gradient_error": None},
        "demonstration": True,
        "measured": dict(measured),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"tiny_{port.kind}.onnx"
    replace_file(path, content)
    replace_file(path.with_suffix(".json"), (json.dumps(manifest, indent=2) + "\n").encode())
    return path


def replace_file(path: Path, content: bytes) -> None:
    """Write beside, then rename: a reader sees the old file or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
