"""`python -m bench.gpu`: one step on a GPU, in every engine of ours and every form of PyTorch, and the floor.

Self-contained: seeded networks unless --weights names trained ones. Prints which engines cannot be used here, for each
other its parity with the processor's (cosine of the first gradient, progress of a short cloak), then seconds a step at
each size. Ours run as a cloak on the command line runs them, in fp16 with loss scales; PyTorch's steps are enqueued as
many at a time. With `--device cpu` the same code runs without a GPU, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import engine
import glaze_trt
from bench.compare import cosine
from bench.networks import weights_folder
from bench.processor import machine
from bench.step.catalogue import make_work
from bench.step.floor import multiply_adds
from bench.step.torch_forms import Form, as_arrays, prepare_tensors
from bench.step.whole import OurStep, our_step
from glaze_trt.loop import pace

FORMS = (
    Form("torch eager fp32"),
    Form("torch channels-last fp32", channels_last=True),
    Form("torch autocast bf16", bf16=True),
    Form("torch autocast channels-last bf16", channels_last=True, bf16=True),
    Form("torch compile channels-last bf16", channels_last=True, bf16=True, compiled=True),
    Form("torch max-autotune channels-last bf16", channels_last=True, bf16=True, compiled=True, mode="max-autotune"),
)
AUTOCAST, GRAPH = FORMS[3].name, "torch CUDA graph of channels-last bf16"
STEPS = 20
CONSOLE = Console(stderr=True)


def say(line: str) -> None:
    """A progress line on stderr."""
    CONSOLE.print(line, markup=False, highlight=False)


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, repeats: int, each: int) -> list[float]:
    """Seconds of one call, from `repeats` runs of `each` calls that are waited for together."""
    samples = []
    for _ in range(repeats):
        synchronise(device)
        began = time.perf_counter()
        for _ in range(each):
            call()
        synchronise(device)
        samples.append((time.perf_counter() - began) / each)
    return samples


def graphed(call: Callable[[], dict[str, Tensor]]) -> Callable[[], object]:
    """The call as one CUDA graph, replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


@cache
def step(size: int, weights: Path | None, scaled: bool) -> OurStep:
    """Our step, written once."""
    return our_step(size, weights, scaled=scaled)


def gradient(momentum: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A first step's gradient g, up to a factor: the second moment is a multiple of g², the momentum has its signs."""
    return np.sign(momentum) * np.sqrt(second)


def exact_gradient(size: int, options: argparse.Namespace) -> np.ndarray:
    """The first gradient, on the processor in fp32."""
    plain = step(size, options.weights, scaled=False)
    session = plain.open(engine.compile(plain.model, "onnxruntime", "fp32"))
    session.advance(1)
    return gradient(session.read("momentum"), session.read("second"))


def marked(call: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
    """Says where a step begins, or CUDA graphs of compiled functions would take every function for one."""

    def begin() -> dict[str, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return call()

    return begin


def torch_rows(size: int, options: argparse.Namespace, exact: np.ndarray, device: torch.device) -> list[dict[str, Any]]:
    """Every form of PyTorch."""
    make = partial(make_work, "step", size, options.weights)
    rows = []
    for form in FORMS:
        if options.only and not any(word in form.name for word in options.only):
            continue
        with torch.device(device):
            try:
                call = prepare_tensors(make, form)
                call = marked(call) if form.compiled else call
                after = as_arrays({name: call()[name] for name in ("next_momentum", "next_second")})
                found = {"cosine": cosine(gradient(*after.values()), exact)}
                call()
                rows.append(row(form.name, seconds(call, device, options.repeats, options.each), **found))
                if form.name == AUTOCAST and device.type == "cuda":
                    samples = seconds(graphed(call), device, options.repeats, options.each)
                    rows.append(row(GRAPH, samples, **found))
            except Exception as error:  # a form that cannot run is a row with its reason
                rows.append(row(form.name, [], note=f"{type(error).__name__}: {error}".splitlines()[0][:200]))
        say(f"{size}² {form.name}: {rows[-1]['note'] or rows[-1]['seconds']}")
    return rows


def our_rows(size: int, options: argparse.Namespace, exact: np.ndarray, device: torch.device) -> list[dict[str, Any]]:
    """Every engine of ours that runs on the device, in every precision it has."""
    rows = []
    for info in engine.available_engines():
        if info.needs_gpu != (device.type == "cuda"):
            continue
        for precision in info.precisions:
            name = f"ours {info.name} {precision}"
            if options.only and not any(word in name for word in options.only):
                continue
            try:
                began = time.perf_counter()
                ours = step(size, options.weights, scaled=precision == "fp16")
                program = engine.compile(ours.model, info.name, precision)
                session = ours.open(program)
                ready = time.perf_counter() - began
                session.advance(1)
                alike = cosine(gradient(session.read("momentum"), session.read("second")), exact)
                session.advance(5)  # warm, captured and replayed
                run = partial(pace.advance, session, options.each, partial(told, session))
                samples = [s / options.each for s in seconds(run, device, options.repeats, 1)]
                rows.append(row(name, samples, cosine=alike, ready=ready, note="; ".join(program.notes)))
            except Exception as error:
                rows.append(row(name, [], note=f"{type(error).__name__}: {error}".splitlines()[0][:200]))
            say(f"{size}² {name}: {rows[-1]['note'] or rows[-1]['seconds']}")
    return rows


def told(session: engine.Session) -> None:
    """Reads what the command line shows of a step."""
    for name in ("distance_0", "lpips"):
        session.read(name)


def row(
    name: str, samples: list[float], *, cosine: float | None = None, ready: float | None = None, note: str = ""
) -> dict[str, Any]:
    """One line of the table and of the JSON."""
    median = statistics.median(samples) if samples else None
    return {"contender": name, "seconds": median, "samples": samples, "cosine": cosine, "ready": ready, "note": note}


def floor(model: ir.Model, device: torch.device) -> dict[str, float]:
    """Seconds a step takes at least: its multiply-adds and its bytes, each at the measured rate."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.rand(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    torch.matmul(left, right)
    rate = size**3 / min(seconds(lambda: torch.matmul(left, right), device, 5, 5))
    source = torch.empty(2**28 if device.type == "cuda" else 2**24, dtype=torch.float32, device=device)
    copy = torch.empty_like(source)
    copy.copy_(source)
    bandwidth = 2 * source.numel() * 4 / min(seconds(lambda: copy.copy_(source), device, 5, 5))
    traffic = sum(
        2 * math.prod(int(d) for d in value.shape)  # bf16; every tensor of a convolution once
        for node in model.graph
        if node.op_type in ("Conv", "MatMul")
        for value in (*node.inputs[:2], *node.outputs)
        if value is not None and value.shape is not None
    )
    return {"multiply-adds": multiply_adds(model) / rate, "bytes": traffic / bandwidth}


def cloaks(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Progress of a short cloak with the built-in models, by engine; the processor's fp32 first."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(40, 215, (2, 16, 16, 3))
    picture, target = (np.kron(c, np.ones((16, 16, 1))).astype(np.uint8) for c in coarse)
    rows = []
    chosen = [("onnxruntime", "fp32")]
    for info in engine.available_engines():
        if info.needs_gpu == (device.type == "cuda"):
            chosen += [(info.name, precision) for precision in info.precisions if (info.name, precision) not in chosen]
    for name, precision in chosen:
        try:
            began = time.perf_counter()
            report = glaze_trt.cloak(picture, target=target, steps=20, engine=name, precision=precision).report
            took = time.perf_counter() - began
            rows.append({"engine": name, "precision": precision, "progress": report.progress, "seconds": took,
                         "optimize": report.seconds["optimize"], "note": "; ".join(report.notes)})  # fmt: skip
        except Exception as error:
            note = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            rows.append({"engine": name, "precision": precision, "progress": None, "seconds": None, "note": note})
    return rows


def table(size: int, rows: list[dict[str, Any]], floors: dict[str, float], title: str) -> Table:
    """One size."""
    told = ", ".join(f"{1e3 * value:.2f} ms by {name}" for name, value in floors.items())
    shown = Table(title=f"{title}, {size}²; floor {told}")
    for column in ("contender", "ms a step", "× autocast", "of floor", "cosine", "ready s", "note"):
        shown.add_column(column, justify="left" if column in ("contender", "note") else "right")
    base = next((r["seconds"] for r in rows if r["contender"] == AUTOCAST), None)
    least = max(floors.values())
    for r in rows:
        took = r["seconds"]
        shown.add_row(
            r["contender"],
            "" if took is None else f"{1e3 * took:.2f}",
            "" if took is None or base is None else f"{base / took:.2f}",
            "" if took is None else f"{least / took:.0%}",
            "" if r["cosine"] is None else f"{r['cosine']:.5f}",
            "" if r["ready"] is None else f"{r['ready']:.1f}",
            r["note"],
        )
    return shown


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 768])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--each", type=int, default=STEPS, help="steps in a run")
    parser.add_argument("--only", nargs="+", metavar="PART", help="contenders whose name holds one of these")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    options.weights = weights_folder(options.weights)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use; --device cpu shows that this command works")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32
    torch.backends.cudnn.benchmark = True
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    absent = {info.name: info.reason for info in engine.available_engines() if info.reason is not None}
    for missing, reason in absent.items():
        say(f"without {missing}: {reason}")
    document: dict[str, Any] = {**machine(torch.get_num_threads()), "gpu": name, "absent": absent}
    document["cloaks"] = cloaks(options, device)
    console = Console(width=None if sys.stdout.isatty() else 150)
    shown = Table(title=f"{name}: a cloak of 20 steps at 256², built-in models")
    for column in ("engine", "precision", "progress", "seconds", "note"):
        shown.add_column(column)
    for each in document["cloaks"]:
        numbers = ["" if each[key] is None else f"{each[key]:.3f}" for key in ("progress", "seconds")]
        shown.add_row(each["engine"], each["precision"], *numbers, each["note"])
    console.print(shown)
    document["sizes"] = {}
    for size in options.sizes:
        exact = exact_gradient(size, options)
        rows = torch_rows(size, options, exact, device) + our_rows(size, options, exact, device)
        floors = floor(step(size, options.weights, scaled=False).model, device)
        document["sizes"][str(size)] = {"rows": rows, "floor": floors}
        console.print(table(size, rows, floors, name))
        if options.json:
            options.json.write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
