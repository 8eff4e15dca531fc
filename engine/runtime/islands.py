"""fp32 islands under OpenVINO's bf16 hint: which nodes its processor plugin must leave in float32.

The plugin lowers every node except the graph's tail: what leads to an output with no convolution or matrix product
between. The tail is fp32 by itself, and better left unmarked: a convolution before it then gives its sum in fp32,
where a marked node is handed the sum rounded to bf16.

Elsewhere, a node with the run-time attribute `DisablePrecisionConversion` is left alone, and so is what it is merged
with in one kernel. Python can neither construct that attribute nor write it by value, but an IR file can hold one,
and `Node.set_rt_info` takes what another node's `get_rt_info` gave: one is read from a small IR and handed to every
node of an island. The mark is lost where the plugin replaces a node; Divide, Subtract, Softmax and Pad always would
be, so these are guarded. For what is left, `lowered` looks at the compiled graph and names the nodes that are in
bf16 all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import onnx_ir as ir

from engine.errors import BackendError
from engine.runtime.protocol import ISLAND

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

# Attributes that keep a node from being replaced by an unmarked one: a / b by a * b**-1, a - b by a + -1 * b.
# Their presence counts, not their value.
_GUARDS = {"Divide": "nonconvertable_divide_0", "Subtract": "dequantization_node_0"}

_MATRIX_TYPES = {"Convolution", "Deconvolution", "MatMul", "FullyConnected"}  # in a compiled graph's words
_TAIL_ENDS = {  # in a model's words: where the plugin stops on its way back from the outputs
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "MatMul",
    "Interpolate",
}


def mark_islands(core: Any, network: Any, model: ir.Model) -> set[str]:
    """Mark in `network` (an `openvino.Model` read from `model`) every node that `model` wants in fp32.

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
    if not names:
        return set()
    carrier = core.read_model(_CARRIER)
    info = dict(carrier.get_parameters()[0].get_rt_info().items())
    if _KEY not in info:
        raise BackendError("this openvino cannot keep chosen nodes in fp32; install openvino 2026.4 or later")
    wanted: set[str] = set()
    tail = _tail(network)
    for node in _islands(network, names):
        wanted.add(node.get_friendly_name())
        if node.get_friendly_name() in tail:
            continue
        kept = _settle(node)
        kept.set_rt_info(info[_KEY], _KEY)
        if guard := _GUARDS.get(kept.get_type_name()):
            kept.set_rt_info("", guard)
    return wanted


def lowered(compiled: Any, names: Iterable[str]) -> list[str]:
    """Nodes to be kept in fp32 that the compiled model computes in bf16 all the same, by friendly name.

    Not counted: what runs inside a convolution or matrix product, which accumulates in fp32.
    """
    wanted = set(names)
    found: set[str] = set()
    if wanted:
        for node in compiled.get_runtime_model().get_ops():
            info = {key: value.astype(str) for key, value in node.get_rt_info().items() if key in _EXECUTED}
            if info.get("runtimePrecision") == "bf16" and info.get("layerType") not in _MATRIX_TYPES:
                found |= wanted.intersection(info.get("originalLayersNames", "").split(","))
    return sorted(found)


_EXECUTED = ("runtimePrecision", "layerType", "originalLayersNames")


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


def _settle(node: Any) -> Any:
    """The node itself, or in its place the same op in the version that the plugin would have turned it into."""
    older = _OLDER.get(node.get_type_name())
    replacement = older(node) if older else None
    if replacement is None:
        return node
    from openvino.utils import replace_node

    name = node.get_friendly_name()
    replace_node(node, replacement)
    replacement.set_friendly_name(name)
    return replacement


def _softmax(node: Any) -> Any:
    from openvino import opset1

    return opset1.softmax(node.input_value(0), node.get_attributes()["axis"] % len(node.get_output_shape(0)))


def _pad(node: Any) -> Any:
    from openvino import opset1

    data, begin, end, *value = (node.input_value(i) for i in range(node.get_input_size()))
    return opset1.pad(data, begin, end, node.get_attributes()["pad_mode"], *value)


_OLDER: dict[str, Callable[[Any], Any]] = {"Softmax": _softmax, "Pad": _pad}
