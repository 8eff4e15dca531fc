"""`python -m bench.step`: seconds of one value and gradient, or one whole step, in every way there is to run it.

Works: `sd-vae` (the SD 1.x encoder), `taesd`, and `step` (TAESD, LPIPS-squeeze, the structural term, multipliers, the
update and the projection). Contenders: PyTorch's forms, the rival road (torch's own traced vjp as ONNX) in ONNX Runtime
and OpenVINO, and our engines. One run, alternating rounds, medians; ratios against the fastest PyTorch form of the same
heat; the floor beside them. Everything is compiled and called once before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from rich.console import Console
from rich.table import Table

from bench.compare import cosine
from bench.networks import weights_folder
from bench.processor import machine
from bench.step import rival
from bench.step.catalogue import WORKS, make_work
from bench.step.floor import matrix_rate, multiply_adds
from bench.step.heats import Contender, Result, race, total_memory
from bench.step.ours import engine_call, export_loss, gradient_graph, our_engines, session_call
from bench.step.torch_forms import Call, Form, Outputs, as_arrays, compile_fails, prepare, usable_forms
from bench.step.whole import our_step
from bench.step.work import Work
from engine.runtime.processor import detect

WRONG = 0.9  # a cosine that no rounding explains
CONSOLE = Console(stderr=True)


def say(line: str) -> None:
    """A progress line on stderr."""
    CONSOLE.print(line, markup=False, highlight=False)


@dataclass(frozen=True)
class Bench:
    """One work at one size, with what its contenders need."""

    name: str
    size: int
    weights: Path | None
    cache: Path
    threads: int
    compile_limit: float

    def make(self) -> Work:
        """A fresh copy of the work."""
        return make_work(self.name, self.size, self.weights)

    def feeds(self) -> Outputs:
        """The work's inputs as arrays."""
        return as_arrays(self.make().inputs)

    def file(self, kind: str) -> Path:
        """A cached export."""
        version = torch.__version__.split("+")[0]
        trained = "trained" if self.weights else "seeded"
        return self.cache / f"{self.name}-{self.size}-{kind}-{trained}-torch{version}.onnx"

    def our_graph(self) -> ir.Model:
        """The graph that our engines compile."""
        if self.name == "step":
            return our_step(self.size, self.weights).model
        path = self.file("forward")
        if not path.exists():
            export_loss(self.make(), path)
        return gradient_graph(path)

    def contenders(self, only: list[str] | None) -> list[Contender]:
        """PyTorch's forms first, then the rival road, then ours."""
        found = [Contender(form.name, "torch", partial(self._torch, form)) for form in usable_forms()]
        found.append(Contender("rival onnxruntime fp32", "rival", partial(self._rival, "onnxruntime", "fp32")))
        for precision in ("fp32", "bf16") if detect().computes_bf16 else ("fp32",):
            found.append(Contender(f"rival openvino {precision}", "rival", partial(self._rival, "openvino", precision)))
        for engine, precision in our_engines():
            found.append(Contender(f"ours {engine} {precision}", "ours", partial(self._ours, engine, precision)))
        return [c for c in found if not only or any(part in c.name for part in only)]

    def _torch(self, form: Form) -> Call:
        make = partial(make_work, self.name, self.size, self.weights)
        if form.compiled:
            reason = compile_fails(partial(prepare, make, form), self.compile_limit)
            if reason is not None:
                raise RuntimeError(reason)
        return prepare(make, form)

    def _rival(self, engine: str, precision: str) -> Call:
        path = self.file("rival")
        if not path.exists():
            rival.export(self.make(), path)
        if engine == "onnxruntime":
            return rival.onnxruntime_call(path, self.feeds(), self.threads)
        return rival.openvino_call(path, self.feeds(), self.threads, precision == "bf16")

    def _ours(self, engine: str, precision: str) -> Call:
        if self.name == "step":
            ours = our_step(self.size, self.weights)
            return session_call(ours.model, ours.constants, ours.state, ours.carry, engine, precision, self.threads)
        return engine_call(self.our_graph(), self.feeds(), engine, precision, self.threads)


def directions(bench: Bench, results: list[Result]) -> dict[str, float]:
    """Cosine of each contender's gradient (or advance) to PyTorch's eager fp32 one, made here if it did not run."""
    work = bench.make()
    output, origin = work.compared
    exact = next((r.outputs for r in results if r.name == "torch eager fp32" and r.outputs), None)
    if exact is None:
        exact = prepare(bench.make, Form("torch eager fp32"))()
    start = work.inputs[origin].numpy() if origin else np.float32(0)
    return {r.name: cosine(r.outputs[output] - start, exact[output] - start) for r in results if r.outputs}


def rows(bench: Bench, results: list[Result], floors: dict[str, float]) -> list[dict[str, Any]]:
    """What the table and the JSON show of each contender."""
    alike = directions(bench, results)
    shown = []
    for r in results:
        base = float(np.median(r.base_samples)) if r.base_samples else None
        precision = "bf16" if r.name.endswith("bf16") else "fp32"
        note = r.note
        if alike.get(r.name, 1.0) < WRONG:
            note = f"{note}; " * bool(note) + "computes another gradient than PyTorch"
        shown.append(
            {
                "work": bench.name, "size": bench.size, "contender": r.name, "family": r.family, "seconds": r.median,
                "speed": base / r.median if base and r.median else None, "fastest torch, same heat": base,
                "floor": floors.get(precision), "cosine": alike.get(r.name), "build seconds": r.build_seconds,
                "samples": r.samples, "note": note,
            }
        )  # fmt: skip
    return shown


def table(bench: Bench, found: list[dict[str, Any]], macs: int | None) -> Table:
    """One work at one size."""
    counted = f", {macs / 1e12:.3f} T multiply-adds" if macs else ""
    shown = Table(title=f"{bench.name}, {bench.size}²{counted}")
    for column in ("contender", "seconds", "speed", "floor s", "of floor", "cosine", "ready after s", "note"):
        shown.add_column(column, justify="left" if column in ("contender", "note") else "right")

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    for row in found:
        share = row["floor"] / row["seconds"] if row["floor"] and row["seconds"] else None
        best = row["speed"] is not None and row["speed"] == max(r["speed"] or 0 for r in found)
        shown.add_row(
            row["contender"], number(row["seconds"], ".3f"), number(row["speed"], ".2f"), number(row["floor"], ".3f"),
            number(share, ".0%"), number(row["cosine"], ".6f"), number(row["build seconds"], ".1f"), row["note"],
            style="bold" if best else "",
        )  # fmt: skip
    return shown


def count(bench: Bench) -> int | None:
    """Multiply-adds of our gradient graph, or None where it cannot be made."""
    try:
        return multiply_adds(bench.our_graph())
    except Exception as error:  # the race shows the same failure as a row
        say(f"{bench.name}: no count ({type(error).__name__}: {error})")
        return None


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--repeats", type=int, default=5, help="rounds of a heat")
    parser.add_argument("--only", nargs="+", metavar="PART", help="contenders whose name holds one of these")
    parser.add_argument("--weights", type=Path, help="folder of trained weights (default: seeded weights)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile-limit", type=float, default=600, metavar="SECONDS", help="for torch.compile")
    parser.add_argument("--reserve", type=float, default=0.45, help="share of memory below which a new heat begins")
    parser.add_argument("--cache", type=Path, default=Path(".cache/step"), help="folder for exported graphs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)

    torch.set_num_threads(arguments.threads)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 150)
    described = machine(arguments.threads)
    rates = {"fp32": matrix_rate(bf16=False)}
    if detect().computes_bf16:
        rates["bf16"] = matrix_rate(bf16=True)
    shown_rates = ", ".join(f"{name} {rate / 1e12:.3f} T multiply-adds/s" for name, rate in rates.items())
    console.print(f"{described['processor']}, {arguments.threads} threads; matrix rate: {shown_rates}", markup=False)

    found: list[dict[str, Any]] = []
    counts: dict[str, int | None] = {}
    for name in arguments.works:
        for size in arguments.sizes:
            bench = Bench(
                name, size, weights_folder(arguments.weights), arguments.cache, arguments.threads,
                arguments.compile_limit,
            )  # fmt: skip
            say(f"{name}, {size}²")
            macs = counts[f"{name} {size}"] = count(bench)
            floors = {} if macs is None else {precision: macs / rate for precision, rate in rates.items()}
            results = race(bench.contenders(arguments.only), arguments.repeats, arguments.reserve * total_memory(), say)
            mine = rows(bench, results, floors)
            console.print(table(bench, mine, macs))
            found += mine
            if arguments.json:  # written after every table, so that a stopped run leaves something
                document = described | {
                    "repeats": arguments.repeats, "multiply-adds a second": rates, "multiply-adds": counts,
                    "command": "python -m bench.step " + " ".join(sys.argv[1:] if argv is None else argv),
                    "rows": found,
                }  # fmt: skip
                arguments.json.write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
