"""`python -m bench.matrix`: every model's step graph and companion pair, built by TensorRT-RTX in every precision.

Needs no GPU and nothing trained: networks are the real architectures on seeded weights. Prints seconds and sizes, and
exits 1 if one engine is not built.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.processor import machine
from bench.seeded import use_home
from engine.errors import EngineError
from engine.runtime.protocol import PRECISIONS, Build, Options
from engine.runtime.tensorrt import RTX
from glaze_trt.build import Order, parts
from glaze_trt.errors import UsageError

PAIRS = (
    ("tiny", "tiny"),
    ("taesd", "lpips-squeeze"),
    ("taesdxl", "lpips-squeeze"),
    ("sd-vae", "lpips-squeeze"),
    ("sdxl-vae", "lpips-squeeze"),
    ("taesd", "lpips-alex"),
    ("taesd", "lpips-vgg"),
)
"""An encoder and the perceptual net of its step."""

CONSOLE = Console(stderr=True)


def say(line: str) -> None:
    """A progress line on stderr."""
    CONSOLE.print(line, markup=False, highlight=False)


def chosen(only: list[str] | None) -> list[tuple[str, str]]:
    """The pairs, or those that have one of these models in them."""
    return [pair for pair in PAIRS if not only or not set(only).isdisjoint(pair)]


def built(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row an engine."""
    seen: set[str] = set()
    build = Options(build=Build(capabilities=(options.capability,)))
    for encoder, perceptual in chosen(options.only):
        for size in options.sizes:
            for precision in options.precisions:
                order = Order([encoder], perceptual, precision=precision)
                row = {"encoder": encoder, "perceptual": perceptual, "size": size, "precision": precision}
                try:
                    graphs = list(parts(order, encoder, (size, size), PRECISIONS))
                except UsageError as error:
                    yield row | {"part": "all", "seconds": None, "bytes": None, "note": str(error)}
                    continue
                for part in graphs:
                    name = f"{encoder} {part.name}" if part.name != "step" else f"{encoder} {perceptual} step"
                    if part.precision != precision or f"{name} {size} {precision}" in seen:
                        continue
                    seen.add(f"{name} {size} {precision}")
                    say(f"{name} {size} {precision}")
                    began = time.perf_counter()
                    try:
                        plan = RTX.build(part.graph, part.precision, build)
                        found = {"bytes": len(plan), "note": ""}
                    except EngineError as error:
                        found = {"bytes": None, "note": f"FAILED: {error}"}
                    yield row | {"part": part.name, "seconds": time.perf_counter() - began} | found


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Seconds and megabytes, one line a graph and size, one column a precision."""
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    shown = Table(title=title)
    for column in ("encoder", "perceptual", "part", "size", *precisions):
        shown.add_column(column, justify="right" if column in precisions else "left")
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = (row["encoder"], row["perceptual"], row["part"], f"{row['size']}²")
        if row["bytes"] is None:
            text = "FAILED" if row["note"].startswith("FAILED") else "never"
        else:
            text = f"{row['seconds']:.1f} s, {row['bytes'] / 1e6:.0f} MB"
        lines.setdefault(key, {})[row["precision"]] = text
    for key, cells in lines.items():
        shown.add_row(*key, *(cells.get(precision, "") for precision in precisions))
    return shown


def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.matrix", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--only", nargs="+", metavar="MODEL")
    parser.add_argument("--capability", default="8.9")
    parser.add_argument("--home", type=Path, default=Path(".cache/seeded"), help="models folder, filled where it lacks")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    use_home(options.home, {name for pair in chosen(options.only) for name in pair}, say)
    rows = []
    for row in built(options):
        rows.append(row)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            document = {**machine(0), "tensorrt-rtx": RTX.version(), "capability": options.capability, "engines": rows}
            options.json.write_text(json.dumps(document, indent=1))
    title = f"TensorRT-RTX {RTX.version()}, compute capability {options.capability}, built with no GPU"
    Console(width=None if sys.stdout.isatty() else 150).print(table(rows, title))
    failed = [row for row in rows if row["note"].startswith("FAILED")]
    for row in failed:
        say(f"{row['encoder']} {row['part']} {row['size']} {row['precision']}: {row['note']}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
