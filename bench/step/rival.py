"""The rival road to a gradient graph: torch traces its own vjp, and its exporter writes it as ONNX.

`make_fx` records forward and backward of a work as one graph of ATen operators; two of those have no translation in
the exporter (convolution's and average pooling's backward) and are written here in terms of ones that do. The file is
given to ONNX Runtime and OpenVINO as it is, with none of our passes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from bench.step.torch_forms import Call, Outputs
from bench.step.work import Work

aten = torch.ops.aten


def convolution_backward(
    gradient: Tensor, picture: Tensor, weight: Tensor, bias_sizes: Sequence[int] | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor, None, None]:  # fmt: skip
    """The input's gradient as a transposed convolution; weights are constants here, so theirs is never asked for."""
    if transposed or mask[1] or mask[2]:
        raise NotImplementedError("only the input gradient of plain convolutions")
    kernel = weight.shape[2:]
    missing = [
        size - ((g - 1) * s - 2 * p + d * (k - 1) + 1)
        for size, g, s, p, d, k in zip(
            picture.shape[2:], gradient.shape[2:], stride, padding, dilation, kernel, strict=True
        )
    ]
    result = aten.convolution(gradient, weight, None, stride, padding, dilation, True, missing, groups)
    return result, None, None


def avg_pool2d_backward(
    gradient: Tensor, picture: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    ceil_mode: bool, count_include_pad: bool, divisor: int | None,
) -> Tensor:  # fmt: skip
    """A transposed depthwise convolution with a constant kernel."""
    if ceil_mode or any(padding) or divisor:
        raise NotImplementedError("only plain average pooling")
    stride = list(stride) or list(kernel)
    channels = picture.shape[1]
    window = gradient.new_full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]))
    missing = [
        size - ((g - 1) * s + k)
        for size, g, s, k in zip(picture.shape[2:], gradient.shape[2:], stride, kernel, strict=True)
    ]
    result: Tensor = aten.convolution(gradient, window, None, stride, [0, 0], [1, 1], True, missing, channels)
    return result


DECOMPOSITIONS: dict[Any, Any] = {
    aten.convolution_backward.default: convolution_backward,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
}


def export(work: Work, path: Path) -> None:
    """Writes the work's step as ONNX: inputs and outputs under the work's own names."""
    names = list(work.inputs)
    outputs: list[str] = []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        results = work.step(dict(zip(names, tensors, strict=True)))
        outputs[:] = list(results)
        return tuple(results.values())

    tensors = tuple(work.inputs.values())
    with (
        warnings.catch_warnings(),
        redirect_stdout(StringIO()),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),  # the fused one's backward has no ONNX form
    ):
        warnings.simplefilter("ignore")
        graph = make_fx(flat, decomposition_table=DECOMPOSITIONS)(*tensors)
        program = torch.onnx.export(
            graph, tensors, dynamo=True, input_names=names, output_names=outputs, opset_version=20, verbose=False
        )
        if program is None:
            raise RuntimeError("the exporter returned nothing")
        partial = path.with_suffix(".partial")
        program.save(str(partial))
        partial.replace(path)


def onnxruntime_call(path: Path, feeds: Outputs, threads: int) -> Call:
    """The file in ONNX Runtime, as anyone would run it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = {i.name: feeds[i.name] for i in session.get_inputs()}
    return lambda: dict(zip(names, session.run(None, taken), strict=True))


def openvino_call(path: Path, feeds: Outputs, threads: int, bf16: bool) -> Call:
    """The file in OpenVINO on the processor, tuned for latency, lowered to bf16 if asked."""
    import openvino

    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    names = [port.get_any_name() for port in compiled.outputs]
    taken = {port.get_any_name(): feeds[port.get_any_name()] for port in compiled.inputs}

    def call() -> Outputs:
        request.infer(taken, share_inputs=True)
        return {name: np.array(request.get_output_tensor(i).data) for i, name in enumerate(names)}

    return call
