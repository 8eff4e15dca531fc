"""fp32 islands under OpenVINO's bf16 hint: which nodes its processor plugin must leave in float32.

The plugin lowers every node except the graph's tail: what leads to an output with no convolution or matrix product
between. The tail is fp32 by itself, and better left unmarked: a convolution before it then gives its sum in fp32,
where a marked node is handed the sum rounded to bf16.

Elsewhere, a node with the run-time attribute `DisablePrecisionConversion` is left alone, and so is what it is merged
with in one kernel. Python can neither construct that attribute nor write it by value, but an IR file can hold one,
and `Node.set_rt_info` takes what another node's `get_rt_info` gave: one is read from a small IR and handed to every
node of an island. The mark is lost where the plugin replaces a node, so ops that it always replaces are either kept
from it by another attribute or handed to it in the form it would turn them into (`_settle`). For what is left,
`lowered` looks at the compiled graph and names the nodes that are in bf16 all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.errors import BackendError
from engine.runtime.protocol import ISLAND
from engine.runtime.streams import streams

_KEY = "DisablePrecisionConversion_0"

# The plugin asks whether conversion to f16 is disabled, whatever the lower precision really is; bf16 is named too
# for versions that ask for it.
_CARRIER = b"""<net name="carrier" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<rt_info><attribute name="DisablePrecisionConversion" version="0" value="dynamic:f16,bf16"/></rt_info>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="y" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"""

# Attributes that keep a node from being replaced: a / b by a * b**-1, a - b by a + -1 * b, an op on a
# constant by a constant. Their presence counts, not their value.
_GUARDS = {"Divide": "nonconvertable_divide_0", "Subtract": "dequantization_node_0"}
_UNFOLDED = "DisableConstantFolding_0"

_MATRIX_TYPES = {"Convolution", "Deconvolution", "MatMul", "FullyConnected"}  # in a compiled graph's words
_TAIL_ENDS = {  # in a model's words: where the plugin stops on its way back from the outputs
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
    "Interpolate",
}

_CHANNELS = 4  # of a picture, or a latent, at most
_POINTWISE = ("Add", "Clamp", "Divide", "Multiply", "Pad", "Subtract")  # what may happen to it before a convolution


def mark_islands(core: Any, network: Any, model: ir.Model) -> set[str]:
    """Mark in `network` (an `openvino.Model` read from `model`) every node that `model` wants in fp32.

    So is the way of a picture from an input into a convolution, and that convolution: it costs next to nothing with
    three channels, and small changes of a picture drown in bf16, whose numbers are 1/256 apart below 1.

    Returns:
        The friendly names of all nodes to be kept in fp32, for `lowered`.

    Raises:
        BackendError: this OpenVINO knows no such mark.
    """
    names = {
        output.name
        for node in model.graph
        if node.metadata_props.get(ISLAND) == "fp32"
        for output in node.outputs
        if output.name
    }
    pictures = _pictures(network)
    if not names and not pictures:
        return set()
    carrier = core.read_model(_CARRIER)
    info = dict(carrier.get_parameters()[0].get_rt_info().items())
    if _KEY not in info:
        if not names:
            return set()
        raise BackendError("this openvino cannot keep chosen nodes in fp32; install openvino 2026.4 or later")
    tail = _tail(network)
    island = _islands(network, names)
    wanted = {node.get_friendly_name() for node in island}
    marked = [node for node in island if node.get_friendly_name() not in tail]
    reading = streams(marked)
    for node in marked:
        for part in _settle(node) if node.get_friendly_name() not in reading else ():
            part.set_rt_info(info[_KEY], _KEY)
    for node in pictures:
        if node.get_friendly_name() not in wanted | tail:
            for part in _settle(node):
                part.set_rt_info(info[_KEY], _KEY)
    return wanted - reading


def lowered(compiled: Any, names: Iterable[str]) -> list[str]:
    """Nodes to be kept in fp32 that the compiled model computes in bf16 all the same, by friendly name.

    Not counted: what runs inside a convolution, a matrix product or a sum with an fp32 result, which compute in fp32
    whatever they read.
    """
    wanted = set(names)
    found: set[str] = set()
    if wanted:
        for node in compiled.get_runtime_model().get_ops():
            info = {key: value.astype(str) for key, value in node.get_rt_info().items() if key in _EXECUTED}
            kind, precision = info.get("layerType"), info.get("runtimePrecision")
            if kind == "Reduce":
                precision = info.get("outputPrecisions") if precision == "bf16" else precision
            if precision == "bf16" and kind not in _MATRIX_TYPES:
                found |= wanted.intersection(info.get("originalLayersNames", "").split(","))
    return sorted(found)


_EXECUTED = ("runtimePrecision", "outputPrecisions", "layerType", "originalLayersNames")


def _tail(network: Any) -> set[str]:
    """Friendly names of the nodes that the plugin leaves in fp32 by itself."""
    tail: set[str] = set()
    waiting = list(network.get_results())
    while waiting:
        node = waiting.pop()
        for i in range(node.get_input_size()):
            source = node.input_value(i).get_node()
            if source.get_type_name() not in _TAIL_ENDS and source.get_friendly_name() not in tail:
                tail.add(source.get_friendly_name())
                waiting.append(source)
    return tail


def _pictures(network: Any) -> list[Any]:
    """What leads pictures (B, few channels, H, W) from inputs to convolutions, and these convolutions, in order."""
    found: list[Any] = []
    shown: set[str] = set()
    for node in network.get_ordered_ops():
        kind = node.get_type_name()
        sources = [node.input_value(i).get_node().get_friendly_name() for i in range(node.get_input_size())]
        if kind == "Parameter" or (kind in _POINTWISE and not shown.isdisjoint(sources)):
            shape = node.get_output_shape(0)
            if len(shape) != 4 or shape[1] > _CHANNELS:
                continue
            shown.add(node.get_friendly_name())
        elif kind != "Convolution" or shown.isdisjoint(sources):
            continue
        if kind != "Parameter":
            found.append(node)
    return found


def _islands(network: Any, names: set[str]) -> list[Any]:
    """The nodes that give the named values, and the nameless ones that they were decomposed into, in order."""
    chosen: list[Any] = []
    within: set[str] = set()
    for node in reversed(network.get_ordered_ops()):
        own = set().union(*(output.get_names() for output in node.outputs()))
        if node.get_type_name() in ("Parameter", "Constant", "Result"):
            continue
        if names.isdisjoint(own) and (own or node.get_friendly_name() not in within):
            continue
        chosen.append(node)
        within |= {node.input_value(i).get_node().get_friendly_name() for i in range(node.get_input_size())}
    return chosen[::-1]


def _settle(node: Any) -> list[Any]:
    """What to mark: the node, guarded, or what was put in its place, the op the plugin would have turned it into."""
    from openvino import opset1
    from openvino.utils import replace_node

    kind = node.get_type_name()
    if kind in _GUARDS:
        node.set_rt_info("", _GUARDS[kind])
        first = node.input_value(0).get_node()
        if first.get_type_name() != "Constant":
            return [node]
        same = _opaque(opset1, first)
        node.input(0).replace_source_output(same.output(0))
        return [same, node]
    if kind not in _OLDER:
        return [node]
    older = _OLDER[kind](opset1, node, [node.input_value(i) for i in range(node.get_input_size())])
    name = node.get_friendly_name()
    replace_node(node, older)
    older.set_friendly_name(name)
    return [older]


def _opaque(ops: Any, constant: Any) -> Any:
    """The same values, in what the plugin does not take for a constant: an op that is not folded.

    The plugin merges an op with one constant operand into the kernel before it, whichever of the two the constant is,
    so that a guarded c / x comes out as x / c, and c - x as x - c. (Unguarded, it has no such ops.)
    """
    same = ops.maximum(constant, constant)
    same.set_rt_info("", _UNFOLDED)
    return same


def _softmax(ops: Any, node: Any, operands: list[Any]) -> Any:
    return ops.softmax(operands[0], node.get_attributes()["axis"] % len(node.get_output_shape(0)))


def _pad(ops: Any, node: Any, operands: list[Any]) -> Any:
    data, begin, end, *value = operands
    return ops.pad(data, begin, end, node.get_attributes()["pad_mode"], *value)


def _broadcast(ops: Any, node: Any, operands: list[Any]) -> Any:
    return ops.broadcast(operands[0], ops.constant(np.array(node.get_output_shape(0), np.int64)))


def _interpolate(ops: Any, node: Any, operands: list[Any]) -> Any:
    from openvino.utils.node_factory import NodeFactory  # `openvino.opset4.interpolate` is that of opset1

    data, sized, *axes = operands
    sides = list(node.get_output_shape(0))
    chosen = [side % len(sides) for side in axes[0].get_node().get_data()] if axes else range(len(sides))
    shape = ops.constant(np.array([sides[axis] for axis in chosen], np.int64))
    if node.get_attributes()["shape_calculation_mode"] == "sizes":
        sized = ops.constant(np.ones(len(shape.get_data()), np.float32))  # not read
    return NodeFactory("opset4").create("Interpolate", [data, shape, sized, *axes], node.get_attributes())


_OLDER: dict[str, Callable[[Any, Any, list[Any]], Any]] = {
    "Broadcast": _broadcast,
    "Interpolate": _interpolate,
    "Pad": _pad,
    "Softmax": _softmax,
}
