"""`python -m bench.batch`: does a step graph of several pictures of one size take less for each than one of a single?

The step is the default objective's with the built-in models; its constants are noise, as only time is measured. Heats
alternate between the batch sizes, and the median of a heat's ratios is shown. A batch made so mixes the pictures'
losses and serves for this alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import engine
from bench.processor import cores, machine
from engine.runtime.processor import detect
from glaze_trt.cloak import Cloaker
from glaze_trt.graph import step as graphs

BATCHES = (1, 2, 4)


def session(cloaker: Cloaker, batch: int, side: int, engine_name: str) -> engine.Session:
    """A step of `batch` pictures, opened on noise."""
    shape = (batch, 3, side, side)
    _, model = cloaker.graphs(shape, scaled=False)
    program = engine.compile(model, engine_name, "fp32")
    carry = graphs.carried(cloaker.objective)
    rng = np.random.default_rng(0)
    kept = [name for name in program.inputs if name not in carry.values()]
    constants = {name: rng.uniform(0.2, 0.8, program.inputs[name].shape).astype(np.float32) for name in kept}
    constants["steps"] = np.float32(1e6)
    delta = rng.uniform(-0.01, 0.01, shape).astype(np.float32)
    return engine.Session(program, carry, constants, graphs.first_state(cloaker.objective, delta))


def measure(engine_name: str, side: int, heats: int, pictures: int) -> dict[int, list[float]]:
    """Seconds a picture and step, by batch size, one a heat."""
    cloaker = Cloaker("tiny", "tiny", engine_name=engine_name)
    sessions = {batch: session(cloaker, batch, side, engine_name) for batch in BATCHES}
    for opened in sessions.values():
        opened.advance(2)
    found: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for _ in range(heats):
        for batch, opened in sessions.items():
            steps = max(1, pictures // batch)
            began = time.perf_counter()
            opened.advance(steps)
            found[batch].append((time.perf_counter() - began) / steps / batch)
    return found


def main() -> int:
    """Runs the command line and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.batch", description=__doc__)
    parser.add_argument("--engines", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[96, 256, 512])
    parser.add_argument("--heats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = Table(title=f"One step of several pictures, {detect().name}, {cores()} cores")
    for column in (
        "engine",
        "size",
        "alone, s",
        *(f"{batch} at once: times faster a picture" for batch in BATCHES[1:]),
    ):
        table.add_column(column, justify="left" if column == "engine" else "right")
    rows = []
    for name in options.engines:
        for side in options.sizes:
            found = measure(name, side, options.heats, pictures=max(4, 262144 // side**2))
            gains = {
                batch: statistics.median(one / many for one, many in zip(found[1], found[batch], strict=True))
                for batch in BATCHES[1:]
            }
            alone = statistics.median(found[1])
            rows.append({"engine": name, "size": side, "alone": alone, "gain": gains, "seconds": found})
            table.add_row(name, f"{side}²", f"{alone:.4f}", *(f"{gain:.2f}" for gain in gains.values()))
            print(f"{name} {side}: {gains}", file=sys.stderr, flush=True)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps({**machine(cores()), "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
