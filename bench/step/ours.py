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
from bench.step.work import Tensors, Work

VALUE = "value"


def export_loss(work: Work, path: Path) -> None:
    """The forward graph of a one-network work (see `work.Loss`), as torch's exporter writes it."""
    (network,) = work.networks
    write_forward(network, work.inputs, [VALUE], path)


def write_forward(network: nn.Module, inputs: Tensors, outputs: list[str], path: Path) -> None:
    """`network` of these inputs as an ONNX file."""
    partial = path.with_suffix(".partial")
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, tuple(inputs.values()), str(partial), input_names=list(inputs), output_names=outputs,
            opset_version=20, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    partial.replace(path)


def gradient_graph(path: Path) -> ir.Model:
    """Value and image gradient of an exported loss."""
    return engine.value_and_grad(path, of=VALUE, wrt=["image"])


def engine_call(model: ir.Model, feeds: Outputs, name: str, precision: str, threads: int) -> Call:
    """The graph compiled by one of our engines."""
    program = engine.compile(model, engine=name, precision=precision, options=engine.Options(threads=threads))
    taken = {key: feeds[key] for key in program.inputs}
    return lambda: program(taken)


def session_call(
    model: ir.Model, constants: Outputs, state: Outputs, carry: dict[str, str], name: str, precision: str, threads: int
) -> Call:
    """The graph compiled by one of our engines, advanced by one step a call as the cloaking loop does."""
    program = engine.compile(model, engine=name, precision=precision, options=engine.Options(threads=threads))
    session = engine.Session(program, carry, constants, state)

    def call() -> Outputs:
        session.advance(1)
        return {output: session.read(feeds) for output, feeds in carry.items() if output == "next_delta"}

    return call


def our_engines() -> list[tuple[str, str]]:
    """Every engine and precision that computes on this machine."""
    return [(info.name, precision) for info in engine.available_engines() for precision in info.precisions]
