"""`python -m bench.precision --pairs DIR`: what narrow types do to gradients and to finished cloaks.

Gradients: cosine to fp32, of every network's own loss on paintings. Cloaks: progress of a whole run in each precision,
judged in fp32. Types that this processor does not compute are imitated in ONNX Runtime, which rounds exactly what an
engine with explicit types rounds; OpenVINO's own bf16 stands beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from PIL import Image
from rich.console import Console
from rich.table import Table

import engine
from bench.compare import cosine
from bench.processor import cores, machine
from bench.quality.pairs import Pair, read_pairs
from engine.passes.precision import NARROW
from engine.runtime.processor import detect
from engine.runtime.protocol import EMULATE
from engine.tape import OPSET, Tape
from glaze_trt import models
from glaze_trt.cloak import Cloaker, make_objective

FORMS = [("onnxruntime", precision) for precision in NARROW]


def loss_and_gradient(name: str, kind: models.Kind, size: int, scale: float) -> ir.Model:
    """`scale` × the squared distance of a network's outputs from goals (`goal:<output>`), and its image gradient."""
    shape = (1, 3, size, size)
    net = engine.load(models.find(name, kind).path, {"image": shape})
    graph = ir.Graph(inputs=[], outputs=[], nodes=[], opset_imports={"": OPSET}, name="loss")
    graph.inputs.append(ir.Value(name="image", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT)))
    tape = Tape(graph)
    outputs = tape.splice(net, {"image": graph.inputs[0]})
    loss: ir.Value | None = None
    with tape.scope("loss", precision="fp32"):
        for output, value in outputs.items():
            goal = ir.Value(name=f"goal:{output}", shape=value.shape, type=value.type)
            graph.inputs.append(goal)
            gap = tape.Sub(value, goal)
            part = tape.ReduceMean(tape.Mul(gap, gap), [0, 1, 2, 3], keepdims=0)
            loss = part if loss is None else tape.Add(loss, part)
        assert loss is not None
        loss = tape.Mul(loss, scale)
    loss.name = "loss"
    graph.outputs.append(loss)
    return engine.value_and_grad(ir.Model(graph, ir_version=10), "loss", ["image"])


def tensor(levels: np.ndarray) -> np.ndarray:
    """(1, 3, H, W) in [0,1]."""
    return np.ascontiguousarray(levels.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)


def gradients(name: str, kind: models.Kind, pairs: list[Pair], scale: float) -> dict[str, list[float]]:
    """Cosine to fp32, one a pair, by form; the goal is what the net gives for the target, or for the noisy picture."""
    size = pairs[0].picture.shape[0]
    model = loss_and_gradient(name, kind, size, scale)
    look = engine.compile(engine.load(models.find(name, kind).path, {"image": (1, 3, size, size)}), "onnxruntime")
    exact = engine.compile(model, "onnxruntime", "fp32")
    forms = FORMS + ([("openvino", "bf16")] if detect().computes_bf16 else [])
    found: dict[str, list[float]] = {}
    feeds = []
    for pair in pairs:
        picture = tensor(pair.picture)
        noise = np.random.default_rng(0).normal(0, 4 / 255, picture.shape).astype(np.float32)
        goal = tensor(pair.target) if kind == "encoder" else np.clip(picture + noise, 0, 1)
        feeds.append({"image": picture, **{f"goal:{n}": value for n, value in look({"image": goal}).items()}})
    wanted = [exact(feed)["grad:image"] for feed in feeds]
    for form in forms:
        program = engine.compile(model, *form)
        values = [cosine(program(feed)["grad:image"], grad) for feed, grad in zip(feeds, wanted, strict=True)]
        found[f"{form[0]} {form[1]}"] = values
    return found


def progress(encoder: str, perceptual: str, pairs: list[Pair], steps: int) -> dict[str, list[float]]:
    """Progress of finished cloaks, one a pair, by form; fp32 first."""
    found: dict[str, list[float]] = {}
    forms = [("onnxruntime", "fp32"), *FORMS] + ([("openvino", "bf16")] if detect().computes_bf16 else [])
    for name, precision in forms:
        cloaker = Cloaker(encoder, perceptual, make_objective(steps=steps), engine_name=name, precision=precision)
        values = [cloaker(pair.picture, target=Image.fromarray(pair.target)).report.progress for pair in pairs]
        found[f"{name} {precision}"] = values
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--size", type=int, default=128, help="for gradients; pictures are scaled to it")
    parser.add_argument("--cloak-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--encoders", nargs="+", default=["taesd", "sd-vae"])
    parser.add_argument("--perceptual", nargs="+", default=["lpips-squeeze"])
    parser.add_argument("--cloak", nargs="*", default=["taesd"], metavar="ENCODER")
    parser.add_argument("--scale", type=float, default=2.0**12, help="of the loss, as fp16 needs one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    os.environ[EMULATE] = "1"
    rows: list[dict[str, Any]] = []
    pairs = [shrunk(pair, options.size) for pair in read_pairs(options.pairs, options.only, 512)]
    kinds: list[tuple[str, models.Kind]] = [(name, "encoder") for name in options.encoders]
    kinds += [(name, "perceptual") for name in options.perceptual]
    for name, kind in kinds:
        for form, values in gradients(name, kind, pairs, options.scale).items():
            rows.append({"model": name, "form": form, "measure": "gradient cosine", "values": values})
    pairs = [shrunk(pair, options.cloak_size) for pair in pairs] if options.cloak_size != options.size else pairs
    for name in options.cloak:
        for form, values in progress(name, options.perceptual[0], pairs, options.steps).items():
            rows.append({"model": name, "form": form, "measure": "progress", "values": values})
    shown = Table(title=f"{len(pairs)} paintings at {options.size}², {detect().name}, {cores()} cores")
    for column in ("model", "form", "measure", "median", "least"):
        shown.add_column(column, justify="right" if column in ("median", "least") else "left")
    for row in rows:
        median, least = statistics.median(row["values"]), min(row["values"])
        shown.add_row(row["model"], row["form"], row["measure"], f"{median:.5f}", f"{least:.5f}")
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    if options.json:
        document = {**machine(cores()), "size": options.size, "cloak size": options.cloak_size, "rows": rows}
        options.json.write_text(json.dumps(document, indent=1))
    return 0


def shrunk(pair: Pair, size: int) -> Pair:
    """The pair, scaled."""
    picture, target = (
        np.asarray(Image.fromarray(levels).resize((size, size), Image.Resampling.LANCZOS))
        for levels in (pair.picture, pair.target)
    )
    return Pair(pair.name, picture, target)


if __name__ == "__main__":
    sys.exit(main())
