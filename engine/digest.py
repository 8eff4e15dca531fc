"""What a model is, and what this package is, as one number each: parts of the key of a compiled engine.

Equal digests mean equal work for a builder. The opposite is not promised: a node that was named otherwise gives another
digest, and costs one build.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

_TENSORS = (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)


def graph_digest(model: ir.Model) -> str:
    """Sha256 of a model: nodes, attributes, inner graphs, functions, and every weight's bytes wherever they are stored.

    Shapes are taken of inputs and outputs only; those in between follow from them.
    """
    seen = hashlib.sha256()
    _see_graph(seen, model.graph)
    for _, function in sorted(model.functions.items()):
        _see(seen, *function.identifier())
        _see_attributes(seen, function.attributes)
        _see_graph(seen, function.graph)
    return seen.hexdigest()


@functools.cache
def code_version() -> str:
    """Sha256 of this package's own sources: a graph that is rewritten otherwise is another engine."""
    folder = Path(__file__).parent
    seen = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        seen.update(path.relative_to(folder).as_posix().encode())
        seen.update(path.read_bytes())
    return seen.hexdigest()


def _see_graph(seen: Any, graph: ir.Graph) -> None:
    _see(seen, len(graph), sorted(graph.opset_imports.items()))
    for values in (graph.inputs, graph.outputs):
        _see(seen, [[value.name, str(value.dtype), str(value.shape)] for value in values])
    for name, initializer in sorted(graph.initializers.items()):
        _see(seen, name)
        if initializer.const_value is not None:
            _see_tensor(seen, initializer.const_value)
    for node in graph:
        ends = [[None if value is None else value.name for value in values] for values in (node.inputs, node.outputs)]
        _see(seen, node.domain, node.op_type, node.overload, node.name, *ends, sorted(node.metadata_props.items()))
        _see_attributes(seen, node.attributes)


def _see_attributes(seen: Any, attributes: Mapping[str, ir.Attr]) -> None:
    for name, attribute in sorted(attributes.items()):
        values = attribute.value if isinstance(attribute.value, list | tuple) else (attribute.value,)
        _see(seen, name, str(attribute.type), attribute.ref_attr_name, len(values))
        for value in values:
            if value is not None and attribute.type in _TENSORS:
                _see_tensor(seen, value)
            elif isinstance(value, ir.Graph):
                _see_graph(seen, value)
            else:
                _see(seen, str(value))


def _see_tensor(seen: Any, tensor: ir.TensorProtocol) -> None:
    array = tensor.numpy()
    _see(seen, str(tensor.dtype), array.shape)
    if array.dtype == object:  # strings, of which an array holds addresses
        _see(seen, [str(each) for each in array.flat])
    else:
        seen.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _see(seen: Any, *told: Any) -> None:
    seen.update(json.dumps(told).encode())
