"""From a torch module to a tidy ONNX model with free batch, height and width. Not an optimizer: `engine.passes` is."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
import torch

from export.network import Network

OPSET = 22
"""The first with bfloat16 convolutions; `Attention` and other operators that few engines take come after it."""


def trace(network: Network) -> ir.Model:
    """The network's graph, float32 at both ends, axes named `batch`, `height` and `width`."""
    # Odd multiples, all different, so that no two axes are taken for the same one and none for a constant.
    example = torch.rand(2, network.channels, 9 * network.cell, 11 * network.cell)
    free = {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    with _quiet():
        program = torch.onnx.export(
            network.module.float().eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=(free,),
            input_names=[network.input],
            output_names=list(network.outputs),
            verbose=False,
        )
    assert program is not None
    return tidy(program.model, network.stem)


def tidy(model: ir.Model, name: str) -> ir.Model:
    """Drop what the tracer noted for itself, and give nodes, values and axes plain names.

    Shapes inside the graph go too: they are expressions over the tracer's symbols, and whoever pins the axes
    infers them anew.
    """
    graph = model.graph
    ends = {*graph.inputs, *graph.outputs}
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.producer_name, model.producer_version, model.doc_string = "glaze-trt", None, None
    graph.name, graph.doc_string = name, None
    for value in (*ends, *graph.initializers.values()):
        value.metadata_props.clear()
    for index, node in enumerate(graph):
        node.metadata_props.clear()
        node.doc_string = None
        node.name = f"{node.op_type}_{index}"
        for position, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if value not in ends:
                value.name = f"{node.name}:{position}" if position else node.name
                value.shape = None
    for value in graph.inputs:
        _name_axes(value, "height", "width")
    for value in graph.outputs:
        _name_axes(value, f"{value.name}_height", f"{value.name}_width")
    return model


def _name_axes(value: ir.Value, height: str, width: str) -> None:
    if value.shape is not None and len(value.shape) == 4:
        names: list[str | int] = ["batch", str(value.shape[1]), height, width]
        value.shape = ir.Shape(
            [axis if isinstance(axis, int) else name for axis, name in zip(value.shape, names, strict=True)]
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracer warns of its own deprecations, and logs each decomposition it skips: nothing a person can act on."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
