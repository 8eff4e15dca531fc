"""Our engines on a work: its loss exported as a plain forward ONNX file, differentiated and compiled by `engine`."""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

import engine
from bench.step.torch_forms import Call, Outputs
from bench.step.work import Work

VALUE = "value"


def export_loss(work: Work, path: Path) -> None:
    """The forward graph of a one-network work (see `work.Loss`), as torch's exporter writes it."""
    (network,) = work.networks
    write_forward(network, work, path)


def write_forward(network: nn.Module, work: Work, path: Path) -> None:
    """`network` of the work's inputs as ONNX, output `value`."""
    partial = path.with_suffix(".partial")
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, tuple(work.inputs.values()), str(partial), input_names=list(work.inputs), output_names=[VALUE],
            opset_version=20, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    partial.replace(path)


def gradient_graph(path: Path) -> ir.Model:
    """Value and image gradient of an exported loss."""
    return engine.value_and_grad(path, of=VALUE, wrt=["image"])


def engine_call(model: ir.Model, feeds: Outputs, name: str, precision: str, threads: int) -> Call:
    """The graph compiled by one of our engines."""
    program = engine.compile(model, engine=name, precision=precision, threads=threads)
    taken = {key: feeds[key] for key in program.inputs}
    return lambda: program(taken)


def our_engines() -> list[tuple[str, str]]:
    """Every engine and precision that computes on this machine."""
    return [(info.name, precision) for info in engine.available_engines() for precision in info.precisions]
