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
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir
from rich.console import Console
from rich.table import Table

import engine
from bench.networks import weights_folder
from bench.parity.cases import Case, all_cases
from bench.parity.oracle import EXPORTERS, VALUE, Export, Oracle, Reference, relative_error

BOUND = 1e-4
DEFAULT_VARIANTS = ("dynamo@20", "torchscript@17")
ALL_VARIANTS = (
    *DEFAULT_VARIANTS, "dynamo@18", "dynamo@23", "torchscript@13", "torchscript@18", "torchscript@19",
    "torchscript@20", "raw@20",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One exported file's result; `error` is the relative gradient error, `own` torch's own against float64."""

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
    message: str = ""


def compare(case: Case, export: Export, oracle: Oracle, engine_name: str, precision: str) -> Row:
    """Differentiates one exported file with the engine and compares all its input gradients with torch's."""
    if export.error is not None:
        return Row(case.name, case.group, case.note, export.variant, "no export", message=export.error)
    started = time.perf_counter()
    forward: ir.Model | None = None
    try:
        forward = engine.load(export.path)
        gradient = engine.value_and_grad(forward, of=VALUE, wrt=list(case.shapes))
        program = engine.compile(gradient, engine=engine_name, precision=precision)
        built = time.perf_counter()
        outputs = program(oracle.inputs)
        finished = time.perf_counter()
    except Exception as error:  # whatever the engine raises is this row's finding
        message = f"{type(error).__name__}: {error}"
        nodes = None if forward is None else _nodes(forward)
        return Row(
            case.name, case.group, case.note, export.variant, "error", forward_nodes=nodes, message=message,
            own=oracle.own_error(),
        )  # fmt: skip
    pairs = [(outputs[f"grad:{name}"], name) for name in case.shapes]
    worst = max(relative_error(ours, oracle.gradients[name]) for ours, name in pairs)
    return Row(
        case.name, case.group, case.note, export.variant, "ok" if worst <= BOUND else "FAIL",
        worst, max(relative_error(ours, oracle.exact[name]) for ours, name in pairs), oracle.own_error(),
        _nodes(forward), _nodes(gradient), built - started, finished - built,
    )  # fmt: skip


def _nodes(model: ir.Model) -> int:
    return sum(1 for _ in model.graph)


def table(rows: list[Row]) -> Table:
    """The rows as a rich table."""
    shown = Table(title="Input gradients against torch autograd, ‖ours − torch‖ / ‖torch‖")
    for column in ("network", "exporter", "", "error", "to float64", "torch's own", "nodes", "build s", "run s", "note"):
        shown.add_column(column, justify="left" if column in ("network", "exporter", "", "note") else "right")
    for row in rows:
        colour = {"ok": "green", "no export": "yellow"}.get(row.status, "red")
        nodes = f"{row.forward_nodes} → {row.gradient_nodes}" if row.gradient_nodes else str(row.forward_nodes or "")
        note = row.message.splitlines()[0][:160] if row.message else row.note
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
            export, oracle = reference.export(exporter, int(opset)), reference.oracle()
            if arguments.export_only:
                console.print(f"{case.name} {variant}: {export.error or 'exported'}"[:200], markup=False)
                continue
            rows.append(compare(case, export, oracle, arguments.engine, arguments.precision))
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
