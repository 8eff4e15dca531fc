"""PyTorch's own forms of a work: eager, channels-last, bf16 by autocast, and compiled by inductor.

bf16 is offered only where the processor multiplies it; elsewhere it is emulated, a hundred times slower. Compiling is
first tried in a process of its own under a time limit, which leaves inductor's cache warm for this one.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.step.work import Tensors, Work
from engine.runtime.processor import detect

Outputs = dict[str, np.ndarray]
Call = Callable[[], Outputs]


@dataclass(frozen=True)
class Form:
    """One way to run a work in PyTorch."""

    name: str
    channels_last: bool = False
    bf16: bool = False
    compiled: bool = False
    mode: str | None = None
    """Of `torch.compile`."""

    def lay_out(self, network: nn.Module) -> None:
        """Brings a network's weights to this form, once.

        In bf16 the weights of convolutions and products are cast here; autocast would cast frozen ones at every call.
        """
        network.to(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)
        if self.bf16:
            for module in network.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    module.to(torch.bfloat16)

    def place(self, tensor: Tensor) -> Tensor:
        """A picture or latent in this form's memory layout; anything else as it is."""
        if tensor.ndim != 4:
            return tensor
        return tensor.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, compiled if this form is."""
        return torch.compile(function, dynamic=False, mode=self.mode) if self.compiled else function

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=self.bf16)


FORMS = (
    Form("torch eager fp32"),
    Form("torch channels-last fp32", channels_last=True),
    Form("torch eager bf16", bf16=True),
    Form("torch channels-last bf16", channels_last=True, bf16=True),
    Form("torch compile fp32", compiled=True),
    Form("torch compile channels-last fp32", channels_last=True, compiled=True),
    Form("torch compile channels-last bf16", channels_last=True, bf16=True, compiled=True),
)


def usable_forms() -> tuple[Form, ...]:
    """The forms worth running on this processor."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    return tuple(f for f in FORMS if (detect().computes_bf16 or not f.bf16) and (compiler or not f.compiled))


def prepare(make: Callable[[], Work], form: Form) -> Call:
    """A call that runs the work once in this form and returns its outputs."""
    call = prepare_tensors(make, form)
    return lambda: as_arrays(call())


def prepare_tensors(make: Callable[[], Work], form: Form) -> Callable[[], dict[str, Tensor]]:
    """The same, with the outputs left where they are."""
    work = make()
    for network in work.networks:
        form.lay_out(network)
    inputs = {name: form.place(tensor) for name, tensor in work.inputs.items()}
    terms = {name: form.wrap(term) for name, term in work.terms.items()}
    point, update = form.wrap(work.point), form.wrap(work.update)

    def call() -> dict[str, Tensor]:
        with torch.no_grad():
            picture = point(inputs)
        values, gradients = {}, {}
        for name, term in terms.items():
            leaf = picture.detach().requires_grad_(True)
            with form.autocast():
                value = term(leaf, inputs)
            (gradients[name],) = torch.autograd.grad(value, leaf)
            values[name] = value.detach()
        with torch.no_grad():
            found: dict[str, Tensor] = update(values, gradients, inputs)
            return found

    return call


def as_arrays(outputs: Tensors) -> Outputs:
    """Outputs as float32 arrays in C order."""
    return {name: np.array(tensor.detach().float().cpu().numpy(), order="C") for name, tensor in outputs.items()}


def _run_in_child(prepared: Callable[[], Callable[[], object]], threads: int, answer: Connection) -> None:
    try:
        torch.set_num_threads(threads)
        prepared()()
        answer.send(None)
    except Exception as error:
        answer.send(f"{type(error).__name__}: {error}".splitlines()[0])


def compile_fails(prepared: Callable[[], Callable[[], object]], limit: float) -> str | None:
    """Why `prepared()()` does not end well within `limit` seconds in a process of its own, or None.

    Args:
        prepared: picklable; compiles and returns the call. Inductor's cache is warm for it afterwards.
        limit: seconds.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run_in_child, args=(prepared, torch.get_num_threads(), theirs), daemon=False)
    child.start()
    theirs.close()
    try:
        if not ours.poll(limit):
            return f"torch.compile took over {limit:.0f} s"
        with contextlib.suppress(EOFError):
            reason: str | None = ours.recv()
            return reason
        return "torch.compile ended its process (out of memory?)"
    finally:
        child.terminate()
        child.join(10)
