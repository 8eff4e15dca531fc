"""Options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class EngineName(StrEnum):
    """What runs the networks."""

    auto = "auto"
    tensorrt = "tensorrt"
    rtx = "tensorrt-rtx"
    cuda = "onnxruntime-cuda"
    openvino = "openvino"
    onnxruntime = "onnxruntime"


class Precision(StrEnum):
    """What convolutions are computed in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    mixed = "mixed"


EngineOption = Annotated[EngineName, typer.Option("--engine", help="What runs the networks.")]
Perceptual = Annotated[str, typer.Option(help="Net for LPIPS: tiny, alex, vgg, squeeze, or an .onnx file.")]
