"""`python -m bench.parity`: relative error of the engine's input gradients against torch's, network by network.

Exports each network with torch's ONNX exporters (kept in `--cache`, so a second run is quick), differentiates the file
with `engine.value_and_grad`, runs it in one of the engines and compares. Exits 1 if any error is above the bound or any
graph is refused; a network that torch itself cannot export is shown, and counts for nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
from rich.console import Console
from rich.table import Table

import engine
from bench.networks import weights_folder
from bench.parity.cases import all_cases
from bench.parity.oracle import EXPORTERS, VALUE, Export, Oracle, Reference, relative_error

BOUND = 1e-4
INPUTS = 10  # tried at most
DEFAULT_VARIANTS = ("dynamo@20", "torchscript@17")
ALL_VARIANTS = (
    *DEFAULT_VARIANTS, "dynamo@18", "dynamo@23", "torchscript@13", "torchscript@18", "torchscript@19",
    "torchscript@20", "raw@20",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One exported file's result.

    Attributes:
        case: the network; `group` and `note` are the case's own.
        variant: exporter and opset.
        status: ok, FAIL (above the bound), error (refused or crashed), or no export (torch's own gap).
        error: relative gradient error to torch in float32; `exact` to torch in float64, `own` torch's own to that.
        inputs: random inputs tried; more than one where some stood at a kink.
    """

    case: str
    group: str
    note: str
    variant: str
    status: str
    error: float | None = None
    exact: float | None = None
    own: float | None = None
    forward_nodes: int | None = None
    gradient_nodes: int | None = None
    build_seconds: float | None = None
    run_seconds: float | None = None
    inputs: int = 0
    message: str = ""

    def closest(self) -> float:
        """The error to torch's float32 or float64 gradient, whichever is less: at a kink torch's own two differ."""
        return min(e if e is not None else float("inf") for e in (self.error, self.exact))


def compare(reference: Reference, export: Export, engine_name: str, precision: str) -> Row:
    """Differentiates one exported file with the engine and compares all its input gradients with torch's.

    A folded batch norm rounds differently, and then one ReLU of thousands may take its other side at one input and not
    at the next, while a wrong rule is wrong at all of them: where the first input fails, a few more are tried.
    """
    case = reference.case
    row = Row(case.name, case.group, case.note, export.variant, "no export", message=export.error or "")
    if export.error is not None:
        return row
    started = time.perf_counter()
    forward: ir.Model | None = None
    try:
        forward = engine.load(export.path)
        gradient = engine.value_and_grad(forward, of=VALUE, wrt=list(case.shapes))
        program = engine.compile(gradient, engine=engine_name, precision=precision)
        row = replace(row, status="FAIL", forward_nodes=_nodes(forward), gradient_nodes=_nodes(gradient))
        row = replace(row, build_seconds=time.perf_counter() - started)
        tried: list[Row] = []
        for index in range(INPUTS):
            tried.append(replace(row, **_errors(program, reference.oracle(index)), inputs=index + 1))
            if (tried[-1].error or 0.0) <= BOUND:
                return replace(tried[-1], status="ok")
        best = replace(min(tried, key=Row.closest), inputs=INPUTS)
        return replace(best, status="ok" if best.closest() <= BOUND else "FAIL")
    except Exception as error:  # whatever the engine raises is this row's finding
        nodes = None if forward is None else _nodes(forward)
        return replace(row, status="error", forward_nodes=nodes, message=f"{type(error).__name__}: {error}")


def _errors(program: engine.Program, oracle: Oracle) -> dict[str, Any]:
    started = time.perf_counter()
    outputs = program(oracle.inputs)
    seconds = time.perf_counter() - started
    gradients = {name: outputs[f"grad:{name}"] for name in oracle.inputs}
    return {
        "error": max(relative_error(gradients[name], oracle.gradients[name]) for name in gradients),
        "exact": max(relative_error(gradients[name], oracle.exact[name]) for name in gradients),
        "own": oracle.own_error(),
        "run_seconds": seconds,
    }


def _nodes(model: ir.Model) -> int:
    return sum(1 for _ in model.graph)


def table(rows: list[Row]) -> Table:
    """The rows as a rich table."""
    shown = Table(title="Input gradients against torch autograd, ‖ours − torch‖ / ‖torch‖")
    words, figures = ("network", "exporter", ""), ("error", "to float64", "torch's own", "nodes", "build s", "run s")
    for column in (*words, *figures, "note"):
        shown.add_column(column, justify="right" if column in figures else "left")
    for row in rows:
        colour = {"ok": "green", "no export": "yellow"}.get(row.status, "red")
        nodes = f"{row.forward_nodes} → {row.gradient_nodes}" if row.gradient_nodes else str(row.forward_nodes or "")
        note = row.message.splitlines()[0][:160] if row.message else row.note
        if row.inputs > 1:
            kinks = f"{row.inputs - 1} inputs at a kink before it"
            if (row.error or 0.0) > BOUND:
                kinks = f"{row.inputs} inputs" + ("; torch's own float32 is at a kink" if row.status == "ok" else "")
            note = f"{kinks}; {note}" if note else kinks
        numbers = (f"{v:.1e}" if v is not None else "" for v in (row.error, row.exact, row.own))
        seconds = (f"{v:.2f}" if v is not None else "" for v in (row.build_seconds, row.run_seconds))
        shown.add_row(row.case, row.variant, f"[{colour}]{row.status}[/]", *numbers, nodes, *seconds, note)
    return shown


def main() -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.parity", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(".cache/parity"), help="folder for exports and gradients")
    parser.add_argument("--weights", type=Path, help="folder of trained weights (default: seeded weights)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks, or groups of them")
    parser.add_argument("--variants", nargs="+", metavar="EXPORTER@OPSET", default=list(DEFAULT_VARIANTS),
                        help=f"or 'all'; exporters: {', '.join(EXPORTERS)}")  # fmt: skip
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--export-only", action="store_true", help="fill the cache and compare nothing")
    parser.add_argument("--cached-only", action="store_true", help="skip what is not exported yet")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    variants = ALL_VARIANTS if arguments.variants == ["all"] else tuple(arguments.variants)
    cases = all_cases()
    if arguments.only:
        unknown = set(arguments.only) - {c.name for c in cases} - {c.group for c in cases}
        if unknown:
            parser.error(f"--only: no network or group named {', '.join(sorted(unknown))}")
        cases = [c for c in cases if {c.name, c.group} & set(arguments.only)]
    folder, console = weights_folder(arguments.weights), Console(stderr=True)

    rows: list[Row] = []
    for case in cases:
        reference = Reference(case, arguments.cache, folder)
        for variant in variants:
            exporter, _, opset = variant.partition("@")
            if exporter not in EXPORTERS or not opset.isdigit():
                parser.error(f"--variants: {variant!r} is not EXPORTER@OPSET, as dynamo@20")
            if arguments.cached_only and not reference.has(variant):
                continue
            export = reference.export(exporter, int(opset))
            if arguments.export_only:
                reference.oracle()
                console.print(f"{case.name} {variant}: {export.error or 'exported'}"[:200], markup=False)
                continue
            rows.append(compare(reference, export, arguments.engine, arguments.precision))
            console.print(f"{case.name} {variant}: {rows[-1].status} {rows[-1].error or rows[-1].message}"[:300],
                          markup=False)  # fmt: skip
    if not arguments.export_only:
        Console(width=None if sys.stdout.isatty() else 200).print(table(rows))
        counts = Counter(row.status for row in rows)
        print(", ".join(f"{count} {status}" for status, count in sorted(counts.items())))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 1 if any(row.status in ("FAIL", "error") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
